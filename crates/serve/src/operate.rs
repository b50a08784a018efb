//! What operators' tools ask: is it alive, can it answer, how is it doing.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::http::App;

/// For a person who opens the address in a browser.
pub async fn greeting() -> &'static str {
    "This is Tureen, a server of language models. It speaks OpenAI's API:\n\n    \
     GET  /v1/models\n    POST /v1/chat/completions\n    POST /v1/completions\n\n\
     Give OpenAI clients this address with /v1 as their base URL.\n\
     For operators: /health, /ready, /metrics.\n"
}

/// 200 as long as the process answers at all.
pub async fn health() -> &'static str {
    "alive\n"
}

/// 200 when every model is loaded and new work is taken, else 503 with the reason.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let loading = app.services.loading();
    let services = app.services.ready();
    let dead = services.iter().find(|service| !service.llm.is_alive());
    if app.gate.is_closed() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if let Some(dead) = dead {
        (StatusCode::SERVICE_UNAVAILABLE, format!("the engine of {} has ended\n", dead.name)).into_response()
    } else if loading.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("loading {}\n", loading.join(", "))).into_response()
    }
}

/// Everything counted, in Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.render(&app.services.ready());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
