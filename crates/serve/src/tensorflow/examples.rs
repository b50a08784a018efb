//! `:classify` and `:regress`: examples with features by name, and what they share in a context.

use engine::onnx::{Dimension, ElementType, Tensor, TensorSpec};

use super::predict::Rows;
use super::{Verb, check_signature, unknown_key};
use crate::tensors::error::TensorError;
use crate::tensors::json::Reader;
use crate::tensors::{TensorService, write};

/// Features in one context.
const CONTEXT_MAX: usize = 1024;

/// Inputs by place in the signature, and how many examples they are.
pub fn decode(service: &TensorService, body: &[u8]) -> Result<(Vec<(usize, Tensor)>, usize), TensorError> {
    let mut reader = Reader::new(body);
    let (mut context, mut examples) = (None, None);
    reader.object(|reader, key| {
        match key {
            "signature_name" => check_signature(&reader.string()?)?,
            "context" => {
                reader.peek();
                context = Some(reader.clone());
                reader.value()?;
            }
            "examples" => {
                reader.peek();
                examples = Some(reader.clone());
                reader.value()?;
            }
            other => return Err(unknown_key(other, "signature_name, context and examples")),
        }
        Ok::<(), TensorError>(())
    })?;
    reader.end()?;
    let mut examples =
        examples.ok_or_else(|| TensorError::invalid("\"examples\" is required and missing"))?;
    let mut shared = Vec::new();
    if let Some(mut context) = context {
        context.object(|reader, name| {
            if shared.len() == CONTEXT_MAX {
                return Err(TensorError::invalid(format!(
                    "the context has more than {CONTEXT_MAX} features"
                )));
            }
            reader.peek();
            shared.push((name.to_owned(), reader.clone()));
            reader.value()?;
            Ok(())
        })?;
    }
    let mut rows = Rows::new(service);
    examples.array(|reader| {
        for (name, value) in &shared {
            rows.value(&mut value.clone(), name)?;
        }
        reader.object(|reader, name| rows.value(reader, name))?;
        rows.end()
    })?;
    let count = rows.rows();
    let inputs = rows
        .inputs()
        .into_iter()
        .map(|(index, tensor)| (index, widened(&service.onnx.signature().inputs[index], tensor)));
    Ok((inputs.collect(), count))
}

/// A feature of one value may be written without brackets: rows of numbers for an input of rows of one number.
fn widened(spec: &TensorSpec, mut tensor: Tensor) -> Tensor {
    if let (Some([_, Dimension::Fixed(1)]), [_]) = (spec.shape.as_deref(), tensor.shape.as_slice()) {
        tensor.shape.push(1);
    }
    tensor
}

pub fn encode(
    verb: Verb,
    specs: &[TensorSpec],
    outputs: &[Tensor],
    rows: usize,
) -> Result<Vec<u8>, TensorError> {
    let is_float =
        |element| matches!(element, ElementType::Float | ElementType::Float16 | ElementType::Double);
    let fits = |shape: &[usize]| match verb {
        Verb::Regress => shape == [rows] || shape == [rows, 1],
        _ => matches!(shape, [first, _] if *first == rows),
    };
    let found =
        specs.iter().zip(outputs).find(|(spec, output)| is_float(spec.element) && fits(&output.shape));
    let (spec, output) = found.ok_or_else(|| {
        let wanted = if verb == Verb::Regress { "one number" } else { "a list of scores" };
        TensorError::invalid(format!(
            "no output of the model is {wanted} for each example: call it by :predict"
        ))
    })?;
    write::check_size(std::iter::once(output))?;
    let mut out = b"{\"result\":".to_vec();
    if verb == Verb::Regress {
        write::flat(spec.element, &output.elements, &mut out);
    } else {
        let classes = output.shape[1];
        let scores = Tensor { shape: vec![rows * classes], elements: output.elements.clone() };
        out.push(b'[');
        for row in 0..rows {
            out.extend_from_slice(if row == 0 { b"[" } else { b",[" });
            for class in 0..classes {
                out.extend_from_slice(if class == 0 { b"[" } else { b",[" });
                write::string(&class.to_string(), &mut out);
                out.push(b',');
                write::row(spec.element, &scores, row * classes + class, &mut out);
                out.push(b']');
            }
            out.push(b']');
        }
        out.push(b']');
    }
    out.push(b'}');
    Ok(out)
}
