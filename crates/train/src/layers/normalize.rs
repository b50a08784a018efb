//! `Normalization`: what was learned of the training data, as a layer.

use serde::{Deserialize, Serialize};

use super::{Call, Layer, Weight, described};
use crate::error::Result;
use crate::graph::{Function, Id};
use crate::initializers::Initializer;

/// Keras's epsilon.
const EPSILON: f32 = 1e-7;

/// `(x - mean) / sqrt(variance)`, for each of the last sizes by itself. Mean and variance are weights that no optimiser
/// changes: they are set from the training data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Normalization {}

impl Normalization {
    pub fn new() -> Normalization {
        Normalization {}
    }
}

impl Layer for Normalization {
    described!("Normalization");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = super::one_shape("Normalization", inputs, 1)?;
        Ok(vec![
            Weight::new("mean", &shape[1..], &Initializer::Zeros {}).fixed(),
            Weight::new("variance", &shape[1..], &Initializer::Ones {}).fixed(),
        ])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let graph = &mut *call.graph;
        let centred = graph.sub(inputs[0], weights[0])?;
        let deviation = graph.map(Function::Sqrt, weights[1]);
        let least = graph.scalar(EPSILON);
        let deviation = graph.max(deviation, least)?;
        Ok(vec![graph.div(centred, deviation)?])
    }
}
