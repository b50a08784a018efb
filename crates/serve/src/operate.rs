//! What operators' tools ask: is it alive, can it answer, how is it doing.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::http::App;

/// For a person who opens the address in a browser.
pub async fn greeting() -> &'static str {
    "This is Tureen, a server of models. Those that generate text speak OpenAI's API:\n\n    \
     GET  /v1/models\n    POST /v1/chat/completions\n    POST /v1/completions\n\n\
     Give OpenAI clients this address with /v1 as their base URL.\n\n\
     Those that take tensors speak the Open Inference Protocol and TensorFlow Serving's:\n\n    \
     GET  /v2/models/NAME\n    POST /v2/models/NAME/infer\n    POST /v1/models/NAME:predict\n\n\
     Long work: POST /v1/files, POST /v1/jobs, GET /v1/jobs.\n\n\
     For operators: /health, /ready, /metrics.\n"
}

/// 200 as long as the process answers at all.
pub async fn health() -> &'static str {
    "alive\n"
}

/// 200 when every model is loaded and new work is taken, else 503 with the reason.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    match obstacle(&app) {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Why the server as a whole doesn't take work; `None` where it does.
pub fn obstacle(app: &App) -> Option<String> {
    if app.gate.is_closed() {
        return Some("stopping".to_owned());
    }
    if let Some(dead) = app.services.ready().iter().find(|service| !service.engine.is_alive()) {
        return Some(format!("the engine of {} has ended", dead.name));
    }
    let loading = app.services.loading();
    (!loading.is_empty()).then(|| format!("loading {}", loading.join(", ")))
}

/// Everything counted, in Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.render(&app.services.ready());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
