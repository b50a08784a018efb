//! A model out of Keras's JSON: the calls of its layers, and of models within it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use serde_json::Value;

use super::read::{batch_shape, calls, calls_of_model, described, places, sample, shared};
use super::{JSON_BYTES_MAX, LAYERS_MAX, failed, masks};
use crate::error::Result;
use crate::model::{Input, Model, Shared, Tensor, snake_case};

/// Models within models.
const DEPTH_MAX: usize = 8;
/// Calls of layers, those of models that are called several times counted each time.
const CALLS_MAX: usize = 1 << 16;

/// The model that `model.to_json()` of Keras 3 described, `Sequential` or `Functional`, with weights of its own.
///
/// # Errors
/// When the text isn't such a model; when it has a layer, an argument or a model within that isn't supported: the error
/// names it.
pub fn from_json(text: &str) -> Result<Model> {
    if text.len() > JSON_BYTES_MAX {
        return Err(failed(format!("{} bytes of JSON; at most {JSON_BYTES_MAX} are read", text.len())));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| failed(format!("no JSON: {error}")))?;
    let Wired { inputs, outputs, .. } = wired(&value)?;
    Model::new(inputs, outputs)
}

/// A model that is wired but has no weights yet.
pub(super) struct Wired {
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// Names of the file's layers in its order, those of models within among them, and the folder of each one's weights.
    pub layers: Vec<(String, String)>,
}

pub(super) fn wired(value: &Value) -> Result<Wired> {
    let mut reader = Reader { layers: vec![], calls: 0 };
    let plan = reader.plan(value, "", "", 0)?;
    let input = |(place, shape): &(Place<'_>, Value)| Ok(Input::named(place.0, sample(place.0, shape)?));
    let inputs: Vec<Tensor> = plan.inputs.iter().map(input).collect::<Result<_>>()?;
    let outputs = plan.applied(&inputs, &mut reader.calls)?;
    Ok(Wired { inputs, outputs, layers: reader.layers })
}

/// Layer, call and result.
pub(super) type Place<'a> = (&'a str, usize, usize);

/// What is called: a layer, or a model within.
pub(super) enum Callee<'a> {
    Layer(Shared),
    Model(Rc<Plan<'a>>),
}

/// A call that waits for its inputs.
pub(super) struct Waiting<'a> {
    pub callee: Callee<'a>,
    pub name: &'a str,
    pub call: usize,
    pub inputs: Vec<Place<'a>>,
}

/// A model's calls, to be made on any tensors.
pub(super) struct Plan<'a> {
    /// With the shapes that the file says, the batch first.
    pub inputs: Vec<(Place<'a>, Value)>,
    outputs: Vec<Place<'a>>,
    calls: Vec<Waiting<'a>>,
}

struct Reader {
    layers: Vec<(String, String)>,
    calls: usize,
}

/// Whether a file's object is a model.
fn is_model(value: &Value) -> bool {
    let module = value["module"].as_str().unwrap_or_default();
    let own = ["keras", "keras.models"].contains(&module) || module.starts_with("keras.src.models.");
    own && matches!(value["class_name"].as_str(), Some("Sequential" | "Functional" | "Model"))
        && value["config"]["layers"].is_array()
}

impl Reader {
    /// `prefix` stands before the names of layers, and `folder` before those of weights.
    fn plan<'a>(&mut self, value: &'a Value, prefix: &str, folder: &str, depth: usize) -> Result<Plan<'a>> {
        let layers = value["config"]["layers"].as_array().filter(|_| is_model(value));
        let Some(layers) = layers else {
            let [module, class] = ["module", "class_name"].map(|key| value[key].as_str().unwrap_or_default());
            return Err(failed(format!(
                "{module}.{class} is not supported; there are: keras.Sequential, keras.Model"
            )));
        };
        if layers.len() + self.layers.len() > LAYERS_MAX {
            return Err(failed(format!("it has more than {LAYERS_MAX} layers")));
        }
        if depth > DEPTH_MAX {
            return Err(failed(format!("it has models within models more than {DEPTH_MAX} deep")));
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut below = |class: &str| {
            let snake = snake_case(class);
            let count = counts.entry(snake.clone()).or_default();
            *count += 1;
            if *count == 1 {
                format!("{folder}layers/{snake}")
            } else {
                format!("{folder}layers/{snake}_{}", *count - 1)
            }
        };
        let mut each = vec![];
        let masks = masks::operations(layers);
        let is_mask =
            |layer: &&Value| layer["config"]["name"].as_str().is_some_and(|name| masks.contains(name));
        for layer in layers.iter().filter(|layer| !is_mask(layer)) {
            let class = layer["class_name"].as_str().unwrap_or_default();
            let folder = below(class);
            if is_model(layer) {
                let name = layer["config"]["name"].as_str().or(layer["name"].as_str());
                let name = name.ok_or_else(|| failed("a model within has no name"))?;
                let plan = self.plan(layer, &format!("{prefix}{name}_"), &format!("{folder}/"), depth + 1)?;
                each.push((name, layer, Some(Rc::new(plan))));
                continue;
            }
            let described = described(layer)?;
            let name = format!("{prefix}{}", described.name);
            if self.layers.iter().any(|(other, _)| *other == name) {
                return Err(failed(format!("two layers are called {name:?}")));
            }
            self.layers.push((name, folder));
            each.push((described.name, layer, None));
        }
        if value["class_name"] == "Sequential" {
            sequential(value, prefix, each)
        } else {
            functional(value, prefix, each, &masks)
        }
    }
}

