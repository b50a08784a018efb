//! An ONNX file that can be changed: nodes and weights by name, and everything else kept as it is.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use formats::onnx::wire::{Message, Wire};
use half::{bf16, f16};
use prost::bytes::Bytes;

use super::error::{NetworkError, Result};

// Numbers of fields (onnx.ai/onnx/api/classes.html, `onnx.proto3`).
mod field {
    pub const MODEL_GRAPH: u32 = 7;
    pub const MODEL_OPSET: u32 = 8;
    pub const GRAPH_NODE: u32 = 1;
    pub const GRAPH_WEIGHT: u32 = 5;
    pub const GRAPH_INPUT: u32 = 11;
    pub const GRAPH_OUTPUT: u32 = 12;
    pub const NODE_INPUT: u32 = 1;
    pub const NODE_OUTPUT: u32 = 2;
    pub const NODE_OPERATOR: u32 = 4;
    pub const NODE_ATTRIBUTE: u32 = 5;
    pub const NODE_DOMAIN: u32 = 7;
    pub const TENSOR_DIMS: u32 = 1;
    pub const TENSOR_TYPE: u32 = 2;
    pub const TENSOR_FLOATS: u32 = 4;
    pub const TENSOR_NAME: u32 = 8;
    pub const TENSOR_RAW: u32 = 9;
    pub const TENSOR_EXTERNAL: u32 = 13;
    pub const TENSOR_LOCATION: u32 = 14;
}

// `TensorProto.DataType`
pub(super) const FLOAT: i64 = 1;
pub(super) const UINT8: i64 = 2;
pub(super) const INT8: i64 = 3;
pub(super) const INT32: i64 = 6;
pub(super) const INT64: i64 = 7;
pub(super) const FLOAT16: i64 = 10;
pub(super) const BFLOAT16: i64 = 16;
/// Bytes of an element of every type whose elements are whole bytes and no texts.
const ELEMENT_BYTES: [(i64, usize); 13] = [
    (FLOAT, 4),
    (UINT8, 1),
    (INT8, 1),
    (4, 2), // UINT16
    (5, 2), // INT16
    (INT32, 4),
    (INT64, 8),
    (9, 1), // BOOL
    (FLOAT16, 2),
    (11, 8), // DOUBLE
    (12, 4), // UINT32
    (13, 8), // UINT64
    (BFLOAT16, 2),
];

/// Of one number, whatever its type: a complex one has two floats of 8.
const ELEMENT_BYTES_MAX: u64 = 16;

/// An operator.
#[derive(Clone, Debug)]
pub struct Node {
    pub operator: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// Name, attributes, and whatever else.
    rest: Message,
}

impl Node {
    /// An operator of ONNX itself. It has no name, which takes room and is no more than its result's.
    pub(super) fn new(operator: &str, inputs: &[&str], output: &str) -> Node {
        Node {
            operator: operator.to_owned(),
            domain: String::new(),
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            outputs: vec![output.to_owned()],
            rest: Message::default(),
        }
    }

    /// With a whole number as attribute.
    pub(super) fn with_int(mut self, name: &str, value: i64) -> Node {
        let mut attribute = Message::default();
        attribute.push_string(1, name);
        attribute.push_int(3, value);
        attribute.push_int(20, 2);
        self.rest.push_bytes(field::NODE_ATTRIBUTE, attribute.encode());
        self
    }

    fn parse(bytes: Bytes) -> Result<Node> {
        let mut rest = Message::parse(bytes)?;
        let node = Node {
            operator: rest.string(field::NODE_OPERATOR),
            domain: rest.string(field::NODE_DOMAIN),
            inputs: rest.strings(field::NODE_INPUT),
            outputs: rest.strings(field::NODE_OUTPUT),
            rest: Message::default(),
        };
        for number in [field::NODE_OPERATOR, field::NODE_DOMAIN, field::NODE_INPUT, field::NODE_OUTPUT] {
            rest.remove(number);
        }
        if node.outputs.is_empty() {
            let problem = "it gives nothing: every operator of ONNX has an output";
            return Err(NetworkError::model(format!("operator {}", node.operator), problem));
        }
        Ok(Node { rest, ..node })
    }

