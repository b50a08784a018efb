//! The way of a tensor call, whatever its protocol: counted, run, answered.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use engine::onnx::Tensor;
use tokio::time::timeout;

use super::TensorService;
use super::error::TensorError;
use crate::http::App;
use crate::metrics::{Outcome, Record, Recorded};
use crate::openai::ApiError;
use crate::server::Peer;
use crate::shorten::shorten;

/// Does the work of one call, within the time that a request may take, and counts it by how it ended; `endpoint` is its
/// name in the metrics. Work that is dropped over the time is not begun if it still waited for the model.
pub async fn counted<T>(
    app: &Arc<App>,
    endpoint: &'static str,
    peer: Option<Peer>,
    work: impl AsyncFnOnce(&mut Record) -> Result<T, TensorError>,
) -> Result<T, TensorError> {
    let mut record = Record::begin(&app.metrics, endpoint, app.gate.enter());
    record.facts().peer = peer.map(|peer| peer.0);
    let outcome = match app.settings.request_max {
        _ if app.gate.is_closed() => Err(ApiError::draining().into()),
        None => work(&mut record).await,
        Some(limit) => {
            timeout(limit, work(&mut record)).await.unwrap_or_else(|_| Err(TensorError::too_slow(limit)))
        }
    };
    record.facts().error = outcome.as_ref().err().map(|error| error.code);
    record.end(match &outcome {
        Ok(_) => Outcome::Answered,
        Err(TensorError {
            status: status @ (StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT),
            ..
        }) => Outcome::Failed(status.as_u16()),
        Err(error) => Outcome::Refused(error.status.as_u16()),
    });
    outcome
}

/// The model that was asked for, for the log.
pub fn asked(record: &mut Record, name: &str) {
    record.facts().asked = shorten(name);
}

/// Runs the model on inputs by their place in the signature.
pub async fn run(
    service: &TensorService,
    inputs: Vec<(usize, Tensor)>,
    record: &mut Record,
) -> Result<Vec<Tensor>, TensorError> {
    record.set_model(&service.name);
    let inputs = service.onnx.check(inputs)?;
    Ok(service.onnx.call(inputs).await?)
}

/// An answer, whose request has a record.
pub fn respond(outcome: Result<Response, TensorError>) -> Response {
    let mut response = outcome.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(Recorded);
    response
}

pub fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], Bytes::from(body)).into_response()
}
