//! A model as Keras's JSON.

use serde_json::{Map, Value, json};

use super::ATTENTION;
use super::order::{Element, order};
use crate::layers::Layer;
use crate::model::{Model, Origin};

/// What `keras.models.model_from_json` reads: a `Functional` model, without weights.
pub fn to_json(model: &Model) -> String {
    described(model).to_string()
}

/// A layer's name. Where there are masks, Keras adds operations by itself, some of them called `concatenate`, and refuses a
/// model in which a name is there twice.
fn written_name(model: &Model, node: usize) -> String {
    let makes_masks = |layer: &dyn Layer| match layer.class_name() {
        "Embedding" => layer.config()["mask_zero"] == Value::Bool(true),
        class => class == "Masking",
    };
    let name = &model.nodes[node].name;
    if name.starts_with("concatenate") && model.nodes.iter().any(|node| makes_masks(node.layer())) {
        return format!("layer_{name}");
    }
    name.clone()
}

pub(super) fn described(model: &Model) -> Value {
    let mut layers = vec![];
    // The number of each step among the calls of its layer.
    let mut calls = vec![0; model.nodes.len()];
    let mut numbers = vec![];
    for step in &model.steps {
        numbers.push(calls[step.node]);
        calls[step.node] += 1;
    }
    let place = |origin: Origin| match origin {
        Origin::Input(number) => json!([model.inputs[number].0, 0, 0]),
        Origin::Step(step, result) => {
            json!([written_name(model, model.steps[step].node), numbers[step], result])
        }
    };
    let tensor = |origin: Origin| {
        let shape = match origin {
            Origin::Input(number) => &model.inputs[number].1[..],
            Origin::Step(step, result) => &model.steps[step].shapes[result][1..],
        };
        let config = json!({ "shape": open(shape), "dtype": "float32", "keras_history": place(origin) });
        json!({ "class_name": "__keras_tensor__", "config": config })
    };
    for element in order(model) {
        let number = match element {
            Element::Layer(number) => number,
            Element::Input(number) => {
                let (name, shape) = &model.inputs[number];
                layers.push(input(name, shape));
                continue;
            }
        };
        let (name, layer) = (&written_name(model, number), model.nodes[number].layer());
        let class = layer.class_name();
        let (mut config, call) = split(name, layer.config());
        if !model.nodes[number].layer.is_trainable() {
            config["trainable"] = false.into();
        }
        let steps = model.steps.iter().filter(|step| step.node == number);
        let nodes: Vec<Value> = steps
            .map(|step| {
                let given: Vec<Value> = step.inputs.iter().map(|&origin| tensor(origin)).collect();
                node(class, given, call.clone())
            })
            .collect();
        layers.push(json!({
            "module": "keras.layers", "class_name": class, "config": config, "registered_name": null, "name": name,
            "inbound_nodes": nodes,
        }));
    }
    let inputs: Vec<Value> = (0..model.inputs.len()).map(|number| place(Origin::Input(number))).collect();
    let outputs: Vec<Value> = model.outputs.iter().map(|&origin| place(origin)).collect();
    let config = json!({
        "name": "model", "trainable": true, "layers": layers, "input_layers": inputs, "output_layers": outputs,
    });
    json!({
        "module": "keras.src.models.functional", "class_name": "Functional", "config": config,
        "registered_name": "Functional",
    })
}

/// A shape with its batch, which is open.
fn open(sample: &[usize]) -> Value {
    let sizes = sample.iter().map(|&size| Value::from(size));
    std::iter::once(Value::Null).chain(sizes).collect()
}

fn input(name: &str, shape: &[usize]) -> Value {
    let config = json!({
        "batch_shape": open(shape), "dtype": "float32", "sparse": false, "ragged": false, "name": name,
    });
    json!({
        "module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": null, "name": name,
        "inbound_nodes": [],
    })
}

/// A layer's configuration with its name, and what Keras wants of it when the layer is called.
fn split(name: &str, config: Value) -> (Value, Map<String, Value>) {
    let Value::Object(mut config) = config else { return (config, Map::new()) };
    config.insert("name".to_owned(), name.into());
    let mut call = Map::new();
    if let Some(causal) = config.remove("use_causal_mask") {
        call.insert("use_causal_mask".to_owned(), causal);
    }
    config.iter_mut().for_each(|(key, value)| with_module(key, value));
    (Value::Object(config), call)
}

/// Says where Keras finds the class of an object within a configuration.
fn with_module(key: &str, value: &mut Value) {
    let modules = [
        ("initializer", "keras.initializers"),
        ("regularizer", "keras.regularizers"),
        ("constraint", "keras.constraints"),
        ("layer", "keras.layers"),
    ];
    let Some((_, module)) = modules.iter().find(|(end, _)| key.ends_with(end)) else { return };
    let Some(object) = value.as_object_mut() else { return };
    object.insert("module".to_owned(), (*module).into());
    object.insert("registered_name".to_owned(), Value::Null);
    if let Some(Value::Object(config)) = object.get_mut("config") {
        config.iter_mut().for_each(|(key, value)| with_module(key, value));
    }
}

fn node(class: &str, mut given: Vec<Value>, mut call: Map<String, Value>) -> Value {
    let arguments: Vec<Value> = match class {
        "Add" | "Subtract" | "Multiply" | "Average" | "Maximum" | "Minimum" | "Concatenate" | "Dot" => {
            vec![given.into()]
        }
        // Attention of one tensor to itself.
        _ if ATTENTION.contains(&class) && given.len() == 1 => vec![given[0].clone(), given.remove(0)],
        _ if ATTENTION.contains(&class) => given,
        _ => {
            let states = given.split_off(1);
            if !states.is_empty() {
                call.insert("initial_state".to_owned(), states.into());
            }
            given
        }
    };
    json!({ "args": arguments, "kwargs": call })
}
