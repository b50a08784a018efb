//! A file inside a wheel of a Python package index: `package[==version]/path/in/wheel`.
//!
//! Sources: the simple repository API (PEP 503 for HTML, PEP 691 for JSON), wheel names (PEP 427), yanked files
//! (PEP 592), versions (PEP 440).

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

use super::pip::Indexes;
use super::{Files, Places, Plan, stem};
use crate::models::download::Wanted;
use crate::models::http::{Client, FetchError, Patience, header};
use crate::models::url::Url;
use store::is_plain_path;

const JSON_TYPE: &str = "application/vnd.pypi.simple.v1+json";
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.2";
/// Files of one package.
const FILES_MAX: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Normalised as PEP 503 says.
    pub package: String,
    pub version: Option<String>,
    /// The member of the wheel.
    pub member: String,
}

impl Address {
    pub fn parse(text: &str) -> anyhow::Result<Address> {
        let wrong = || format!("{text:?} is not package[==version]/path/in/wheel");
        let (package, member) = text.split_once('/').with_context(wrong)?;
        let (package, version) = match package.split_once("==") {
            Some((package, version)) => (package, Some(version.to_string())),
            None => (package, None),
        };
        let named = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
        };
        if !named(package) || !version.as_deref().is_none_or(named) || !is_plain_path(member) {
            bail!(wrong());
        }
        Ok(Address { package: normalised(package), version, member: member.to_string() })
    }
}

/// Small letters, and one `-` for any run of `-`, `_` and `.`.
fn normalised(package: &str) -> String {
    let parts = package.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

fn indexes(places: &Places) -> anyhow::Result<&Indexes> {
    places.pip.as_ref().map_err(|why| anyhow!("{why}"))
}

/// One that trusts whom pip trusts.
pub fn client(places: &Places, patience: Patience) -> anyhow::Result<Client> {
    Client::new(patience, indexes(places)?.certificates.as_deref())
}

pub fn plan(address: &Address, places: &Places, patience: Patience) -> anyhow::Result<Plan> {
    let client = client(places, patience)?;
    let mut refusals = Vec::new();
    for index in &indexes(places)?.urls {
        let mut page = index.clone();
        page.path = format!("{}/{}/", index.path.trim_end_matches('/'), address.package);
        let listed = match client.page(&page, &[("accept", ACCEPT)]) {
            Ok((place, headers, text)) => {
                let kind = header(&headers, "content-type").unwrap_or_default();
                if kind.starts_with(JSON_TYPE) {
                    from_json(&text, &place)?
                } else {
                    from_html(&text, &place)?
                }
            }
            Err(FetchError::Refused { status: 404, .. }) => {
                refusals.push(format!("{index} has no package {}", address.package));
                continue;
            }
            Err(error) => {
                refusals.push(error.to_string());
                continue;
            }
        };
        match choose(address, listed) {
            Some(wheel) => {
                let name = stem(&address.member);
                let entry = address.member.rsplit('/').next().unwrap_or(&address.member).to_string();
                return Ok(Plan {
                    name,
                    entry,
                    files: Files::InWheel { wheel, member: address.member.clone() },
                });
            }
            None => {
                refusals.push(format!("{index} has no wheel of {}{}", address.package, version_text(address)))
            }
        }
    }
    bail!("{}", refusals.join("; "))
}

fn version_text(address: &Address) -> String {
    address.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default()
}

/// A file of an index's page.
#[derive(Clone, Debug)]
struct Listed {
    wanted: Wanted,
    yanked: bool,
}

/// The wheel of the version asked for, or of the newest that is no preview and wasn't withdrawn. One for every
/// platform goes first; the member that we take is data, so any does.
fn choose(address: &Address, listed: Vec<Listed>) -> Option<Wanted> {
    let ranked = listed.into_iter().filter_map(|file| {
        let (version, pure) = wheel_name(&file.wanted.name, &address.package)?;
        let fits = match &address.version {
            Some(wanted) => order(&version) == order(wanted),
            None => !file.yanked,
        };
        fits.then_some(((order(&version), pure), file.wanted))
    });
    ranked.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, wanted)| wanted)
}

/// Version and whether it is for every platform, of `package-version[-build]-python-abi-platform.whl`.
fn wheel_name(name: &str, package: &str) -> Option<(String, bool)> {
    let parts: Vec<&str> = name.strip_suffix(".whl")?.split('-').collect();
    let fits = matches!(parts.len(), 5 | 6) && normalised(parts[0]) == package;
    fits.then(|| (parts[1].to_string(), parts.last() == Some(&"any")))
}

/// A version's place among others: final releases go before previews; then epoch and release without trailing zeros,
/// then the kind of release and its number.
type Order = (bool, Vec<u64>, u8, u64);

fn order(version: &str) -> Order {
    let public = version.trim_start_matches('v').split('+').next().unwrap_or_default();
    let (epoch, release) = public.split_once('!').unwrap_or(("0", public));
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    let (release, rest) = release.split_at(end);
    let mut numbers: Vec<u64> = release.split('.').filter_map(|part| part.parse().ok()).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers.insert(0, epoch.parse().unwrap_or(0));
    let rest = rest.trim_start_matches(['.', '-', '_']).to_ascii_lowercase();
    let mark: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
    let kind = match mark.as_str() {
        "dev" => 0,
        "a" | "alpha" => 1,
        "b" | "beta" => 2,
        "c" | "rc" | "pre" | "preview" => 3,
        _ if rest.is_empty() => 4,
        // `post1`, `rev1`, `r1`, and `1` of `1.0-1`.
        _ => 5,
    };
    let number = rest[mark.len()..].trim_start_matches(['.', '-', '_']);
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    let preview = kind < 4 || rest.contains("dev");
    (!preview, numbers, kind, digits.parse().unwrap_or(0))
}

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
struct PageFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: std::collections::BTreeMap<String, String>,
    size: Option<u64>,
    #[serde(default)]
    yanked: serde_json::Value,
}