/// Layers of a file by name, and what is within where they are models.
type Each<'a> = Vec<(&'a str, &'a Value, Option<Rc<Plan<'a>>>)>;

fn sequential<'a>(value: &'a Value, prefix: &str, each: Each<'a>) -> Result<Plan<'a>> {
    const INPUT: &str = "input_layer";
    let built = [&value["config"]["build_input_shape"], &value["build_config"]["input_shape"]];
    let built = built.into_iter().find(|shape| shape.is_array()).unwrap_or(&Value::Null);
    let mut input = ((INPUT, 0, 0), built.clone());
    let mut calls = vec![];
    let mut last = None;
    for (name, layer, plan) in each {
        let callee = match plan {
            Some(plan) if plan.inputs.len() == 1 && plan.outputs.len() == 1 => {
                if last.is_none() && input.1.is_null() {
                    input.1 = plan.inputs[0].1.clone();
                }
                Callee::Model(plan)
            }
            Some(_) => {
                return Err(failed(format!(
                    "the model {name:?} within a chain has several inputs or outputs"
                )));
            }
            None => {
                let layer = described(layer)?;
                if layer.class == "InputLayer" {
                    if last.is_some() {
                        return Err(failed(format!("the input {name:?} isn't the first layer")));
                    }
                    input = ((name, 0, 0), batch_shape(&layer).clone());
                    last = Some(input.0);
                    continue;
                }
                Callee::Layer(shared(&format!("{prefix}{name}"), layer.class, layer.config)?)
            }
        };
        calls.push(Waiting { callee, name, call: 0, inputs: vec![last.unwrap_or(input.0)] });
        last = Some((name, 0, 0));
    }
    let output = last.ok_or_else(|| failed("it has no layers"))?;
    Ok(Plan { inputs: vec![input], outputs: vec![output], calls })
}

fn functional<'a>(value: &'a Value, prefix: &str, each: Each<'a>, masks: &HashSet<&str>) -> Result<Plan<'a>> {
    let config = &value["config"];
    let mut shapes: HashMap<Place<'_>, Value> = HashMap::new();
    let mut waiting = vec![];
    let mut outputs = places(&config["output_layers"])?;
    for (name, value, plan) in each {
        if let Some(plan) = plan {
            if value["class_name"] != "Sequential" {
                // Here alone, Keras counts the making of a functional model as its first call.
                for output in outputs.iter_mut().filter(|output| output.0 == name) {
                    let call = output.1.checked_sub(1);
                    output.1 =
                        call.ok_or_else(|| failed(format!("the model ends before {name:?} is called")))?;
                }
            }
            waiting.extend(calls_of_model(name, plan, &value["inbound_nodes"], masks)?);
            continue;
        }
        let layer = described(value)?;
        if layer.class == "InputLayer" {
            shapes.insert((name, 0, 0), batch_shape(&layer).clone());
        } else {
            waiting.extend(calls(prefix, &layer, &value["inbound_nodes"], masks)?);
        }
    }
    let shape = |place: Place<'a>| {
        let shape = shapes.get(&place).cloned();
        Ok((place, shape.ok_or_else(|| failed(format!("the model begins at {place:?}, which is no input")))?))
    };
    let inputs = places(&config["input_layers"])?.into_iter().map(shape).collect::<Result<_>>()?;
    Ok(Plan { inputs, outputs, calls: waiting })
}

impl<'a> Plan<'a> {
    /// The outputs for these inputs.
    fn applied(&self, given: &[Tensor], made: &mut usize) -> Result<Vec<Tensor>> {
        let mut tensors: HashMap<Place<'_>, Tensor> = HashMap::new();
        let inputs = self.inputs.iter().zip(given);
        tensors.extend(inputs.map(|((place, _), tensor)| (*place, tensor.clone())));
        // How many results of each call are asked for.
        let mut counts: HashMap<(&str, usize), usize> = HashMap::new();
        for &(name, call, result) in self.calls.iter().flat_map(|call| &call.inputs).chain(&self.outputs) {
            let count = counts.entry((name, call)).or_default();
            *count = (*count).max(result + 1);
        }
        let mut waiting: VecDeque<&Waiting<'_>> = self.calls.iter().collect();
        let mut without_progress = 0;
        while let Some(call) = waiting.pop_front() {
            let given: Option<Vec<Tensor>> =
                call.inputs.iter().map(|place| tensors.get(place).cloned()).collect();
            let Some(given) = given else {
                without_progress += 1;
                if without_progress > waiting.len() {
                    return Err(failed(format!(
                        "the layer {:?} is called on what no layer yields",
                        call.name
                    )));
                }
                waiting.push_back(call);
                continue;
            };
            without_progress = 0;
            *made += 1;
            if *made > CALLS_MAX {
                return Err(failed(format!("it calls layers more than {CALLS_MAX} times")));
            }
            let results = match &call.callee {
                Callee::Layer(layer) => {
                    layer.outputs(given, counts.get(&(call.name, call.call)).copied().unwrap_or(1))
                }
                Callee::Model(plan) => plan.applied(&given, made)?,
            };
            for (result, tensor) in results.into_iter().enumerate() {
                tensors.insert((call.name, call.call, result), tensor);
            }
        }
        let find = |place: &Place<'_>| {
            let unknown = || failed(format!("the model begins or ends at {place:?}, which no layer yields"));
            tensors.get(place).cloned().ok_or_else(unknown)
        };
        self.outputs.iter().map(find).collect()
    }
}
