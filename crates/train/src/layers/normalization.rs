//! Layers that bring values to a common scale.

use serde::{Deserialize, Serialize};

use super::masks::expanded;
use super::{Call, Layer, Weight, argument_error, arguments, described, one_shape};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};
use crate::initializers::Initializer;

/// Mean and variance over `axes`, which keep size 1.
fn moments(graph: &mut Graph, x: Id, axes: &[usize]) -> Result<(Id, Id)> {
    let mean = graph.mean(x, axes)?;
    let centred = graph.sub(x, mean)?;
    let square = graph.square(centred)?;
    Ok((mean, graph.mean(square, axes)?))
}

/// `(x - mean) / sqrt(variance + epsilon)`.
fn normalized(graph: &mut Graph, x: Id, mean: Id, variance: Id, epsilon: f32) -> Result<Id> {
    let centred = graph.sub(x, mean)?;
    let variance = graph.add_scalar(variance, epsilon)?;
    let deviation = graph.map(Function::Sqrt, variance);
    let one = graph.scalar(1.0);
    let scale = graph.div(one, deviation)?;
    graph.mul(centred, scale)
}

/// `x * gamma + beta`, as far as there are such weights.
fn scaled(graph: &mut Graph, x: Id, scale: bool, center: bool, weights: &[Id]) -> Result<Id> {
    let mut weights = weights.iter();
    let gamma = if scale { weights.next() } else { None };
    let beta = if center { weights.next() } else { None };
    let mut y = x;
    if let Some(&gamma) = gamma {
        y = graph.mul(y, gamma)?;
    }
    match beta {
        Some(&beta) => graph.add(y, beta),
        None => Ok(y),
    }
}

macro_rules! gamma_and_beta {
    ($self:ident, $size:expr) => {{
        let mut weights = vec![];
        if $self.scale {
            weights.push(Weight::new("gamma", [$size], &$self.gamma_initializer));
        }
        if $self.center {
            weights.push(Weight::new("beta", [$size], &$self.beta_initializer));
        }
        weights
    }};
}

fn last_axis(place: &str, axis: isize, rank: usize) -> Result<()> {
    if axis == -1 || axis == rank as isize - 1 {
        return Ok(());
    }
    Err(argument_error(place, "axis", "the last axis (-1)", axis.to_string()))
}

/// Over the batch while training, with moving statistics after.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchNormalization {
    pub axis: isize,
    pub momentum: f32,
    pub epsilon: f32,
    pub center: bool,
    pub scale: bool,
    pub beta_initializer: Initializer,
    pub gamma_initializer: Initializer,
    pub moving_mean_initializer: Initializer,
    pub moving_variance_initializer: Initializer,
}

impl Default for BatchNormalization {
    fn default() -> BatchNormalization {
        BatchNormalization {
            axis: -1,
            momentum: 0.99,
            epsilon: 1e-3,
            center: true,
            scale: true,
            beta_initializer: Initializer::Zeros {},
            gamma_initializer: Initializer::Ones {},
            moving_mean_initializer: Initializer::Zeros {},
            moving_variance_initializer: Initializer::Ones {},
        }
    }
}

impl BatchNormalization {
    pub fn new() -> BatchNormalization {
        BatchNormalization::default()
    }

    arguments! { momentum: f32, epsilon: f32, center: bool, scale: bool }
}

/// Mean and variance of what counts, with Keras's least number where nothing does.
fn masked_moments(graph: &mut Graph, x: Id, mask: Id, axes: &[usize]) -> Result<(Id, Id)> {
    let shape = graph.shape(x).to_vec();
    if graph.shape(mask).len() + 1 != shape.len() {
        return Err(graph.shape_error("BatchNormalization", "a mask of all axes but the last", &[mask]));
    }
    let mask = expanded(graph, mask, shape.len())?;
    let mask = graph.broadcast(mask, &shape)?;
    let zero = graph.scalar(0.0);
    let count = graph.sum(mask, axes)?;
    let count = graph.add_scalar(count, 1e-7)?;
    let kept = graph.select(mask, x, zero)?;
    let sum = graph.sum(kept, axes)?;
    let mean = graph.div(sum, count)?;
    let off = graph.sub(x, mean)?;
    let off = graph.select(mask, off, zero)?;
    let squares = graph.square(off)?;
    let squares = graph.sum(squares, axes)?;
    Ok((mean, graph.div(squares, count)?))
}

impl Layer for BatchNormalization {
    described!("BatchNormalization");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("BatchNormalization", inputs, 2)?;
        last_axis("BatchNormalization", self.axis, shape.len())?;
        let size = shape[shape.len() - 1];
        let mut weights = gamma_and_beta!(self, size);
        weights.push(Weight::new("moving_mean", [size], &self.moving_mean_initializer).fixed());
        weights.push(Weight::new("moving_variance", [size], &self.moving_variance_initializer).fixed());
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let (x, count) = (inputs[0], weights.len());
        let (moving_mean, moving_variance) = (weights[count - 2], weights[count - 1]);
        let size = call.graph.shape(moving_mean).to_vec();
        let (mean, variance) = if call.training {
            let axes: Vec<usize> = (0..call.graph.shape(x).len() - 1).collect();
            let (mean, variance) = match call.mask(0) {
                Some(mask) => masked_moments(call.graph, x, mask, &axes)?,
                None => moments(call.graph, x, &axes)?,
            };
            for (moving, new) in [(moving_mean, mean), (moving_variance, variance)] {
                let kept = call.graph.scale(moving, self.momentum)?;
                let new = call.graph.reshape(new, &size)?;
                let added = call.graph.scale(new, 1.0 - self.momentum)?;
                let next = call.graph.add(kept, added)?;
                call.updates.push((moving, next));
            }
            (mean, variance)
        } else {
            (moving_mean, moving_variance)
        };
        let y = normalized(call.graph, x, mean, variance, self.epsilon)?;
        Ok(vec![scaled(call.graph, y, self.scale, self.center, &weights[..count - 2])?])
    }
}

