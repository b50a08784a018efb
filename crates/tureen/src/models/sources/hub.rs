//! Hugging Face's hub: `owner/repo[/file][@revision]`. The listing pins the commit, so that a download that goes on
//! tomorrow is of the same files, and gives sizes and the sha256 of large files.

use anyhow::{Context, bail};
use formats::gguf::split;
use serde::Deserialize;

use super::{Files, Places, Plan, is_model_file, stem};
use crate::models::download::Wanted;
use crate::models::http::{Client, FetchError, Patience};
use crate::models::url::{Url, encode};
use crate::terminal::say;
use store::is_plain_path;

/// Files of a repository.
const FILES_MAX: usize = 100_000;
/// Files beside the weights that describe a model; none of them is code.
const DESCRIPTIONS: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
];
/// Taken where a repository has several GGUF files and none was named.
const PREFERRED_QUANTISATION: &str = "q4_k_m";

/// `owner/repo[/file][@revision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `owner/repo`.
    pub repository: String,
    pub file: Option<String>,
    pub revision: Option<String>,
}

/// A file of a repository, as its listing has it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub path: String,
    pub bytes: Option<u64>,
    pub sha256: Option<String>,
}

impl Address {
    pub fn parse(text: &str) -> anyhow::Result<Address> {
        let (path, revision) = match text.rsplit_once('@') {
            Some((path, revision)) => (path, Some(revision.to_string())),
            None => (text, None),
        };
        let mut parts = path.splitn(3, '/');
        let (owner, repository, file) = (parts.next(), parts.next(), parts.next());
        let (Some(owner), Some(repository)) = (owner, repository) else {
            bail!("{text:?} names no repository: owner/repo[/file][@revision] does");
        };
        let revision_fits = revision.as_ref().is_none_or(|revision| is_plain_path(revision));
        if !is_plain_path(path) || !revision_fits {
            bail!("{text:?} is not owner/repo[/file][@revision]");
        }
        Ok(Address { repository: format!("{owner}/{repository}"), file: file.map(str::to_string), revision })
    }
}

pub fn client(places: &Places, patience: Patience) -> anyhow::Result<Client> {
    let host = Url::parse(&places.hub).context("HF_ENDPOINT")?.host;
    Ok(Client::new(patience, None)?.with_token(&host, places.hub_token.clone()))
}

pub fn plan(address: &Address, places: &Places, patience: Patience) -> anyhow::Result<Plan> {
    let endpoint = places.hub.trim_end_matches('/');
    let repository = &address.repository;
    let revision = address.revision.as_deref().unwrap_or("main");
    let listing = format!("{endpoint}/api/models/{repository}/revision/{}?blobs=true", encode(revision, ""));
    let page = client(places, patience)?.page(&Url::parse(&listing)?, &[]);
    let (_, _, text) = page.map_err(|error| explain(error, address, places.hub_token.is_some()))?;
    let answer: Repository = serde_json::from_str(&text)
        .with_context(|| format!("the listing of {repository} isn't as expected"))?;
    let listed = answer.siblings.into_iter().take(FILES_MAX).map(|sibling| Listed {
        bytes: sibling.lfs.as_ref().and_then(|lfs| lfs.size).or(sibling.size),
        sha256: sibling.lfs.and_then(|lfs| lfs.sha256),
        path: sibling.rfilename,
    });
    let commit = encode(answer.sha.as_deref().unwrap_or(revision), "");
    plan_from(address, listed.collect(), "hf", |path| {
        Url::parse(&format!("{endpoint}/{repository}/resolve/{commit}/{}", encode(path, "/")))
    })
}

