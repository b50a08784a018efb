//! The optimiser of a `.keras` archive: its settings in `compile_config`, what it carries in `optimizer/vars` of the weights.

use std::collections::HashMap;

use formats::hdf5::{self, Dataset};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::failed;
use crate::error::Result;
use crate::losses::Loss;
use crate::metrics::Metric;
use crate::model::Model;
use crate::optimizers::{Optimizer, Rule};
use crate::schedules::Schedule;

/// What an archive says of training, to go on with.
#[derive(Clone, Debug)]
pub struct Training {
    pub optimizer: Optimizer,
    pub iterations: u64,
    slots: Vec<Vec<f32>>,
}

impl Training {
    /// Compiles the model with the archive's optimiser, which goes on where it stopped.
    ///
    /// # Errors
    /// As [`Model::compile`]'s; and when the model isn't the archive's.
    pub fn resume<M: Into<Metric>>(
        self,
        model: &mut Model,
        losses: Vec<Loss>,
        metrics: impl IntoIterator<Item = M>,
    ) -> Result<()> {
        model.compile(self.optimizer, losses, metrics)?;
        model.set_optimizer_state(self.iterations, &self.slots)
    }
}

/// The order in which Keras keeps slots: those of a group stand together weight by weight, group after group.
fn groups(rule: &Rule) -> Option<Vec<Vec<usize>>> {
    Some(match *rule {
        Rule::SGD { momentum: 0.0, .. } => vec![],
        Rule::SGD { .. } | Rule::Adagrad { .. } | Rule::Lion { .. } => vec![vec![0]],
        Rule::RMSprop { .. } => (0..rule.slots().len()).map(|slot| vec![slot]).collect(),
        Rule::Adam { amsgrad: true, .. } => vec![vec![0, 1], vec![2]],
        Rule::Adam { .. } | Rule::Adamax { .. } | Rule::Adadelta { .. } | Rule::Lamb { .. } => {
            vec![vec![0, 1]]
        }
        // A number for all weights, and weights that are treated otherwise.
        Rule::Nadam { .. } | Rule::Muon { .. } => return None,
    })
}

/// What Keras's config of an optimiser has beyond a rule's own, and which values of it change nothing.
fn check(class: &str, config: &Map<String, Value>) -> Result<()> {
    for key in ["use_ema", "gradient_accumulation_steps", "loss_scale_factor", "ema_overwrite_frequency"] {
        let value = config.get(key).unwrap_or(&Value::Null);
        if !value.is_null() && *value != Value::Bool(false) {
            return Err(failed(format!("the optimiser {class} has {key} = {value}, which is not supported")));
        }
    }
    Ok(())
}

fn optimizer(value: &Value) -> Result<Optimizer> {
    let class = value["class_name"].as_str().unwrap_or_default();
    let config = value["config"].as_object().ok_or_else(|| failed("the optimiser has no config"))?;
    check(class, config)?;
    let rule = if class == "AdamW" { "Adam" } else { class };
    let wrong = |error: serde_json::Error| failed(format!("the optimiser {class} is not supported: {error}"));
    let rule = Rule::deserialize(json!({ rule: config })).map_err(wrong)?;
    let rate = config.get("learning_rate").unwrap_or(&Value::Null);
    let Some(rate) = rate.as_f64() else {
        return Err(failed(format!(
            "the optimiser {class} has the learning rate {rate}; only numbers are read"
        )));
    };
    let number = |key: &str| config.get(key).and_then(Value::as_f64).map(|number| number as f32);
    Ok(Optimizer {
        rule,
        learning_rate: Schedule::from(rate as f32),
        weight_decay: number("weight_decay"),
        clipnorm: number("clipnorm"),
        clipvalue: number("clipvalue"),
        global_clipnorm: number("global_clipnorm"),
    })
}

