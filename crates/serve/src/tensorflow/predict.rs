//! `:predict` in both forms: rows (`instances` and `predictions`) and columns (`inputs` and `outputs`).

use engine::onnx::{Tensor, TensorSpec};

use super::{ROWS_MAX, check_signature, unknown_key};
use crate::tensors::error::TensorError;
use crate::tensors::json::Reader;
use crate::tensors::{TensorService, nested, write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Rows,
    Columns,
}

pub struct Asked {
    pub form: Form,
    /// By place in the signature.
    pub inputs: Vec<(usize, Tensor)>,
}

pub fn decode(service: &TensorService, body: &[u8]) -> Result<Asked, TensorError> {
    let mut reader = Reader::new(body);
    let mut asked: Option<Asked> = None;
    reader.object(|reader, key| {
        let (form, inputs) = match key {
            "signature_name" => return check_signature(&reader.string()?),
            "instances" => (Form::Rows, instances(service, reader)?),
            "inputs" => (Form::Columns, columns(service, reader)?),
            other => return Err(unknown_key(other, "signature_name, instances and inputs")),
        };
        if asked.is_some() {
            return Err(TensorError::invalid("the request has both \"instances\" and \"inputs\": send one"));
        }
        asked = Some(Asked { form, inputs });
        Ok(())
    })?;
    reader.end()?;
    asked.ok_or_else(|| TensorError::invalid("\"instances\" or \"inputs\" is required and missing"))
}

/// The one input of a model that has one.
pub(super) fn only_input(service: &TensorService) -> Result<&TensorSpec, TensorError> {
    match service.onnx.signature().inputs.as_slice() {
        [one] => Ok(one),
        specs => {
            let all: Vec<String> = specs.iter().map(ToString::to_string).collect();
            Err(TensorError::invalid(format!(
                "the model takes {} inputs, which must be named in an object: {}",
                specs.len(),
                all.join("; ")
            )))
        }
    }
}

/// Whether the next value is an object of named inputs, which `{"b64": ...}` is not.
fn is_named(reader: &mut Reader) -> bool {
    let mut ahead = reader.clone();
    ahead.take(b'{') && ahead.peek().is_some() && !ahead.string().is_ok_and(|key| key == "b64")
}

fn columns(service: &TensorService, reader: &mut Reader) -> Result<Vec<(usize, Tensor)>, TensorError> {
    let read = |reader: &mut Reader, spec: &TensorSpec| {
        let mut elements = nested::empty(spec.element);
        let shape = nested::append(reader, spec.element, &mut elements)?;
        Ok::<_, TensorError>(Tensor { shape, elements })
    };
    if !is_named(reader) {
        let spec = only_input(service)?;
        return Ok(vec![(0, read(reader, spec)?)]);
    }
    let mut inputs = Vec::new();
    reader.object(|reader, name| {
        let index = service.onnx.input_index(name)?;
        inputs.push((index, read(reader, &service.onnx.signature().inputs[index])?));
        Ok::<(), TensorError>(())
    })?;
    Ok(inputs)
}

fn instances(service: &TensorService, reader: &mut Reader) -> Result<Vec<(usize, Tensor)>, TensorError> {
    let mut ahead = reader.clone();
    if !(ahead.take(b'[') && is_named(&mut ahead)) {
        // Rows of one input are the array itself.
        if reader.peek() != Some(b'[') {
            return Err(reader.expected("an array of instances").into());
        }
        let spec = only_input(service)?;
        let mut elements = nested::empty(spec.element);
        let shape = nested::append(reader, spec.element, &mut elements)?;
        return Ok(vec![(0, Tensor { shape, elements })]);
    }
    let mut rows = Rows::new(service);
    reader.array(|reader| {
        reader.object(|reader, name| rows.value(reader, name))?;
        rows.end()
    })?;
    Ok(rows.inputs())
}

/// Inputs that grow row by row.
pub(super) struct Rows<'a> {
    service: &'a TensorService,
    /// In the signature's order, with the shape of a row once the first is there.
    columns: Vec<Column>,
    rows: usize,
}

