//! Elements as numbers of JSON, flat or in arrays of the tensor's shape.

use engine::onnx::{ElementType, Elements, Tensor};
use half::f16;

use super::error::TensorError;

/// Numbers in one answer of JSON; each takes a dozen bytes or so.
const NUMBERS_MAX: usize = 16 << 20;

/// # Errors
/// An answer with more numbers than are sent as JSON.
pub fn check_size<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<(), TensorError> {
    let numbers: usize = tensors.map(|tensor| tensor.elements.len()).sum();
    if numbers <= NUMBERS_MAX {
        return Ok(());
    }
    Err(TensorError::invalid(format!(
        "the answer has {numbers} numbers, and at most {NUMBERS_MAX} are sent as JSON: ask for binary data, or for less"
    )))
}

/// Appends `text` as a string of JSON.
pub fn string(text: &str, out: &mut Vec<u8>) {
    // Writing to memory doesn't fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends lengths as an array.
pub fn lengths(shape: &[usize], out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    array(shape.iter(), out, |length, out| out.extend_from_slice(buffer.format(*length).as_bytes()));
}

/// Appends all elements in one array.
pub fn flat(element: ElementType, elements: &Elements, out: &mut Vec<u8>) {
    numbers(element, elements, 0..elements.len(), out);
}

/// Appends the tensor as arrays inside arrays; a scalar is a number.
pub fn nested(element: ElementType, tensor: &Tensor, out: &mut Vec<u8>) {
    part(element, tensor, &tensor.shape, 0, out);
}

/// Appends row `row` of the tensor's first dimension in the same way.
pub fn row(element: ElementType, tensor: &Tensor, row: usize, out: &mut Vec<u8>) {
    let shape = tensor.shape.get(1..).unwrap_or_default();
    part(element, tensor, shape, row * shape.iter().product::<usize>(), out);
}

/// The part of `shape` that begins with element `begin`.
fn part(element: ElementType, tensor: &Tensor, shape: &[usize], begin: usize, out: &mut Vec<u8>) {
    match shape {
        [] => {
            let bracket = out.len();
            numbers(element, &tensor.elements, begin..begin + 1, out);
            // One number in brackets, without them.
            out.remove(bracket);
            out.pop();
        }
        [length] => numbers(element, &tensor.elements, begin..begin + length, out),
        [length, inner @ ..] => {
            let width: usize = inner.iter().product();
            array(0..*length, out, |at, out| part(element, tensor, inner, begin + at * width, out));
        }
    }
}

fn array<T>(items: impl Iterator<Item = T>, out: &mut Vec<u8>, mut put: impl FnMut(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put(item, out);
    }
    out.push(b']');
}

fn numbers(element: ElementType, elements: &Elements, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
    let mut decimal = itoa::Buffer::new();
    match elements {
        Elements::Float(values) => {
            let mut buffer = zmij::Buffer::new();
            let is_half = element == ElementType::Float16;
            array(values[range].iter(), out, |value, out| {
                let value = if is_half { f16::from_f32(*value).to_f32() } else { *value };
                out.extend_from_slice(if value.is_finite() {
                    buffer.format_finite(value).as_bytes()
                } else if value.is_nan() {
                    b"NaN"
                } else if value > 0.0 {
                    b"Infinity"
                } else {
                    b"-Infinity"
                });
            });
        }
        Elements::Int32(values) if element == ElementType::Bool => {
            array(values[range].iter(), out, |value, out| {
                out.extend_from_slice(if *value != 0 { b"true" } else { b"false" });
            });
        }
        Elements::Int32(values) => {
            array(values[range].iter(), out, |value, out| {
                out.extend_from_slice(decimal.format(*value).as_bytes())
            });
        }
        Elements::Int8(values) => {
            array(values[range].iter(), out, |value, out| {
                out.extend_from_slice(decimal.format(*value).as_bytes())
            });
        }
        Elements::Uint8(values) => {
            array(values[range].iter(), out, |value, out| {
                out.extend_from_slice(decimal.format(*value).as_bytes())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_written_flat_nested_and_by_rows() {
        let check = |element, tensor: Tensor, expected: [&str; 3]| {
            let mut written = [Vec::new(), Vec::new(), Vec::new()];
            flat(element, &tensor.elements, &mut written[0]);
            nested(element, &tensor, &mut written[1]);
            if !tensor.shape.is_empty() {
                row(element, &tensor, tensor.shape[0] - 1, &mut written[2]);
            }
            assert_eq!(written.map(|bytes| String::from_utf8(bytes).unwrap()), expected);
        };
        let table = Tensor::float(&[2, 2], vec![0.1, -1e30, f32::NAN, f32::INFINITY]);
        check(
            ElementType::Float,
            table,
            ["[0.1,-1e+30,NaN,Infinity]", "[[0.1,-1e+30],[NaN,Infinity]]", "[NaN,Infinity]"],
        );
        check(ElementType::Bool, Tensor::int32(&[2], vec![1, 0]), ["[true,false]", "[true,false]", "false"]);
        check(ElementType::Int64, Tensor::int32(&[], vec![-7]), ["[-7]", "-7", ""]);
        check(ElementType::Int64, Tensor::int32(&[1, 0], vec![]), ["[]", "[[]]", "[]"]);
    }
}
