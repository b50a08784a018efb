//! ONNX files (onnx.ai/onnx/repo-docs/IR.html): what a model takes and gives, read as hostile bytes before a runtime
//! sees them; and files written.
//!
//! Reading checks the frame of everything that a runtime follows: each length lies inside its message, messages nest
//! at most 100 deep (prost's own limit), tensors' sizes can be counted. Weights are skipped, not copied.

mod mended;
mod messages;
#[cfg(test)]
mod tests;
pub mod wire;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::path::Path;

use kernels::memory::MappedFile;
use prost::Message;
use prost::bytes::{Buf, Bytes};

use crate::error::FormatError;
pub use mended::mended;
use messages::{Attribute, Graph, Model, Node, TensorData, Type, ValueInfo};
pub use writer::{AttributeValue, GraphWriter};

const FORMAT: &str = "ONNX";
/// Bytes of a protobuf message (protobuf.dev: 2 GiB); larger weights lie in files beside it.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of the files beside it, together.
const EXTERNAL_BYTES_MAX: u64 = 64 << 30;
const INPUTS_MAX: usize = 1024;
const OUTPUTS_MAX: usize = 1024;
const DIMENSIONS_MAX: usize = 16;
const NODES_MAX: usize = 1_000_000;
const NAME_BYTES_MAX: usize = 1024;
/// Where a tensor's bytes are in another file (`TensorProto.DataLocation.EXTERNAL`).
const EXTERNAL: i32 = 1;

/// Element types that the runtime has, by ONNX's names for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    Bool,
    Uint8,
    Int8,
    Int32,
    Int64,
    Float16,
    Float,
    Double,
}

impl ElementType {
    pub const ALL: [ElementType; 8] = [
        ElementType::Bool,
        ElementType::Uint8,
        ElementType::Int8,
        ElementType::Int32,
        ElementType::Int64,
        ElementType::Float16,
        ElementType::Float,
        ElementType::Double,
    ];

    /// In `TensorProto.DataType`.
    fn number(self) -> i32 {
        match self {
            ElementType::Float => 1,
            ElementType::Uint8 => 2,
            ElementType::Int8 => 3,
            ElementType::Int32 => 6,
            ElementType::Int64 => 7,
            ElementType::Bool => 9,
            ElementType::Float16 => 10,
            ElementType::Double => 11,
        }
    }

    fn from_number(number: i32) -> Option<ElementType> {
        ElementType::ALL.into_iter().find(|element| element.number() == number)
    }

    /// Bytes of one in a file or on the wire.
    pub fn bytes(self) -> usize {
        match self {
            ElementType::Bool | ElementType::Uint8 | ElementType::Int8 => 1,
            ElementType::Float16 => 2,
            ElementType::Int32 | ElementType::Float => 4,
            ElementType::Int64 | ElementType::Double => 8,
        }
    }
}

impl Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ElementType::Bool => "bool",
            ElementType::Uint8 => "uint8",
            ElementType::Int8 => "int8",
            ElementType::Int32 => "int32",
            ElementType::Int64 => "int64",
            ElementType::Float16 => "float16",
            ElementType::Float => "float",
            ElementType::Double => "double",
        })
    }
}

/// One length of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    Fixed(usize),
    /// Whatever comes; dimensions of the same name have the same length.
    Dynamic(Option<String>),
}

impl Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dimension::Fixed(length) => write!(f, "{length}"),
            Dimension::Dynamic(Some(name)) => f.write_str(name),
            Dimension::Dynamic(None) => f.write_str("?"),
        }
    }
}

/// What one input or output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub element: ElementType,
    /// `None` where the file doesn't say.
    pub shape: Option<Vec<Dimension>>,
}

impl Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[", self.name, self.element)?;
        match &self.shape {
            None => f.write_str("...")?,
            Some(shape) => {
                for (index, dimension) in shape.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{dimension}")?;
                }
            }
        }
        f.write_str("]")
    }
}

/// What a model takes and gives, in the file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// What an ONNX file says of itself.
#[derive(Clone, Debug, Default)]
pub struct OnnxFacts {
    pub signature: Signature,
    /// Elements of all weights.
    pub parameters: u64,
    /// Of this file and those beside it.
    pub file_bytes: u64,
    /// Version of the operators of ONNX itself.
    pub opset: Option<i64>,
    pub producer: Option<String>,
    /// How often each operator is there; those of other domains as `DOMAIN.NAME`.
    pub operators: BTreeMap<String, usize>,
    /// Names of files beside this one that hold weights.
    pub external_files: BTreeSet<String>,
    /// Whether something is as the runtime here reads it right only when it is [`mended`].
    pub needs_mending: bool,
    /// What the runtime here computes otherwise than ONNX says, and how.
    pub deviations: BTreeSet<&'static str>,
}

