//! A request's body as a JSON object, within the limits of size, time and depth.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use crate::json_depth::{JSON_DEPTH_MAX, json_depth};
use crate::settings::ServeSettings;

/// What is read of a body that is too large, in multiples of the limit, so that a client that sends it all before it
/// reads gets the answer instead of a broken connection.
const DISCARDED_LIMITS_MAX: usize = 8;

/// Why a body is no JSON object that may be looked at.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BodyError {
    #[error("the body must be JSON, sent with `Content-Type: application/json`; received {found}")]
    ContentType { found: String },
    #[error("the body is sent with `Content-Encoding: {found}`, which is not supported: send it as it is")]
    ContentEncoding { found: String },
    #[error("the body is larger than {limit} bytes, the most that this server takes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive within {} seconds", limit.as_secs())]
    TooSlow { limit: Duration },
    #[error("the body broke off: {0}")]
    Broken(String),
    #[error("the body nests {depth} levels of arrays and objects; at most {JSON_DEPTH_MAX} are allowed")]
    TooDeep { depth: usize },
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    #[error("the body must be a JSON object; received {0}")]
    NotObject(&'static str),
}

pub async fn read_json(
    headers: &HeaderMap,
    body: Body,
    settings: &ServeSettings,
) -> Result<Map<String, Value>, BodyError> {
    check_content_type(headers)?;
    parse_object(&read_within(headers, body, settings).await?)
}

/// The bytes of a body of any type, as they are.
pub async fn read_bytes(
    headers: &HeaderMap,
    body: Body,
    settings: &ServeSettings,
) -> Result<Bytes, BodyError> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let found = String::from_utf8_lossy(encoding.as_bytes()).chars().take(100).collect();
        return Err(BodyError::ContentEncoding { found });
    }
    read_within(headers, body, settings).await
}

async fn read_within(headers: &HeaderMap, body: Body, settings: &ServeSettings) -> Result<Bytes, BodyError> {
    let limit = settings.body_timeout;
    let read = tokio::time::timeout(limit, read(headers, body, settings.body_bytes_max));
    read.await.map_err(|_| BodyError::TooSlow { limit })?
}

/// The bytes as a JSON object of limited depth.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, BodyError> {
    let depth = json_depth(bytes);
    if depth > JSON_DEPTH_MAX {
        return Err(BodyError::TooDeep { depth });
    }
    match serde_json::from_slice(bytes).map_err(|error| BodyError::Syntax(error.to_string()))? {
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
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(BodyError::ContentType { found: format!("{text:?}") })
}

async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(limit));
    let mut received = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received <= limit {
            bytes.extend_from_slice(&data);
        } else if received > limit.saturating_mul(DISCARDED_LIMITS_MAX) {
            break;
        }
    }
    if received > limit { Err(BodyError::TooLarge { limit }) } else { Ok(bytes.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_of_limited_depth_pass() {
        let check = |json: &str, expected: &str| {
            let outcome = parse_object(json.as_bytes());
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
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_large_bodies_are_refused() {
        let settings = ServeSettings { body_bytes_max: 10, ..ServeSettings::default() };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        let large = read_json(&headers, Body::from(r#"{"a":"0123456789"}"#), &settings).await;
        assert_eq!(large, Err(BodyError::TooLarge { limit: 10 }));
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let slow = read_json(&headers, endless, &settings).await;
        assert_eq!(slow, Err(BodyError::TooSlow { limit: settings.body_timeout }));
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
}
