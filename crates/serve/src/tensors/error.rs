//! What went wrong, as the Open Inference Protocol and TensorFlow Serving say it: `{"error": "..."}`.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use engine::onnx::{CallError, InputError};
use serde_json::json;

use super::json::JsonError;
use crate::body::BodyError;
use crate::http::Refused;
use crate::openai::ApiError;
use crate::shorten::shorten;

/// Until a full queue of tensor calls, which take little each, has moved.
const RETRY_SECONDS: u64 = 1;

/// An answer that says what went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorError {
    pub status: StatusCode,
    /// For the log: the protocols have no codes.
    pub code: &'static str,
    pub message: String,
    pub retry_after_seconds: Option<u64>,
}

impl TensorError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> TensorError {
        TensorError { status, code, message: message.into(), retry_after_seconds: None }
    }

    /// The caller's mistake.
    pub fn invalid(message: impl Into<String>) -> TensorError {
        TensorError::new(StatusCode::BAD_REQUEST, "invalid_tensors", message)
    }

    pub fn no_such_version(name: &str, version: &str, served: u64) -> TensorError {
        let message =
            format!("the model {name:?} has no version {:?}; it has \"{served}\"", shorten(version));
        TensorError::new(StatusCode::NOT_FOUND, "version_not_found", message)
    }

    pub fn generates_text(name: &str) -> TensorError {
        let message = format!(
            "the model {name:?} generates text and takes no tensors: call it by /v1/chat/completions or /v1/completions"
        );
        TensorError::new(StatusCode::BAD_REQUEST, "model_generates_text", message)
    }

    /// There was no answer within `limit`, the longest that a request may take.
    pub fn too_slow(limit: Duration) -> TensorError {
        let message = format!(
            "there was no answer within {} s, which is as long as a request may take: send fewer rows at a time, or \
             ask when the server is less busy",
            limit.as_secs_f64()
        );
        TensorError::new(StatusCode::GATEWAY_TIMEOUT, "request_timeout", message)
    }

    pub fn internal(message: impl Into<String>) -> TensorError {
        TensorError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }
}

impl From<ApiError> for TensorError {
    fn from(error: ApiError) -> TensorError {
        let retry_after_seconds = error.retry_after_seconds();
        TensorError { retry_after_seconds, ..TensorError::new(error.status(), error.code(), error.message()) }
    }
}

impl From<JsonError> for TensorError {
    fn from(error: JsonError) -> TensorError {
        TensorError::invalid(error.to_string())
    }
}

impl From<InputError> for TensorError {
    fn from(error: InputError) -> TensorError {
        TensorError::invalid(error.to_string())
    }
}

impl From<BodyError> for TensorError {
    fn from(error: BodyError) -> TensorError {
        ApiError::from(error).into()
    }
}

impl From<CallError> for TensorError {
    fn from(error: CallError) -> TensorError {
        match error {
            CallError::QueueFull { .. } => TensorError {
                retry_after_seconds: Some(RETRY_SECONDS),
                ..TensorError::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "queue_full",
                    format!("the server is busy: {error}"),
                )
            },
            // The shapes were as declared, so what the model makes of them is between caller and model.
            CallError::Run(_) => TensorError::invalid(error.to_string()),
            CallError::Ended => TensorError::internal(error.to_string()),
        }
    }
}

impl IntoResponse for TensorError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.message }).to_string();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body).into_response();
        response.extensions_mut().insert(Refused(self.code));
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