#[derive(Deserialize)]
struct Repository {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

fn explain(error: FetchError, address: &Address, has_token: bool) -> anyhow::Error {
    let repository = &address.repository;
    let revision = address.revision.as_deref().unwrap_or("main");
    match error {
        FetchError::Refused { status: 401 | 403, .. } if has_token => anyhow::anyhow!(
            "{repository} may not be read with this HF_TOKEN: accept its terms on its page, or the name is wrong"
        ),
        FetchError::Refused { status: 401 | 403, .. } => anyhow::anyhow!(
            "{repository} may not be read without a token, or doesn't exist: check the name, or set HF_TOKEN"
        ),
        FetchError::Refused { status: 404, .. } => {
            anyhow::anyhow!("there is no repository {repository} with a revision {revision}")
        }
        other => other.into(),
    }
}

/// The files to take of a repository, and where each is.
pub fn plan_from(
    address: &Address,
    listed: Vec<Listed>,
    scheme: &str,
    url_of: impl Fn(&str) -> anyhow::Result<Url>,
) -> anyhow::Result<Plan> {
    let chosen = choose(address, &listed, scheme)?;
    let mut files = Vec::new();
    for file in &chosen.files {
        // Files of a subfolder stand beside each other here.
        let name = file.path.rsplit('/').next().unwrap_or(&file.path).to_string();
        let sha256 = file.sha256.clone();
        files.push(Wanted { url: url_of(&file.path)?, name, sha256, bytes: file.bytes });
    }
    Ok(Plan { name: chosen.name, entry: chosen.entry, files: Files::Remote(files) })
}

struct Chosen {
    name: String,
    entry: String,
    files: Vec<Listed>,
}

fn choose(address: &Address, listed: &[Listed], scheme: &str) -> anyhow::Result<Chosen> {
    let repository = &address.repository;
    let find = |path: &str| listed.iter().find(|file| file.path == path && is_plain_path(path)).cloned();
    if let Some(wanted) = &address.file {
        let parts = split_parts(wanted).unwrap_or_else(|| vec![wanted.clone()]);
        let files: Option<Vec<Listed>> = parts.iter().map(|part| find(part)).collect();
        let Some(files) = files else {
            bail!(
                "{repository} has no file {wanted}{}",
                candidates_text(&candidates(listed), repository, scheme)
            );
        };
        let entry = parts[0].rsplit('/').next().unwrap_or(&parts[0]).to_string();
        // Weights beside an ONNX file are called after it (onnx.ai/onnx/repo-docs/ExternalData.html).
        let beside = [".data", ".onnx_data", "_data"].map(|end| format!("{wanted}{end}"));
        let beside = listed.iter().filter(|file| beside.contains(&file.path) && is_plain_path(&file.path));
        let files = files.into_iter().chain(beside.cloned()).collect();
        return Ok(Chosen { name: stem(wanted), entry, files });
    }
    let short = repository.rsplit('/').next().unwrap_or(repository).to_string();
    let names: Vec<&str> = listed.iter().map(|file| file.path.as_str()).collect();
    if let Some(names) = folder_files(&names) {
        let files = names.iter().filter_map(|name| find(name)).collect();
        return Ok(Chosen { name: short, entry: ".".to_string(), files });
    }
    let candidates = candidates(listed);
    let preferred = |path: &&str| path.to_ascii_lowercase().contains(PREFERRED_QUANTISATION);
    let mut likely = candidates.iter().filter(|path| candidates.len() == 1 || preferred(path));
    match (likely.next(), likely.next()) {
        (Some(one), None) => {
            say(format!("of {repository}: {one}"));
            choose(&Address { file: Some(one.to_string()), ..address.clone() }, listed, scheme)
        }
        _ if candidates.is_empty() => bail!(
            "{repository} has neither a GGUF or ONNX file nor config.json with safetensors: nothing that tureen can run"
        ),
        _ => bail!(
            "{repository} has several model files; say which{}",
            candidates_text(&candidates, repository, scheme)
        ),
    }
}

/// The files of a safetensors model in a listing of one folder; `None` where it is none.
pub fn folder_files(names: &[&str]) -> Option<Vec<String>> {
    let weights: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| name.ends_with(".safetensors") && name.starts_with("model") && !name.contains('/'))
        .collect();
    if weights.is_empty() || !names.contains(&"config.json") {
        return None;
    }
    let descriptions = DESCRIPTIONS.iter().copied().filter(|name| names.contains(name));
    Some(descriptions.chain(weights).map(str::to_string).collect())
}

/// GGUF and ONNX files that are models, a split one by its first part. Vision projectors and importance matrices are none.
fn candidates(listed: &[Listed]) -> Vec<&str> {
    let mut found: Vec<&str> = listed
        .iter()
        .map(|file| file.path.as_str())
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
            let first = split_parts(path).is_none_or(|parts| parts[0] == *path);
            is_model_file(&name) && first && !name.contains("mmproj") && !name.contains("imatrix")
        })
        .collect();
    found.sort_unstable();
    found
}

