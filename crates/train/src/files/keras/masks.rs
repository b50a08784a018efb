//! What Keras's files say of masks: operations that work them out, and arguments that hand them to layers. Layers make and
//! pass on their own here, so both are left out, where it is plain that they are those that Keras made by itself.

use std::collections::HashSet;

use serde_json::Value;

/// Arguments of calls that take a mask.
pub(super) const ARGUMENTS: [&str; 4] = ["mask", "query_mask", "value_mask", "key_mask"];
/// Operations that make a mask of others, and those that make one of any tensor's shape.
const OF_MASKS: [&str; 5] = ["Any", "LogicalOr", "ExpandDims", "Concatenate", "Squeeze"];
const OF_SHAPES: [&str; 2] = ["ZerosLike", "OnesLike"];

/// Names of the operations among the `layers` of a functional model that work out masks: comparisons of what an `Embedding`
/// or `Masking` masks with the number that it masks, and what is made of these alone. A mask made in another way is none of
/// them.
pub(super) fn operations(layers: &[Value]) -> HashSet<&str> {
    let mut found = HashSet::new();
    let sources: Vec<(&Value, f64)> = layers.iter().flat_map(masked).collect();
    // Each comes after what it is made of.
    for layer in layers.iter().filter(|layer| is_operation(layer)) {
        let class = layer["class_name"].as_str().unwrap_or_default();
        let (Some(name), Some([node])) =
            (layer["config"]["name"].as_str(), layer["inbound_nodes"].as_array().map(Vec::as_slice))
        else {
            continue;
        };
        let mut tensors = vec![];
        if histories(&node["args"], &mut tensors).is_none() {
            continue;
        }
        let is_mask = match class {
            "NotEqual" => {
                let (x, value) = (&node["args"][0]["config"]["keras_history"], &node["args"][1]);
                sources.iter().any(|(of, masks)| *of == x && value.as_f64() == Some(*masks))
            }
            _ if OF_MASKS.contains(&class) => {
                !tensors.is_empty() && tensors.iter().all(|tensor| is_of(&found, tensor))
            }
            _ => OF_SHAPES.contains(&class),
        };
        if is_mask {
            found.insert(name);
        }
    }
    found
}

/// Whether a value is a tensor that one of the operations yields.
pub(super) fn is_mask(operations: &HashSet<&str>, value: &Value) -> bool {
    value["class_name"] == "__keras_tensor__" && is_of(operations, &value["config"]["keras_history"])
}

fn is_of(operations: &HashSet<&str>, history: &Value) -> bool {
    history[0].as_str().is_some_and(|name| operations.contains(name))
}

fn is_operation(layer: &Value) -> bool {
    layer["module"].as_str().is_some_and(|module| module.starts_with("keras.src.ops."))
}

/// What a layer masks by itself, and the number that it masks.
fn masked(layer: &Value) -> Vec<(&Value, f64)> {
    let config = &layer["config"];
    let value = match layer["class_name"].as_str() {
        Some("Embedding") if config["mask_zero"] == Value::Bool(true) => Some(0.0),
        Some("Masking") => config["mask_value"].as_f64(),
        _ => None,
    };
    let nodes = layer["inbound_nodes"].as_array().into_iter().flatten();
    let of = nodes.map(|node| {
        let (args, kwargs) = (&node["args"][0], &node["kwargs"]["inputs"]);
        let tensor = if args.is_null() { kwargs } else { args };
        &tensor["config"]["keras_history"]
    });
    value.map(|value| of.map(|of| (of, value)).collect()).unwrap_or_default()
}

/// Where the tensors of some arguments come from; none where an argument is neither a tensor nor a number.
fn histories<'a>(value: &'a Value, found: &mut Vec<&'a Value>) -> Option<()> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| histories(value, found)),
        Value::Object(_) if value["class_name"] == "__keras_tensor__" => {
            found.push(&value["config"]["keras_history"]);
            Some(())
        }
        Value::Object(_) => None,
        _ => Some(()),
    }
}