fn from_json(text: &str, place: &Url) -> anyhow::Result<Vec<Listed>> {
    let page: Page = serde_json::from_str(text).with_context(|| format!("{place} isn't as PEP 691 says"))?;
    let mut listed = Vec::new();
    for file in page.files.into_iter().take(FILES_MAX) {
        // `yanked` is false, or true, or the reason.
        let yanked = !matches!(file.yanked, serde_json::Value::Null | serde_json::Value::Bool(false));
        let sha256 = file.hashes.get("sha256").cloned();
        let url = place.join(&file.url)?;
        listed.push(Listed { wanted: Wanted { url, name: file.filename, sha256, bytes: file.size }, yanked });
    }
    Ok(listed)
}

/// Each `<a href="…#sha256=…" data-yanked>` of a page.
fn from_html(text: &str, place: &Url) -> anyhow::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for piece in text.split("<a").skip(1).take(FILES_MAX) {
        let tag = piece.split('>').next().unwrap_or_default();
        let Some(href) = attribute(tag, "href") else { continue };
        let url = place.join(&href.replace("&amp;", "&"))?;
        let sha256 =
            url.fragment.as_ref().and_then(|fragment| fragment.strip_prefix("sha256=")).map(str::to_string);
        let name = url.file_name();
        let yanked = tag.contains("data-yanked");
        listed.push(Listed { wanted: Wanted { url, name, sha256, bytes: None }, yanked });
    }
    Ok(listed)
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let rest = &tag[tag.find(&format!("{name}="))? + name.len() + 1..];
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    rest[1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address = Address::parse("LLM_smol..lm2==0.1/a/b c.gguf").unwrap();
        assert_eq!(address.package, "llm-smol-lm2");
        assert_eq!((address.version.as_deref(), address.member.as_str()), (Some("0.1"), "a/b c.gguf"));
        for wrong in ["", "p", "p/", "/a", "p/../a", "p==/a", "p q/a"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_newest_wheel_is_chosen() {
        let check = |address: &str, names: &[&str], expected: Option<&str>| {
            let listed = names.iter().map(|name| Listed {
                wanted: Wanted {
                    url: Url::parse(&format!("https://h/{name}")).unwrap(),
                    name: name.trim_end_matches(" yanked").to_string(),
                    sha256: None,
                    bytes: None,
                },
                yanked: name.ends_with(" yanked"),
            });
            let listed = listed.collect::<Vec<_>>();
            let found = choose(&Address::parse(address).unwrap(), listed).map(|wanted| wanted.name);
            assert_eq!(found.as_deref(), expected, "{address}");
        };
        let names = [
            "p-0.9-py3-none-any.whl",
            "p-0.10.0-py3-none-any.whl",
            "p-0.11rc1-py3-none-any.whl",
            "p-0.12.tar.gz",
        ];
        let listed = |name: &'static str| -> &'static str { name };
        check("p/a", &names, Some("p-0.10.0-py3-none-any.whl"));
        check("p==0.10/a", &names, Some("p-0.10.0-py3-none-any.whl"));
        check("p==0.11rc1/a", &names, Some("p-0.11rc1-py3-none-any.whl"));
        check("p==2/a", &names, None);
        check("q/a", &names, None);
        check(
            "p/a",
            &[listed("p-1-cp312-cp312-linux_x86_64.whl"), "p-1-py3-none-any.whl"],
            Some("p-1-py3-none-any.whl"),
        );
        check(
            "p/a",
            &["p-1.0.post2-py3-none-any.whl", "p-1.0.post10-py3-none-any.whl", "p-1.0-py3-none-any.whl"],
            Some("p-1.0.post10-py3-none-any.whl"),
        );
        check(
            "p/a",
            &["p-1.0.post1-py3-none-any.whl", "p-1.0.1-py3-none-any.whl"],
            Some("p-1.0.1-py3-none-any.whl"),
        );
        check("p==1.0/a", &["p-1.0.post1-py3-none-any.whl"], None);
        check("p/a", &["p-1!0.1-py3-none-any.whl", "p-7-py3-none-any.whl"], Some("p-1!0.1-py3-none-any.whl"));
        check(
            "p/a",
            &["p-1.post1-py3-none-any.whl", "p-1-py3-none-any.whl"],
            Some("p-1.post1-py3-none-any.whl"),
        );
    }

    #[test]
    fn both_kinds_of_page_say_the_same() {
        let place = Url::parse("https://h/simple/p/").unwrap();
        let html = from_html(
            "<!DOCTYPE html><a data-yanked='' href='../../f/p-1-py3-none-any.whl?a=1&amp;b=2#sha256=ab'>p</a>",
            &place,
        );
        let json = from_json(
            r#"{"files": [{"filename": "p-1-py3-none-any.whl", "url": "/f/p-1-py3-none-any.whl?a=1&b=2",
                "hashes": {"sha256": "ab"}, "yanked": "why"}]}"#,
            &place,
        );
        for listed in [html.unwrap(), json.unwrap()] {
            assert_eq!(listed[0].wanted.url.request(), "https://h/f/p-1-py3-none-any.whl?a=1&b=2");
            assert_eq!(listed[0].wanted.name, "p-1-py3-none-any.whl");
            assert_eq!(listed[0].wanted.sha256.as_deref(), Some("ab"));
            assert!(listed[0].yanked);
        }
    }
}