struct Column {
    tensor: Tensor,
    rows: usize,
}

impl<'a> Rows<'a> {
    pub fn new(service: &'a TensorService) -> Rows<'a> {
        let specs = service.onnx.signature().inputs.iter();
        let column = |spec: &TensorSpec| Column {
            tensor: Tensor { shape: Vec::new(), elements: nested::empty(spec.element) },
            rows: 0,
        };
        Rows { service, columns: specs.map(column).collect(), rows: 0 }
    }

    /// Reads the value of the input `name` in the present row.
    pub fn value(&mut self, reader: &mut Reader, name: &str) -> Result<(), TensorError> {
        let index = self.service.onnx.input_index(name)?;
        let column = &mut self.columns[index];
        if column.rows != self.rows {
            return Err(TensorError::invalid(format!("row {} has {name:?} twice", self.rows)));
        }
        let element = self.service.onnx.signature().inputs[index].element;
        let shape = nested::append(reader, element, &mut column.tensor.elements)?;
        if column.rows == 0 {
            column.tensor.shape = shape;
        } else if column.tensor.shape != shape {
            return Err(TensorError::invalid(format!(
                "{name:?} has the shape {shape:?} in row {}, and {:?} in the rows before",
                self.rows, column.tensor.shape
            )));
        }
        column.rows += 1;
        Ok(())
    }

    /// Ends the present row.
    pub fn end(&mut self) -> Result<(), TensorError> {
        self.rows += 1;
        if self.rows > ROWS_MAX {
            return Err(TensorError::invalid(format!("the request has more than {ROWS_MAX} rows")));
        }
        let specs = &self.service.onnx.signature().inputs;
        match self.columns.iter().zip(specs).find(|(column, _)| column.rows != self.rows) {
            Some((_, spec)) => {
                Err(TensorError::invalid(format!("row {} has no {:?}", self.rows - 1, spec.name)))
            }
            None => Ok(()),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn inputs(self) -> Vec<(usize, Tensor)> {
        let rows = self.rows;
        let inputs = self.columns.into_iter().map(|Column { tensor, .. }| {
            let shape = [&[rows], tensor.shape.as_slice()].concat();
            Tensor { shape, ..tensor }
        });
        inputs.enumerate().collect()
    }
}

pub fn encode(specs: &[TensorSpec], outputs: &[Tensor], form: Form) -> Result<Vec<u8>, TensorError> {
    write::check_size(outputs.iter())?;
    let mut out = Vec::with_capacity(256);
    if form == Form::Columns {
        out.extend_from_slice(b"{\"outputs\":");
        named(specs, &mut out, |index, out| write::nested(specs[index].element, &outputs[index], out));
        out.push(b'}');
        return Ok(out);
    }
    let rows = outputs.first().and_then(|output| output.shape.first().copied());
    let rows = rows.filter(|rows| outputs.iter().all(|output| output.shape.first() == Some(rows)));
    let rows = rows.ok_or_else(|| {
        let shapes: Vec<String> = specs
            .iter()
            .zip(outputs)
            .map(|(spec, output)| format!("{} {:?}", spec.name, output.shape))
            .collect();
        TensorError::invalid(format!(
            "the outputs don't have a row for each instance ({}): send \"inputs\" instead of \"instances\"",
            shapes.join(", ")
        ))
    })?;
    out.extend_from_slice(b"{\"predictions\":[");
    for row in 0..rows {
        if row > 0 {
            out.push(b',');
        }
        named(specs, &mut out, |index, out| write::row(specs[index].element, &outputs[index], row, out));
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// One output as it is, several by name.
fn named(specs: &[TensorSpec], out: &mut Vec<u8>, mut put: impl FnMut(usize, &mut Vec<u8>)) {
    if specs.len() == 1 {
        return put(0, out);
    }
    for (index, spec) in specs.iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        write::string(&spec.name, out);
        out.push(b':');
        put(index, out);
    }
    out.push(b'}');
}
