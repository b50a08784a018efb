//! A request's body as a JSON object, within the limits of size, time, depth and number of values.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::json_depth::{JSON_DEPTH_MAX, json_depth};
use crate::settings::ServeSettings;
use crate::strict_json::{self, CONTAINERS_MAX, Counts, Refused, VALUES_MAX};

/// What is read of a body that is too large, in multiples of the limit, so that a client that sends it all before it
/// reads gets the answer instead of a broken connection.
const DISCARDED_LIMITS_MAX: usize = 8;

/// A body of more bytes takes milliseconds to parse, in which other connections are not to wait.
const PARSED_HERE_BYTES_MAX: usize = 64 << 10;
/// Large bodies parsed at once: each may take many times its bytes.
static PARSING: Semaphore = Semaphore::const_new(2);

/// Memory for the bodies of all requests together, while they are read and until they are parsed; one alone may be larger.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// What is taken of it at a time.
const ROOM_BYTES: usize = 1024;
static ROOM: Semaphore = Semaphore::const_new(BODIES_BYTES_MAX / ROOM_BYTES);

/// A body with the room that it takes.
struct Held {
    bytes: Vec<u8>,
    _room: SemaphorePermit<'static>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body is no JSON object that may be looked at.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BodyError {
    #[error("the body must be JSON, sent with `Content-Type: application/json`; received {found}")]
    ContentType { found: String },
    #[error("the body is sent with `Content-Encoding: {found}`; send it as it is")]
    ContentEncoding { found: String },
    #[error("the body is sent with `Transfer-Encoding: {found}`; this server knows chunked")]
    TransferEncoding { found: String },
    #[error("the body must be JSON in UTF-8; received {found}")]
    Charset { found: String },
    #[error("the body is larger than {limit} bytes, the most that this server takes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive within {} seconds", limit.as_secs())]
    TooSlow { limit: Duration },
    #[error("the server is busy with the bodies of other requests")]
    NoRoom,
    #[error("the body broke off: {0}")]
    Broken(String),
    #[error("the body nests {depth} levels of arrays and objects; at most {JSON_DEPTH_MAX} are allowed")]
    TooDeep { depth: usize },
    #[error(
        "the body has more than {VALUES_MAX} values, or more than {CONTAINERS_MAX} arrays and objects, the most that \
         this server takes"
    )]
    TooManyValues,
    #[error("the body has the key {0:?} twice in one object: which one is meant?")]
    DuplicateKey(String),
    #[error("parsing the body broke off")]
    ParsingBroke,
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    #[error("the body must be a JSON object; received {0}")]
    NotObject(&'static str),
}

