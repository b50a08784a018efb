//! Arguments of Keras's layers that aren't those of the layers here: which values of them change nothing.

use serde_json::{Map, Value};

use super::{PRODUCT_MAX, failed};
use crate::error::Result;
use crate::layers::{Layer, WRAPPERS, from_config};

/// The layer of this name, class and configuration.
///
/// # Errors
/// When the class isn't supported, an argument isn't, or its numbers make sizes beyond all counting.
pub(super) fn layer(name: &str, class: &str, config: &Map<String, Value>) -> Result<Box<dyn Layer>> {
    let mut product = 1u64;
    multiply_all(config, &mut product);
    if product > PRODUCT_MAX {
        return Err(failed(format!("the layer {name:?} ({class}) has sizes too large to be multiplied")));
    }
    let mut config = config.clone();
    with_one_axis(class, &mut config);
    let layer = from_config(class, &Value::Object(config.clone()))
        .map_err(|error| failed(format!("the layer {name:?}: {error}")))?;
    check(name, class, &config, &layer.config())?;
    Ok(layer)
}

/// Keras keeps the axes of some layers as a list.
fn with_one_axis(class: &str, config: &mut Map<String, Value>) {
    if let ("LayerNormalization" | "RMSNormalization", Some(axis)) = (class, config.get_mut("axis"))
        && let Some([one]) = axis.as_array().map(Vec::as_slice)
    {
        *axis = one.clone();
    }
    if let Some(inner) = config.get_mut("layer")
        && let Some(class) = inner["class_name"].as_str().map(str::to_owned)
        && let Some(config) = inner.get_mut("config").and_then(Value::as_object_mut)
    {
        with_one_axis(&class, config);
    }
}

fn multiply_all(config: &Map<String, Value>, product: &mut u64) {
    // Numbers that are no sizes.
    let sizes = config.iter().filter(|(key, _)| !["seed", "shared_object_id"].contains(&key.as_str()));
    sizes.for_each(|(_, value)| multiply(value, product));
}

fn multiply(value: &Value, product: &mut u64) {
    match value {
        Value::Number(number) => {
            let size = number.as_u64().or(number.as_i64().map(i64::unsigned_abs)).unwrap_or(1);
            *product = product.saturating_mul(size.max(1));
        }
        Value::Array(values) => values.iter().for_each(|value| multiply(value, product)),
        Value::Object(config) => multiply_all(config, product),
        _ => {}
    }
}

/// That every argument is known or has no effect.
fn check(name: &str, class: &str, given: &Map<String, Value>, known: &Value) -> Result<()> {
    for (key, value) in given {
        if known.get(key).is_some() || is_neutral(key, value) {
            continue;
        }
        if class == "Bidirectional" && key == "backward_layer" {
            is_mirrored(name, given.get("layer").unwrap_or(&Value::Null), value)?;
            continue;
        }
        return Err(failed(format!(
            "the layer {name:?} ({class}) has {key} = {value}, which is not supported; leave it at Keras's default"
        )));
    }
    if WRAPPERS.contains(&class) {
        let layer = given.get("layer").unwrap_or(&Value::Null);
        let module = layer["module"].as_str().unwrap_or_default();
        if module != "keras.layers" && !module.starts_with("keras.src.layers.") {
            return Err(failed(format!(
                "the layer {name:?} ({class}) has a layer of {module:?} within, and only those of keras.layers are read"
            )));
        }
        let inner = layer["config"].as_object().ok_or_else(|| failed("no config within a layer"))?;
        let inner_class = layer["class_name"].as_str().unwrap_or_default();
        check(name, inner_class, inner, &known["layer"]["config"])?;
    }
    Ok(())
}

fn is_neutral(key: &str, value: &Value) -> bool {
    match key {
        "name" | "seed" | "unroll" | "build_config" => true,
        // It counts only beside `renorm`, which is refused.
        "renorm_momentum" => true,
        "trainable" => *value == Value::Bool(true),
        "dtype" => value["config"]["name"] == "float32" || *value == "float32",
        "dilation_rate" => value.as_array().is_some_and(|rates| rates.iter().all(|rate| *rate == 1)),
        "data_format" => value.is_null() || *value == "channels_last",
        // Steps are the only axis between batch and width.
        "attention_axes" => value.is_null() || *value == serde_json::json!([1]),
        _ => value.is_null() || *value == Value::Bool(false),
    }
}

/// That the backward layer of a `Bidirectional` is the forward one but for its direction.
fn is_mirrored(name: &str, forward: &Value, backward: &Value) -> Result<()> {
    let mirrored = |value: &Value| {
        let class = value["class_name"].as_str().unwrap_or_default().to_owned();
        let given = value["config"].as_object().cloned().unwrap_or_default();
        let mut config = layer(name, &class, &given)?.config();
        let backwards = config["go_backwards"].take();
        Ok((class, config, backwards))
    };
    let (forward, backward) = (mirrored(forward)?, mirrored(backward)?);
    if forward.0 == backward.0 && forward.1 == backward.1 && forward.2 != backward.2 {
        return Ok(());
    }
    Err(failed(format!(
        "the layer {name:?} goes backwards with another layer than forwards, which is not supported"
    )))
}
