//! Activations that are layers of their own in Keras, because they have arguments or weights.

use serde::{Deserialize, Serialize};

use super::masks::hidden_by;
use super::{Call, Layer, Weight, argument_error, arguments, described, one_shape};
use crate::activations::{clip, elu, softmax};
use crate::error::Result;
use crate::graph::{Function, Id};
use crate::initializers::Initializer;
use crate::penalties::{Constraint, Regularizer};

fn not_negative(place: &str, argument: &'static str, value: f32) -> Result<()> {
    if value >= 0.0 { Ok(()) } else { Err(argument_error(place, argument, "0 or more", value.to_string())) }
}

/// `x` from `threshold` to `max_value`; below it `negative_slope * (x - threshold)`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReLU {
    pub max_value: Option<f32>,
    pub negative_slope: f32,
    pub threshold: f32,
}

impl ReLU {
    pub fn new() -> ReLU {
        ReLU::default()
    }

    arguments! { max_value: Option<f32>, negative_slope: f32, threshold: f32 }
}

impl Layer for ReLU {
    described!("ReLU");

    fn weights(&self, _: &[Vec<usize>]) -> Result<Vec<Weight>> {
        not_negative("ReLU", "max_value", self.max_value.unwrap_or(0.0))?;
        not_negative("ReLU", "negative_slope", self.negative_slope)?;
        not_negative("ReLU", "threshold", self.threshold)?;
        Ok(vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let (graph, x) = (&mut *call.graph, inputs[0]);
        let (zero, threshold) = (graph.scalar(0.0), graph.scalar(self.threshold));
        let mut y = if self.threshold == 0.0 {
            graph.max(x, zero)?
        } else {
            let above = graph.less(threshold, x)?;
            graph.mul(x, above)?
        };
        if let Some(max_value) = self.max_value {
            y = clip(graph, y, 0.0, max_value)?;
        }
        if self.negative_slope != 0.0 {
            let below = graph.sub(threshold, x)?;
            let below = graph.max(below, zero)?;
            let below = graph.scale(below, self.negative_slope)?;
            y = graph.sub(y, below)?;
        }
        Ok(vec![y])
    }
}

/// `x` where it is above 0, else `negative_slope * x`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct LeakyReLU {
    pub negative_slope: f32,
}

impl Default for LeakyReLU {
    fn default() -> LeakyReLU {
        LeakyReLU { negative_slope: 0.3 }
    }
}

impl LeakyReLU {
    pub fn new() -> LeakyReLU {
        LeakyReLU::default()
    }

    arguments! { negative_slope: f32 }
}

impl Layer for LeakyReLU {
    described!("LeakyReLU");

    fn weights(&self, _: &[Vec<usize>]) -> Result<Vec<Weight>> {
        not_negative("LeakyReLU", "negative_slope", self.negative_slope)?;
        Ok(vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let zero = call.graph.scalar(0.0);
        let above = call.graph.less(zero, inputs[0])?;
        let bent = call.graph.scale(inputs[0], self.negative_slope)?;
        Ok(vec![call.graph.select(above, inputs[0], bent)?])
    }
}

/// `x` where it is above 0, else `alpha * x` with a weight `alpha` for each element of a sample; one for all of an axis
/// in `shared_axes` (1 is the first after the batch).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct PReLU {
    pub alpha_initializer: Initializer,
    pub alpha_regularizer: Option<Regularizer>,
    pub alpha_constraint: Option<Constraint>,
    pub shared_axes: Option<Vec<usize>>,
}

impl Default for PReLU {
    fn default() -> PReLU {
        PReLU {
            alpha_initializer: Initializer::Zeros {},
            alpha_regularizer: None,
            alpha_constraint: None,
            shared_axes: None,
        }
    }
}

impl PReLU {
    pub fn new() -> PReLU {
        PReLU::default()
    }

    arguments! {
        alpha_initializer: Initializer,
        alpha_regularizer: Option<Regularizer>,
        alpha_constraint: Option<Constraint>,
        shared_axes: Option<Vec<usize>>,
    }
}

