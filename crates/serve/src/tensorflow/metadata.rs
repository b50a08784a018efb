//! A model's status and signature, as TensorFlow Serving writes them (`GetModelStatus`, `GetModelMetadata`).

use axum::response::Json;
use engine::onnx::{Dimension, ElementType, TensorSpec};
use serde_json::{Map, Value, json};

use super::{SIGNATURE, Target};
use crate::http::App;
use crate::tensors::error::TensorError;
use crate::tensors::find;

/// Of a model that answers with this version.
pub fn status(version: u64) -> Value {
    json!([{
        "version": version.to_string(),
        "state": "AVAILABLE",
        "status": { "error_code": "OK", "error_message": "" },
    }])
}

pub fn metadata(app: &App, target: &Target) -> Result<Json<Value>, TensorError> {
    let service = find(app, &target.name, target.version.as_deref())?;
    let signature = service.onnx.signature();
    let definition = json!({
        "inputs": tensors(&signature.inputs),
        "outputs": tensors(&signature.outputs),
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    });
    Ok(Json(json!({
        "model_spec": { "name": service.name, "signature_name": "", "version": service.version },
        "metadata": { "signature_def": { "signature_def": { SIGNATURE: definition } } },
    })))
}

fn tensors(specs: &[TensorSpec]) -> Value {
    let tensor = |spec: &TensorSpec| {
        let dim = |dimension: &Dimension| match dimension {
            Dimension::Fixed(length) => json!({ "size": length.to_string(), "name": "" }),
            Dimension::Dynamic(name) => json!({ "size": "-1", "name": name.clone().unwrap_or_default() }),
        };
        let dims: Vec<Value> = spec.shape.iter().flatten().map(dim).collect();
        let shape = json!({ "dim": dims, "unknown_rank": spec.shape.is_none() });
        (spec.name.clone(), json!({ "dtype": dtype(spec.element), "tensor_shape": shape, "name": spec.name }))
    };
    Value::Object(specs.iter().map(tensor).collect::<Map<String, Value>>())
}

fn dtype(element: ElementType) -> &'static str {
    match element {
        ElementType::Bool => "DT_BOOL",
        ElementType::Uint8 => "DT_UINT8",
        ElementType::Int8 => "DT_INT8",
        ElementType::Int32 => "DT_INT32",
        ElementType::Int64 => "DT_INT64",
        ElementType::Float16 => "DT_HALF",
        ElementType::Float => "DT_FLOAT",
        ElementType::Double => "DT_DOUBLE",
    }
}