    fn message(&self) -> Message {
        let mut message = Message::default();
        self.inputs.iter().for_each(|input| message.push_string(field::NODE_INPUT, input));
        self.outputs.iter().for_each(|output| message.push_string(field::NODE_OUTPUT, output));
        message.push_string(field::NODE_OPERATOR, &self.operator);
        if !self.domain.is_empty() {
            message.push_string(field::NODE_DOMAIN, &self.domain);
        }
        message.0.extend(self.rest.0.iter().cloned());
        message
    }

    fn attribute(&self, name: &str) -> Option<Message> {
        let attributes =
            self.rest.all(field::NODE_ATTRIBUTE).filter_map(|bytes| Message::parse(bytes.clone()).ok());
        attributes.into_iter().find(|attribute| attribute.string(1) == name)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.int(3)
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name)?.floats(2).pop()
    }

    fn has_graphs(&self) -> bool {
        self.rest.all(field::NODE_ATTRIBUTE).any(|bytes| {
            let attribute = Message::parse(bytes.clone());
            attribute.is_ok_and(|attribute| attribute.bytes(6).is_some() || attribute.bytes(11).is_some())
        })
    }
}

/// A tensor that the file holds.
#[derive(Clone, Debug)]
pub struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    /// `TensorProto.DataType`.
    pub(super) element: i64,
    message: Message,
}

impl Weight {
    /// A tensor with these bytes, little-endian.
    pub(super) fn raw(name: &str, shape: &[usize], element: i64, bytes: Vec<u8>) -> Weight {
        let mut message = Message::default();
        shape.iter().for_each(|&size| message.push_int(field::TENSOR_DIMS, size as i64));
        message.push_int(field::TENSOR_TYPE, element);
        message.push_string(field::TENSOR_NAME, name);
        message.push_bytes(field::TENSOR_RAW, bytes);
        Weight { name: name.to_owned(), shape: shape.to_vec(), element, message }
    }

