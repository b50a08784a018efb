//! The JSON Schema of definitions, by which editors complete and check them: the structs', with each class and its
//! arguments, as layers, losses and optimisers have them, in place of what serde takes as a map.

use serde_json::{Map, Value, json};

use super::Defined;
use super::compile::{self, OF_ALL_OPTIMIZERS};
use super::layer::{self, REQUIRED, SIZES};
use super::named::{ALIASES, Known, snake};
use crate::activations::Activation;
use crate::layers::{self, FillMode, FlipMode, MergeMode, Padding};

/// The schema, made from the structs and the classes.
pub fn schema() -> Value {
    let mut schema = serde_json::to_value(schemars::schema_for!(Defined)).unwrap_or(json!({}));
    schema["title"] = json!("A definition for `tureen train`");
    let Some(definitions) = schema["$defs"].as_object_mut() else { return schema };
    for (name, words) in [
        ("Activation", serde_json::to_value(schemars::schema_for!(Activation))),
        ("Padding", serde_json::to_value(schemars::schema_for!(Padding))),
        ("MergeMode", serde_json::to_value(schemars::schema_for!(MergeMode))),
        ("FlipMode", serde_json::to_value(schemars::schema_for!(FlipMode))),
        ("FillMode", serde_json::to_value(schemars::schema_for!(FillMode))),
    ] {
        let mut words = words.unwrap_or_default();
        words.as_object_mut().map(|words| words.remove("$schema"));
        definitions.insert(name.to_owned(), words);
    }
    let mut kinds = vec![
        ("Initializer", layer::initializers(), vec![]),
        ("Regularizer", layer::regularizers(), vec![]),
        ("Constraint", layer::constraints(), vec![]),
        ("Loss", compile::losses(), vec![]),
        ("Metric", compile::metrics(), vec![]),
        ("Schedule", compile::schedules(), vec![]),
        ("GanLoss", compile::gan_losses(), vec![]),
    ];
    kinds.push(("Optimizer", compile::optimizers().0, OF_ALL_OPTIMIZERS.to_vec()));
    for (name, known, further) in kinds {
        definitions.insert(name.to_owned(), named(&known, &further));
    }
    definitions.insert("LayerEntry".to_owned(), layer_entry());
    let recurrent = ["LSTM", "GRU", "SimpleRNN"].map(|class| class_table(class, false));
    definitions.insert("Recurrent".to_owned(), json!({ "oneOf": recurrent }));
    let inner: Vec<&str> = in_definitions().collect();
    let inner =
        json!({ "type": "object", "properties": { "class": { "enum": inner } }, "required": ["class"] });
    definitions.insert("Inner".to_owned(), inner);
    let compiling = &mut definitions["Compiling"]["properties"];
    compiling["optimizer"] = json!({ "$ref": "#/$defs/Optimizer", "default": "adam" });
    compiling["loss"] = json!({
        "description": "One, or one for each output.",
        "anyOf": [{ "$ref": "#/$defs/Loss" }, { "type": "array", "items": { "$ref": "#/$defs/Loss" } }],
    });
    let metrics = json!({ "type": "array", "items": { "$ref": "#/$defs/Metric" } });
    compiling["metrics"] = json!({
        "description": "For every output; or a list for each output.",
        "anyOf": [metrics, { "type": "array", "items": metrics }],
    });
    let adversaries = &mut definitions["Adversaries"]["properties"];
    for key in ["generator_optimizer", "discriminator_optimizer"] {
        let words = adversaries[key]["description"].take();
        adversaries[key] = json!({ "description": words, "$ref": "#/$defs/Optimizer" });
    }
    let words = adversaries["loss"]["description"].take();
    adversaries["loss"] =
        json!({ "description": words, "$ref": "#/$defs/GanLoss", "default": "non_saturating" });
    // What serde takes as a map is said by the classes now.
    definitions.retain(|name, words| name != "Named" && !words.to_string().contains("#/$defs/Named\""));
    schema
}

/// A name, or a table with a class and its arguments.
fn named(known: &Known, further: &[&str]) -> Value {
    let mut names: Vec<String> = vec![];
    for (class, _) in &known.classes {
        names.extend([snake(class), class.clone()]);
        names.extend(ALIASES.iter().filter(|(_, of)| of == class).map(|(alias, _)| (*alias).to_owned()));
    }
    names.dedup();
    let table = |(class, config): &(String, Map<String, Value>)| {
        let mut properties = Map::new();
        properties.insert("class".to_owned(), json!({ "enum": [class, snake(class)] }));
        for (name, default) in config {
            properties.insert(name.clone(), argument(name, default));
        }
        for name in further {
            properties.insert((*name).to_owned(), argument(name, &Value::Null));
        }
        json!({ "type": "object", "properties": properties, "required": ["class"], "additionalProperties": false })
    };
    let tables: Vec<Value> = known.classes.iter().map(table).collect();
    json!({ "anyOf": [{ "enum": names }, { "oneOf": tables }] })
}

