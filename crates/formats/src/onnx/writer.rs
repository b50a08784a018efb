//! Writes ONNX: nodes are added in the order in which they run, and what nothing uses is left out at the end.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::messages::{
    self, Attribute, Graph, Model, Node, Opset, Shape, TensorData, TensorType, Type, ValueInfo,
};
use super::{Dimension, FILE_BYTES_MAX, TensorSpec, limit};
use crate::error::FormatError;

/// What ONNX 1.12 wrote, of August 2022: version of the format and of the operators.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
// `TensorProto.DataType`
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// An argument of an operator.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
}

/// A graph of opset 17 under construction.
#[derive(Debug, Default)]
pub struct GraphWriter {
    graph: Graph,
    names: HashSet<String>,
    counts: HashMap<String, usize>,
    ints: HashMap<Vec<i64>, String>,
    /// Outputs that carry a value under its own name.
    renamed: HashMap<String, String>,
}

impl GraphWriter {
    pub fn new(name: &str) -> GraphWriter {
        GraphWriter { graph: Graph { name: name.to_owned(), ..Graph::default() }, ..GraphWriter::default() }
    }

    /// A name like `wanted` that nothing has yet.
    fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while !self.names.insert(name.clone()) {
            let count = self.counts.entry(wanted.to_owned()).or_default();
            *count += 1;
            name = format!("{wanted}_{count}");
        }
        name
    }

    /// Keeps a name, such as one that an output is to have, from being given to anything else.
    pub fn reserve(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }

    /// An input of the graph. Its name should be reserved.
    pub fn input(&mut self, spec: &TensorSpec) {
        self.reserve(&spec.name);
        self.graph.input.push(value_info(spec));
    }

    /// An output of the graph, with the value that is called `value` so far.
    pub fn output(&mut self, spec: &TensorSpec, value: &str) {
        let made = self.graph.node.iter().any(|node| node.output[0] == value);
        if made && !self.renamed.contains_key(value) {
            self.renamed.insert(value.to_owned(), spec.name.clone());
        } else {
            self.push("Identity", &[value], &[], spec.name.clone());
        }
        self.graph.output.push(value_info(spec));
    }

    /// An operator with one result; its name. An empty input is one that is left out.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, AttributeValue)]) -> String {
        let name = self.unique(operator);
        self.push(operator, inputs, attributes, name.clone());
        name
    }

    fn push(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, AttributeValue)], name: String) {
        self.graph.node.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            name,
            op_type: operator.to_owned(),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            domain: String::new(),
        });
    }

    /// A constant of `shape`; its name, which is like `name`.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, FLOAT, bytes)
    }

    /// A vector of numbers, such as a shape; its name.
    pub fn ints(&mut self, values: &[i64]) -> String {
        if let Some(name) = self.ints.get(values) {
            return name.clone();
        }
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = self.constant("sizes", &[values.len()], INT64, bytes);
        self.ints.insert(values.to_vec(), name.clone());
        name
    }

    fn constant(&mut self, name: &str, shape: &[usize], data_type: i32, bytes: Vec<u8>) -> String {
        let name = self.unique(name);
        self.graph.initializer.push(TensorData {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data: bytes.into(),
            ..TensorData::default()
        });
        name
    }

    /// The file.
    ///
    /// # Errors
    /// When it is larger than a message may be (2 GiB).
    pub fn finish(mut self, producer: &str) -> Result<Vec<u8>, FormatError> {
        let renamed = |name: &mut String| {
            if let Some(new) = self.renamed.get(name) {
                name.clone_from(new);
            }
        };
        for node in &mut self.graph.node {
            node.input.iter_mut().chain(&mut node.output).for_each(renamed);
        }
        let graph = &mut self.graph;
        let mut used: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
        let mut kept = Vec::with_capacity(graph.node.len());
        for node in std::mem::take(&mut graph.node).into_iter().rev() {
            if used.contains(&node.output[0]) {
                used.extend(node.input.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        graph.node = kept;
        graph.initializer.retain(|tensor| used.contains(&tensor.name));
        let model = Model {
            ir_version: IR_VERSION,
            producer_name: producer.to_owned(),
            graph: Some(self.graph),
            opset_import: vec![Opset { domain: String::new(), version: OPSET }],
            metadata_props: vec![],
        };
        limit("the file, in bytes", model.encoded_len() as u64, FILE_BYTES_MAX - 1)?;
        Ok(model.encode_to_vec())
    }
}

fn attribute(name: &str, value: &AttributeValue) -> Attribute {
    // `AttributeProto.AttributeType`
    let (f, i, ints, r#type) = match value {
        AttributeValue::Float(value) => (*value, 0, vec![], 1),
        AttributeValue::Int(value) => (0.0, *value, vec![], 2),
        AttributeValue::Ints(values) => (0.0, 0, values.clone(), 7),
    };
    Attribute { name: name.to_owned(), f, i, ints, r#type, ..Attribute::default() }
}

fn value_info(spec: &TensorSpec) -> ValueInfo {
    let dimension = |dimension: &Dimension| match dimension {
        Dimension::Fixed(size) => messages::Dimension { dim_value: Some(*size as i64), dim_param: None },
        Dimension::Dynamic(name) => messages::Dimension { dim_value: None, dim_param: name.clone() },
    };
    let shape = spec.shape.as_ref().map(|shape| Shape { dim: shape.iter().map(dimension).collect() });
    let tensor_type = Some(TensorType { elem_type: spec.element.number(), shape });
    ValueInfo { name: spec.name.clone(), r#type: Some(Type { tensor_type, ..Type::default() }) }
}
