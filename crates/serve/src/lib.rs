//! The network side: protocols that applications already speak.
//!
//! A [`Server`] is bound first and may answer `/health` while models load; [`Services::loaded`] adds each model
//! as it becomes ready. A request goes through [`http`] (limits, keys, origins), is decoded by its protocol's own
//! module into the engine's request, and its answer is streamed or collected on one path.

mod access;
mod body;
mod error;
mod files;
mod gate;
mod http;
mod jobs;
mod json_depth;
mod listing;
mod metrics;
mod models;
mod open_inference;
mod openai;
mod operate;
mod origins;
mod preparing;
mod server;
mod services;
mod settings;
mod shorten;
mod signals;
mod strict_json;
mod tensorflow;
mod tensors;
mod unique;

pub use error::ServeError;
pub use jobs::names_uploads_only;
pub use server::Server;
pub use services::{Engine, Services};
pub use settings::{
    CheckTraining, JobSettings, PlanCompression, PlanError, ServeSettings, is_key, is_origin,
};
pub use signals::{Shutdown, shutdown_signals};
