//! Weights and whole units taken out of a network, the least of them first; training then heals what is left.

use serde_json::json;
use train::definition::Definition;
use train::model::WeightView;

use super::changes::Change;
use super::defined::{Named, Network, size};
use super::error::{NetworkError, Result};

/// Layers that leave channels where they are.
const PASSING: [&str; 17] = [
    "Activation",
    "AveragePooling1D",
    "AveragePooling2D",
    "Dropout",
    "ELU",
    "Flatten",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "LeakyReLU",
    "MaxPooling1D",
    "MaxPooling2D",
    "ReLU",
    "Rescaling",
    "ZeroPadding2D",
    "UpSampling2D",
];

/// Sets the least weights of each matrix to zero, until `share` of all of its weights are left, and keeps them zero while the
/// network trains: magnitude pruning (Han and others, arXiv:1506.02626). Call `settle_views` on the model afterwards.
///
/// # Errors
/// When the share isn't one.
pub fn mask(network: &mut Network, share: f64) -> Result<Vec<String>> {
    check(share)?;
    let mut masked = vec![];
    for (path, shape, values) in network.weights() {
        if shape.len() < 2 || path.contains("normalization") {
            continue;
        }
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
        let mut keeps = vec![false; values.len()];
        let kept = (share * values.len() as f64).round() as usize;
        order.iter().take(kept).for_each(|&at| keeps[at] = true);
        network.session.model.view_weight(&path, Some(WeightView::Masked(keeps.into())))?;
        masked.push(path);
    }
    Ok(masked)
}

fn check(share: f64) -> Result<()> {
    if share > 0.0 && share < 1.0 {
        return Ok(());
    }
    let expected = "a share of what is kept, above 0 and below 1".to_owned();
    Err(NetworkError::Setting { setting: "keep", expected, received: share.to_string() })
}

/// A layer whose units can go, and what they are of.
struct Units {
    /// Its place in the definition.
    entry: usize,
    count: usize,
    /// The argument that says how many there are.
    argument: &'static str,
    /// Layers between it and `consumer` that have a value for each unit.
    normalisations: Vec<usize>,
    /// The layer that takes what comes out.
    consumer: usize,
}

/// Of each place in the definition, the layer's name within the model.
fn names(network: &Network) -> Result<Vec<String>> {
    let entries = &network.session.definition.model.layers;
    let names: Vec<String> = network.session.model.layers().map(|(name, _)| name.to_owned()).collect();
    // A layer that brings inputs to a common scale stands before those of the definition.
    let before = names.len().checked_sub(entries.len()).filter(|before| *before <= 1);
    let before = before.ok_or_else(|| not_plain("its layers aren't those of the model, one by one"))?;
    Ok(names[before..].to_vec())
}

fn not_plain(problem: &str) -> NetworkError {
    let problem = format!("{problem}: units are taken out of networks whose layers follow each other only");
    NetworkError::model("the definition", problem)
}

/// Layers whose units can go.
fn prunable(definition: &Definition) -> Result<Vec<Units>> {
    let entries = &definition.model.layers;
    if entries.is_empty() || definition.model.input.is_none() || definition.model.outputs.is_some() {
        return Err(not_plain("it has several inputs or outputs, or its layers stand in a file"));
    }
    if entries.iter().any(|entry| entry.inputs.is_some() || entry.shared.is_some()) {
        return Err(not_plain("a layer has `inputs`, or is called again"));
    }
    let class = |at: usize| entries[at].class.as_deref().unwrap_or("");
    let mut all = vec![];
    for at in 0..entries.len() {
        let argument = match class(at) {
            "Dense" => "units",
            "Conv1D" | "Conv2D" => "filters",
            _ => continue,
        };
        let arguments = &entries[at].arguments;
        let is_joined = |at: usize| {
            let activation = entries[at].arguments.get("activation");
            class(at) == "Softmax" || activation.is_some_and(|activation| *activation == json!("softmax"))
        };
        let is_grouped = |at: usize| size(entries[at].arguments.get("groups")).unwrap_or(1) != 1;
        let (Some(count), false) = (size(arguments.get(argument)), is_joined(at) || is_grouped(at)) else {
            continue;
        };
        let mut normalisations = vec![];
        for next in at + 1..entries.len() {
            match class(next) {
                "BatchNormalization" => normalisations.push(next),
                "Dense" | "Conv1D" | "Conv2D" if !is_grouped(next) => {
                    all.push(Units { entry: at, count, argument, normalisations, consumer: next });
                    break;
                }
                passing if PASSING.contains(&passing) && !is_joined(next) => {}
                _ => break,
            }
        }
    }
    if all.is_empty() {
        return Err(not_plain("no Dense, Conv1D or Conv2D is followed by another"));
    }
    Ok(all)
}

/// Values of a weight by name.
fn values<'a>(weights: &'a [Named], layer: &str, weight: &str) -> Result<&'a Named> {
    let path = format!("{layer}/{weight}");
    weights
        .iter()
        .find(|(found, ..)| *found == path)
        .ok_or_else(|| not_plain(&format!("there is no weight {path}")))
}

