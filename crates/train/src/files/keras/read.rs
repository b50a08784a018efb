//! Layers and their calls out of Keras's JSON.

use std::collections::HashSet;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::plan::{Callee, Place, Plan, Waiting};
use super::{ATTENTION, CALLS_MAX, RESULTS_MAX, arguments, failed, masks};
use crate::error::Result;
use crate::model::Shared;

/// What a file says of a layer.
pub(super) struct Described<'a> {
    pub name: &'a str,
    pub class: &'a str,
    pub config: &'a Map<String, Value>,
}

pub(super) fn described(layer: &Value) -> Result<Described<'_>> {
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

pub(super) fn shared(name: &str, class: &str, config: &Map<String, Value>) -> Result<Shared> {
    let mut config = config.clone();
    let is_frozen = config.get("trainable") == Some(&Value::Bool(false));
    config.retain(|key, _| key != "trainable" || !is_frozen);
    let layer = Shared::boxed(arguments::layer(name, class, &config)?, name);
    Ok(if is_frozen { layer.frozen() } else { layer })
}

pub(super) fn batch_shape<'a>(layer: &Described<'a>) -> &'a Value {
    layer.config.get("batch_shape").unwrap_or(&Value::Null)
}

/// The shape of a sample of an input.
pub(super) fn sample(name: &str, shape: &Value) -> Result<Vec<usize>> {
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
pub(super) fn places(value: &Value) -> Result<Vec<Place<'_>>> {
    match value.as_array() {
        Some(parts) if parts.first().is_some_and(Value::is_string) => Ok(vec![place(value)?]),
        Some(parts) if !parts.is_empty() => parts.iter().map(place).collect(),
        _ => Err(failed(format!("{value} names no layers that the model begins or ends with"))),
    }
}

/// The calls of a layer or of a model within.
fn nodes<'a>(name: &str, nodes: &'a Value) -> Result<&'a [Value]> {
    let nodes = nodes.as_array().filter(|nodes| (1..=CALLS_MAX).contains(&nodes.len()));
    Ok(nodes.ok_or_else(|| failed(format!("the layer {name:?} is never called, or too often")))?)
}

/// The calls of the model `model` within another.
pub(super) fn calls_of_model<'a>(
    name: &'a str,
    model: Rc<Plan<'a>>,
    of: &'a Value,
    masks: &HashSet<&str>,
) -> Result<Vec<Waiting<'a>>> {
    let call = |(call, node): (usize, &'a Value)| {
        let inputs = inputs(name, "Model", node, masks)?;
        if inputs.len() != model.inputs.len() {
            let problem = format!("the model {name:?} within is called on {} tensors", inputs.len());
            return Err(failed(problem));
        }
        Ok(Waiting { callee: Callee::Model(model.clone()), name, call, inputs })
    };
    nodes(name, of)?.iter().enumerate().map(call).collect()
}

pub(super) fn calls<'a>(
    prefix: &str,
    layer: &Described<'a>,
    of: &'a Value,
    masks: &HashSet<&str>,
) -> Result<Vec<Waiting<'a>>> {
    let Described { name, class, .. } = *layer;
    let nodes = nodes(name, of)?;
    let mut config = layer.config.clone();
    let causal = |node: &Value| node["kwargs"]["use_causal_mask"] == Value::Bool(true);
    if ATTENTION.contains(&class) {
        if nodes.iter().any(|node| causal(node) != causal(&nodes[0])) {
            return Err(failed(format!("the layer {name:?} is called with and without a causal mask")));
        }
        config.insert("use_causal_mask".to_owned(), causal(&nodes[0]).into());
    }
    let layer = shared(&format!("{prefix}{name}"), class, &config)?;
    let call = |(call, node): (usize, &'a Value)| {
        let inputs = inputs(name, class, node, masks)?;
        check_count(name, class, inputs.len())?;
        Ok(Waiting { callee: Callee::Layer(layer.clone()), name, call, inputs })
    };
    nodes.iter().enumerate().map(call).collect()
}

/// The tensors that a layer is called on, in the order of its arguments.
fn inputs<'a>(name: &str, class: &str, node: &'a Value, masks: &HashSet<&str>) -> Result<Vec<Place<'a>>> {
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
        _ if ATTENTION.contains(&class) => &["query", "value", "key"],
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
            || (key == "use_causal_mask" && ATTENTION.contains(&class))
            || (masks::ARGUMENTS.contains(&key.as_str()) && masks::is_mask(masks, value))
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
        "Dot" => count == 2,
        _ if ATTENTION.contains(&class) => (2..=3).contains(&count),
        "LSTM" => count == 1 || count == 3,
        "GRU" | "SimpleRNN" => count == 1 || count == 2,
        _ => count == 1,
    };
    if fits {
        return Ok(());
    }
    Err(failed(format!("the layer {name:?} ({class}) is called on {count} tensors")))
}
