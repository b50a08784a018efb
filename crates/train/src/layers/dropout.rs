//! `Dropout`: zeros at random while training, the rest grown to keep the mean.

use serde::{Deserialize, Serialize};

use super::{Call, Layer, Weight, argument_error, described};
use crate::error::Result;
use crate::graph::Id;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropout {
    pub rate: f32,
    /// Sizes of the mask; none as the input's.
    pub noise_shape: Option<Vec<Option<usize>>>,
}

impl Dropout {
    pub fn new(rate: f32) -> Dropout {
        Dropout { rate, noise_shape: None }
    }
}

impl Layer for Dropout {
    described!("Dropout");

    fn weights(&self, _: &[Vec<usize>]) -> Result<Vec<Weight>> {
        if (0.0..1.0).contains(&self.rate) || self.rate == 1.0 {
            return Ok(vec![]);
        }
        Err(argument_error("Dropout", "rate", "a share from 0 to 1", self.rate.to_string()))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        Ok(vec![drop_out(call, inputs[0], self.rate, self.noise_shape.as_deref())?])
    }
}

pub(crate) fn drop_out(call: &mut Call<'_>, x: Id, rate: f32, noise: Option<&[Option<usize>]>) -> Result<Id> {
    if !call.training || rate == 0.0 {
        return Ok(x);
    }
    let shape = call.graph.shape(x).to_vec();
    let size =
        |axis: usize| noise.and_then(|noise| noise.get(axis).copied().flatten()).unwrap_or(shape[axis]);
    let noise: Vec<usize> = (0..shape.len()).map(size).collect();
    let draws = call.graph.uniform(call.seed, call.step, &noise);
    let rate_id = call.graph.scalar(rate);
    let dropped = call.graph.less(draws, rate_id)?;
    let kept = call.graph.scalar_sub(1.0, dropped)?;
    let kept = call.graph.scale(kept, if rate < 1.0 { 1.0 / (1.0 - rate) } else { 0.0 })?;
    call.graph.mul(x, kept)
}