/// What `decode` makes of a body and of what it counted: a large one where no other connection waits for either.
pub async fn read_json<T, E>(
    headers: &HeaderMap,
    body: Body,
    settings: &ServeSettings,
    decode: impl FnOnce(Map<String, Value>, Counts) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<BodyError> + Send + 'static,
{
    check_content_type(headers)?;
    check_encodings(headers)?;
    let bytes = read_within(headers, body, settings).await?;
    let size = bytes.len();
    let parse = move || {
        let mut counts = Counts::default();
        let object = parse_object(&bytes, &mut counts)?;
        drop(bytes);
        decode(object, counts)
    };
    apart(size, parse).await?
}

/// The bytes of a body of any type, as they are.
pub async fn read_bytes(
    headers: &HeaderMap,
    body: Body,
    settings: &ServeSettings,
) -> Result<Bytes, BodyError> {
    check_encodings(headers)?;
    read_within(headers, body, settings).await
}

/// Parses a body of `size` bytes: a large one where no other connection waits for it.
pub async fn apart<T: Send + 'static>(
    size: usize,
    parse: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BodyError> {
    if size <= PARSED_HERE_BYTES_MAX {
        return Ok(parse());
    }
    // The semaphore is never closed.
    let place = PARSING.acquire().await;
    let parse = move || {
        let _place = place;
        parse()
    };
    tokio::task::spawn_blocking(parse).await.map_err(|_| BodyError::ParsingBroke)
}

async fn read_within(headers: &HeaderMap, body: Body, settings: &ServeSettings) -> Result<Bytes, BodyError> {
    let limit = settings.body_timeout;
    let read = tokio::time::timeout(limit, read(headers, body, settings.body_bytes_max, &ROOM));
    read.await.map_err(|_| BodyError::TooSlow { limit })?
}

/// The bytes as a JSON object of limited depth and, with what `counts` has already, number of values.
pub fn parse_object(bytes: &[u8], counts: &mut Counts) -> Result<Map<String, Value>, BodyError> {
    let depth = json_depth(bytes);
    if depth > JSON_DEPTH_MAX {
        return Err(BodyError::TooDeep { depth });
    }
    let parsed = strict_json::parse(bytes, counts).map_err(|refused| match refused {
        Refused::Syntax(message) => BodyError::Syntax(message),
        Refused::TooManyValues | Refused::TooManyContainers => BodyError::TooManyValues,
        Refused::DuplicateKey(key) => BodyError::DuplicateKey(key),
    });
    match parsed? {
        Value::Object(object) => Ok(object),
        Value::Array(_) => Err(BodyError::NotObject("an array")),
        Value::String(_) => Err(BodyError::NotObject("a string")),
        Value::Number(_) => Err(BodyError::NotObject("a number")),
        Value::Bool(_) => Err(BodyError::NotObject("a boolean")),
        Value::Null => Err(BodyError::NotObject("null")),
    }
}

/// A page of another site can send anything but this type without the browser asking first.
fn check_content_type(headers: &HeaderMap) -> Result<(), BodyError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Err(BodyError::ContentType { found: "none".to_owned() });
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        return Err(BodyError::ContentType { found: format!("{text:?}") });
    }
    let charset = text.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match charset {
        // ASCII is UTF-8.
        Some(charset) if !["utf-8", "utf8", "us-ascii"].contains(&charset.to_ascii_lowercase().as_str()) => {
            Err(BodyError::Charset { found: format!("{text:?}") })
        }
        _ => Ok(()),
    }
}

/// What is compressed would have to be unpacked before its size is known.
fn check_encodings(headers: &HeaderMap) -> Result<(), BodyError> {
    let found = |name, plain: &str| {
        let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
        let mut codings = values.flat_map(|value| value.split(',')).map(str::trim);
        let other = codings.find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(plain));
        other.map(str::to_owned)
    };
    if let Some(found) = found(CONTENT_ENCODING, "identity") {
        return Err(BodyError::ContentEncoding { found });
    }
    found(TRANSFER_ENCODING, "chunked").map_or(Ok(()), |found| Err(BodyError::TransferEncoding { found }))
}

