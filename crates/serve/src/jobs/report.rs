//! `GET /v1/jobs/ID/report`: the page that says what came of a job, or the same as JSON for who asks for that.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use store::{Job, Reference, Store, StoreError};

use super::find;
use super::kept::ask;
use crate::http::App;
use crate::openai::ApiError;

/// Reports have pictures in them.
const REPORT_BYTES_MAX: u64 = 256 << 20;
/// It is our page, but names in it are somebody's: styles and pictures within it are all that it may have.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox";

pub async fn report(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = find(&app, id).await?;
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (ending, kind) = match accepted.contains("application/json") && !accepted.contains("text/html") {
        true => ("report.json", "application/json"),
        false => ("report.html", "text/html; charset=utf-8"),
    };
    let Some(version) = job.version else {
        let message = format!("the job is {}; its report comes with what it publishes", job.state.name());
        return Err(ApiError::conflict(message));
    };
    let none = format!("{}@{version} has no {ending}, or isn't here any more", job.model.name());
    let text = ask(&app, move |store| read(store, &job, version, ending)).await?;
    let text = text.ok_or_else(|| ApiError::no_such(none))?;
    let headers =
        [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, text).into_response())
}

/// The file of the job's version that ends so: of a language model it begins with the model's name.
fn read(store: &Store, job: &Job, number: u64, ending: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let reference = Reference::Number { name: job.model.name().to_owned(), number };
    let Some(version) = store.find(&reference)? else { return Ok(None) };
    let is_report = |path: &str| path == ending || path.ends_with(&format!(".{ending}"));
    match version.manifest.files.iter().find(|file| is_report(&file.path)) {
        Some(file) => store::read_within(&version.folder.join(&file.path), REPORT_BYTES_MAX),
        None => Ok(None),
    }
}
