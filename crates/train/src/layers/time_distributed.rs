//! `TimeDistributed`: one layer at each step of a sequence.

use serde_json::{Value, json};

use super::{Call, Layer, Weight, argument_error, from_config, one_shape};
use crate::error::Result;
use crate::graph::Id;

/// Steps of a layer that learns from each step of its own.
const STEPS_MAX: usize = 16384;

/// The same layer, with the same weights, at each step of `[batch, steps, ..]`.
#[derive(Debug)]
pub struct TimeDistributed {
    layer: Box<dyn Layer>,
}

impl TimeDistributed {
    pub fn new(layer: impl Layer + 'static) -> TimeDistributed {
        TimeDistributed { layer: Box::new(layer) }
    }

    pub(super) fn from_config(config: &Value) -> Result<TimeDistributed> {
        Ok(TimeDistributed { layer: wrapped("TimeDistributed", config)? })
    }

    /// What the layer sees of shape `[batch, steps, ..]`: a step.
    fn step(inputs: &[Vec<usize>]) -> Result<Vec<usize>> {
        let shape = one_shape("TimeDistributed", inputs, 3)?;
        Ok([&shape[..1], &shape[2..]].concat())
    }

    /// Step after step, where what a step changes is there for the next one.
    fn one_by_one(&self, call: &mut Call<'_>, x: Id, weights: &[Id]) -> Result<Id> {
        let shape = call.graph.shape(x).to_vec();
        if shape[1] > STEPS_MAX {
            return Err(call.graph.shape_error(
                "TimeDistributed",
                format!("at most {STEPS_MAX} steps"),
                &[x],
            ));
        }
        let mut now = weights.to_vec();
        let before = std::mem::take(&mut call.updates);
        let mut steps = vec![];
        for index in 0..shape[1] {
            let step = call.graph.slice_axis(x, 1, index, 1)?;
            let step = call.graph.reshape(step, &[&shape[..1], &shape[2..]].concat())?;
            let y = self.layer.call(call, &[step], &now)?[0];
            for (weight, new) in std::mem::take(&mut call.updates) {
                now.iter_mut().filter(|now| **now == weight).for_each(|now| *now = new);
            }
            let of_step = call.graph.shape(y).to_vec();
            steps.push(call.graph.reshape(y, &[&of_step[..1], &[1], &of_step[1..]].concat())?);
        }
        call.updates = before;
        let changed = weights.iter().zip(&now).filter(|(weight, now)| weight != now);
        call.updates.extend(changed.map(|(&weight, &now)| (weight, now)));
        call.graph.concat(&steps, 1)
    }
}

/// The layer within a wrapper's config.
pub(super) fn wrapped(place: &'static str, config: &Value) -> Result<Box<dyn Layer>> {
    let inner = &config["layer"];
    match inner["class_name"].as_str() {
        Some(class) => from_config(class, &inner["config"]),
        None => Err(argument_error(place, "layer", "a layer with its config", inner.to_string())),
    }
}

/// A wrapper's config of the layer within.
pub(super) fn wrapped_config(layer: &dyn Layer) -> Value {
    json!({ "class_name": layer.class_name(), "config": layer.config() })
}

impl Layer for TimeDistributed {
    fn class_name(&self) -> &'static str {
        "TimeDistributed"
    }

    fn config(&self) -> Value {
        json!({ "layer": wrapped_config(&*self.layer) })
    }

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let weights = self.layer.weights(&[Self::step(inputs)?])?;
        Ok(weights.into_iter().map(|weight| weight.under("layer")).collect())
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let shape = call.graph.shape(inputs[0]).to_vec();
        // A step has no steps that could be masked.
        call.masks.clear();
        let own = self.layer.weights(&[Self::step(std::slice::from_ref(&shape))?])?;
        if call.training && own.iter().any(|weight| !weight.trainable) {
            return Ok(vec![self.one_by_one(call, inputs[0], weights)?]);
        }
        // Samples don't see each other, and so steps can be samples.
        let (batch, steps) = (shape[0], shape[1]);
        let as_samples = call.graph.reshape(inputs[0], &[&[batch * steps], &shape[2..]].concat())?;
        let y = self.layer.call(call, &[as_samples], weights)?[0];
        let of_step = call.graph.shape(y).to_vec();
        Ok(vec![call.graph.reshape(y, &[&[batch, steps], &of_step[1..]].concat())?])
    }
}
