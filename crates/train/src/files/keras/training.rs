//! The optimiser of a `.keras` archive: its settings in `compile_config`, what it carries in `optimizer/vars` of the weights.

use std::collections::HashMap;

use formats::hdf5::{self, Dataset};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::failed;
use super::slots::{self, Held};
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

/// What Keras's config of an optimiser has beyond a rule's own, and which values of it change nothing.
fn check(class: &str, config: &Map<String, Value>) -> Result<()> {
    for key in ["loss_scale_factor", "exclude_layers"] {
        let value = config.get(key).unwrap_or(&Value::Null);
        if !value.is_null() && *value != json!([]) {
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
    let learning_rate = match rate.as_f64() {
        Some(rate) => Schedule::from(rate as f32),
        None => Schedule::deserialize(rate).map_err(|error| {
            failed(format!(
                "the optimiser {class} has the learning rate {rate}, which is not supported: {error}"
            ))
        })?,
    };
    let number = |key: &str| config.get(key).and_then(Value::as_f64).map(|number| number as f32);
    let steps =
        |key: &str| config.get(key).and_then(Value::as_u64).and_then(|steps| u32::try_from(steps).ok());
    let optimizer = Optimizer {
        rule,
        learning_rate,
        weight_decay: number("weight_decay"),
        clipnorm: number("clipnorm"),
        clipvalue: number("clipvalue"),
        global_clipnorm: number("global_clipnorm"),
        use_ema: config.get("use_ema").and_then(Value::as_bool).unwrap_or(false),
        ema_momentum: number("ema_momentum").unwrap_or(0.99),
        ema_overwrite_frequency: steps("ema_overwrite_frequency"),
        gradient_accumulation_steps: steps("gradient_accumulation_steps"),
    };
    optimizer.check()?;
    Ok(optimizer)
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
    let order = trainable(model, layers.iter().map(|(name, _)| name.as_str()));
    let held = slots::held(model, &optimizer, &order);
    let mut iterations = 0;
    let mut slots = vec![vec![0.0; model.trainable_len]; optimizer.slots().len()];
    for (number, &held) in held.iter().enumerate() {
        let values = values(number)?;
        match held {
            Held::Iterations => iterations = values.first().copied().unwrap_or(0.0) as u64,
            Held::Number(slot) => slots[slot].fill(values.first().copied().unwrap_or(0.0) as f32),
            Held::LearningRate | Held::Nothing | Held::Product { .. } => {}
            Held::Part { weight, slot, shape } => {
                let start = model.weights[weight].range.start;
                let range =
                    start..start + shape.of(&model.weights[weight].weight.shape).iter().product::<usize>();
                if values.len() != range.len() {
                    let path = &model.weights[weight].path;
                    return Err(failed(format!("optimizer/vars/{number} doesn't go with the weight {path}")));
                }
                let places = slots[slot][range].iter_mut();
                places.zip(values).for_each(|(slot, value)| *slot = value as f32);
            }
        }
    }
    let next = held.len();
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
    let learning_rate = match &optimizer.learning_rate {
        Schedule::Constant { learning_rate } => json!(learning_rate),
        // Keras has none like it.
        Schedule::OneCycle { .. } => return None,
        schedule => {
            let value = serde_json::to_value(schedule).ok()?;
            object("keras.optimizers.schedules", value["class_name"].as_str()?, value["config"].clone())
        }
    };
    let Value::Object(rule) = serde_json::to_value(&optimizer.rule).ok()? else { return None };
    let (class, config) = rule.into_iter().next()?;
    let Value::Object(mut config) = config else { return None };
    let class = if class == "Adam" && optimizer.weight_decay.is_some() { "AdamW".to_owned() } else { class };
    for (key, value) in [
        ("weight_decay", optimizer.weight_decay),
        ("clipnorm", optimizer.clipnorm),
        ("clipvalue", optimizer.clipvalue),
        ("global_clipnorm", optimizer.global_clipnorm),
        ("ema_momentum", Some(optimizer.ema_momentum)),
    ] {
        config.insert(key.to_owned(), json!(value));
    }
    for (key, value) in [
        ("learning_rate", learning_rate),
        ("use_ema", json!(optimizer.use_ema)),
        ("ema_overwrite_frequency", json!(optimizer.ema_overwrite_frequency)),
        ("gradient_accumulation_steps", json!(optimizer.gradient_accumulation_steps)),
    ] {
        config.insert(key.to_owned(), value);
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
pub(super) enum Variable {
    Count(i64),
    Numbers(Vec<usize>, Vec<f32>),
}

/// The optimiser's variables in Keras's order, if it can be written.
pub(super) fn variables<'a>(model: &Model, layers: impl Iterator<Item = &'a str>) -> Vec<Variable> {
    let (Some(state), Some(_)) = (model.optimizer_state(), compile_config(model)) else { return vec![] };
    let order = trainable(model, layers);
    let variable = |held: Held| match held {
        Held::Iterations => Variable::Count(state.iterations as i64),
        Held::Nothing => Variable::Count(0),
        Held::LearningRate => Variable::Numbers(vec![], vec![state.optimizer.learning_rate.at(0)]),
        Held::Number(slot) => {
            Variable::Numbers(vec![], vec![state.slots[slot].first().copied().unwrap_or(1.0)])
        }
        Held::Part { weight, slot, shape } => {
            let placed = &model.weights[weight];
            let shape = shape.of(&placed.weight.shape);
            let len: usize = shape.iter().product();
            Variable::Numbers(shape, state.slots[slot][placed.range.start..][..len].to_vec())
        }
        Held::Product { weight, rows, columns } => {
            let placed = &model.weights[weight];
            let [rows, columns] = [rows, columns].map(|slot| &state.slots[slot][placed.range.clone()]);
            let shape = placed.weight.shape.clone();
            let values = slots::product(&shape, rows, columns);
            Variable::Numbers(shape, values)
        }
    };
    slots::held(model, state.optimizer, &order).into_iter().map(variable).collect()
}