async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    room: &'static Semaphore,
) -> Result<Bytes, BodyError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(limit));
    let (mut received, mut covered) = (0usize, 0);
    let mut taken = room.try_acquire_many(0).map_err(|_| BodyError::NoRoom)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received <= limit {
            let wanted = received.min(BODIES_BYTES_MAX).div_ceil(ROOM_BYTES);
            let more = room.try_acquire_many((wanted - covered) as u32);
            taken.merge(more.map_err(|_| BodyError::NoRoom)?);
            covered = wanted;
            bytes.extend_from_slice(&data);
        } else if received > limit.saturating_mul(DISCARDED_LIMITS_MAX) {
            break;
        }
    }
    if received > limit {
        return Err(BodyError::TooLarge { limit });
    }
    Ok(Bytes::from_owner(Held { bytes, _room: taken }))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn plain(object: Map<String, Value>, _: Counts) -> Result<Map<String, Value>, BodyError> {
        Ok(object)
    }

    #[tokio::test]
    async fn large_bodies_are_decoded_where_no_connection_waits() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        let here = thread::current().id();
        for (bytes, expected) in [(1, true), (PARSED_HERE_BYTES_MAX, false)] {
            let body = Body::from(format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes)));
            let decode = move |_: Map<String, Value>, _: Counts| Ok(thread::current().id() == here);
            let read: Result<bool, BodyError> =
                read_json(&headers, body, &ServeSettings::default(), decode).await;
            assert_eq!(read, Ok(expected), "{bytes}");
        }
    }

    #[test]
    fn only_objects_of_limited_depth_pass() {
        let check = |json: &str, expected: &str| {
            let outcome = parse_object(json.as_bytes(), &mut Counts::default());
            let outcome =
                outcome.map_or_else(|error| error.to_string(), |object| Value::Object(object).to_string());
            assert_eq!(outcome, expected);
        };
        check(r#"{"a":[[1]]}"#, r#"{"a":[[1]]}"#);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
        check(&deep, "the body nests 33 levels of arrays and objects; at most 32 are allowed");
        check("[1]", "the body must be a JSON object; received an array");
        check("null", "the body must be a JSON object; received null");
        check("", "the body is not JSON: EOF while parsing a value at line 1 column 0");
        check(r#"{"a":}"#, "the body is not JSON: expected value at line 1 column 6");
        check(r#"{"n":1,"n":2}"#, "the body has the key \"n\" twice in one object: which one is meant?");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_large_bodies_are_refused() {
        let settings = ServeSettings { body_bytes_max: 10, ..ServeSettings::default() };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        let large = read_json(&headers, Body::from(r#"{"a":"0123456789"}"#), &settings, plain).await;
        assert_eq!(large, Err(BodyError::TooLarge { limit: 10 }));
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let slow = read_json(&headers, endless, &settings, plain).await;
        assert_eq!(slow, Err(BodyError::TooSlow { limit: settings.body_timeout }));
    }

    #[tokio::test]
    async fn large_bodies_are_parsed_and_those_of_too_many_values_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        let read = async |json: String| {
            read_json(&headers, Body::from(json), &ServeSettings::default(), plain).await
        };
        let long = "x".repeat(PARSED_HERE_BYTES_MAX);
        let found = read(format!(r#"{{"a":"{long}"}}"#)).await;
        assert_eq!(found.unwrap()["a"], long.as_str());
        let objects = format!(r#"{{"a":[{}{{}}]}}"#, r#"{"":0},"#.repeat(500_000));
        assert_eq!(read(objects).await, Err(BodyError::TooManyValues));
        let numbers = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(2_000_000));
        assert_eq!(read(numbers).await, Err(BodyError::TooManyValues));
    }

    #[test]
    fn bodies_come_as_they_are_and_in_utf_8() {
        let check = |name: &str, value: &str, expected: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
            headers.insert(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            let checked = check_content_type(&headers).and_then(|()| check_encodings(&headers));
            assert_eq!(checked.map_or_else(|error| error.to_string(), |()| String::new()), expected);
        };
        check("content-encoding", "identity", "");
        check("content-encoding", "gzip", "the body is sent with `Content-Encoding: gzip`; send it as it is");
        check("transfer-encoding", "chunked", "");
        check(
            "transfer-encoding",
            "gzip, chunked",
            "the body is sent with `Transfer-Encoding: gzip`; this server knows chunked",
        );
        check("content-type", "application/json; charset=\"UTF-8\"", "");
        check(
            "content-type",
            "application/json;charset=utf-16",
            "the body must be JSON in UTF-8; received \"application/json;charset=utf-16\"",
        );
    }

    #[test]
    fn the_content_type_must_be_json() {
        let check = |value: Option<&str>, expected: Result<(), &str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_TYPE, value.parse().unwrap());
            }
            let found = |found: &str| BodyError::ContentType { found: found.to_owned() };
            assert_eq!(check_content_type(&headers), expected.map_err(found));
        };
        check(Some("application/json"), Ok(()));
        check(Some("Application/JSON;charset=utf-8"), Ok(()));
        check(Some("application/vnd.api+json"), Ok(()));
        check(Some("text/plain"), Err("\"text/plain\""));
        check(None, Err("none"));
    }

    #[tokio::test]
    async fn bodies_together_have_a_bound() {
        let room: &Semaphore = Box::leak(Box::new(Semaphore::const_new(8)));
        let headers = HeaderMap::new();
        let body = |kilobytes: usize| read(&headers, Body::from(vec![b' '; kilobytes << 10]), 1 << 20, room);
        let first = body(5).await.unwrap();
        assert_eq!(body(4).await, Err(BodyError::NoRoom));
        assert!(body(3).await.is_ok());
        drop(first);
        assert!(body(8).await.is_ok());
        assert_eq!(room.available_permits(), 8);
    }
}
