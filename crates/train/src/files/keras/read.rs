//! A model out of Keras's JSON.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use super::{CALLS_MAX, JSON_BYTES_MAX, LAYERS_MAX, RESULTS_MAX, arguments, failed};
use crate::error::Result;
use crate::model::{Input, Model, Shared, Tensor};

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
    /// Names and classes of the file's layers, in its order.
    pub layers: Vec<(String, String)>,
}

pub(super) fn wired(value: &Value) -> Result<Wired> {
    let class = value["class_name"].as_str().unwrap_or_default();
    let module = value["module"].as_str().unwrap_or_default();
    let own = ["keras", "keras.models"].contains(&module) || module.starts_with("keras.src.models.");
    let layers = value["config"]["layers"].as_array().filter(|_| own);
    let (Some(layers), "Sequential" | "Functional" | "Model") = (layers, class) else {
        return Err(failed(format!(
            "{module}.{class} is not supported; there are: keras.Sequential, keras.Model"
        )));
    };
    if layers.len() > LAYERS_MAX {
        return Err(failed(format!("it has {} layers; at most {LAYERS_MAX} are read", layers.len())));
    }
    if class == "Sequential" { sequential(value, layers) } else { functional(value, layers) }
}

/// What a file says of a layer.
struct Described<'a> {
    name: &'a str,
    class: &'a str,
    config: &'a Map<String, Value>,
}

fn described(layer: &Value) -> Result<Described<'_>> {
    let class = layer["class_name"].as_str().unwrap_or_default();
    let module = layer["module"].as_str().unwrap_or_default();
    let named = layer["config"]["name"].as_str().or(layer["name"].as_str());
    let (Some(config), Some(name)) = (layer["config"].as_object(), named) else {
        return Err(failed(format!("a layer of class {class:?} has no config with a name")));
    };
    if module != "keras.layers" && !module.starts_with("keras.src.layers.") {
        return Err(failed(format!(
            "the layer {name:?} is a {module}.{class}, which is not supported: only layers of keras.layers are read"
        )));
    }
    Ok(Described { name, class, config })
}

fn shared(layer: &Described<'_>) -> Result<Shared> {
    Ok(Shared::boxed(arguments::layer(layer.name, layer.class, layer.config)?, layer.name))
}

fn batch_shape<'a>(layer: &Described<'a>) -> &'a Value {
    layer.config.get("batch_shape").unwrap_or(&Value::Null)
}

/// The shape of a sample of an input.
fn sample(name: &str, shape: &Value) -> Result<Vec<usize>> {
    let sizes = shape.as_array().filter(|sizes| !sizes.is_empty()).map_or(&[][..], |sizes| &sizes[1..]);
    let size =
        |size: &Value| size.as_u64().filter(|size| (1..=1 << 28).contains(size)).map(|size| size as usize);
    let sizes: Option<Vec<usize>> = sizes.iter().map(size).collect();
    sizes.filter(|sizes| !sizes.is_empty()).ok_or_else(|| {
        failed(format!(
            "the input {name:?} has the shape {shape}; sizes after the batch have to be known numbers"
        ))
    })
}

fn sequential(value: &Value, layers: &[Value]) -> Result<Wired> {
    let config = &value["config"];
    let mut input = None;
    let mut names = vec![];
    let mut x: Option<Tensor> = None;
    for layer in layers {
        let layer = described(layer)?;
        names.push((layer.name.to_owned(), layer.class.to_owned()));
        if layer.class == "InputLayer" {
            if x.is_some() {
                return Err(failed(format!("the input {:?} isn't the first layer", layer.name)));
            }
            x = Some(Input::named(layer.name, sample(layer.name, batch_shape(&layer))?));
            input = x.clone();
            continue;
        }
        let before = match x {
            Some(x) => x,
            None => {
                let built = [&config["build_input_shape"], &value["build_config"]["input_shape"]];
                let shape = built.into_iter().find(|shape| shape.is_array()).unwrap_or(&Value::Null);
                let made = Input::named("input_layer", sample("input_layer", shape)?);
                input = Some(made.clone());
                made
            }
        };
        x = Some(shared(&layer)?.on(&before));
    }
    let (Some(input), Some(output)) = (input, x) else { return Err(failed("it has no layers")) };
    Ok(Wired { inputs: vec![input], outputs: vec![output], layers: names })
}

/// Layer, call and result.
type Place<'a> = (&'a str, usize, usize);

/// A call that waits for its inputs.
struct Waiting<'a> {
    layer: Shared,
    name: &'a str,
    call: usize,
    inputs: Vec<Place<'a>>,
}

