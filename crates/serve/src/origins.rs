//! Which web pages' scripts may call. A browser sends `Origin` with them; other clients send none.
//!
//! Without keys, a page of any site that its user happens to visit could otherwise use a server on the same
//! machine, by a plain form or by a name that resolves to 127.0.0.1. So a keyless server refuses foreign origins and
//! foreign hosts, and browsers get the headers that let a script read answers only for origins in the settings.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue};

/// The page's origin, where the request comes from a page's script.
pub fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(ORIGIN)
}

/// Whether `origin` is among those of the settings.
pub fn is_listed(origin: &HeaderValue, origins: &[String]) -> bool {
    origins.iter().any(|listed| listed == "*" || listed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
}

/// Whether `origin` is a page that this machine itself serves.
pub fn is_loopback(origin: &HeaderValue) -> bool {
    let place = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    place.is_some_and(|(_, place)| is_loopback_host(place))
}

/// Whether a server without a key answers to `host`, as `localhost:8080`: a name of this machine alone, or the host of
/// an origin of the settings.
pub fn is_host_allowed(host: &[u8], origins: &[String]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let listed = |origin: &String| {
        origin == "*" || origin.split_once("://").is_some_and(|(_, listed)| listed.eq_ignore_ascii_case(host))
    };
    is_loopback_host(host) || origins.iter().any(listed)
}

fn is_loopback_host(place: &str) -> bool {
    let host = match place.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => place,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Lets the script of a listed origin read the answer.
pub fn allow(origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// The answer to a browser's question before a call; names every header, as `*` doesn't cover `authorization`.
pub fn allow_preflight(asked: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    let asked = asked.cloned().unwrap_or(HeaderValue::from_static("authorization, content-type"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_machine_are_told_from_others() {
        let check = |origin: &str, expected: bool| {
            assert_eq!(is_loopback(&HeaderValue::from_str(origin).unwrap()), expected, "{origin}");
        };
        check("http://localhost:3000", true);
        check("https://localhost", true);
        check("http://127.0.0.1:8080", true);
        check("http://[::1]:8080", true);
        check("http://[::1]", true);
        check("http://[127.0.0.1]]]", false);
        check("http://localhost.evil.example", false);
        check("http://evil.example:8080", false);
        check("http://127.0.0.1.evil.example", false);
        check("null", false);
    }

    #[test]
    fn listed_origins_match_whole() {
        let listed = ["https://chat.example".to_owned()];
        let check = |origin: &'static str, origins: &[String], expected: bool| {
            assert_eq!(is_listed(&HeaderValue::from_static(origin), origins), expected, "{origin}");
        };
        check("https://chat.example", &listed, true);
        check("https://chat.example.evil", &listed, false);
        check("http://chat.example", &listed, false);
        check("http://any.where", &["*".to_owned()], true);
        check("http://any.where", &[], false);
    }
}
