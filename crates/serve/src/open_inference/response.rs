//! An inference response over REST: JSON, and behind it the bytes of outputs that were asked for as such.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use engine::onnx::Tensor;

use super::datatype;
use super::infer::HEADER_LENGTH;
use super::request::InferRequest;
use crate::tensors::error::TensorError;
use crate::tensors::{TensorService, call, raw, write};

pub fn encode(
    service: &TensorService,
    request: &InferRequest,
    outputs: &[Tensor],
) -> Result<Response, TensorError> {
    let specs = &service.onnx.signature().outputs;
    let as_json = request.outputs.iter().filter(|output| !output.is_binary);
    write::check_size(as_json.map(|output| &outputs[output.index]))?;
    let (mut json, mut binary) = (Vec::with_capacity(512), Vec::new());
    json.extend_from_slice(b"{\"model_name\":");
    write::string(&service.name, &mut json);
    json.extend_from_slice(b",\"model_version\":");
    write::string(&service.version, &mut json);
    if let Some(id) = &request.id {
        json.extend_from_slice(b",\"id\":");
        write::string(id, &mut json);
    }
    json.extend_from_slice(b",\"outputs\":[");
    for (number, asked) in request.outputs.iter().enumerate() {
        let (spec, tensor) = (&specs[asked.index], &outputs[asked.index]);
        json.extend_from_slice(if number == 0 { b"{\"name\":" } else { b",{\"name\":" });
        write::string(&spec.name, &mut json);
        json.extend_from_slice(b",\"datatype\":");
        write::string(datatype::name(spec.element), &mut json);
        json.extend_from_slice(b",\"shape\":");
        write::lengths(&tensor.shape, &mut json);
        if asked.is_binary {
            let begin = binary.len();
            raw::encode(spec.element, &tensor.elements, &mut binary);
            let size = binary.len() - begin;
            json.extend_from_slice(format!(",\"parameters\":{{\"binary_data_size\":{size}}}}}").as_bytes());
        } else {
            json.extend_from_slice(b",\"data\":");
            write::flat(spec.element, &tensor.elements, &mut json);
            json.push(b'}');
        }
    }
    json.extend_from_slice(b"]}");
    if !request.outputs.iter().any(|output| output.is_binary) {
        return Ok(call::json(json));
    }
    let length = json.len();
    json.append(&mut binary);
    let mut response = call::json(json);
    response.headers_mut().insert(HEADER_LENGTH, length.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
