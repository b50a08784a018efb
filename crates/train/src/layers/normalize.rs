//! `Normalization`: what was learned of the training data, as a layer.

use serde::{Deserialize, Serialize};

use super::rectifiers::{Axes, axis_of};
use super::{Call, Layer, Weight, described};
use crate::error::Result;
use crate::graph::{Function, Id};
use crate::initializers::Initializer;

/// Keras's epsilon.
const EPSILON: f32 = 1e-7;

/// `(x - mean) / sqrt(variance)`, for each place along `axis` by itself. Mean and variance are weights that no optimiser
/// changes: they are set from the training data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Normalization {
    /// The axes that have means of their own; none is one mean of all.
    pub axis: Option<Axes>,
}

impl Default for Normalization {
    fn default() -> Normalization {
        Normalization { axis: Some(Axes::One(-1)) }
    }
}

impl Normalization {
    pub fn new() -> Normalization {
        Normalization::default()
    }

    pub fn axis(mut self, axis: impl Into<Axes>) -> Normalization {
        self.axis = Some(axis.into());
        self
    }

    /// Axes with means of their own, in rising order.
    fn kept(&self, rank: usize) -> Result<Vec<usize>> {
        let axes = self.axis.as_ref().map_or(&[][..], Axes::as_slice).iter();
        let mut axes: Vec<usize> =
            axes.map(|&axis| axis_of("Normalization", "axis", axis, rank)).collect::<Result<_>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }
}

impl Layer for Normalization {
    described!("Normalization");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = super::one_shape("Normalization", inputs, 1)?;
        let sizes: Vec<usize> = self.kept(shape.len())?.into_iter().map(|axis| shape[axis]).collect();
        Ok(vec![
            Weight::new("mean", sizes.clone(), &Initializer::Zeros {}).fixed(),
            Weight::new("variance", sizes, &Initializer::Ones {}).fixed(),
        ])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let graph = &mut *call.graph;
        let mut along = graph.shape(inputs[0]).to_vec();
        let kept = self.kept(along.len())?;
        (0..along.len()).filter(|axis| !kept.contains(axis)).for_each(|axis| along[axis] = 1);
        let mean = graph.reshape(weights[0], &along)?;
        let variance = graph.reshape(weights[1], &along)?;
        let centred = graph.sub(inputs[0], mean)?;
        let deviation = graph.map(Function::Sqrt, variance);
        let least = graph.scalar(EPSILON);
        let deviation = graph.max(deviation, least)?;
        Ok(vec![graph.div(centred, deviation)?])
    }
}
