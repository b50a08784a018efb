//! `POST /v2/models/NAME[/versions/VERSION]/infer`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;

use super::{request, response};
use crate::body::{apart, read_bytes};
use crate::http::App;
use crate::server::Peer;
use crate::tensors::error::TensorError;
use crate::tensors::{call, find};

/// Bytes of JSON at the beginning of a body that has binary tensors behind it.
pub const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

pub async fn infer(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let name = path.map(|Path(name)| (name, None));
    answer(&app, name, request).await
}

pub async fn infer_version(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let name = path.map(|Path((name, version))| (name, Some(version)));
    answer(&app, name, request).await
}

async fn answer(
    app: &Arc<App>,
    name: Result<(String, Option<String>), PathRejection>,
    request: Request,
) -> Response {
    let outcome = call::counted(app, "infer", Peer::of(&request), async |record| {
        let (name, version) = name.map_err(|error| TensorError::invalid(error.to_string()))?;
        call::asked(record, &name);
        let service = find(app, &name, version.as_deref())?;
        let (parts, body) = request.into_parts();
        let body = read_bytes(&parts.headers, body, &app.settings).await?;
        let json_bytes = json_length(&parts.headers, body.len())?;
        let of_body = service.clone();
        let decode = move || request::decode(&of_body, &body[..json_bytes], &body[json_bytes..]);
        let mut request = apart(json_bytes, decode).await??;
        let outputs = call::run(&service, std::mem::take(&mut request.inputs), record).await?;
        response::encode(&service, &request, &outputs)
    });
    call::respond(outcome.await)
}

fn json_length(headers: &HeaderMap, body: usize) -> Result<usize, TensorError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(body) };
    let length = value.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    length.filter(|length| *length <= body).ok_or_else(|| {
        TensorError::invalid(format!(
            "Inference-Header-Content-Length must be a number of at most {body} here, the body's length"
        ))
    })
}
