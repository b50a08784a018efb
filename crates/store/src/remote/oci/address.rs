//! `oci://HOST[:PORT]/NAME[:TAG]` or `...@sha256:DIGEST`: where an artefact is.

use std::fmt;

use super::Result;
use crate::error::StoreError;

const SCHEME: &str = "oci://";
/// The same without TLS, where a person says so.
const PLAIN_SCHEME: &str = "oci+http://";
const TEXT_BYTES_MAX: usize = 1000;

/// What a person wrote, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    /// Of the repository, parts separated by `/`.
    pub name: String,
    /// A tag, or `sha256:...`.
    pub reference: String,
    pub(super) is_plain: bool,
}

impl Address {
    /// Whether `text` is meant to be one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME) || text.starts_with(PLAIN_SCHEME)
    }

    /// # Errors
    /// It isn't as above.
    pub fn parse(text: &str) -> Result<Address> {
        let read = || {
            let is_plain = text.starts_with(PLAIN_SCHEME);
            let rest = text.strip_prefix(SCHEME).or_else(|| text.strip_prefix(PLAIN_SCHEME))?;
            let (host, path) = rest.split_once('/')?;
            let (name, reference) = match path.split_once('@') {
                // A tag beside a digest says nothing more.
                Some((name, digest)) => (name.split(':').next()?, digest),
                None => path.split_once(':').unwrap_or((path, "latest")),
            };
            let is_fit = text.len() <= TEXT_BYTES_MAX
                && is_host(host)
                && name.split('/').all(is_part)
                && (is_tag(reference) || is_digest(reference));
            let is_plain = is_plain || is_loopback(host);
            let text = |text: &str| text.to_owned();
            is_fit.then(|| Address {
                host: text(host),
                name: text(name),
                reference: text(reference),
                is_plain,
            })
        };
        read().ok_or_else(|| {
            StoreError::Refused(format!(
                "{text:?} is no place in a registry: oci://HOST/NAME:TAG is, or oci://HOST/NAME@sha256:DIGEST; NAME is of \
                 small letters, digits, `.`, `-`, `_` and `/`"
            ))
        })
    }

    pub fn is_digest(&self) -> bool {
        is_digest(&self.reference)
    }

    /// The last part of the name.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    pub(super) fn root(&self) -> String {
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        format!("{}://{host}/v2/", if self.is_plain { "http" } else { "https" })
    }

    pub(super) fn url(&self, rest: &str) -> String {
        format!("{}{}/{rest}", self.root(), self.name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_digest() { '@' } else { ':' };
        write!(f, "{SCHEME}{}/{}{sign}{}", self.host, self.name, self.reference)
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, port),
        _ => (host, "1"),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        }
    };
    is_name && port.parse::<u16>().is_ok()
}

/// Registries on this machine speak without TLS, as other programs have it too.
fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix("[::1]").map_or(host.split(':').next().unwrap_or(host), |_| "::1");
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_part(part: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(is_edge)
        && part.ends_with(is_edge)
        && part.chars().all(|c| is_edge(c) || "._-".contains(c))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || ".-".contains(c))
}

pub(super) fn is_digest(text: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.chars().all(is_hex))
}

#[test]
fn addresses_are_read() {
    let check = |text: &str, root: &str, name: &str, reference: &str| {
        let address = Address::parse(text).unwrap();
        let came = (address.root(), address.name.as_str(), address.reference.as_str());
        assert_eq!(came, (root.to_owned(), name, reference));
    };
    check("oci://ghcr.io/me/net:v1", "https://ghcr.io/v2/", "me/net", "v1");
    check("oci://localhost:5000/net", "http://localhost:5000/v2/", "net", "latest");
    check("oci://[::1]:5000/net", "http://[::1]:5000/v2/", "net", "latest");
    check("oci+http://registry:5000/a/b.c:x", "http://registry:5000/v2/", "a/b.c", "x");
    check("oci://docker.io/me/net:v1", "https://registry-1.docker.io/v2/", "me/net", "v1");
    let digest = format!("sha256:{}", "0a".repeat(32));
    check(&format!("oci://h.example/n:t@{digest}"), "https://h.example/v2/", "n", &digest);
    for text in [
        "oci://",
        "oci://h",
        "oci://h/",
        "oci://h/A",
        "oci://h/a/../b",
        "oci://u:p@h/a",
        "oci://h/a:..",
        "oci://h/a@sha256:00",
        "oci://h:x/a",
        "oci://h/a?b",
        "https://h/a",
    ] {
        assert!(Address::parse(text).is_err(), "{text}");
    }
}