/// Over the last axis of each sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerNormalization {
    pub axis: isize,
    pub epsilon: f32,
    pub center: bool,
    pub scale: bool,
    pub beta_initializer: Initializer,
    pub gamma_initializer: Initializer,
}

impl Default for LayerNormalization {
    fn default() -> LayerNormalization {
        LayerNormalization {
            axis: -1,
            epsilon: 1e-3,
            center: true,
            scale: true,
            beta_initializer: Initializer::Zeros {},
            gamma_initializer: Initializer::Ones {},
        }
    }
}

impl LayerNormalization {
    pub fn new() -> LayerNormalization {
        LayerNormalization::default()
    }

    arguments! { epsilon: f32, center: bool, scale: bool }
}

impl Layer for LayerNormalization {
    described!("LayerNormalization");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("LayerNormalization", inputs, 2)?;
        last_axis("LayerNormalization", self.axis, shape.len())?;
        Ok(gamma_and_beta!(self, shape[shape.len() - 1]))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let last = call.graph.shape(inputs[0]).len() - 1;
        let (mean, variance) = moments(call.graph, inputs[0], &[last])?;
        let y = normalized(call.graph, inputs[0], mean, variance, self.epsilon)?;
        Ok(vec![scaled(call.graph, y, self.scale, self.center, weights)?])
    }
}

/// Over groups of channels of each sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupNormalization {
    /// -1 is a group for each channel.
    pub groups: isize,
    pub axis: isize,
    pub epsilon: f32,
    pub center: bool,
    pub scale: bool,
    pub beta_initializer: Initializer,
    pub gamma_initializer: Initializer,
}

impl Default for GroupNormalization {
    fn default() -> GroupNormalization {
        GroupNormalization {
            groups: 32,
            axis: -1,
            epsilon: 1e-3,
            center: true,
            scale: true,
            beta_initializer: Initializer::Zeros {},
            gamma_initializer: Initializer::Ones {},
        }
    }
}

impl GroupNormalization {
    pub fn new(groups: isize) -> GroupNormalization {
        GroupNormalization { groups, ..GroupNormalization::default() }
    }
}

impl Layer for GroupNormalization {
    described!("GroupNormalization");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("GroupNormalization", inputs, 2)?;
        last_axis("GroupNormalization", self.axis, shape.len())?;
        let size = shape[shape.len() - 1];
        let groups = if self.groups == -1 { size as isize } else { self.groups };
        if groups < 1 || size as isize % groups != 0 {
            let expected = format!("a divisor of {size} channels, or -1");
            return Err(argument_error("GroupNormalization", "groups", &expected, self.groups.to_string()));
        }
        Ok(gamma_and_beta!(self, size))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let shape = call.graph.shape(inputs[0]).to_vec();
        let size = shape[shape.len() - 1];
        let groups = if self.groups == -1 { size } else { self.groups as usize };
        let pixels = shape[1..shape.len() - 1].iter().product();
        let apart = call.graph.reshape(inputs[0], &[shape[0], pixels, groups, size / groups])?;
        let (mean, variance) = moments(call.graph, apart, &[1, 3])?;
        let y = normalized(call.graph, apart, mean, variance, self.epsilon)?;
        let y = call.graph.reshape(y, &shape)?;
        Ok(vec![scaled(call.graph, y, self.scale, self.center, weights)?])
    }
}

/// By the root of the mean square of the last axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct RMSNormalization {
    pub axis: isize,
    pub epsilon: f32,
}

impl Default for RMSNormalization {
    fn default() -> RMSNormalization {
        RMSNormalization { axis: -1, epsilon: 1e-6 }
    }
}

impl RMSNormalization {
    pub fn new() -> RMSNormalization {
        RMSNormalization::default()
    }
}

impl Layer for RMSNormalization {
    described!("RMSNormalization");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("RMSNormalization", inputs, 2)?;
        last_axis("RMSNormalization", self.axis, shape.len())?;
        Ok(vec![Weight::new("scale", [shape[shape.len() - 1]], &Initializer::Ones {})])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let graph = &mut *call.graph;
        let last = graph.shape(inputs[0]).len() - 1;
        let square = graph.square(inputs[0])?;
        let mean = graph.mean(square, &[last])?;
        let zero = graph.scalar(0.0);
        let y = normalized(graph, inputs[0], zero, mean, self.epsilon)?;
        Ok(vec![graph.mul(y, weights[0])?])
    }
}

/// `x * scale + offset`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rescaling {
    pub scale: f32,
    #[serde(default)]
    pub offset: f32,
}

impl Rescaling {
    pub fn new(scale: f32, offset: f32) -> Rescaling {
        Rescaling { scale, offset }
    }
}

impl Layer for Rescaling {
    described!("Rescaling");

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let scaled = call.graph.scale(inputs[0], self.scale)?;
        Ok(vec![call.graph.add_scalar(scaled, self.offset)?])
    }
}
