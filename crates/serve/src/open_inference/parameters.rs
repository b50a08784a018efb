//! Parameters: those of the binary tensor extension, those that are refused, and those that change nothing.

use serde_json::{Map, Value};

use crate::tensors::error::TensorError;

/// Names whose meaning would be lost: tensors in shared memory, state between calls, another form of output.
const REFUSED: [&str; 7] = [
    "shared_memory_region",
    "shared_memory_offset",
    "shared_memory_byte_size",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "classification",
];

/// # Errors
/// A parameter that would change the answer in a way that this server can't.
pub fn check_names<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), TensorError> {
    match names.find(|name| REFUSED.contains(name)) {
        Some(name) => Err(TensorError::invalid(format!(
            "the parameter {name:?} is not supported by this server, and ignoring it would change the answer"
        ))),
        None => Ok(()),
    }
}

/// Parameters of a request, an input or an output.
#[derive(Default)]
pub struct Parameters(Map<String, Value>);

impl Parameters {
    pub fn new(values: Map<String, Value>) -> Result<Parameters, TensorError> {
        check_names(values.keys().map(String::as_str))?;
        Ok(Parameters(values))
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, TensorError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(TensorError::invalid(format!("the parameter {name:?} must be true or false"))),
        }
    }

    pub fn size(&self, name: &str) -> Result<Option<usize>, TensorError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        let invalid = || TensorError::invalid(format!("the parameter {name:?} must be a number of bytes"));
        size.map(Some).ok_or_else(invalid)
    }
}