    pub(super) fn of_floats(name: &str, shape: &[usize], values: &[f32]) -> Weight {
        Weight::raw(name, shape, FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn parse(bytes: Bytes) -> Result<Weight> {
        let message = Message::parse(bytes)?;
        let name = message.string(field::TENSOR_NAME);
        let shape: Option<Vec<usize>> =
            message.ints(field::TENSOR_DIMS).into_iter().map(|size| usize::try_from(size).ok()).collect();
        let shape =
            shape.ok_or_else(|| NetworkError::model(format!("weights {name:?}"), "a length is negative"))?;
        let element = message.int(field::TENSOR_TYPE).unwrap_or_default();
        Ok(Weight { name, shape, element, message })
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |product: usize, &size| product.saturating_mul(size))
    }

    /// Bytes of the values in the file.
    pub fn bytes(&self) -> usize {
        let raw = self.message.bytes(field::TENSOR_RAW).map_or(0, Bytes::len);
        if raw > 0 { raw } else { self.elements().saturating_mul(if self.element == FLOAT { 4 } else { 8 }) }
    }

    /// Its values, where it is of floats.
    pub(super) fn floats(&self) -> Option<Vec<f32>> {
        let raw = self.message.bytes(field::TENSOR_RAW);
        let values: Vec<f32> = match (self.element, raw) {
            (FLOAT, Some(raw)) => {
                raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            (FLOAT, None) => self.message.floats(field::TENSOR_FLOATS),
            (FLOAT16, Some(raw)) => {
                raw.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
            }
            (BFLOAT16, Some(raw)) => {
                raw.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
            }
            _ => return None,
        };
        Some(values).filter(|values| values.len() == self.elements())
    }

    /// Whether there are as many bytes as the shape says.
    fn check_length(&self) -> Result<()> {
        let size = ELEMENT_BYTES.iter().find(|(element, _)| *element == self.element);
        // Where there are none, values stand in other fields.
        let raw = self.message.bytes(field::TENSOR_RAW).filter(|raw| !raw.is_empty());
        let (Some((_, size)), Some(raw)) = (size, raw) else { return Ok(()) };
        let expected = self.elements().saturating_mul(*size);
        if raw.len() == expected {
            return Ok(());
        }
        let problem = format!("it has {} bytes, and its shape {:?} needs {expected}", raw.len(), self.shape);
        Err(NetworkError::model(format!("weights {:?}", self.name), problem))
    }

    /// Brings values that are in a file beside into this one.
    fn bring_in(&mut self, folder: &Path) -> Result<()> {
        if self.message.int(field::TENSOR_LOCATION) != Some(1) {
            return Ok(());
        }
        let wrong = |problem: &str| NetworkError::model(format!("weights {:?}", self.name), problem);
        let mut entries = HashMap::new();
        for entry in self.message.all(field::TENSOR_EXTERNAL) {
            let entry = Message::parse(entry.clone())?;
            entries.insert(entry.string(1), entry.string(2));
        }
        let number = |key: &str| entries.get(key).map(|text| text.parse::<u64>()).transpose();
        let offset = number("offset").map_err(|_| wrong("its offset is no number"))?.unwrap_or(0);
        let length = number("length").map_err(|_| wrong("its length is no number"))?;
        let name = entries.get("location").ok_or_else(|| wrong("it doesn't say in which file it is"))?;
        let path = folder.join(name);
        let metadata = std::fs::metadata(&path).map_err(NetworkError::io(&path, "read"))?;
        if !metadata.is_file() {
            return Err(wrong(&format!("{} is no file", path.display())));
        }
        let there = metadata.len().checked_sub(offset).ok_or_else(|| wrong("it lies beyond its file"))?;
        let length = length.unwrap_or(there);
        if length > there {
            return Err(wrong("it lies beyond its file"));
        }
        if length > (self.elements() as u64).saturating_mul(ELEMENT_BYTES_MAX) {
            return Err(wrong("its file has more bytes than its shape has room for"));
        }
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut part = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
            file.read_exact(&mut part).map(|()| part)
        };
        let part = read().map_err(NetworkError::io(&path, "read"))?;
        *self = Weight::raw(&self.name, &self.shape, self.element, part);
        Ok(())
    }
}

/// Names that are taken.
pub(super) struct Names(HashSet<String>);

impl Names {
    /// A name like `wanted` that nothing has yet.
    pub fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.0.insert(name.clone()) {
            name = format!("{wanted}_{count}");
            count += 1;
        }
        name
    }
}

/// A model.
#[derive(Clone, Debug)]
pub struct Document {
    model: Message,
    /// All of the graph but nodes and weights.
    graph: Message,
    pub nodes: Vec<Node>,
    pub weights: Vec<Weight>,
    /// Version of ONNX's own operators.
    pub opset: i64,
}

impl Document {
    /// Reads the file at `path`, with weights that lie beside it.
    ///
    /// # Errors
    /// When it isn't ONNX as [`formats::onnx::read`] takes it.
    pub fn read(path: &Path) -> Result<Document> {
        // Checks lengths, depths and names of files.
        formats::onnx::read(path)?;
        let bytes = std::fs::read(path).map_err(NetworkError::io(path, "read"))?;
        Document::parse(bytes.into(), path.parent().unwrap_or(Path::new(".")))
    }

