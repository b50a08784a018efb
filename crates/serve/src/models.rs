//! `GET /v1/models` and below: one URL that OpenAI's and TensorFlow Serving's clients both ask.
//!
//! A model's answer is an object that both accept, with OpenAI's keys and, for a model that takes tensors, with
//! TensorFlow Serving's `model_version_status`. What only the latter asks, `/versions/N` and `/metadata`, errors in its
//! shape; the rest errors in OpenAI's.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::http::App;
use crate::openai::{self, ApiError};
use crate::services::{Engine, Service};
use crate::tensorflow::{self, Target};
use crate::tensors;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model).post(tensorflow::call))
}

/// Those that answer by now.
async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let data: Vec<Value> = app.services.ready().iter().map(model_json).collect();
    Json(json!({ "object": "list", "data": data }))
}

async fn model(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Response {
    let name = match name {
        Ok(Path(name)) => name,
        Err(error) => return ApiError::invalid("model", error.to_string()).into_response(),
    };
    if let Some(of_model) = name.strip_suffix("/metadata") {
        return tensorflow::metadata(&app, &Target::parse(of_model)).into_response();
    }
    let target = Target::parse(&name);
    if target.version.is_some() {
        let found = tensors::find_any(&app, &target.name, target.version.as_deref());
        return found.map(|service| Json(model_json(&service))).into_response();
    }
    openai::find_any(&app, &name).map(|service| Json(model_json(&service))).into_response()
}

fn model_json(service: &Service) -> Value {
    let mut value = json!({
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "tureen",
    });
    match &service.engine {
        Engine::Llm(llm) => value["context_length"] = json!(llm.facts().context),
        Engine::Onnx(_) => value["model_version_status"] = tensorflow::status(service.version),
    }
    value
}
