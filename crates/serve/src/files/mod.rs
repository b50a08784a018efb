//! `/v1/files`, as OpenAI has it: what jobs are given is uploaded first (platform.openai.com/docs/api-reference/files).

mod receive;

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::multipart::MultipartRejection;
use axum::extract::{DefaultBodyLimit, Multipart, Path, State};
use axum::http::Uri;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use store::Upload;

use crate::http::App;
use crate::jobs::kept::ask;
use crate::listing::{page, parameter};
use crate::openai::ApiError;

/// Bytes of a file in memory while it is sent.
const CHUNK_BYTES: usize = 256 << 10;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        // The limit of an upload is counted while it is written.
        .route("/v1/files", get(list).post(upload).layer(DefaultBodyLimit::disable()))
        .route("/v1/files/{id}", get(one).delete(delete))
        .route("/v1/files/{id}/content", get(content))
}

async fn upload(
    State(app): State<Arc<App>>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<Value>, ApiError> {
    let _permit = app.gate.enter().ok_or_else(ApiError::draining)?;
    let form = form.map_err(|error| ApiError::invalid("file", error.body_text()))?;
    let upload = receive::form(&app, form).await?;
    tracing::info!(id = upload.id, bytes = upload.bytes, "a file was uploaded");
    Ok(Json(upload.json()))
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let mut uploads = ask(&app, |store| store.uploads()).await?;
    if let Some(purpose) = parameter(&uri, "purpose") {
        uploads.retain(|upload| upload.purpose == purpose);
    }
    if parameter(&uri, "order") == Some("asc") {
        uploads.reverse();
    }
    page(&uri, uploads.iter().map(Upload::json).collect()).map(Json)
}

async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    find(&app, id).await.map(|upload| Json(upload.json()))
}

async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let asked = id.clone();
    if !ask(&app, move |store| store.delete_upload(&asked)).await? {
        return Err(no_such_file(&id));
    }
    Ok(Json(json!({ "id": id, "object": "file", "deleted": true })))
}

async fn content(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let upload = find(&app, id).await?;
    let id = upload.id.clone();
    let opened = ask(&app, move |store| Ok(File::open(store.upload_path(&id)))).await?;
    let file = opened.map_err(|error| ApiError::internal(format!("the file can't be read: {error}")))?;
    let chunks = unfold(Some(file), |file| async move {
        let mut file = file?;
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = file.read(&mut chunk)?;
            chunk.truncate(count);
            Ok::<_, std::io::Error>((Bytes::from(chunk), file))
        });
        match read.await.map_err(std::io::Error::other).flatten() {
            Ok((chunk, _)) if chunk.is_empty() => None,
            Ok((chunk, file)) => Some((Ok(chunk), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    });
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, upload.bytes.to_string()),
        // A browser is to keep what somebody uploaded, not to show it as a page of ours.
        (CONTENT_DISPOSITION, "attachment".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

async fn find(app: &App, id: String) -> Result<Upload, ApiError> {
    let asked = id.clone();
    ask(app, move |store| store.upload(&asked)).await?.ok_or_else(|| no_such_file(&id))
}

fn no_such_file(id: &str) -> ApiError {
    ApiError::no_such(format!("there is no file {id:?} here"))
}
