//! Elements as bytes, little-endian, as both forms of the Open Inference Protocol carry them.

use engine::onnx::{ElementType, Elements};
use half::f16;

/// Elements out of `bytes`.
///
/// # Errors
/// Where the bytes are no whole number of elements, or one can't be computed with here.
pub fn decode(element: ElementType, bytes: &[u8]) -> Result<Elements, String> {
    let size = element.bytes();
    if !bytes.len().is_multiple_of(size) {
        return Err(format!("{} bytes are no whole number of elements of {size} bytes", bytes.len()));
    }
    Ok(match element {
        ElementType::Uint8 => Elements::Uint8(bytes.to_vec()),
        ElementType::Int8 => Elements::Int8(bytes.iter().map(|byte| *byte as i8).collect()),
        ElementType::Bool => Elements::Int32(bytes.iter().map(|byte| i32::from(*byte != 0)).collect()),
        ElementType::Int32 => Elements::Int32(each(bytes, i32::from_le_bytes)),
        ElementType::Int64 => {
            let narrow = |bytes| i32::try_from(i64::from_le_bytes(bytes)).ok();
            let values: Option<Vec<i32>> = bytes.as_chunks().0.iter().map(|bytes| narrow(*bytes)).collect();
            Elements::Int32(
                values.ok_or("an integer is beyond 32 bits, which is all that is computed with here")?,
            )
        }
        ElementType::Float16 => Elements::Float(each(bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
        ElementType::Float => Elements::Float(each(bytes, f32::from_le_bytes)),
        ElementType::Double => Elements::Float(each(bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
    })
}

fn each<T, const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| decode(*bytes)).collect()
}

/// Appends elements, widened or narrowed to what the model declares.
pub fn encode(element: ElementType, elements: &Elements, out: &mut Vec<u8>) {
    out.reserve(elements.len() * element.bytes());
    match (elements, element) {
        (Elements::Float(values), ElementType::Float16) => {
            put(out, values, |value| f16::from_f32(value).to_le_bytes())
        }
        (Elements::Float(values), ElementType::Double) => {
            put(out, values, |value| f64::from(value).to_le_bytes())
        }
        (Elements::Float(values), _) => put(out, values, f32::to_le_bytes),
        (Elements::Int32(values), ElementType::Int64) => {
            put(out, values, |value| i64::from(value).to_le_bytes())
        }
        (Elements::Int32(values), ElementType::Bool) => put(out, values, |value| [u8::from(value != 0)]),
        (Elements::Int32(values), _) => put(out, values, i32::to_le_bytes),
        (Elements::Int8(values), _) => put(out, values, i8::to_le_bytes),
        (Elements::Uint8(values), _) => out.extend_from_slice(values),
    }
}

fn put<T: Copy, const N: usize>(out: &mut Vec<u8>, values: &[T], encode: impl Fn(T) -> [u8; N]) {
    out.extend(values.iter().flat_map(|value| encode(*value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_elements_and_bytes_again() {
        let check = |element, bytes: &[u8], expected: Elements| {
            let elements = decode(element, bytes).unwrap();
            assert_eq!(elements, expected);
            let mut out = Vec::new();
            encode(element, &elements, &mut out);
            assert_eq!(out, bytes, "{element}");
        };
        check(ElementType::Bool, &[0, 1, 1], Elements::Int32(vec![0, 1, 1]));
        check(ElementType::Uint8, &[0, 255], Elements::Uint8(vec![0, 255]));
        check(ElementType::Int8, &[0x80, 1], Elements::Int8(vec![-128, 1]));
        check(ElementType::Int32, &[0xfe, 0xff, 0xff, 0xff], Elements::Int32(vec![-2]));
        check(ElementType::Int64, &(-2i64).to_le_bytes(), Elements::Int32(vec![-2]));
        check(ElementType::Float16, &[0x00, 0x38], Elements::Float(vec![0.5]));
        check(ElementType::Float, &0.1f32.to_le_bytes(), Elements::Float(vec![0.1]));
        check(ElementType::Double, &0.5f64.to_le_bytes(), Elements::Float(vec![0.5]));
    }

    #[test]
    fn broken_bytes_are_refused() {
        assert_eq!(
            decode(ElementType::Float, &[0; 6]).unwrap_err(),
            "6 bytes are no whole number of elements of 4 bytes"
        );
        assert!(decode(ElementType::Int64, &i64::MAX.to_le_bytes()).unwrap_err().contains("beyond 32 bits"));
    }
}
