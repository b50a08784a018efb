//! As much of a URL as downloads need: its parts, and what a relative reference on a page means (RFC 3986, 5.2).

use anyhow::bail;
use sha2::{Digest, Sha256};

use store::hash::hex;

/// Bytes of a URL.
const URL_BYTES_MAX: usize = 8192;

/// An absolute http or https URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `http` or `https`.
    pub scheme: String,
    /// `user:password`, as written before the `@`; never printed.
    pub user: Option<String>,
    /// Host and port.
    pub host: String,
    /// Path and query, from the first `/`.
    pub path: String,
    /// After `#`.
    pub fragment: Option<String>,
}

impl Url {
    /// # Errors
    /// Another scheme than http or https, no host, characters that a URL doesn't have.
    pub fn parse(text: &str) -> anyhow::Result<Url> {
        let plain = text.len() <= URL_BYTES_MAX && text.chars().all(|c| c.is_ascii_graphic());
        let split = text.split_once("://").filter(|_| plain);
        let Some((scheme, rest)) = split else { bail!("{text:?} is no http or https URL") };
        let scheme = scheme.to_ascii_lowercase();
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment.to_string())),
            None => (rest, None),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_string()), host),
            None => (None, authority),
        };
        if !matches!(scheme.as_str(), "http" | "https") || host.is_empty() {
            bail!("{scheme}://{host} is no http or https URL with a host");
        }
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Ok(Url { scheme, user, host: host.to_ascii_lowercase(), path, fragment })
    }

    /// What `reference`, found at this URL, points to. Without a user of its own, one on the same host keeps this one's.
    pub fn join(&self, reference: &str) -> anyhow::Result<Url> {
        let base = format!("{}://{}", self.scheme, self.host);
        let scheme_len = reference.find("://").unwrap_or(0);
        let absolute = scheme_len > 0 && reference[..scheme_len].chars().all(|c| c.is_ascii_alphanumeric());
        let directory = self.path.split('?').next().unwrap_or("/");
        let directory = &directory[..=directory.rfind('/').unwrap_or(0)];
        let mut joined = if absolute {
            Url::parse(reference)?
        } else if reference.starts_with("//") {
            Url::parse(&format!("{}:{reference}", self.scheme))?
        } else if reference.starts_with('/') {
            Url::parse(&format!("{base}{reference}"))?
        } else if reference.starts_with('?') || reference.is_empty() {
            let path = self.path.split('?').next().unwrap_or("/");
            Url::parse(&format!("{base}{path}{reference}"))?
        } else {
            Url::parse(&format!("{base}{directory}{reference}"))?
        };
        joined.path = without_dots(&joined.path);
        if joined.user.is_none() && joined.host == self.host && joined.scheme == self.scheme {
            joined.user.clone_from(&self.user);
        }
        Ok(joined)
    }

    /// What is asked of the network: without user and fragment.
    pub fn request(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.path)
    }

    /// Tells this URL from any other, its query included, without giving away a signature in it.
    pub fn identity(&self) -> String {
        match self.path.split_once('?') {
            Some((_, query)) => format!("{self} (query {})", hex(&Sha256::digest(query.as_bytes())[..8])),
            None => self.to_string(),
        }
    }

    /// The last part of the path, decoded: the name of the file.
    pub fn file_name(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        decode(path.rsplit('/').next().unwrap_or_default())
    }
}

impl std::fmt::Display for Url {
    /// For messages and manifests: no password, and no query, which may hold a signature.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme, self.host)
    }
}

fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut parts: Vec<&str> = Vec::new();
    let mut pieces = path.split('/').skip(1).peekable();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        match piece {
            "." | ".." => {
                if piece == ".." {
                    parts.pop();
                }
                if last {
                    parts.push("");
                }
            }
            _ => parts.push(piece),
        }
    }
    format!("/{}{query}", parts.join("/"))
}

/// `%41` becomes `A`; what is no valid escape or no UTF-8 stays as it is.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_string())
}

/// A part of a path or a query's value: all but letters, digits, `-._~` and what `kept` names is escaped.
pub fn encode(text: &str, kept: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_differ_in_their_query_are_told_apart_without_showing_it() {
        let identity = |text: &str| Url::parse(text).unwrap().identity();
        let (one, two) = (identity("https://h/f?Revision=a"), identity("https://h/f?Revision=b"));
        assert!(one != two && !one.contains("Revision"), "{one} {two}");
        assert_eq!(identity("https://user:word@h/f"), "https://h/f");
    }

    #[test]
    fn references_are_joined_as_the_standard_says() {
        let base = Url::parse("https://user:pw@Host:8443/simple/pkg/?x=1").unwrap();
        let check = |reference: &str, expected: &str| {
            let joined = base.join(reference).unwrap();
            assert_eq!(joined.request(), expected, "{reference}");
            assert_eq!(joined.user.is_some(), joined.host == "host:8443", "{reference}");
        };
        check("a.whl", "https://host:8443/simple/pkg/a.whl");
        check("a.whl#sha256=1", "https://host:8443/simple/pkg/a.whl");
        check("../../packages/./a.whl?y=2/..", "https://host:8443/packages/a.whl?y=2/..");
        check("../../../../a", "https://host:8443/a");
        check("..", "https://host:8443/simple/");
        check("/a", "https://host:8443/a");
        check("//other/a", "https://other/a");
        check("http://other", "http://other/");
        check("?y=2", "https://host:8443/simple/pkg/?y=2");
        assert!(base.join("ftp://other/a").is_err());
    }

    #[test]
    fn a_printed_url_holds_no_secret() {
        let url = Url::parse("https://user:pw@host/a%20b.gguf?signature=1#sha256=2").unwrap();
        assert_eq!(url.to_string(), "https://host/a%20b.gguf");
        assert_eq!(url.file_name(), "a b.gguf");
        assert_eq!(url.fragment.as_deref(), Some("sha256=2"));
    }

    #[test]
    fn only_web_addresses_are_urls() {
        for text in ["", "a", "file:///etc/passwd", "http://", "http:///a", "https://a b", "https://h/\n"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert_eq!(encode("a b/ä", "/"), "a%20b/%C3%A4");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
