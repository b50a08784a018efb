//! Errors in the shape that OpenAI's clients turn into typed exceptions:
//! `{"error": {"message", "type", "param", "code"}}`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::llm::request::{Failure, SubmitError};
use serde_json::{Value, json};

use crate::body::BodyError;
use crate::http::Refused;
use crate::shorten::shorten;

/// What other servers call parameters, and what they are called here.
const OTHER_NAMES: [(&str, &str); 7] = [
    ("repeat_penalty", "repetition_penalty"),
    ("typical", "typical_p"),
    ("n_predict", "max_tokens"),
    ("num_predict", "max_tokens"),
    ("max_new_tokens", "max_tokens"),
    ("stop_sequences", "stop"),
    ("n_probs", "logprobs"),
];

/// Until another server, or this one after its start, can be asked.
const RETRY_SECONDS: u64 = 5;

/// Of OpenAI's URLs, those that clients know and this server doesn't.
const NOT_YET: [&str; 7] = [
    "/v1/responses",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/batches",
    "/v1/images/generations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
];

/// An answer that says what went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: &'static str,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: String) -> ApiError {
        ApiError { status, message, param: None, code, retry_after_seconds: None }
    }

    fn bad_request(param: &str, code: &'static str, message: String) -> ApiError {
        ApiError { param: Some(param.to_owned()), ..ApiError::new(StatusCode::BAD_REQUEST, code, message) }
    }

    /// A parameter whose value can't be used.
    pub fn header_repeated(name: &str) -> ApiError {
        let message = format!("the header `{name}` came more than once: which one is meant?");
        ApiError::new(StatusCode::BAD_REQUEST, "header_repeated", message)
    }

    pub fn invalid(param: &str, message: String) -> ApiError {
        ApiError::bad_request(param, "invalid_value", message)
    }

    pub fn missing(param: &str) -> ApiError {
        ApiError::bad_request(
            param,
            "missing_required_parameter",
            format!("`{param}` is required and missing"),
        )
    }

    /// A parameter of OpenAI's that would change the answer in a way that we can't.
    pub fn unsupported(param: &str) -> ApiError {
        let message =
            format!("`{param}` is not supported by this server, and ignoring it would change the answer");
        ApiError::bad_request(param, "unsupported_parameter", message)
    }

    pub fn unknown(param: &str) -> ApiError {
        let advice = match OTHER_NAMES.iter().find(|(other, _)| *other == param) {
            Some((_, name)) => format!("it is called `{name}` here"),
            None => "leave it out, or check its spelling".to_owned(),
        };
        let message = format!("`{param}` is not a parameter that this server knows: {advice}");
        ApiError::bad_request(param, "unknown_parameter", message)
    }

    pub fn template(message: String) -> ApiError {
        ApiError::bad_request("messages", "chat_template_failed", message)
    }

    /// The model's file is at fault, not who asks.
    pub fn template_unusable(model: &str, error: &str) -> ApiError {
        let message = format!("the model {model:?} can't be asked this way: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "chat_template_failed", message)
    }

    pub fn model_unknown(model: &str, served: &[String]) -> ApiError {
        let model = shorten(model);
        let served = served.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("the model {model:?} is not served here; served are: {served}");
        let param = Some("model".to_owned());
        ApiError { param, ..ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    pub fn takes_tensors(model: &str) -> ApiError {
        let message = format!(
            "the model {model:?} takes tensors and generates no text: call it by /v2/models/{model}/infer or \
             /v1/models/{model}:predict"
        );
        ApiError::bad_request("model", "model_takes_tensors", message)
    }

    pub fn model_loading(model: &str) -> ApiError {
        let message = format!("the model {model:?} is still being loaded: ask again in a moment");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "model_loading", message).retry_after(RETRY_SECONDS)
    }

    pub fn draining() -> ApiError {
        let message = "the server is stopping and takes no new work: ask another, or again later".to_owned();
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message).retry_after(RETRY_SECONDS)
    }

    /// A prompt that is not even turned into tokens.
    pub fn text_too_long(param: &str, bytes: usize, bytes_max: usize, context: usize) -> ApiError {
        let message = format!(
            "the prompt is {bytes} bytes long, and this model's context of {context} tokens holds at most \
             {bytes_max}: shorten the prompt"
        );
        ApiError::bad_request(param, "context_length_exceeded", message)
    }

    /// A prompt that fits, and an answer that was asked for and doesn't beside it. `param` is where the prompt came.
    pub fn no_room(param: &str, prompt: usize, tokens_max: usize, context: usize) -> ApiError {
        let asked = prompt.saturating_add(tokens_max);
        let message = format!(
            "this model's context is {context} tokens, and {asked} were asked for ({prompt} in the {param}, \
             {tokens_max} in the completion): shorten the {param}, or ask for fewer tokens with `max_tokens`"
        );
        ApiError::bad_request(param, "context_length_exceeded", message)
    }

    /// `waiting` other requests would go first.
    pub fn queue_full(waiting: usize, retry_after_seconds: u64) -> ApiError {
        let message = format!("the server is busy: {waiting} requests wait already, which is the limit");
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).retry_after(retry_after_seconds)
    }

    /// One that is sent whole, and was more than `bytes_max` before its end.
    pub fn answer_too_large(bytes_max: usize) -> ApiError {
        let message = format!(
            "the answer has more than {bytes_max} bytes, the most that is sent whole: stream it, or ask for fewer \
             choices, tokens or log-probabilities"
        );
        ApiError::new(StatusCode::BAD_REQUEST, "answer_too_large", message)
    }

    /// A file or a job that isn't here.
    pub fn no_such(message: String) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// What something's state, or another request, doesn't allow.
    pub fn conflict(message: String) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub fn file_too_large(message: String) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", message)
    }

    /// Our own failure; the request may be good.
    pub fn internal(message: String) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    pub fn key_missing() -> ApiError {
        let message = "a key is needed: send it as `Authorization: Bearer KEY`".to_owned();
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub fn key_unknown() -> ApiError {
        let message = "the key in `Authorization: Bearer` is not one of this server's".to_owned();
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub fn origin_refused(origin: &str) -> ApiError {
        let message = format!(
            "pages of {origin} may not call this server: its operator can allow the origin, or set a key"
        );
        ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
    }

    pub fn host_refused(host: &str) -> ApiError {
        let message = format!(
            "a server without a key answers to localhost and the addresses 127.0.0.1 and [::1]; this request is for \
             {host:?}: its operator can allow the origin http://{host}, or set a key"
        );
        ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message)
    }

    pub fn no_such_url(method: &Method, path: &str) -> ApiError {
        let message = match NOT_YET.contains(&path) {
            true => {
                format!("{method} {path} is not supported yet: use /v1/chat/completions or /v1/completions")
            }
            false if path.starts_with("/api/") => {
                format!(
                    "there is nothing at {method} {path}: Ollama's protocol is not spoken here; use OpenAI's, below /v1"
                )
            }
            false if ["/chat/completions", "/completions", "/models"].contains(&path) => {
                format!("there is nothing at {method} {path}; did you mean /v1{path}?")
            }
            false => format!("there is nothing at {method} {path}"),
        };
        ApiError::new(StatusCode::NOT_FOUND, "unknown_url", message)
    }

    pub fn no_such_method(method: &Method, path: &str) -> ApiError {
        let message = format!("{path} does not answer to {method}");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// Why the engine didn't take a request whose prompt came in the parameter `prompt_param`.
    pub fn submit(error: SubmitError, prompt_param: &str, retry_after_seconds: u64) -> ApiError {
        let message = error.to_string();
        match error {
            SubmitError::PromptTooLong { prompt, context, extensible } => {
                let longer = if extensible { ", or serve the model with a longer context" } else { "" };
                let message = format!(
                    "the prompt has {prompt} tokens, and this model's context is {context} tokens, of which the \
                     answer needs at least one: shorten the prompt{longer}"
                );
                ApiError::bad_request(prompt_param, "context_length_exceeded", message)
            }
            SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } => {
                ApiError::invalid(prompt_param, message)
            }
            SubmitError::QueueFull { waiting } => ApiError::queue_full(waiting, retry_after_seconds),
            SubmitError::Stopped => ApiError::internal(message),
        }
    }

    /// Why an answer that was begun, or waited for, has no end.
    pub fn failed(failure: &Failure) -> ApiError {
        match failure {
            Failure::Deadline { .. } => {
                let message = format!("the server is busy: {failure}");
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "queue_timeout", message)
            }
            Failure::Unread => {
                let message = format!("the answer broke off: {failure}");
                ApiError::new(StatusCode::REQUEST_TIMEOUT, "answer_not_read", message)
            }
            // All were checked before the first was taken, so it is about the engine and not about a parameter.
            Failure::Further(error) => ApiError::submit(error.clone(), "prompt", RETRY_SECONDS),
            Failure::NotFinite | Failure::Stopped => {
                ApiError::internal(format!("the answer broke off: {failure}"))
            }
        }
    }

    fn retry_after(self, seconds: u64) -> ApiError {
        ApiError { retry_after_seconds: Some(seconds), ..self }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_seconds
    }

    /// OpenAI's names for kinds of errors.
    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    pub fn json(&self) -> Value {
        let ApiError { message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": self.kind(), "param": param, "code": code } })
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> ApiError {
        let (status, code) = match error {
            BodyError::ContentType { .. } | BodyError::Charset { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type")
            }
            BodyError::ContentEncoding { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding")
            }
            BodyError::TransferEncoding { .. } => {
                (StatusCode::NOT_IMPLEMENTED, "unsupported_transfer_encoding")
            }
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            BodyError::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "too_many_bodies"),
            BodyError::TooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            BodyError::TooDeep { .. } => (StatusCode::BAD_REQUEST, "json_too_deep"),
            BodyError::TooManyValues => (StatusCode::BAD_REQUEST, "json_too_large"),
            BodyError::DuplicateKey(_) => (StatusCode::BAD_REQUEST, "duplicate_key"),
            BodyError::ParsingBroke => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
            BodyError::Broken(_) | BodyError::Syntax(_) | BodyError::NotObject(_) => {
                (StatusCode::BAD_REQUEST, "invalid_json")
            }
        };
        ApiError::new(status, code, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = [(CONTENT_TYPE, "application/json")];
        let mut response = (self.status, json, self.json().to_string()).into_response();
        response.extensions_mut().insert(Refused(self.code));
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_refuses_says_what_the_client_can_do() {
        let check = |error: SubmitError, expected: Value, status: u16| {
            let error = ApiError::submit(error, "messages", 7);
            assert_eq!((error.json()["error"].clone(), error.status().as_u16()), (expected, status));
        };
        let too_long = |extensible| SubmitError::PromptTooLong { prompt: 9000, context: 8192, extensible };
        let at_most = ApiError::submit(too_long(false), "messages", 7).json()["error"]["message"].to_string();
        assert!(at_most.ends_with("at least one: shorten the prompt\""), "{at_most}");
        check(
            too_long(true),
            json!({
                "message": "the prompt has 9000 tokens, and this model's context is 8192 tokens, of which the answer \
                            needs at least one: shorten the prompt, or serve the model with a longer context",
                "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
            }),
            400,
        );
        check(
            SubmitError::QueueFull { waiting: 256 },
            json!({
                "message": "the server is busy: 256 requests wait already, which is the limit",
                "type": "rate_limit_error", "param": null, "code": "queue_full",
            }),
            429,
        );
        check(
            SubmitError::Stopped,
            json!({ "message": "the engine stopped", "type": "server_error", "param": null, "code": "internal_error" }),
            500,
        );
        let late = ApiError::failed(&Failure::Deadline { waited: std::time::Duration::from_millis(2500) });
        let said =
            "the server is busy: no place became free within 2 s, which is as long as a request may take";
        assert_eq!((late.status().as_u16(), late.json()["error"]["message"].as_str()), (503, Some(said)));
        let busy = ApiError::submit(SubmitError::QueueFull { waiting: 1 }, "prompt", 7).into_response();
        assert_eq!(busy.headers()["retry-after"], "7");
        let further = ApiError::failed(&Failure::Further(SubmitError::QueueFull { waiting: 1 }));
        assert_eq!(further.status().as_u16(), 429, "why it was refused is said");
        assert_eq!(ApiError::failed(&Failure::Stopped).status().as_u16(), 500);
    }
}