    /// Reads a file in memory that has all of its weights.
    ///
    /// # Errors
    /// As [`Document::read`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Document> {
        formats::onnx::parse(&bytes[..])?;
        Document::parse(bytes.into(), Path::new("."))
    }

    fn parse(bytes: Bytes, folder: &Path) -> Result<Document> {
        let mut model = Message::parse(bytes)?;
        let graph = model.bytes(field::MODEL_GRAPH).cloned().unwrap_or_default();
        let mut graph = Message::parse(graph)?;
        model.remove(field::MODEL_GRAPH);
        let mut opset = 0;
        for bytes in model.all(field::MODEL_OPSET) {
            let entry = Message::parse(bytes.clone())?;
            if matches!(entry.string(1).as_str(), "" | "ai.onnx") {
                opset = entry.int(2).unwrap_or(0);
            }
        }
        let mut weights = graph
            .all(field::GRAPH_WEIGHT)
            .map(|bytes| Weight::parse(bytes.clone()))
            .collect::<Result<Vec<_>>>()?;
        let mut nodes = vec![];
        for bytes in graph.all(field::GRAPH_NODE) {
            let node = Node::parse(bytes.clone())?;
            match constant(&node)? {
                Some(weight) => weights.push(weight),
                None => nodes.push(node),
            }
        }
        weights.iter_mut().try_for_each(|weight| {
            weight.bring_in(folder)?;
            weight.check_length()
        })?;
        graph.remove(field::GRAPH_WEIGHT);
        graph.remove(field::GRAPH_NODE);
        // Before version 4 of the format weights stood among the inputs, which let a caller replace them.
        let names: HashSet<&[u8]> = weights.iter().map(|weight| weight.name.as_bytes()).collect();
        let is_weight = |bytes: &Bytes| {
            Message::parse(bytes.clone())
                .is_ok_and(|input| input.bytes(1).is_some_and(|name| names.contains(&name[..])))
        };
        graph.0.retain(|(number, value)| match value {
            Wire::Bytes(bytes) if *number == field::GRAPH_INPUT => !is_weight(bytes),
            _ => true,
        });
        Ok(Document { model, graph, nodes, weights, opset })
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut graph = Message::default();
        self.nodes.iter().for_each(|node| graph.push_bytes(field::GRAPH_NODE, node.message().encode()));
        graph.0.extend(self.graph.0.iter().cloned());
        self.weights.iter().for_each(|weight| graph.push_bytes(field::GRAPH_WEIGHT, weight.message.encode()));
        let mut model = self.model.clone();
        model.push_bytes(field::MODEL_GRAPH, graph.encode());
        model.encode()
    }

    pub fn weight(&self, name: &str) -> Option<&Weight> {
        self.weights.iter().find(|weight| weight.name == name)
    }

    /// Names of what the model gives.
    pub fn outputs(&self) -> Vec<String> {
        let outputs = self.graph.all(field::GRAPH_OUTPUT);
        outputs.filter_map(|bytes| Some(Message::parse(bytes.clone()).ok()?.string(1))).collect()
    }

    /// The names that there are.
    pub(super) fn names(&self) -> Names {
        let mut names: HashSet<String> = self.weights.iter().map(|weight| weight.name.clone()).collect();
        for node in &self.nodes {
            names.extend(node.inputs.iter().chain(&node.outputs).cloned());
        }
        Names(names)
    }

    /// The same model, which gives these values of float tensors too, in this order after its own.
    pub(super) fn watched(&self, names: &[String]) -> Document {
        let mut watched = self.clone();
        for name in names {
            // TypeProto.Tensor { elem_type }, TypeProto { tensor_type }, ValueInfoProto { name, type }
            let (mut tensor, mut kind, mut value) =
                (Message::default(), Message::default(), Message::default());
            tensor.push_int(1, FLOAT);
            kind.push_bytes(1, tensor.encode());
            value.push_string(1, name);
            value.push_bytes(2, kind.encode());
            watched.graph.push_bytes(field::GRAPH_OUTPUT, value.encode());
        }
        watched
    }

    /// Takes out what no output needs.
    pub(super) fn swept(&mut self) {
        let mut used: HashSet<String> = self.outputs().into_iter().collect();
        // What a graph inside a node takes from outside isn't among its inputs, so all before it is kept.
        let mut is_all_kept = false;
        let mut kept = vec![];
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            is_all_kept |= node.has_graphs();
            if is_all_kept || node.outputs.iter().any(|output| used.contains(output)) {
                used.extend(node.inputs.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.weights.retain(|weight| is_all_kept || used.contains(&weight.name));
    }
}

/// The tensor of a `Constant`.
fn constant(node: &Node) -> Result<Option<Weight>> {
    if node.operator != "Constant" || !node.domain.is_empty() {
        return Ok(None);
    }
    let Some(tensor) = node.attribute("value").and_then(|attribute| attribute.bytes(5).cloned()) else {
        return Ok(None);
    };
    let mut weight = Weight::parse(tensor)?;
    let (Some(output), FLOAT) = (node.outputs.first(), weight.element) else { return Ok(None) };
    weight.name.clone_from(output);
    weight.message.remove(field::TENSOR_NAME);
    weight.message.push_string(field::TENSOR_NAME, output);
    Ok(Some(weight))
}