/// What a unit matters: the size of what goes in times the size of what comes out (both as Euclidean norms).
fn importance(into: &Named, out: &Named, units: usize) -> Vec<f64> {
    let outputs = out.1.last().copied().unwrap_or(1).max(1);
    let (mut entering, mut leaving) = (vec![0f64; units], vec![0f64; units]);
    for (at, value) in into.2.iter().enumerate() {
        entering[at % units] += f64::from(*value).powi(2);
    }
    for (at, value) in out.2.iter().enumerate() {
        leaving[at / outputs % units] += f64::from(*value).powi(2);
    }
    entering.iter().zip(&leaving).map(|(a, b)| (a * b).sqrt()).collect()
}

/// The network with so few units in each layer that at most `share` of its parameters are left. Those go that matter
/// least. It isn't trained.
///
/// # Errors
/// When the share isn't one or can't be reached, or the network is no plain sequence of layers.
pub fn without_units(network: &Network, share: f64) -> Result<(Network, Vec<Change>)> {
    check(share)?;
    let definition = &network.session.definition;
    let all = prunable(definition)?;
    let names = names(network)?;
    let weights = network.weights();
    let mut orders = vec![];
    for units in &all {
        let into = values(&weights, &names[units.entry], "kernel")?;
        let out = values(&weights, &names[units.consumer], "kernel")?;
        let matters = importance(into, out, units.count);
        let mut order: Vec<usize> = (0..units.count).collect();
        order.sort_by(|&a, &b| matters[b].total_cmp(&matters[a]));
        orders.push(order);
    }
    let total: usize = weights.iter().map(|(_, _, values)| values.len()).sum();
    let target = (share * total as f64) as usize;
    // Each layer keeps the same share of its units, as many as there is room for.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..30 {
        let middle = (low + high) / 2.0;
        let kept = cut(&weights, &all, &names, &orders, middle)?;
        let left: usize = kept.iter().map(|(_, _, values)| values.len()).sum();
        if left <= target { low = middle } else { high = middle }
    }
    let cut = cut(&weights, &all, &names, &orders, low)?;
    let left: usize = cut.iter().map(|(_, _, values)| values.len()).sum();
    if left > target {
        let expected = format!("at least {:.4}, which is one unit in each layer", left as f64 / total as f64);
        return Err(NetworkError::Setting { setting: "keep", expected, received: share.to_string() });
    }
    let mut smaller = definition.clone();
    for units in &all {
        smaller.model.layers[units.entry]
            .arguments
            .insert(units.argument.to_owned(), json!(kept(units.count, low)));
    }
    let mut pruned = network.redefined(smaller)?;
    let mut changes = vec![];
    for ((path, shape, before), (_, _, after)) in weights.iter().zip(&cut) {
        pruned.session.model.set_weight(path, after)?;
        if before.len() != after.len() {
            changes.push(Change {
                tensor: path.clone(),
                shape: shape.clone(),
                became: "fewer units".to_owned(),
                bytes_before: before.len() * 4,
                bytes_after: after.len() * 4,
                relative_error: lost(before, after),
                greatest_error: 0.0,
                zeros: 0.0,
            });
        }
    }
    Ok((pruned, changes))
}

/// What went, over what there was, as Euclidean norms.
fn lost(before: &[f32], after: &[f32]) -> f64 {
    let square = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    (1.0 - square(after) / square(before).max(f64::MIN_POSITIVE)).max(0.0).sqrt()
}

fn kept(count: usize, share: f64) -> usize {
    ((share * count as f64).round() as usize).clamp(1, count)
}

/// All weights with this share of the units of `all`.
fn cut(
    weights: &[Named],
    all: &[Units],
    names: &[String],
    orders: &[Vec<usize>],
    share: f64,
) -> Result<Vec<Named>> {
    let mut cut = weights.to_vec();
    for (units, order) in all.iter().zip(orders) {
        let mut keeps = vec![false; units.count];
        order[..kept(units.count, share)].iter().for_each(|&unit| keeps[unit] = true);
        let layers = units.normalisations.iter().chain([&units.entry]);
        for layer in layers {
            let prefix = format!("{}/", names[*layer]);
            for (_, shape, values) in cut.iter_mut().filter(|(path, ..)| path.starts_with(&prefix)) {
                let mut at = 0;
                values.retain(|_| {
                    at += 1;
                    keeps[(at - 1) % units.count]
                });
                if let Some(last) = shape.last_mut() {
                    *last = kept(units.count, share);
                }
            }
        }
        let kernel = format!("{}/kernel", names[units.consumer]);
        for (_, shape, values) in cut.iter_mut().filter(|(path, ..)| *path == kernel) {
            // The consumer's own units may have gone already, or go later: its last axis is counted as it is now.
            let outputs = shape.last().copied().unwrap_or(1).max(1);
            let mut at = 0;
            values.retain(|_| {
                at += 1;
                keeps[(at - 1) / outputs % units.count]
            });
        }
    }
    Ok(cut)
}
