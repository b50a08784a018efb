//! OpenAI's protocol: chat and text completions (the list of models is in `models.rs`)
//! (platform.openai.com/docs/api-reference).
//!
//! A parameter is understood, or ignored because it can't change what a caller gets (listed in [`options`]), or
//! refused by name; nothing that changes the meaning is skipped in silence. Beyond OpenAI's own, both endpoints
//! take `top_k`, `min_p`, `typical_p`, `repetition_penalty`, `ignore_eos`, `priority`, and chat takes
//! `chat_template_kwargs`.
//!
//! Where this differs from OpenAI: a completion without `max_tokens` takes 16 or what the prompt leaves of the context,
//! which `finish_reason: "length"` tells; `completion_tokens` are those of the answer, without the model's end token;
//! choice `i` of a request with a seed draws with `seed + i`; the role `developer` reaches a model's template as
//! `system`, as templates of open models don't know it; an answer that reached the server's time limit ends with
//! `finish_reason: "length"`.

mod answer;
mod chat_request;
mod choices;
mod completion_request;
mod deliver;
mod error;
mod fields;
mod handlers;
mod logprobs;
mod messages;
#[cfg(test)]
mod mutation_tests;
mod options;
mod prompt;
mod response;
mod urgency;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::http::App;
pub use error::ApiError;
pub use handlers::find_any;

/// The URLs of this protocol.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/chat/completions", post(handlers::chat))
        .route("/v1/completions", post(handlers::completion))
}
