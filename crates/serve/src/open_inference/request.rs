//! An inference request as it came over REST, decoded into the model's inputs.

use engine::onnx::{Tensor, TensorSpec};
use serde_json::{Map, Value};

use super::datatype;
use super::parameters::Parameters;
use crate::shorten::shorten;
use crate::tensors::TensorService;
use crate::tensors::error::TensorError;
use crate::tensors::json::Reader;
use crate::tensors::{nested, raw};

/// Outputs that one request may name.
const OUTPUTS_MAX: usize = 1024;

pub struct InferRequest {
    pub id: Option<String>,
    /// By place in the signature.
    pub inputs: Vec<(usize, Tensor)>,
    /// By place in the signature, in the order asked for.
    pub outputs: Vec<RequestedOutput>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    pub index: usize,
    pub is_binary: bool,
}

/// One input as it stands in the body, its keys in any order.
#[derive(Default)]
struct Input<'a> {
    name: Option<String>,
    datatype: Option<String>,
    shape: Option<Vec<usize>>,
    parameters: Parameters,
    data: Option<Reader<'a>>,
}

/// `binary` is what follows the JSON in the body.
pub fn decode(service: &TensorService, json: &[u8], binary: &[u8]) -> Result<InferRequest, TensorError> {
    let mut reader = Reader::new(json);
    let mut binary = Binary { bytes: binary, at: 0 };
    let (mut id, mut inputs, mut asked) = (None, None, None);
    let mut parameters = Parameters::default();
    reader.object(|reader, key| {
        match key {
            "id" => id = Some(reader.string()?.into_owned()),
            "parameters" => parameters = read_parameters(reader)?,
            "inputs" => inputs = Some(read_inputs(service, reader, &mut binary)?),
            "outputs" => asked = Some(read_outputs(service, reader)?),
            // What KServe's own client sends along; the URL says them.
            "model_name" | "model_version" => drop(reader.value()?),
            other => return Err(unknown("the request", other)),
        }
        Ok::<(), TensorError>(())
    })?;
    reader.end()?;
    if binary.at != binary.bytes.len() {
        let (used, came) = (binary.at, binary.bytes.len());
        return Err(TensorError::invalid(format!(
            "{came} bytes follow the JSON, and its inputs' \"binary_data_size\" speak of {used}"
        )));
    }
    let inputs = inputs.ok_or_else(|| TensorError::invalid("\"inputs\" is required and missing"))?;
    let is_binary = parameters.flag("binary_data_output")?.unwrap_or(false);
    let all = || (0..service.onnx.signature().outputs.len()).map(|index| (index, None)).collect();
    let asked: Vec<(usize, Option<bool>)> =
        asked.filter(|asked: &Vec<_>| !asked.is_empty()).unwrap_or_else(all);
    let outputs =
        asked.into_iter().map(|(index, own)| RequestedOutput { index, is_binary: own.unwrap_or(is_binary) });
    Ok(InferRequest { id, inputs, outputs: outputs.collect() })
}

fn unknown(place: &str, key: &str) -> TensorError {
    let key = shorten(key);
    TensorError::invalid(format!("{place} has the key {key:?}, which the protocol doesn't know"))
}

fn read_parameters(reader: &mut Reader) -> Result<Parameters, TensorError> {
    Parameters::new(reader.small::<Map<String, Value>>("an object of parameters")?)
}

/// The bytes after the JSON, taken in the order of the inputs.
struct Binary<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Binary<'a> {
    fn take(&mut self, name: &str, size: usize) -> Result<&'a [u8], TensorError> {
        let left = self.bytes.len() - self.at;
        let end = self.at.checked_add(size).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            TensorError::invalid(format!(
                "the input {name:?} has {size} bytes after the JSON, where {left} are left"
            ))
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

fn read_inputs<'a>(
    service: &TensorService,
    reader: &mut Reader<'a>,
    binary: &mut Binary,
) -> Result<Vec<(usize, Tensor)>, TensorError> {
    let mut inputs = Vec::new();
    let inputs_max = service.onnx.signature().inputs.len();
    reader.array(|reader| {
        if inputs.len() == inputs_max {
            return Err(TensorError::invalid(format!(
                "the model takes {inputs_max} inputs, and the request has more"
            )));
        }
        inputs.push(read_input(service, reader, binary)?);
        Ok(())
    })?;
    Ok(inputs)
}

