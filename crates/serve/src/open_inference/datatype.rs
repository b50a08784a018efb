//! The protocol's names for element types.

use engine::onnx::ElementType;

use crate::tensors::error::TensorError;

const NAMES: [(&str, ElementType); 8] = [
    ("BOOL", ElementType::Bool),
    ("UINT8", ElementType::Uint8),
    ("INT8", ElementType::Int8),
    ("INT32", ElementType::Int32),
    ("INT64", ElementType::Int64),
    ("FP16", ElementType::Float16),
    ("FP32", ElementType::Float),
    ("FP64", ElementType::Double),
];

pub fn name(element: ElementType) -> &'static str {
    NAMES.iter().find(|(_, named)| *named == element).map_or("", |(name, _)| name)
}

/// # Errors
/// Where `received` isn't the type that the model declares.
pub fn check(input: &str, expected: ElementType, received: &str) -> Result<(), TensorError> {
    let expected = name(expected);
    if expected == received {
        return Ok(());
    }
    let received: String = received.chars().take(20).collect();
    Err(TensorError::invalid(format!(
        "the input {input:?} has the datatype {received:?}; expected {expected:?}"
    )))
}