/// What to load of these files: the one model among them, or the folder.
pub fn chosen_entry(names: &[&str]) -> Option<String> {
    if folder_files(names).is_some() {
        return Some(".".to_string());
    }
    let listed = names.iter().map(|name| Listed { path: (*name).to_string(), bytes: None, sha256: None });
    match candidates(&listed.collect::<Vec<Listed>>())[..] {
        [one] => Some(one.to_string()),
        _ => None,
    }
}

fn candidates_text(candidates: &[&str], repository: &str, scheme: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let lines: Vec<String> = candidates
        .iter()
        .take(SHOWN_MAX)
        .map(|path| format!("\n  tureen pull {scheme}:{repository}/{path}"))
        .collect();
    if lines.is_empty() { String::new() } else { format!(":{}", lines.concat()) }
}

/// Every part's path of a split file (`-00001-of-00003.gguf`), whichever part `path` is.
pub fn split_parts(path: &str) -> Option<Vec<String>> {
    split::part_names(path).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Vec<Listed> {
        names.iter().map(|name| Listed { path: name.to_string(), bytes: None, sha256: None }).collect()
    }

    fn chosen(address: &str, names: &[&str]) -> Result<(String, String, Vec<String>), String> {
        let address = Address::parse(address).unwrap();
        let chosen = choose(&address, &listed(names), "hf").map_err(|error| error.to_string())?;
        Ok((chosen.name, chosen.entry, chosen.files.into_iter().map(|file| file.path).collect()))
    }

    #[test]
    fn addresses_are_read() {
        let check = |text: &str, repository: &str, file: Option<&str>, revision: Option<&str>| {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.repository, repository);
            assert_eq!((address.file.as_deref(), address.revision.as_deref()), (file, revision));
        };
        check("o/r", "o/r", None, None);
        check("o/r@v1", "o/r", None, Some("v1"));
        check("o/r/a/b.gguf@refs/pr/1", "o/r", Some("a/b.gguf"), Some("refs/pr/1"));
        for wrong in ["", "o", "o/", "/r", "o/r/../x", "o/r@", "o/r@../x", "o//r"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_files_of_a_model_are_chosen() {
        let check = |address: &str, names: &[&str], entry: &str, expected: &[&str]| {
            let (_, found, files) = chosen(address, names).unwrap();
            assert_eq!(
                (found.as_str(), files),
                (entry, expected.iter().map(|name| name.to_string()).collect())
            );
        };
        check("o/r", &["README.md", "a.gguf", "mmproj-a.gguf"], "a.gguf", &["a.gguf"]);
        check("o/r", &["a-Q4_0.gguf", "a-Q4_K_M.gguf"], "a-Q4_K_M.gguf", &["a-Q4_K_M.gguf"]);
        check("o/r/x/a.gguf", &["x/a.gguf", "b.gguf"], "a.gguf", &["x/a.gguf"]);
        let parts = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"];
        check("o/r", &parts, parts[0], &parts);
        check("o/r/a-00002-of-00002.gguf", &parts, parts[0], &parts);
        let folder = ["config.json", "tokenizer.json", "model.safetensors"];
        check("o/r", &["pytorch_model.bin", "run.py", folder[2], folder[0], folder[1]], ".", &folder);
    }

    #[test]
    fn a_choice_that_cannot_be_made_lists_the_candidates() {
        let check = |address: &str, names: &[&str], expected: &str| {
            assert_eq!(chosen(address, names).unwrap_err(), expected);
        };
        check(
            "o/r",
            &["a-Q4_0.gguf", "a-Q8_0.gguf"],
            "o/r has several model files; say which:\n  tureen pull hf:o/r/a-Q4_0.gguf\n  tureen pull hf:o/r/a-Q8_0.gguf",
        );
        check("o/r/b.gguf", &["a.gguf"], "o/r has no file b.gguf:\n  tureen pull hf:o/r/a.gguf");
        assert!(chosen("o/r", &["pytorch_model.bin", "config.json"]).unwrap_err().contains("neither"));
        assert!(chosen("o/r/a-00001-of-00002.gguf", &["a-00001-of-00002.gguf"]).is_err());
    }

    #[test]
    fn parts_of_split_files_are_counted() {
        assert_eq!(split_parts("x/a-00002-of-00003.gguf").unwrap().len(), 3);
        for no in [
            "a.gguf",
            "a-1-of-2.gguf",
            "a-00003-of-00002.gguf",
            "a-00000-of-00002.gguf",
            "a-00001-of-99999.gguf",
        ] {
            assert_eq!(split_parts(no), None, "{no}");
        }
    }
}