fn read_input<'a>(
    service: &TensorService,
    reader: &mut Reader<'a>,
    binary: &mut Binary,
) -> Result<(usize, Tensor), TensorError> {
    let mut input = Input::default();
    reader.object(|reader, key| {
        match key {
            "name" => input.name = Some(reader.string()?.into_owned()),
            "datatype" => input.datatype = Some(reader.string()?.into_owned()),
            "shape" => input.shape = Some(reader.small("an array of lengths")?),
            "parameters" => input.parameters = read_parameters(reader)?,
            "data" => {
                reader.peek();
                input.data = Some(reader.clone());
                reader.value()?;
            }
            other => return Err(unknown("an input", other)),
        }
        Ok::<(), TensorError>(())
    })?;
    let missing = |key: &str| TensorError::invalid(format!("an input has no {key:?}, which is required"));
    let name = input.name.ok_or_else(|| missing("name"))?;
    let index = service.onnx.input_index(&name)?;
    let spec = &service.onnx.signature().inputs[index];
    datatype::check(&name, spec.element, &input.datatype.ok_or_else(|| missing("datatype"))?)?;
    let shape = input.shape.ok_or_else(|| missing("shape"))?;
    let tensor = match (input.data, input.parameters.size("binary_data_size")?) {
        (Some(_), Some(_)) => {
            let message = format!("the input {name:?} has both \"data\" and \"binary_data_size\": send one");
            return Err(TensorError::invalid(message));
        }
        (Some(data), None) => read_data(spec, data, shape)?,
        (None, Some(size)) => {
            let elements = raw::decode(spec.element, binary.take(&name, size)?);
            let wrong = |error| TensorError::invalid(format!("the input {name:?}: {error}"));
            Tensor { shape, elements: elements.map_err(wrong)? }
        }
        (None, None) => return Err(missing("data")),
    };
    Ok((index, tensor))
}

/// Numbers in one array, or in arrays of the shape that was said.
fn read_data(spec: &TensorSpec, mut data: Reader, shape: Vec<usize>) -> Result<Tensor, TensorError> {
    let mut elements = nested::empty(spec.element);
    let found = nested::append(&mut data, spec.element, &mut elements)?;
    if found.len() > 1 && found != shape {
        let message =
            format!("the input {:?} has data of the shape {found:?}, and says {shape:?}", spec.name);
        return Err(TensorError::invalid(message));
    }
    Ok(Tensor { shape, elements })
}

fn read_outputs(
    service: &TensorService,
    reader: &mut Reader,
) -> Result<Vec<(usize, Option<bool>)>, TensorError> {
    let mut outputs: Vec<(usize, Option<bool>)> = Vec::new();
    reader.array(|reader| {
        if outputs.len() == OUTPUTS_MAX {
            return Err(TensorError::invalid(format!("more than {OUTPUTS_MAX} outputs are asked for")));
        }
        let (mut name, mut parameters) = (None, Parameters::default());
        reader.object(|reader, key| {
            match key {
                "name" => name = Some(reader.string()?.into_owned()),
                "parameters" => parameters = read_parameters(reader)?,
                other => return Err(unknown("an output", other)),
            }
            Ok::<(), TensorError>(())
        })?;
        let name =
            name.ok_or_else(|| TensorError::invalid("an output has no \"name\", which is required"))?;
        outputs.push((output_index(service, &name)?, parameters.flag("binary_data")?));
        Ok::<(), TensorError>(())
    })?;
    Ok(outputs)
}

/// The place of the output `name` in the signature.
pub fn output_index(service: &TensorService, name: &str) -> Result<usize, TensorError> {
    let outputs = &service.onnx.signature().outputs;
    outputs.iter().position(|spec| spec.name == name).ok_or_else(|| {
        let all: Vec<String> = outputs.iter().map(ToString::to_string).collect();
        let name = shorten(name);
        TensorError::invalid(format!("the model has no output {name:?}; it gives {}", all.join("; ")))
    })
}
