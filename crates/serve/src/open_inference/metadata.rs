//! What the server and its models are, and whether they answer.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use engine::onnx::{Dimension, Signature, TensorSpec};
use serde_json::{Value, json};

use super::datatype;
use crate::http::App;
use crate::operate;
use crate::tensors::error::TensorError;
use crate::tensors::{find, find_any};

pub const SERVER_NAME: &str = "tureen";
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");
pub const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];
/// `PROJECT_FORMAT`, as the protocol writes it.
pub const PLATFORM: &str = "rten_onnx";

pub async fn server() -> Json<Value> {
    Json(json!({ "name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS }))
}

pub async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = operate::obstacle(&app).is_none();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

pub async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, TensorError> {
    describe(&app, &name, None)
}

pub async fn model_version(
    State(app): State<Arc<App>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Value>, TensorError> {
    describe(&app, &name, Some(&version))
}

pub async fn model_ready(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, TensorError> {
    readiness(&app, &name, None)
}

pub async fn model_version_ready(
    State(app): State<Arc<App>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Value>, TensorError> {
    readiness(&app, &name, Some(&version))
}

fn describe(app: &App, name: &str, version: Option<&str>) -> Result<Json<Value>, TensorError> {
    let service = find(app, name, version)?;
    let Signature { inputs, outputs } = service.onnx.signature();
    let tensor = |spec: &TensorSpec| json!({ "name": spec.name, "datatype": datatype::name(spec.element), "shape": shape(spec) });
    Ok(Json(json!({
        "name": service.name,
        "versions": [service.version],
        "platform": PLATFORM,
        "inputs": inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(tensor).collect::<Vec<_>>(),
    })))
}

fn readiness(app: &App, name: &str, version: Option<&str>) -> Result<Json<Value>, TensorError> {
    let service = find_any(app, name, version)?;
    if !service.engine.is_alive() {
        return Err(TensorError::internal(format!("the engine of {name:?} has ended")));
    }
    Ok(Json(json!({ "name": service.name, "ready": true })))
}

/// Lengths as the protocol writes them: -1 is any.
pub fn shape(spec: &TensorSpec) -> Vec<i64> {
    let length = |dimension: &Dimension| match dimension {
        Dimension::Fixed(length) => i64::try_from(*length).unwrap_or(i64::MAX),
        Dimension::Dynamic(_) => -1,
    };
    spec.shape.as_ref().map_or_else(|| vec![-1], |shape| shape.iter().map(length).collect())
}
