//! `ModelInfer`: tensors in typed fields or raw, answered in the form that they came in.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use engine::onnx::{Signature, Tensor};

use super::messages::*;
use super::{contents, said, unary};
use crate::http::App;
use crate::metrics::Record;
use crate::open_inference::request::output_index;
use crate::open_inference::{datatype, parameters};
use crate::server::Peer;
use crate::tensors::error::TensorError;
use crate::tensors::{TensorService, call, find, raw};

pub async fn model_infer(State(app): State<Arc<App>>, request: Request) -> Response {
    let peer = Peer::of(&request);
    let answer = move |app, asked| answer(app, peer, asked);
    let mut response = unary(app, request, answer).await;
    response.extensions_mut().insert(crate::metrics::Recorded);
    response
}

async fn answer(
    app: Arc<App>,
    peer: Option<Peer>,
    asked: ModelInferRequest,
) -> Result<ModelInferResponse, TensorError> {
    call::counted(&app, "grpc_infer", peer, async |record: &mut Record| {
        call::asked(record, &asked.model_name);
        let service = find(&app, &asked.model_name, said(&asked.model_version))?;
        let outputs = requested(&service, &asked)?;
        let (id, is_raw) = (asked.id.clone(), !asked.raw_input_contents.is_empty());
        let inputs = decode(&service, asked)?;
        let tensors = call::run(&service, inputs, record).await?;
        Ok(encode(&service, id, &outputs, &tensors, is_raw))
    })
    .await
}

/// Outputs asked for, by place in the signature; all of them where none is named.
fn requested(service: &TensorService, asked: &ModelInferRequest) -> Result<Vec<usize>, TensorError> {
    let of_outputs = asked.outputs.iter().flat_map(|output| output.parameters.keys());
    let of_inputs = asked.inputs.iter().flat_map(|input| input.parameters.keys());
    parameters::check_names(asked.parameters.keys().chain(of_inputs).chain(of_outputs).map(String::as_str))?;
    if asked.outputs.is_empty() {
        return Ok((0..service.onnx.signature().outputs.len()).collect());
    }
    asked.outputs.iter().map(|output| output_index(service, &output.name)).collect()
}

fn decode(service: &TensorService, asked: ModelInferRequest) -> Result<Vec<(usize, Tensor)>, TensorError> {
    let (given, raw_given) = (asked.inputs.len(), asked.raw_input_contents.len());
    let inputs_max = service.onnx.signature().inputs.len();
    if given > inputs_max {
        return Err(TensorError::invalid(format!("the model takes {inputs_max} inputs; received {given}")));
    }
    if raw_given != 0 && raw_given != given {
        let message =
            format!("raw_input_contents has {raw_given} entries for {given} inputs: all are raw, or none is");
        return Err(TensorError::invalid(message));
    }
    let mut raw_contents = asked.raw_input_contents.into_iter();
    let inputs = asked.inputs.into_iter().map(|input| {
        let index = service.onnx.input_index(&input.name)?;
        let spec = &service.onnx.signature().inputs[index];
        datatype::check(&input.name, spec.element, &input.datatype)?;
        let lengths = input.shape.iter().map(|length| usize::try_from(*length).ok());
        let wrong = |error: String| TensorError::invalid(format!("the input {:?}: {error}", input.name));
        let shape: Option<Vec<usize>> = lengths.collect();
        let shape =
            shape.ok_or_else(|| wrong(format!("its shape is {:?}; lengths are from 0", input.shape)))?;
        let elements = match (raw_contents.next(), input.contents) {
            (Some(_), Some(_)) => return Err(wrong("it has raw and typed contents: send one".to_owned())),
            (Some(bytes), None) => raw::decode(spec.element, &bytes).map_err(wrong)?,
            (None, Some(contents)) => contents::decode(spec.element, contents).map_err(wrong)?,
            (None, None) => return Err(wrong("it has no contents".to_owned())),
        };
        Ok((index, Tensor { shape, elements }))
    });
    inputs.collect()
}

fn encode(
    service: &TensorService,
    id: String,
    outputs: &[usize],
    tensors: &[Tensor],
    is_raw: bool,
) -> ModelInferResponse {
    let Signature { outputs: specs, .. } = service.onnx.signature();
    // FP16 has no typed field, and a response has one form.
    let typed: Option<Vec<_>> = if is_raw {
        None
    } else {
        outputs
            .iter()
            .map(|index| contents::encode(specs[*index].element, &tensors[*index].elements))
            .collect()
    };
    let raw_output_contents = if typed.is_some() {
        Vec::new()
    } else {
        let bytes = |index: &usize| {
            let mut bytes = Vec::new();
            raw::encode(specs[*index].element, &tensors[*index].elements, &mut bytes);
            bytes
        };
        outputs.iter().map(bytes).collect()
    };
    let mut typed = typed.into_iter().flatten();
    let outputs = outputs.iter().map(|index| InferOutputTensor {
        name: specs[*index].name.clone(),
        datatype: datatype::name(specs[*index].element).to_owned(),
        shape: tensors[*index].shape.iter().map(|length| *length as i64).collect(),
        contents: typed.next(),
    });
    ModelInferResponse {
        model_name: service.name.clone(),
        model_version: service.version.clone(),
        id,
        outputs: outputs.collect(),
        raw_output_contents,
    }
}
