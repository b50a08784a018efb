//! What went wrong, as the Open Inference Protocol and TensorFlow Serving say it: `{"error": "..."}`.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use engine::onnx::{CallError, InputError};
use serde_json::json;

use super::json::JsonError;
use crate::body::BodyError;
use crate::http::Refused;
use crate::openai::ApiError;

/// Until a full queue of tensor calls, which take little each, has moved.
const RETRY_SECONDS: u64 = 1;
const NAME_CHARS_MAX: usize = 100;

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

    pub fn unknown_model(name: &str, served: &[String]) -> TensorError {
        let served = served.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let name = shorten(name);
        TensorError::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            format!("the model {name:?} is not served here; served are: {served}"),
        )
    }

    pub fn no_such_version(name: &str, version: &str) -> TensorError {
        let message = format!("the model {name:?} has no version {:?}; it has \"1\"", shorten(version));
        TensorError::new(StatusCode::NOT_FOUND, "version_not_found", message)
    }

    pub fn generates_text(name: &str) -> TensorError {
        let message = format!(
            "the model {name:?} generates text and takes no tensors: call it by /v1/chat/completions or /v1/completions"
        );
        TensorError::new(StatusCode::BAD_REQUEST, "model_generates_text", message)
    }

    pub fn loading(name: &str) -> TensorError {
        let message = format!("the model {name:?} is still being loaded: ask again in a moment");
        TensorError::unavailable("model_loading", message)
    }

    pub fn draining() -> TensorError {
        TensorError::unavailable(
            "draining",
            "the server is stopping and takes no new work: ask another, or again later".to_owned(),
        )
    }

    fn unavailable(code: &'static str, message: String) -> TensorError {
        let retry_after_seconds = Some(5);
        let error = TensorError::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        TensorError { retry_after_seconds, ..error }
    }

    pub fn internal(message: impl Into<String>) -> TensorError {
        TensorError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }
}

/// What callers sent, short enough for a message.
pub fn shorten(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

impl From<ApiError> for TensorError {
    fn from(error: ApiError) -> TensorError {
        TensorError::new(error.status(), error.code(), error.message())
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
