//! Lists of things in pages, as OpenAI's clients ask for them: `limit` and `after`.

use axum::http::Uri;
use serde_json::{Value, json};

use crate::openai::ApiError;

const LIMIT_MAX: usize = 10_000;

/// A parameter in a URL's query. What it is compared with are ids and numbers, so nothing is decoded.
pub fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The page of `items`, which are objects with an `id`, that a URL asks for.
///
/// # Errors
/// `limit` is no number from 1; `after` is none of the items.
pub fn page(uri: &Uri, items: Vec<Value>) -> Result<Value, ApiError> {
    let limit = match parameter(uri, "limit").map(str::parse) {
        None => LIMIT_MAX,
        Some(Ok(limit)) if (1..=LIMIT_MAX).contains(&limit) => limit,
        Some(_) => {
            return Err(ApiError::invalid("limit", format!("`limit` is a number from 1 to {LIMIT_MAX}")));
        }
    };
    let begin = match parameter(uri, "after") {
        None => 0,
        Some(after) => {
            let at = items.iter().position(|item| item["id"] == after);
            at.ok_or_else(|| ApiError::invalid("after", format!("there is nothing called {after:?}")))? + 1
        }
    };
    let has_more = items.len() > begin + limit;
    let data: Vec<Value> = items.into_iter().skip(begin).take(limit).collect();
    let end = |item: Option<&Value>| item.map(|item| item["id"].clone());
    let (first, last) = (end(data.first()), end(data.last()));
    Ok(json!({ "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more }))
}

#[test]
fn pages_follow_each_other() {
    let items = || (0..3).map(|id| json!({ "id": id.to_string() })).collect::<Vec<_>>();
    let ids = |query: &str| {
        let page = page(&format!("/v1/jobs?{query}").parse().unwrap(), items()).unwrap();
        let ids: Vec<String> =
            page["data"].as_array().unwrap().iter().map(|item| item["id"].to_string()).collect();
        (ids.join(","), page["has_more"] == true)
    };
    assert_eq!(ids(""), ("\"0\",\"1\",\"2\"".to_owned(), false));
    assert_eq!(ids("limit=2"), ("\"0\",\"1\"".to_owned(), true));
    assert_eq!(ids("after=1&limit=2"), ("\"2\"".to_owned(), false));
    for query in ["limit=0", "limit=x", "after=7"] {
        assert!(page(&format!("/?{query}").parse().unwrap(), items()).is_err());
    }
}
