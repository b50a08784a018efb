//! What the protocols for tensors share: reading JSON straight into typed elements, writing them, calling the engine.
//!
//! No number of a tensor is ever a `serde_json::Value`: a request of a hundred numbers is read in microseconds.

pub mod call;
mod decimal;
pub mod error;
pub mod json;
pub mod nested;
#[cfg(test)]
mod protocol_tests;
pub mod raw;
pub mod write;

use crate::openai;
use crate::services::Service;
use engine::onnx::Onnx;
use error::TensorError;

/// A model that takes tensors.
#[derive(Clone)]
pub struct TensorService {
    pub name: String,
    /// As protocols write it.
    pub version: String,
    pub onnx: Onnx,
}

/// The model `name`, in `version` where the caller says one.
pub fn find(app: &crate::http::App, name: &str, version: Option<&str>) -> Result<TensorService, TensorError> {
    let service = find_any(app, name, version)?;
    match service.engine {
        crate::services::Engine::Onnx(onnx) => {
            Ok(TensorService { name: service.name, version: service.version.to_string(), onnx })
        }
        crate::services::Engine::Llm(_) => Err(TensorError::generates_text(name)),
    }
}

/// The same for a model of any kind.
pub fn find_any(app: &crate::http::App, name: &str, version: Option<&str>) -> Result<Service, TensorError> {
    let service = openai::find_any(app, name)?;
    match version.filter(|version| *version != service.version.to_string()) {
        Some(version) => Err(TensorError::no_such_version(name, version, service.version)),
        None => Ok(service),
    }
}
