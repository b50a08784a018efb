//! What a runtime gets wrong, put in terms that it gets right before it sees the file:
//! - weights in bfloat16, which it doesn't have, become floats, bit for bit the same numbers; what computes in bfloat16 is
//!   left alone, and the runtime says that it can't;
//! - `Sign`, which is 1 of 0 there, is asked for the others only: `Where(x = x - x, x, Sign(x))`, for x of any type.

use prost::bytes::Bytes;

use super::is_own;
use super::messages::Node;
use super::wire::{Message, Wire};
use crate::error::FormatError;

// `TensorProto.DataType`
pub(super) const BFLOAT16: i32 = 16;
const FLOAT: u64 = 1;

/// As deep as the reader lets messages nest.
const GRAPHS_DEEP_MAX: usize = 100;

// Numbers of fields (onnx.ai/onnx/api/classes.html, `onnx.proto3`).
const MODEL_GRAPH: u32 = 7;
const GRAPH_NODE: u32 = 1;
const GRAPH_WEIGHT: u32 = 5;
const NODE_INPUT: u32 = 1;
const NODE_OUTPUT: u32 = 2;
const NODE_NAME: u32 = 3;
const NODE_OPERATOR: u32 = 4;
const NODE_ATTRIBUTE: u32 = 5;
const NODE_DOMAIN: u32 = 7;
const ATTRIBUTE_GRAPH: u32 = 6;
const ATTRIBUTE_GRAPHS: u32 = 11;
const TENSOR_TYPE: u32 = 2;
const TENSOR_RAW: u32 = 9;

/// Whether a node has to be mended.
pub(super) fn is_mended(node: &Node) -> bool {
    node.op_type == SIGN && is_own(&node.domain)
}

pub(super) const SIGN: &str = "Sign";

/// The file `bytes` mended. A weight whose values lie beside the file stays as it is.
///
/// # Errors
/// When it is no ONNX.
pub fn mended(bytes: Bytes) -> Result<Vec<u8>, FormatError> {
    let mut model = Message::parse(bytes)?;
    for (number, value) in &mut model.0 {
        if let (MODEL_GRAPH, Wire::Bytes(graph)) = (*number, value) {
            *graph = mended_graph(graph.clone(), 0)?.into();
        }
    }
    Ok(model.encode())
}

fn mended_graph(bytes: Bytes, depth: usize) -> Result<Vec<u8>, FormatError> {
    if depth > GRAPHS_DEEP_MAX {
        let problem = format!("graphs nest more than {GRAPHS_DEEP_MAX} deep");
        return Err(FormatError::Malformed { format: super::FORMAT, problem });
    }
    let graph = Message::parse(bytes)?;
    let mut fields = Vec::with_capacity(graph.0.len());
    for (number, value) in graph.0 {
        match (number, value) {
            (GRAPH_WEIGHT, Wire::Bytes(tensor)) => {
                let mut message = Message::parse(tensor.clone())?;
                let is_bfloat16 = message.int(TENSOR_TYPE) == Some(i64::from(BFLOAT16));
                if is_bfloat16 && message.bytes(TENSOR_RAW).is_some() {
                    message.0.iter_mut().for_each(widen);
                    fields.push((number, Wire::Bytes(message.encode().into())));
                } else {
                    fields.push((number, Wire::Bytes(tensor)));
                }
            }
            (GRAPH_NODE, Wire::Bytes(node)) => {
                let nodes = mended_node(node, depth)?;
                fields.extend(nodes.into_iter().map(|node| (GRAPH_NODE, Wire::Bytes(node))));
            }
            field => fields.push(field),
        }
    }
    Ok(Message(fields).encode())
}

/// The nodes that stand for one.
fn mended_node(bytes: Bytes, depth: usize) -> Result<Vec<Bytes>, FormatError> {
    let mut node = Message::parse(bytes.clone())?;
    if node.string(NODE_OPERATOR) == SIGN && is_own(&node.string(NODE_DOMAIN)) {
        let (inputs, outputs) = (node.strings(NODE_INPUT), node.strings(NODE_OUTPUT));
        if let ([x], [y]) = (&inputs[..], &outputs[..]) {
            return Ok(sign(&node.string(NODE_NAME), x, y));
        }
    }
    let mut has_graphs = false;
    for (number, value) in &mut node.0 {
        let (NODE_ATTRIBUTE, Wire::Bytes(attribute)) = (*number, value) else { continue };
        let mut message = Message::parse(attribute.clone())?;
        for (number, value) in &mut message.0 {
            if let (ATTRIBUTE_GRAPH | ATTRIBUTE_GRAPHS, Wire::Bytes(graph)) = (*number, value) {
                *graph = mended_graph(graph.clone(), depth + 1)?.into();
                has_graphs = true;
            }
        }
        if has_graphs {
            *attribute = message.encode().into();
        }
    }
    Ok(vec![if has_graphs { node.encode().into() } else { bytes }])
}

/// The sign of `x` as `y`. `x - x` is 0 of each number, and of none that is not.
fn sign(name: &str, x: &str, y: &str) -> Vec<Bytes> {
    let part = |what: &str| format!("{y}/tureen.sign.{what}");
    let node = |operator: &str, inputs: &[&str], output: &str| {
        let mut node = Message::default();
        inputs.iter().for_each(|input| node.push_string(NODE_INPUT, input));
        node.push_string(NODE_OUTPUT, output);
        node.push_string(NODE_NAME, &format!("{name}/{operator}"));
        node.push_string(NODE_OPERATOR, operator);
        Bytes::from(node.encode())
    };
    let (zero, is_zero, sign) = (part("zero"), part("is_zero"), part("of_others"));
    vec![
        node("Sub", &[x, x], &zero),
        node("Equal", &[x, &zero], &is_zero),
        node(SIGN, &[x], &sign),
        node("Where", &[&is_zero, x, &sign], y),
    ]
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
        let file = mended(model(16, &halves).into()).unwrap();
        let graph = Message::parse(Message::parse(file.into()).unwrap().bytes(MODEL_GRAPH).unwrap().clone());
        let tensor = Message::parse(graph.unwrap().bytes(GRAPH_WEIGHT).unwrap().clone()).unwrap();
        assert_eq!(
            (tensor.int(1), tensor.int(TENSOR_TYPE), tensor.string(8)),
            (Some(4), Some(1), "w".to_owned())
        );
        assert_eq!(tensor.bytes(TENSOR_RAW).unwrap()[..], floats);
        let half = model(10, &halves);
        assert_eq!(mended(half.clone().into()).unwrap(), half);
    }
}