/// Whether a file's name says that it is ONNX.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// Reads the file at `path`, weights excepted.
///
/// # Errors
/// What isn't ONNX, is larger than the limits, or takes or gives what no runtime here has.
pub fn read(path: &Path) -> Result<OnnxFacts, FormatError> {
    let io = |operation| move |cause| FormatError::Io { operation, path: path.to_owned(), cause };
    struct Mapped(MappedFile);
    impl AsRef<[u8]> for Mapped {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }
    let file = MappedFile::open(path).map_err(io("open"))?;
    let len = file.bytes().len() as u64;
    // Of bytes that have an owner weights are views.
    let mut facts = parse(Bytes::from_owner(Mapped(file))).map_err(|error| error.in_file(path))?;
    let mut external_bytes = 0u64;
    for name in &facts.external_files {
        let beside = path.parent().unwrap_or(Path::new(".")).join(name);
        let bytes = std::fs::metadata(&beside)
            .map_err(|cause| FormatError::Io {
                operation: "open the weights in",
                path: beside.clone(),
                cause,
            })?
            .len();
        external_bytes = external_bytes.saturating_add(bytes);
    }
    limit("files of weights, in bytes", external_bytes, EXTERNAL_BYTES_MAX)?;
    facts.file_bytes = len + external_bytes;
    Ok(facts)
}

/// The same for bytes in memory; files beside it are named, not looked at.
///
/// # Errors
/// As for [`read`].
pub fn parse(bytes: impl Buf) -> Result<OnnxFacts, FormatError> {
    let len = bytes.remaining() as u64;
    limit("the file, in bytes", len, FILE_BYTES_MAX)?;
    let malformed = |problem: String| FormatError::Malformed { format: FORMAT, problem };
    let model = Model::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    let graph = model.graph.as_ref().ok_or_else(|| malformed("it has no graph".to_owned()))?;
    let mut facts = OnnxFacts {
        signature: signature(graph)?,
        file_bytes: len,
        opset: model.opset_import.iter().find(|opset| is_own(&opset.domain)).map(|opset| opset.version),
        producer: Some(model.producer_name.clone()).filter(|name| !name.is_empty()),
        ..OnnxFacts::default()
    };
    look(graph, &mut facts)?;
    if facts.operators.contains_key(mended::SIGN) && !facts.external_files.is_empty() {
        facts.deviations.insert("Sign is 1 of 0, which is mended only in files whose weights are inside");
    }
    Ok(facts)
}

/// ONNX's own operators have either name.
fn is_own(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn limit(what: &str, found: u64, limit: u64) -> Result<(), FormatError> {
    if found <= limit {
        return Ok(());
    }
    Err(FormatError::TooLarge { format: FORMAT, what: what.to_owned(), found, limit })
}

fn signature(graph: &Graph) -> Result<Signature, FormatError> {
    limit("the number of inputs", graph.input.len() as u64, (INPUTS_MAX + graph.initializer.len()) as u64)?;
    limit("the number of outputs", graph.output.len() as u64, OUTPUTS_MAX as u64)?;
    // Before version 4 of the format, weights stood among the inputs too.
    let weights: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|input| !weights.contains(input.name.as_str()));
    let specs = |role: &'static str, values: &mut dyn Iterator<Item = &ValueInfo>| {
        let mut specs: Vec<TensorSpec> = Vec::new();
        let mut names = BTreeSet::new();
        for value in values {
            if !names.insert(value.name.as_str()) {
                let problem = format!("two {role}s are called {:?}", value.name);
                return Err(FormatError::Malformed { format: FORMAT, problem });
            }
            specs.push(spec(role, value)?);
        }
        Ok(specs)
    };
    let inputs = specs("input", &mut inputs.into_iter())?;
    let outputs = specs("output", &mut graph.output.iter())?;
    if outputs.is_empty() {
        return Err(FormatError::Malformed { format: FORMAT, problem: "the graph has no output".to_owned() });
    }
    Ok(Signature { inputs, outputs })
}