impl Layer for PReLU {
    described!("PReLU");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let mut shape = one_shape("PReLU", inputs, 2)?[1..].to_vec();
        for &axis in self.shared_axes.iter().flatten() {
            let size = axis.checked_sub(1).and_then(|axis| shape.get_mut(axis)).ok_or_else(|| {
                let expected = format!("axes from 1 to {}", inputs[0].len() - 1);
                argument_error("PReLU", "shared_axes", &expected, axis.to_string())
            })?;
            *size = 1;
        }
        let alpha = Weight::new("alpha", shape, &self.alpha_initializer);
        Ok(vec![alpha.held(&self.alpha_regularizer, &self.alpha_constraint)])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let graph = &mut *call.graph;
        let zero = graph.scalar(0.0);
        let positive = graph.max(inputs[0], zero)?;
        let turned = graph.map(Function::Neg, inputs[0]);
        let negative = graph.max(turned, zero)?;
        let negative = graph.mul(negative, weights[0])?;
        Ok(vec![graph.sub(positive, negative)?])
    }
}

/// `x` where it is above 0, else `alpha * (e^x - 1)`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ELU {
    pub alpha: f32,
}

impl Default for ELU {
    fn default() -> ELU {
        ELU { alpha: 1.0 }
    }
}

impl ELU {
    pub fn new() -> ELU {
        ELU::default()
    }

    arguments! { alpha: f32 }
}

impl Layer for ELU {
    described!("ELU");

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        Ok(vec![elu(call.graph, inputs[0], self.alpha)?])
    }
}

/// One axis or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Axes {
    One(isize),
    Several(Vec<isize>),
}

impl Axes {
    pub(super) fn as_slice(&self) -> &[isize] {
        match self {
            Axes::One(axis) => std::slice::from_ref(axis),
            Axes::Several(axes) => axes,
        }
    }
}

impl From<isize> for Axes {
    fn from(axis: isize) -> Axes {
        Axes::One(axis)
    }
}

impl<const N: usize> From<[isize; N]> for Axes {
    fn from(axes: [isize; N]) -> Axes {
        Axes::Several(axes.to_vec())
    }
}

impl From<Vec<isize>> for Axes {
    fn from(axes: Vec<isize>) -> Axes {
        Axes::Several(axes)
    }
}

/// The number of an axis of a shape of `rank`, where a negative one counts from the end. The batch's is none of these.
pub(super) fn axis_of(place: &str, name: &'static str, axis: isize, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis + rank as isize } else { axis };
    usize::try_from(from_start).ok().filter(|axis| (1..rank).contains(axis)).ok_or_else(|| {
        let expected = format!("an axis of {rank} other than the batch's, which is 0");
        argument_error(place, name, &expected, axis.to_string())
    })
}

/// Keras's `Softmax` layer: shares of 1 along an axis, or along several together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SoftmaxLayer {
    pub axis: Axes,
}

impl Default for SoftmaxLayer {
    fn default() -> SoftmaxLayer {
        SoftmaxLayer { axis: Axes::One(-1) }
    }
}

impl SoftmaxLayer {
    pub fn new() -> SoftmaxLayer {
        SoftmaxLayer::default()
    }

    arguments! { axis: Axes }
}

impl Layer for SoftmaxLayer {
    described!("Softmax");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        one_shape("Softmax", inputs, 2).map(|_| vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let x = match call.mask(0) {
            Some(mask) => hidden_by(call.graph, inputs[0], mask)?,
            None => inputs[0],
        };
        let graph = &mut *call.graph;
        let rank = graph.shape(x).len();
        let given = self.axis.as_slice().iter();
        let axes: Vec<usize> =
            given.map(|&axis| axis_of("Softmax", "axis", axis, rank)).collect::<Result<_>>()?;
        if axes == [rank - 1] {
            return Ok(vec![softmax(graph, x)?]);
        }
        let greatest = graph.reduce_max(x, &axes)?;
        let less = graph.sub(x, greatest)?;
        let grown = graph.map(Function::Exp, less);
        let sum = graph.sum(grown, &axes)?;
        Ok(vec![graph.div(grown, sum)?])
    }
}