fn functional(value: &Value, layers: &[Value]) -> Result<Wired> {
    let config = &value["config"];
    let mut tensors: HashMap<Place<'_>, Tensor> = HashMap::new();
    let mut waiting = VecDeque::new();
    let mut names = vec![];
    for value in layers {
        let layer = described(value)?;
        if names.iter().any(|(name, _)| name == layer.name) {
            return Err(failed(format!("two layers are called {:?}", layer.name)));
        }
        names.push((layer.name.to_owned(), layer.class.to_owned()));
        if layer.class == "InputLayer" {
            let shape = sample(layer.name, batch_shape(&layer))?;
            tensors.insert((layer.name, 0, 0), Input::named(layer.name, shape));
        } else {
            waiting.extend(calls(&layer, &value["inbound_nodes"])?);
        }
    }
    let inputs = places(&config["input_layers"])?;
    let outputs = places(&config["output_layers"])?;
    // How many results of each call are asked for.
    let mut counts: HashMap<(&str, usize), usize> = HashMap::new();
    for &(name, call, result) in waiting.iter().flat_map(|call: &Waiting<'_>| &call.inputs).chain(&outputs) {
        let count = counts.entry((name, call)).or_default();
        *count = (*count).max(result + 1);
    }
    let mut without_progress = 0;
    while let Some(call) = waiting.pop_front() {
        let given: Option<Vec<Tensor>> =
            call.inputs.iter().map(|place| tensors.get(place).cloned()).collect();
        let Some(given) = given else {
            without_progress += 1;
            if without_progress > waiting.len() {
                return Err(failed(format!("the layer {:?} is called on what no layer yields", call.name)));
            }
            waiting.push_back(call);
            continue;
        };
        without_progress = 0;
        let count = counts.get(&(call.name, call.call)).copied().unwrap_or(1);
        for (result, tensor) in call.layer.outputs(given, count).into_iter().enumerate() {
            tensors.insert((call.name, call.call, result), tensor);
        }
    }
    let find = |place: &Place<'_>| {
        let unknown = || failed(format!("the model begins or ends at {place:?}, which no layer yields"));
        tensors.get(place).cloned().ok_or_else(unknown)
    };
    let inputs: Vec<Tensor> = inputs.iter().map(find).collect::<Result<_>>()?;
    let outputs: Vec<Tensor> = outputs.iter().map(find).collect::<Result<_>>()?;
    Ok(Wired { inputs, outputs, layers: names })
}

fn place(value: &Value) -> Result<Place<'_>> {
    let parts = || {
        let number = |value: &Value, max: usize| {
            value.as_u64().map(|number| number as usize).filter(|number| *number < max)
        };
        Some((value[0].as_str()?, number(&value[1], CALLS_MAX)?, number(&value[2], RESULTS_MAX)?))
    };
    parts().ok_or_else(|| failed(format!("{value} is no layer, call and result")))
}

/// One place or a list of them.
fn places(value: &Value) -> Result<Vec<Place<'_>>> {
    match value.as_array() {
        Some(parts) if parts.first().is_some_and(Value::is_string) => Ok(vec![place(value)?]),
        Some(parts) if !parts.is_empty() => parts.iter().map(place).collect(),
        _ => Err(failed(format!("{value} names no layers that the model begins or ends with"))),
    }
}

fn calls<'a>(layer: &Described<'a>, nodes: &'a Value) -> Result<Vec<Waiting<'a>>> {
    let Described { name, class, .. } = *layer;
    let nodes = nodes.as_array().filter(|nodes| (1..=CALLS_MAX).contains(&nodes.len()));
    let nodes = nodes.ok_or_else(|| failed(format!("the layer {name:?} is never called, or too often")))?;
    let mut config = layer.config.clone();
    let causal = |node: &Value| node["kwargs"]["use_causal_mask"] == Value::Bool(true);
    if class == "MultiHeadAttention" {
        if nodes.iter().any(|node| causal(node) != causal(&nodes[0])) {
            return Err(failed(format!("the layer {name:?} is called with and without a causal mask")));
        }
        config.insert("use_causal_mask".to_owned(), causal(&nodes[0]).into());
    }
    let layer = Shared::boxed(arguments::layer(name, class, &config)?, name);
    let call = |(call, node): (usize, &'a Value)| {
        let inputs = inputs(name, class, node)?;
        check_count(name, class, inputs.len())?;
        Ok(Waiting { layer: layer.clone(), name, call, inputs })
    };
    nodes.iter().enumerate().map(call).collect()
}

/// The tensors that a layer is called on, in the order of its arguments.
fn inputs<'a>(name: &str, class: &str, node: &'a Value) -> Result<Vec<Place<'a>>> {
    let refused = |key: &str, value: &Value| {
        Err(failed(format!("the layer {name:?} is called with {key} = {value}, which is not supported")))
    };
    let mut found = vec![];
    for argument in node["args"].as_array().into_iter().flatten() {
        if !argument.is_null() && !tensors(argument, &mut found)? {
            return refused("an argument", argument);
        }
    }
    let ordered: &[&str] = match class {
        "MultiHeadAttention" => &["query", "value", "key"],
        "LSTM" | "GRU" | "SimpleRNN" => &["sequences", "sequence", "initial_state"],
        _ => &["inputs", "x"],
    };
    let given = node["kwargs"].as_object();
    for &key in ordered {
        let Some(value) = given.and_then(|given| given.get(key)).filter(|value| !value.is_null()) else {
            continue;
        };
        if !tensors(value, &mut found)? {
            return refused(key, value);
        }
    }
    for (key, value) in given.into_iter().flatten() {
        let known = ordered.contains(&key.as_str())
            || (key == "use_causal_mask" && class == "MultiHeadAttention")
            || value.is_null()
            || *value == Value::Bool(false);
        if !known {
            return refused(key, value);
        }
    }
    Ok(found)
}

/// Adds the tensors of a value, if it is one or a list of them.
fn tensors<'a>(value: &'a Value, found: &mut Vec<Place<'a>>) -> Result<bool> {
    if value["class_name"] == "__keras_tensor__" {
        found.push(place(&value["config"]["keras_history"])?);
        return Ok(true);
    }
    let Some(values) = value.as_array().filter(|values| !values.is_empty()) else { return Ok(false) };
    for value in values {
        if !tensors(value, found)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_count(name: &str, class: &str, count: usize) -> Result<()> {
    let fits = match class {
        "Add" | "Subtract" | "Multiply" | "Average" | "Maximum" | "Minimum" | "Concatenate" => count >= 1,
        "MultiHeadAttention" => (2..=3).contains(&count),
        "LSTM" => count == 1 || count == 3,
        "GRU" | "SimpleRNN" => count == 1 || count == 2,
        _ => count == 1,
    };
    if fits {
        return Ok(());
    }
    Err(failed(format!("the layer {name:?} ({class}) is called on {count} tensors")))
}
