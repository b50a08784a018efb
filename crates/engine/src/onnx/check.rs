//! Whether a call's inputs are what the model's signature says.

use std::collections::BTreeMap;

use formats::onnx::{Dimension, Signature, TensorSpec};

use super::tensor::{Storage, Tensor};

/// What is wrong with a call's inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("the model has no input {received:?}; it takes {expected}")]
    Unknown { received: String, expected: String },
    #[error("the input {name:?} is missing; the model takes {expected}")]
    Missing { name: String, expected: String },
    #[error("the input {name:?} is given twice")]
    Twice { name: String },
    #[error("the input {name:?} has the shape {received:?}; expected {expected}")]
    Shape { name: String, expected: String, received: Vec<usize> },
    #[error("the input {name:?} has {received} elements; its shape {shape:?} asks for {expected}")]
    Count { name: String, shape: Vec<usize>, expected: usize, received: usize },
    #[error("the input {name:?} has elements of the type {received:?}; expected {expected:?}")]
    Type { name: String, expected: Storage, received: Storage },
    #[error("the dimension {dimension:?} is {first} in one place and {second} in the input {name:?}")]
    Differs { dimension: String, name: String, first: usize, second: usize },
}

/// The model's inputs in a line, for whoever named another.
pub(super) fn listed(specs: &[TensorSpec]) -> String {
    let all: Vec<String> = specs.iter().map(ToString::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join("; ") }
}

/// The place of the input `name` in the signature.
///
/// # Errors
/// [`InputError::Unknown`], which lists those that there are.
pub(super) fn index(signature: &Signature, name: &str) -> Result<usize, InputError> {
    let index = signature.inputs.iter().position(|spec| spec.name == name);
    index.ok_or_else(|| InputError::Unknown {
        received: name.chars().take(100).collect(),
        expected: listed(&signature.inputs),
    })
}

/// Puts inputs into the signature's order, each checked against it.
pub(super) fn arrange(
    signature: &Signature,
    inputs: Vec<(usize, Tensor)>,
) -> Result<Vec<Tensor>, InputError> {
    let specs = &signature.inputs;
    let mut places: Vec<Option<Tensor>> = specs.iter().map(|_| None).collect();
    for (index, tensor) in inputs {
        let place = &mut places[index];
        if place.is_some() {
            return Err(InputError::Twice { name: specs[index].name.clone() });
        }
        *place = Some(tensor);
    }
    let mut arranged = Vec::with_capacity(specs.len());
    let mut named = BTreeMap::new();
    for (spec, tensor) in specs.iter().zip(places) {
        let missing = || InputError::Missing { name: spec.name.clone(), expected: listed(specs) };
        let tensor = tensor.ok_or_else(missing)?;
        check(spec, &tensor, &mut named)?;
        arranged.push(tensor);
    }
    Ok(arranged)
}

/// `named` are the lengths so far of dimensions that have a name.
fn check<'a>(
    spec: &'a TensorSpec,
    tensor: &Tensor,
    named: &mut BTreeMap<&'a str, usize>,
) -> Result<(), InputError> {
    let name = || spec.name.clone();
    let (expected, received) = (Storage::of(spec.element), tensor.elements.storage());
    if expected != received {
        return Err(InputError::Type { name: name(), expected, received });
    }
    let (expected, received) = (Tensor::elements_of(&tensor.shape), tensor.elements.len());
    if expected != Some(received) {
        let expected = expected.unwrap_or(usize::MAX);
        return Err(InputError::Count { name: name(), shape: tensor.shape.clone(), expected, received });
    }
    let Some(shape) = &spec.shape else { return Ok(()) };
    let fits = |(expected, length): (&Dimension, &usize)| match expected {
        Dimension::Fixed(expected) => expected == length,
        Dimension::Dynamic(_) => true,
    };
    if shape.len() != tensor.shape.len() || !shape.iter().zip(&tensor.shape).all(fits) {
        let lengths: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let expected = format!("[{}]", lengths.join(", "));
        return Err(InputError::Shape { name: name(), expected, received: tensor.shape.clone() });
    }
    for (dimension, &second) in shape.iter().zip(&tensor.shape) {
        let Dimension::Dynamic(Some(dimension)) = dimension else { continue };
        let first = *named.entry(dimension).or_insert(second);
        if first != second {
            return Err(InputError::Differs { dimension: dimension.clone(), name: name(), first, second });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use formats::onnx::ElementType;

    use super::*;

    fn signature() -> Signature {
        let batch = || Dimension::Dynamic(Some("batch".to_owned()));
        let spec = |name: &str, element, last: Dimension| TensorSpec {
            name: name.to_owned(),
            element,
            shape: Some(vec![batch(), last]),
        };
        let inputs = vec![
            spec("x", ElementType::Float, Dimension::Fixed(3)),
            spec("ids", ElementType::Int64, Dimension::Dynamic(None)),
        ];
        Signature { inputs, outputs: Vec::new() }
    }

    #[test]
    fn what_was_expected_and_what_came_is_said() {
        let x = || Tensor::float(&[2, 3], vec![0.0; 6]);
        let ids = || Tensor::int32(&[2, 1], vec![0; 2]);
        let check = |inputs: Vec<(usize, Tensor)>, expected: &str| {
            let outcome = arrange(&signature(), inputs);
            assert_eq!(outcome.map_or_else(|error| error.to_string(), |_| "ok".to_owned()), expected);
        };
        check(vec![(1, ids()), (0, x())], "ok");
        let takes = "the model takes x float[batch, 3]; ids int64[batch, ?]";
        check(vec![(0, x())], &format!("the input \"ids\" is missing; {takes}"));
        check(vec![(0, x()), (0, x()), (1, ids())], "the input \"x\" is given twice");
        let wide = Tensor::float(&[2, 4], vec![0.0; 8]);
        check(vec![(0, wide), (1, ids())], "the input \"x\" has the shape [2, 4]; expected [batch, 3]");
        let short = Tensor::float(&[2, 3], vec![0.0; 5]);
        check(vec![(0, short), (1, ids())], "the input \"x\" has 5 elements; its shape [2, 3] asks for 6");
        check(vec![(0, ids()), (1, ids())], "the input \"x\" has elements of the type Int32; expected Float");
        let other = Tensor::int32(&[1, 1], vec![0]);
        let differs = "the dimension \"batch\" is 2 in one place and 1 in the input \"ids\"";
        check(vec![(0, x()), (1, other)], differs);
        let unknown = index(&signature(), "y").unwrap_err().to_string();
        assert_eq!(unknown, "the model has no input \"y\"; it takes x float[batch, 3]; ids int64[batch, ?]");
    }
}