fn spec(role: &str, value: &ValueInfo) -> Result<TensorSpec, FormatError> {
    let name = &value.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let problem =
            format!("an {role} has a name of {} bytes; 1 to {NAME_BYTES_MAX} are usable", name.len());
        return Err(FormatError::Malformed { format: FORMAT, problem });
    }
    let what = || format!("the type of the {role} {name:?}");
    let unsupported = |found: String| {
        let all: Vec<String> = ElementType::ALL.iter().map(ToString::to_string).collect();
        FormatError::Unsupported { what: what(), found, supported: format!("tensors of {}", all.join(", ")) }
    };
    let tensor = match &value.r#type {
        Some(Type { tensor_type: Some(tensor), .. }) => tensor,
        Some(Type { sequence_type: Some(_), .. }) => return Err(unsupported("a sequence".to_owned())),
        Some(Type { map_type: Some(_), .. }) => return Err(unsupported("a map".to_owned())),
        Some(_) => return Err(unsupported("no tensor".to_owned())),
        None => {
            let needed_for = "callers must know what to send and what they get".to_owned();
            return Err(FormatError::Missing { what: what(), needed_for });
        }
    };
    let element = ElementType::from_number(tensor.elem_type)
        .ok_or_else(|| unsupported(element_name(tensor.elem_type)))?;
    let Some(shape) = &tensor.shape else {
        return Ok(TensorSpec { name: name.clone(), element, shape: None });
    };
    limit(
        &format!("the number of dimensions of the {role} {name:?}"),
        shape.dim.len() as u64,
        DIMENSIONS_MAX as u64,
    )?;
    let dimension = |dimension: &messages::Dimension| match (dimension.dim_value, &dimension.dim_param) {
        (Some(length), _) if length >= 0 => Dimension::Fixed(usize::try_from(length).unwrap_or(usize::MAX)),
        (_, Some(name)) if !name.is_empty() => Dimension::Dynamic(Some(name.clone())),
        _ => Dimension::Dynamic(None),
    };
    Ok(TensorSpec { name: name.clone(), element, shape: Some(shape.dim.iter().map(dimension).collect()) })
}

/// ONNX's name of an element type that the runtime doesn't have.
fn element_name(number: i32) -> String {
    match number {
        0 => "undefined".to_owned(),
        4 => "uint16".to_owned(),
        5 => "int16".to_owned(),
        8 => "string".to_owned(),
        12 => "uint32".to_owned(),
        13 => "uint64".to_owned(),
        14 => "complex64".to_owned(),
        15 => "complex128".to_owned(),
        16 => "bfloat16".to_owned(),
        other => format!("element type {other}"),
    }
}

/// Counts operators and weights, in the graphs inside it too; prost has bounded how deep they nest.
fn look(graph: &Graph, facts: &mut OnnxFacts) -> Result<(), FormatError> {
    limit("the number of operators", graph.node.len() as u64, NODES_MAX as u64)?;
    for tensor in &graph.initializer {
        weigh(tensor, facts)?;
    }
    for node in &graph.node {
        let name = if is_own(&node.domain) {
            node.op_type.clone()
        } else {
            format!("{}.{}", node.domain, node.op_type)
        };
        *facts.operators.entry(name).or_default() += 1;
        facts.needs_mending |= mended::is_mended(node);
        facts.deviations.extend(deviation(node));
        for attribute in &node.attribute {
            for tensor in attribute.t.as_deref().into_iter().chain(&attribute.tensors) {
                weigh(tensor, facts)?;
            }
            for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
                look(graph, facts)?;
            }
        }
    }
    Ok(())
}

/// How `rten` 0.27 computes a node otherwise than ONNX says, if it does (ONNX's own node tests, `bench/tensors/nodes`).
fn deviation(node: &Node) -> Option<&'static str> {
    let is_cubic = |attribute: &Attribute| attribute.name == "mode" && attribute.s[..] == *b"cubic";
    match node.op_type.as_str() {
        _ if !is_own(&node.domain) => None,
        "NonMaxSuppression" => Some(
            "NonMaxSuppression takes a box for its best class alone, and compares it with those of any class and image",
        ),
        "Resize" if node.attribute.iter().any(is_cubic) => {
            Some("Resize interpolates linearly where it says cubic")
        }
        _ => None,
    }
}

fn weigh(tensor: &TensorData, facts: &mut OnnxFacts) -> Result<(), FormatError> {
    let name = &tensor.name;
    let elements =
        tensor.dims.iter().try_fold(1u64, |elements, dim| elements.checked_mul(u64::try_from(*dim).ok()?));
    let Some(elements) = elements else {
        let found = format!("{:?}", tensor.dims);
        let expected = "lengths from 0 whose product can be counted".to_owned();
        return Err(FormatError::Invalid {
            what: format!("the shape of the weights {name:?}"),
            found,
            expected,
        });
    };
    facts.parameters = facts.parameters.saturating_add(elements);
    facts.needs_mending |= tensor.data_type == mended::BFLOAT16;
    if tensor.data_location != EXTERNAL {
        return Ok(());
    }
    for entry in &tensor.external_data {
        let what = || format!("{} of the weights {name:?}", entry.key);
        match entry.key.as_str() {
            "location" => {
                let file = &entry.value;
                if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', '\0']) {
                    let expected = "the name of a file in the same folder".to_owned();
                    return Err(FormatError::Invalid { what: what(), found: format!("{file:?}"), expected });
                }
                facts.external_files.insert(file.clone());
            }
            "offset" | "length" => {
                let bytes = entry.value.parse::<u64>().unwrap_or(u64::MAX);
                limit(&what(), bytes, EXTERNAL_BYTES_MAX)?;
            }
            _ => {}
        }
    }
    Ok(())
}