/// The archive's training; nothing where the model was saved without.
pub(super) fn read(
    model: &Model,
    config: &Value,
    file: &[u8],
    layers: &[(String, String)],
) -> Result<Option<Training>> {
    let described = &config["compile_config"]["optimizer"];
    if !described.is_object() {
        return Ok(None);
    }
    let optimizer = optimizer(described)?;
    let Some(groups) = groups(&optimizer.rule) else {
        let class = &described["class_name"];
        return Err(failed(format!("what the optimiser {class} carries from step to step can't be read")));
    };
    let problem = |error: formats::error::FormatError| failed(format!("model.weights.h5: {error}"));
    let datasets = hdf5::read(file).map_err(problem)?;
    let numbers =
        datasets.iter().filter_map(|dataset| Some((dataset.path.strip_prefix("optimizer/vars/")?, dataset)));
    let by_number: HashMap<usize, &Dataset> =
        numbers.filter_map(|(number, dataset)| Some((number.parse().ok()?, dataset))).collect();
    let values = |number: usize| {
        let dataset = by_number.get(&number);
        let dataset = dataset.ok_or_else(|| failed(format!("optimizer/vars/{number} is missing")))?;
        dataset.values(file).map_err(problem)
    };
    let iterations = values(0)?.first().copied().unwrap_or(0.0) as u64;
    let mut slots = vec![vec![0.0; model.trainable_len]; optimizer.rule.slots().len()];
    // After iterations and the learning rate.
    let mut next = 2;
    let order = trainable(model, layers.iter().map(|(name, _)| name.as_str()));
    for group in groups {
        for &weight in &order {
            let range = &model.weights[weight].range;
            for &slot in &group {
                let values = values(next)?;
                if values.len() != range.len() {
                    let path = &model.weights[weight].path;
                    return Err(failed(format!("optimizer/vars/{next} isn't as large as the weight {path}")));
                }
                slots[slot][range.clone()]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(slot, value)| *slot = value as f32);
                next += 1;
            }
        }
    }
    if by_number.len() != next {
        let problem = format!("the optimiser has {} variables, and {next} are read", by_number.len());
        return Err(failed(problem));
    }
    Ok(Some(Training { optimizer, iterations, slots }))
}

/// Trainable weights, layer by layer in this order.
fn trainable<'a>(model: &Model, layers: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let nodes = layers.filter_map(|name| model.nodes.iter().find(|node| node.name == name));
    nodes
        .flat_map(|node| node.weights.clone())
        .filter(|&which| model.weights[which].weight.trainable)
        .collect()
}

/// Keras's `compile_config` of a compiled model whose optimiser can be written.
pub(super) fn compile_config(model: &Model) -> Option<Value> {
    let state = model.optimizer_state()?;
    let optimizer = state.optimizer;
    groups(&optimizer.rule)?;
    let Schedule::Constant { learning_rate } = optimizer.learning_rate else { return None };
    let Value::Object(rule) = serde_json::to_value(&optimizer.rule).ok()? else { return None };
    let (class, config) = rule.into_iter().next()?;
    let Value::Object(mut config) = config else { return None };
    let class = if class == "Adam" && optimizer.weight_decay.is_some() { "AdamW".to_owned() } else { class };
    for (key, value) in [
        ("weight_decay", optimizer.weight_decay),
        ("clipnorm", optimizer.clipnorm),
        ("clipvalue", optimizer.clipvalue),
        ("global_clipnorm", optimizer.global_clipnorm),
        ("learning_rate", Some(learning_rate)),
    ] {
        config.insert(key.to_owned(), json!(value));
    }
    let losses: Vec<Value> = state.losses.iter().map(loss).collect::<Option<_>>()?;
    let losses = if losses.len() == 1 { losses[0].clone() } else { losses.into() };
    let optimizer = object("keras.optimizers", &class, Value::Object(config));
    Some(json!({ "optimizer": optimizer, "loss": losses, "metrics": null }))
}

fn object(module: &str, class: &str, config: Value) -> Value {
    json!({ "module": module, "class_name": class, "config": config, "registered_name": null })
}

fn loss(loss: &Loss) -> Option<Value> {
    let value = serde_json::to_value(loss).ok()?;
    Some(object("keras.losses", value["class_name"].as_str()?, value["config"].clone()))
}

/// A variable of the optimiser, as it is written.
pub(super) enum Variable<'a> {
    Iterations(i64),
    LearningRate(f32),
    /// Of a weight: its number and the values.
    Slot(usize, &'a [f32]),
}

/// The optimiser's variables in Keras's order, if it can be written.
pub(super) fn variables<'a>(model: &'a Model, layers: impl Iterator<Item = &'a str>) -> Vec<Variable<'a>> {
    let (Some(state), Some(_)) = (model.optimizer_state(), compile_config(model)) else { return vec![] };
    let (Some(groups), Schedule::Constant { learning_rate }) =
        (groups(&state.optimizer.rule), &state.optimizer.learning_rate)
    else {
        return vec![];
    };
    let mut variables =
        vec![Variable::Iterations(state.iterations as i64), Variable::LearningRate(*learning_rate)];
    let order = trainable(model, layers);
    for group in groups {
        for &weight in &order {
            let range = model.weights[weight].range.clone();
            variables
                .extend(group.iter().map(|&slot| Variable::Slot(weight, &state.slots[slot][range.clone()])));
        }
    }
    variables
}
