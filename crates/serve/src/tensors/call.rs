//! The way of a tensor call, whatever its protocol: counted, run, answered.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use engine::onnx::Tensor;

use super::TensorService;
use super::error::{TensorError, shorten};
use crate::http::App;
use crate::metrics::{Outcome, Record, Recorded};
use crate::server::Peer;

/// Does the work of one call and counts it by how it ended; `endpoint` is its name in the metrics.
pub async fn counted<T>(
    app: &Arc<App>,
    endpoint: &'static str,
    peer: Option<Peer>,
    work: impl AsyncFnOnce(&mut Record) -> Result<T, TensorError>,
) -> Result<T, TensorError> {
    let mut record = Record::begin(&app.metrics, endpoint, app.gate.enter());
    record.facts().peer = peer.map(|peer| peer.0);
    let outcome = if app.gate.is_closed() { Err(TensorError::draining()) } else { work(&mut record).await };
    record.facts().error = outcome.as_ref().err().map(|error| error.code);
    record.end(match &outcome {
        Ok(_) => Outcome::Answered,
        Err(error) if error.status == StatusCode::INTERNAL_SERVER_ERROR => Outcome::Failed(500),
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
