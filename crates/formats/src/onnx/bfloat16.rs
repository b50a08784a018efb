//! Weights in bfloat16 for a runtime that has none: they become floats before it sees them, bit for bit the same numbers.
//!
//! What computes in bfloat16 is left alone, and the runtime says that it can't.

use prost::bytes::Bytes;

use super::wire::{Message, Wire};
use crate::error::FormatError;

// `TensorProto.DataType`
pub(super) const BFLOAT16: i32 = 16;
const FLOAT: u64 = 1;

// Numbers of fields (onnx.ai/onnx/api/classes.html, `onnx.proto3`).
const MODEL_GRAPH: u32 = 7;
const GRAPH_WEIGHT: u32 = 5;
const TENSOR_TYPE: u32 = 2;
const TENSOR_RAW: u32 = 9;

/// The file `bytes` with the graph's bfloat16 weights as floats. A weight whose values lie beside the file stays as it is.
///
/// # Errors
/// When it is no ONNX.
pub fn widened(bytes: Bytes) -> Result<Vec<u8>, FormatError> {
    let mut model = Message::parse(bytes)?;
    for (number, value) in &mut model.0 {
        if let (MODEL_GRAPH, Wire::Bytes(graph)) = (*number, value) {
            *graph = widened_graph(graph.clone())?.into();
        }
    }
    Ok(model.encode())
}

fn widened_graph(bytes: Bytes) -> Result<Vec<u8>, FormatError> {
    let mut graph = Message::parse(bytes)?;
    for (number, value) in &mut graph.0 {
        if let (GRAPH_WEIGHT, Wire::Bytes(tensor)) = (*number, value) {
            let mut message = Message::parse(tensor.clone())?;
            if message.int(TENSOR_TYPE) == Some(i64::from(BFLOAT16)) && message.bytes(TENSOR_RAW).is_some() {
                message.0.iter_mut().for_each(widen);
                *tensor = message.encode().into();
            }
        }
    }
    Ok(graph.encode())
}

/// A float's upper half is all that bfloat16 has of it.
fn widen((number, value): &mut (u32, Wire)) {
    match (*number, value) {
        (TENSOR_TYPE, Wire::Varint(element)) => *element = FLOAT,
        (TENSOR_RAW, Wire::Bytes(raw)) => {
            let floats: Vec<u8> =
                raw.as_chunks::<2>().0.iter().flat_map(|&[low, high]| [0, 0, low, high]).collect();
            *raw = floats.into();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(element: i64, raw: &[u8]) -> Vec<u8> {
        let mut tensor = Message::default();
        tensor.push_int(1, (raw.len() / 2) as i64);
        tensor.push_int(TENSOR_TYPE, element);
        tensor.push_string(8, "w");
        tensor.push_bytes(TENSOR_RAW, raw.to_vec());
        let mut graph = Message::default();
        graph.push_string(2, "main");
        graph.push_bytes(GRAPH_WEIGHT, tensor.encode());
        let mut model = Message::default();
        model.push_int(1, 8);
        model.push_bytes(MODEL_GRAPH, graph.encode());
        model.encode()
    }

    #[test]
    fn bfloat16_becomes_float_and_all_else_stays() {
        // 1, -2.5, infinity and a number that is none.
        let halves = [0x80, 0x3f, 0x20, 0xc0, 0x80, 0x7f, 0xc1, 0x7f];
        let floats = [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, 0, 0, 0x80, 0x7f, 0, 0, 0xc1, 0x7f];
        let file = widened(model(16, &halves).into()).unwrap();
        let graph = Message::parse(Message::parse(file.into()).unwrap().bytes(MODEL_GRAPH).unwrap().clone());
        let tensor = Message::parse(graph.unwrap().bytes(GRAPH_WEIGHT).unwrap().clone()).unwrap();
        assert_eq!(
            (tensor.int(1), tensor.int(TENSOR_TYPE), tensor.string(8)),
            (Some(4), Some(1), "w".to_owned())
        );
        assert_eq!(tensor.bytes(TENSOR_RAW).unwrap()[..], floats);
        let half = model(10, &halves);
        assert_eq!(widened(half.clone().into()).unwrap(), half);
    }
}
