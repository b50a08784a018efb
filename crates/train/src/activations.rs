//! Keras's activation functions.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// An activation by Keras's name, with Keras's default arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    #[default]
    Linear,
    Relu,
    Relu6,
    LeakyRelu,
    Elu,
    Selu,
    Celu,
    /// With the error function, as Keras's default.
    Gelu,
    #[serde(alias = "swish")]
    Silu,
    Softmax,
    LogSoftmax,
    Softplus,
    Softsign,
    Tanh,
    Sigmoid,
    HardSigmoid,
    #[serde(alias = "hard_swish")]
    HardSilu,
    HardTanh,
    Exponential,
    Mish,
    LogSigmoid,
    TanhShrink,
    HardShrink,
    SoftShrink,
    Squareplus,
    SparsePlus,
    SparseSigmoid,
    Threshold,
    Glu,
}

pub use Activation::*;

const SELU_ALPHA: f32 = 1.673_263_2;
const SELU_SCALE: f32 = 1.050_701;

/// `ln(1 + e^x)`, without overflow.
pub(crate) fn softplus(graph: &mut Graph, x: Id) -> Result<Id> {
    let zero = graph.scalar(0.0);
    let positive = graph.max(x, zero)?;
    let size = graph.map(Function::Abs, x);
    let negative = graph.map(Function::Neg, size);
    let grown = graph.map(Function::Exp, negative);
    let rest = graph.map(Function::Log1p, grown);
    graph.add(positive, rest)
}

/// `x` less the logarithm of the sum of exponentials of the last axis.
pub(crate) fn log_softmax(graph: &mut Graph, x: Id) -> Result<Id> {
    let last = graph.shape(x).len() - 1;
    let greatest = graph.reduce_max(x, &[last])?;
    let less = graph.sub(x, greatest)?;
    let grown = graph.map(Function::Exp, less);
    let sum = graph.sum(grown, &[last])?;
    let log = graph.map(Function::Log, sum);
    graph.sub(less, log)
}

pub(crate) fn softmax(graph: &mut Graph, x: Id) -> Result<Id> {
    let last = graph.shape(x).len() - 1;
    let greatest = graph.reduce_max(x, &[last])?;
    let less = graph.sub(x, greatest)?;
    let grown = graph.map(Function::Exp, less);
    let sum = graph.sum(grown, &[last])?;
    let y = graph.div(grown, sum)?;
    graph.logits.insert(y, x);
    Ok(y)
}

/// `x` between `low` and `high`.
pub(crate) fn clip(graph: &mut Graph, x: Id, low: f32, high: f32) -> Result<Id> {
    let (low, high) = (graph.scalar(low), graph.scalar(high));
    let x = graph.max(x, low)?;
    graph.min(x, high)
}

/// `x` where it is above 0, else `alpha * (e^x - 1)`.
pub(crate) fn elu(graph: &mut Graph, x: Id, alpha: f32) -> Result<Id> {
    let zero = graph.scalar(0.0);
    let negative = graph.min(x, zero)?;
    let bent = graph.map(Function::Expm1, negative);
    let bent = graph.scale(bent, alpha)?;
    let above = graph.less(zero, x)?;
    graph.select(above, x, bent)
}

impl Activation {
    pub fn apply(self, graph: &mut Graph, x: Id) -> Result<Id> {
        let zero = graph.scalar(0.0);
        match self {
            Linear => Ok(x),
            Relu => graph.max(x, zero),
            Relu6 => clip(graph, x, 0.0, 6.0),
            LeakyRelu => {
                let above = graph.less(zero, x)?;
                let bent = graph.scale(x, 0.2)?;
                graph.select(above, x, bent)
            }
            Elu | Celu => elu(graph, x, 1.0),
            Selu => {
                let y = elu(graph, x, SELU_ALPHA)?;
                graph.scale(y, SELU_SCALE)
            }
            Gelu => {
                let scaled = graph.scale(x, std::f32::consts::FRAC_1_SQRT_2)?;
                let erf = graph.map(Function::Erf, scaled);
                let gate = graph.add_scalar(erf, 1.0)?;
                let gate = graph.scale(gate, 0.5)?;
                graph.mul(x, gate)
            }
            Silu => {
                let gate = graph.map(Function::Sigmoid, x);
                graph.mul(x, gate)
            }
            Softmax => softmax(graph, x),
            LogSoftmax => log_softmax(graph, x),
            Softplus => softplus(graph, x),
            Softsign => {
                let size = graph.map(Function::Abs, x);
                let divisor = graph.add_scalar(size, 1.0)?;
                graph.div(x, divisor)
            }
            Tanh => Ok(graph.map(Function::Tanh, x)),
            Sigmoid => {
                let y = graph.map(Function::Sigmoid, x);
                graph.logits.insert(y, x);
                Ok(y)
            }
            Exponential => Ok(graph.map(Function::Exp, x)),
            Mish => {
                let plus = softplus(graph, x)?;
                let gate = graph.map(Function::Tanh, plus);
                graph.mul(x, gate)
            }
            LogSigmoid => {
                let negative = graph.map(Function::Neg, x);
                let plus = softplus(graph, negative)?;
                Ok(graph.map(Function::Neg, plus))
            }
            TanhShrink => {
                let bent = graph.map(Function::Tanh, x);
                graph.sub(x, bent)
            }
            _ => self.piecewise(graph, x),
        }
    }

    fn piecewise(self, graph: &mut Graph, x: Id) -> Result<Id> {
        let zero = graph.scalar(0.0);
        match self {
            HardSigmoid | HardSilu => {
                let sixth = graph.scale(x, 1.0 / 6.0)?;
                let gate = graph.add_scalar(sixth, 0.5)?;
                let gate = clip(graph, gate, 0.0, 1.0)?;
                if self == HardSilu { graph.mul(x, gate) } else { Ok(gate) }
            }
            HardTanh => clip(graph, x, -1.0, 1.0),
            HardShrink => {
                let (size, limit) = (graph.map(Function::Abs, x), graph.scalar(0.5));
                let beyond = graph.less(limit, size)?;
                graph.mul(x, beyond)
            }
            SoftShrink => {
                let within = clip(graph, x, -0.5, 0.5)?;
                graph.sub(x, within)
            }
            Squareplus => {
                let square = graph.square(x)?;
                let grown = graph.add_scalar(square, 4.0)?;
                let root = graph.map(Function::Sqrt, grown);
                let sum = graph.add(x, root)?;
                graph.scale(sum, 0.5)
            }
            SparsePlus => {
                let next = graph.add_scalar(x, 1.0)?;
                let square = graph.square(next)?;
                let bent = graph.scale(square, 0.25)?;
                let (low, high) = (graph.scalar(-1.0), graph.scalar(1.0));
                let above = graph.less(low, x)?;
                let bent = graph.select(above, bent, zero)?;
                let below = graph.less(x, high)?;
                graph.select(below, bent, x)
            }
            SparseSigmoid => {
                let next = graph.add_scalar(x, 1.0)?;
                let half = graph.scale(next, 0.5)?;
                clip(graph, half, 0.0, 1.0)
            }
            Threshold => {
                let above = graph.less(zero, x)?;
                graph.mul(x, above)
            }
            Glu => {
                let (last, size) = (graph.shape(x).len() - 1, graph.shape(x).last().copied().unwrap_or(0));
                let value = graph.slice_axis(x, last, 0, size / 2)?;
                let gate = graph.slice_axis(x, last, size / 2, size / 2)?;
                let gate = graph.map(Function::Sigmoid, gate);
                graph.mul(value, gate)
            }
            _ => Ok(x),
        }
    }
}
