//! Who we are to a registry: names and passwords as docker's programs keep them, and tokens that they are changed for.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Result;
use super::refused;
use crate::durable::read_within;

const FILE_BYTES_MAX: u64 = 1 << 20;
/// Docker Hub's entry has a name of its own.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A name and its password.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    pub fn header(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    helper: String,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Those for `host`: TUREEN_OCI_USER and TUREEN_OCI_PASSWORD, else docker's `config.json` or podman's `auth.json`.
///
/// # Errors
/// A file that can't be read; a helper that fails.
pub fn credentials(host: &str) -> Result<Option<Credentials>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let (Some(user), Some(password)) = (variable("TUREEN_OCI_USER"), variable("TUREEN_OCI_PASSWORD")) {
        return Ok(Some(Credentials { user, password }));
    }
    for path in files() {
        if let Some(text) = read_within(&path, FILE_BYTES_MAX)?
            && let Some(found) = in_file(&path, &text, host)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn files() -> Vec<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(std::env::home_dir()?.join(".docker")));
    let podman = folder("REGISTRY_AUTH_FILE")
        .or_else(|| Some(folder("XDG_RUNTIME_DIR")?.join("containers/auth.json")));
    docker.map(|folder| folder.join("config.json")).into_iter().chain(podman).collect()
}

fn in_file(path: &Path, text: &[u8], host: &str) -> Result<Option<Credentials>> {
    let what = || format!("reading {}", path.display());
    let file: File = serde_json::from_slice(text).map_err(|error| refused(what(), error.to_string()))?;
    let hub = (host == "docker.io").then_some(DOCKER_HUB);
    let names = [
        Some(host.to_owned()),
        hub.map(str::to_owned),
        Some(format!("https://{host}")),
        Some(format!("https://{host}/")),
    ];
    let names: Vec<String> = names.into_iter().flatten().collect();
    if let Some(helper) = names.iter().find_map(|name| file.helpers.get(name)) {
        return helped(helper, hub.unwrap_or(host)).map(Some);
    }
    let Some(entry) = names.iter().find_map(|name| file.auths.get(name)) else { return Ok(None) };
    if entry.auth.is_empty() && entry.username.is_empty() {
        if file.helper.is_empty() {
            return Ok(None);
        }
        return helped(&file.helper, hub.unwrap_or(host)).map(Some);
    }
    if entry.auth.is_empty() {
        return Ok(Some(Credentials { user: entry.username.clone(), password: entry.password.clone() }));
    }
    let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_ref().and_then(|text| text.split_once(':'));
    let (user, password) =
        pair.ok_or_else(|| refused(what(), format!("the entry for {host} is no base64 of NAME:PASSWORD")))?;
    // Old docker ends its passwords so.
    let password = password.trim_end_matches('\0');
    Ok(Some(Credentials { user: user.to_owned(), password: password.to_owned() }))
}

/// Asks a program that keeps passwords, as docker does.
fn helped(name: &str, host: &str) -> Result<Credentials> {
    let program = format!("docker-credential-{name}");
    let failed = |why: String| refused(format!("asking {program} for the password at {host}"), why);
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(failed("that is no name for such a program".to_owned()));
    }
    let ask = || {
        let mut process = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = process.stdin.take() {
            stdin.write_all(host.as_bytes())?;
        }
        process.wait_with_output()
    };
    let output = ask().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("it ended with {}", output.status)));
    }
    // What it said is a secret, or near one: it isn't shown.
    let helped: Helped =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("it said something else".to_owned()))?;
    Ok(Credentials { user: helped.user, password: helped.secret })
}

/// What a registry asks for where it refuses: the words of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

/// `None` where it is of a kind that nobody here knows.
pub fn challenge(header: &str) -> Option<Challenge> {
    let (kind, rest) = header.split_once(' ').unwrap_or((header, ""));
    if kind.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !kind.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut words = BTreeMap::new();
    let mut rest = rest.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        words.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer {
        realm: words.remove("realm")?,
        service: words.remove("service").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: &str| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.to_owned() })
        };
        let check = |header: &str, expected| assert_eq!(challenge(header), expected, "{header}");
        check("Basic realm=\"x\"", Some(Challenge::Basic));
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#,
            bearer("https://auth.docker.io/token", "registry.docker.io"),
        );
        check("bearer realm=https://a, service=b", bearer("https://a", "b"));
        check("Bearer service=\"b\"", None);
        check("Bearer realm=\"b", None);
        check("Negotiate", None);
    }

    #[test]
    fn passwords_are_found_where_docker_keeps_them() {
        let file = br#"{"auths": {"a.example:5000": {"auth": "bWU6aHVzaDp4"}, "https://index.docker.io/v1/": {"username": "u", "password": "p"},
            "c.example": {}, "d.example": {"auth": "!"}}}"#;
        let find = |host: &str| in_file(Path::new("config.json"), file, host);
        let pair = |host: &str| find(host).unwrap().map(|found| (found.user, found.password));
        let texts = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(pair("a.example:5000"), texts("me", "hush:x"));
        assert_eq!(pair("docker.io"), texts("u", "p"));
        assert_eq!((pair("a.example"), pair("c.example")), (None, None));
        assert!(find("d.example").err().unwrap().to_string().contains("d.example is no base64"));
        assert!(helped("../x", "h").is_err());
    }
}