/// An argument's schema by its name and its default.
fn argument(name: &str, default: &Value) -> Value {
    let mut schema = match (name, default) {
        _ if name.ends_with("activation") => json!({ "$ref": "#/$defs/Activation" }),
        _ if name.ends_with("_initializer") => return json!({ "$ref": "#/$defs/Initializer" }),
        _ if name.ends_with("_regularizer") => return json!({ "$ref": "#/$defs/Regularizer" }),
        _ if name.ends_with("_constraint") => return json!({ "$ref": "#/$defs/Constraint" }),
        ("learning_rate", _) => {
            return json!({ "anyOf": [{ "type": "number" }, { "$ref": "#/$defs/Schedule" }] });
        }
        ("use_ema", _) => return json!({ "type": "boolean", "default": false }),
        ("ema_momentum", _) => return json!({ "type": "number", "default": 0.99 }),
        ("ema_overwrite_frequency" | "gradient_accumulation_steps", _) => {
            return json!({ "type": "integer", "minimum": 1 });
        }
        ("average", _) => return json!({ "enum": ["micro", "macro", "weighted"] }),
        ("layer", _) => return json!({ "$ref": "#/$defs/Inner" }),
        ("mode", Value::String(mode)) if mode.contains("horizontal") => json!({ "$ref": "#/$defs/FlipMode" }),
        ("fill_mode", _) => json!({ "$ref": "#/$defs/FillMode" }),
        ("axes", _) => json!({ "type": ["integer", "array"], "items": { "type": "integer" } }),
        ("factor", _) => json!({ "type": ["number", "array"], "items": { "type": "number" } }),
        ("shared_axes", _) => return json!({ "type": "array", "items": { "type": "integer", "minimum": 1 } }),
        ("merge_mode", _) => json!({ "$ref": "#/$defs/MergeMode" }),
        ("padding", Value::String(_)) => json!({ "$ref": "#/$defs/Padding" }),
        ("padding" | "cropping", _) => return json!({ "type": ["integer", "array"] }),
        _ if SIZES.contains(&name) => {
            json!({ "type": ["integer", "array"], "items": { "type": "integer", "minimum": 1 } })
        }
        (_, Value::Bool(_)) => json!({ "type": "boolean" }),
        (_, Value::Number(number)) if number.is_u64() || number.is_i64() => json!({ "type": "integer" }),
        (_, Value::Number(_)) => json!({ "type": "number" }),
        (_, Value::String(_)) => json!({ "type": "string" }),
        (_, Value::Array(_)) => json!({ "type": "array", "items": { "type": "number" } }),
        _ => return json!({ "type": "number" }),
    };
    // f32 defaults are shown as a person would write them.
    let default = match default.as_f64().filter(|_| default.is_f64()) {
        Some(number) => {
            (number as f32).to_string().parse::<f64>().map_or(default.clone(), |short| json!(short))
        }
        None => default.clone(),
    };
    if !default.is_null() {
        schema["default"] = default;
    }
    schema
}

/// Classes that a definition may name.
fn in_definitions() -> impl Iterator<Item = &'static str> {
    layers::supported().filter(|class| *class != "Normalization")
}

fn layer_entry() -> Value {
    let mut tables: Vec<Value> = in_definitions().map(|class| class_table(class, true)).collect();
    let mut again = wiring();
    again.insert("shared".to_owned(), json!({ "type": "string", "description": "The name of a layer above that is called again, with the same weights." }));
    tables.push(json!({ "type": "object", "properties": again, "required": ["shared"], "additionalProperties": false }));
    json!({ "description": "One layer, called once, with Keras's arguments.", "oneOf": tables })
}

fn wiring() -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert(
        "name".to_owned(),
        json!({ "type": "string", "description": "What other layers and outputs call it." }),
    );
    properties.insert(
        "inputs".to_owned(),
        json!({
            "description": "Names of the layers or inputs that it is called with; the layer above otherwise.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        }),
    );
    properties
}

fn class_table(class: &str, is_wired: bool) -> Value {
    let required = REQUIRED.iter().find(|(name, _)| *name == class).map_or(&[][..], |(_, required)| required);
    let mut properties = Map::new();
    properties.insert("class".to_owned(), json!({ "const": class }));
    if is_wired {
        properties.extend(wiring());
        let trained = "Whether its weights are trained.";
        properties.insert(
            "trainable".to_owned(),
            json!({ "type": "boolean", "default": true, "description": trained }),
        );
    }
    for (name, default) in defaults(class, required) {
        let mut schema = argument(&name, &default);
        if (class, name.as_str()) == ("Bidirectional", "layer") {
            schema = json!({ "$ref": "#/$defs/Recurrent" });
        }
        if required.contains(&name.as_str()) {
            schema.as_object_mut().map(|schema| schema.remove("default"));
        }
        properties.insert(name, schema);
    }
    let required: Vec<&str> = ["class"].into_iter().chain(required.iter().copied()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// A class's config, where what it must be given is anything that it takes.
fn defaults(class: &str, required: &[&str]) -> Map<String, Value> {
    let given = required.iter().map(|name| {
        let value = match *name {
            "layer" => json!({ "class": "LSTM", "units": 1 }),
            "activation" => json!("linear"),
            "target_shape" | "dims" => json!([1]),
            "rate" | "scale" => json!(0.5),
            _ => json!(1),
        };
        ((*name).to_owned(), value)
    });
    let layer = layer::layer("schema", class, &given.collect());
    layer.ok().and_then(|layer| layer.config().as_object().cloned()).unwrap_or_default()
}
