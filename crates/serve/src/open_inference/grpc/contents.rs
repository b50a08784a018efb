//! Elements in the typed fields of `InferTensorContents`, and out of them.

use engine::onnx::{ElementType, Elements};

use super::messages::InferTensorContents;
use crate::open_inference::datatype;

/// Elements of the field that goes with `element`.
///
/// # Errors
/// A value that the type doesn't have or that can't be computed with here, or elements in a field of another type.
pub fn decode(element: ElementType, contents: InferTensorContents) -> Result<Elements, String> {
    let filled = filled(&contents);
    let InferTensorContents {
        bool_contents, int_contents, int64_contents, uint_contents, fp32_contents, ..
    } = contents;
    let (field, elements) = match element {
        ElementType::Bool => {
            ("bool_contents", Elements::Int32(bool_contents.into_iter().map(i32::from).collect()))
        }
        ElementType::Uint8 => ("uint_contents", Elements::Uint8(narrow(&uint_contents, element)?)),
        ElementType::Int8 => ("int_contents", Elements::Int8(narrow(&int_contents, element)?)),
        ElementType::Int32 => ("int_contents", Elements::Int32(int_contents)),
        ElementType::Int64 => {
            ("int64_contents", Elements::Int32(narrow(&int64_contents, ElementType::Int32)?))
        }
        ElementType::Float => ("fp32_contents", Elements::Float(fp32_contents)),
        ElementType::Double => {
            let values = contents.fp64_contents.into_iter().map(|value| value as f32);
            ("fp64_contents", Elements::Float(values.collect()))
        }
        ElementType::Float16 => return Err("FP16 is sent in raw_input_contents only".to_owned()),
    };
    match filled.into_iter().find(|name| *name != field) {
        Some(other) => Err(format!("{} is sent in {field}, and {other} is filled", datatype::name(element))),
        None => Ok(elements),
    }
}

fn narrow<T: Copy, U: TryFrom<T>>(values: &[T], element: ElementType) -> Result<Vec<U>, String> {
    let narrowed: Option<Vec<U>> = values.iter().map(|value| U::try_from(*value).ok()).collect();
    narrowed.ok_or_else(|| format!("a value is beyond {}", datatype::name(element)))
}

/// Names of the fields that have something in them.
fn filled(contents: &InferTensorContents) -> Vec<&'static str> {
    let lengths = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    lengths.into_iter().filter(|(_, length)| *length > 0).map(|(name, _)| name).collect()
}

/// `None` for FP16, which has no field.
pub fn encode(element: ElementType, elements: &Elements) -> Option<InferTensorContents> {
    let mut contents = InferTensorContents::default();
    match (elements, element) {
        (Elements::Float(_), ElementType::Float16) => return None,
        (Elements::Float(values), ElementType::Double) => {
            contents.fp64_contents = values.iter().map(|value| f64::from(*value)).collect();
        }
        (Elements::Float(values), _) => contents.fp32_contents = values.clone(),
        (Elements::Int32(values), ElementType::Bool) => {
            contents.bool_contents = values.iter().map(|value| *value != 0).collect();
        }
        (Elements::Int32(values), ElementType::Int64) => {
            contents.int64_contents = values.iter().map(|value| i64::from(*value)).collect();
        }
        (Elements::Int32(values), _) => contents.int_contents = values.clone(),
        (Elements::Int8(values), _) => {
            contents.int_contents = values.iter().map(|value| i32::from(*value)).collect();
        }
        (Elements::Uint8(values), _) => {
            contents.uint_contents = values.iter().map(|value| u32::from(*value)).collect();
        }
    }
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_field() {
        let check = |element, elements: Elements| {
            let contents = encode(element, &elements).unwrap();
            assert_eq!(decode(element, contents).unwrap(), elements, "{element}");
        };
        check(ElementType::Bool, Elements::Int32(vec![1, 0]));
        check(ElementType::Uint8, Elements::Uint8(vec![0, 255]));
        check(ElementType::Int8, Elements::Int8(vec![-128, 127]));
        check(ElementType::Int32, Elements::Int32(vec![i32::MIN]));
        check(ElementType::Int64, Elements::Int32(vec![-5]));
        check(ElementType::Float, Elements::Float(vec![0.1]));
        check(ElementType::Double, Elements::Float(vec![0.1]));
        assert_eq!(encode(ElementType::Float16, &Elements::Float(vec![0.5])), None);
    }

    #[test]
    fn other_fields_and_values_beyond_the_type_are_refused() {
        let check = |element, contents: InferTensorContents, expected: &str| {
            assert_eq!(decode(element, contents).unwrap_err(), expected);
        };
        let ints = InferTensorContents { int_contents: vec![300], ..Default::default() };
        check(ElementType::Int8, ints.clone(), "a value is beyond INT8");
        check(ElementType::Float, ints, "FP32 is sent in fp32_contents, and int_contents is filled");
        let long = InferTensorContents { int64_contents: vec![i64::MAX], ..Default::default() };
        check(ElementType::Int64, long, "a value is beyond INT32");
        check(
            ElementType::Float16,
            InferTensorContents::default(),
            "FP16 is sent in raw_input_contents only",
        );
    }
}
