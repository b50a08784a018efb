//! The Open Inference Protocol, version 2 (github.com/kserve/open-inference-protocol), over REST and gRPC, with its
//! binary tensor extension.
//!
//! Every data type of the protocol that the runtime has is here: BOOL, UINT8, INT8, INT32, INT64, FP16, FP32, FP64. A
//! model is served in one version, by its number in the store. Parameters that would change the answer and aren't known are refused by name.

mod datatype;
pub mod grpc;
mod infer;
mod metadata;
mod parameters;
mod request;
mod response;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::http::App;

/// The URLs of this protocol.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/health/live", get(metadata::live))
        .route("/v2/health/ready", get(metadata::ready))
        .route("/v2/models/{name}", get(metadata::model))
        .route("/v2/models/{name}/ready", get(metadata::model_ready))
        .route("/v2/models/{name}/infer", post(infer::infer))
        .route("/v2/models/{name}/versions/{version}", get(metadata::model_version))
        .route("/v2/models/{name}/versions/{version}/ready", get(metadata::model_version_ready))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer::infer_version))
}
