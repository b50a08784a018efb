//! What generator and discriminator are trained to, and the penalties of a discriminator's slopes.

use serde::{Deserialize, Serialize};

use crate::activations::softplus;
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// Keeps the square root's slope finite where a discriminator has none.
const EPSILON: f32 = 1e-12;

/// A pair of losses: the discriminator's over its scores of real and of made samples, and the generator's over the scores
/// of what it made. Scores are logits, numbers without bounds; one that ends in a sigmoid is taken from its logits by
/// `NonSaturating`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
pub enum GanLoss {
    /// Binary cross-entropy, where the generator ascends the probability of being taken for real.
    /// Source: Goodfellow et al. 2014, section 3.
    NonSaturating {},
    /// Half the squared distance of scores to 1 for real and 0 for made. Source: Mao et al. 2017, equation 9.
    LeastSquares {},
    /// Scores beyond 1 and -1 count no more. Source: Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17.
    Hinge {},
    /// The difference of mean scores, with `gradient_penalty` times the squared distance to 1 of the length of the
    /// discriminator's gradient, between real and made samples. Source: Gulrajani et al. 2017, equation 3.
    Wasserstein { gradient_penalty: f32 },
    /// The difference of mean scores, where the discriminator's weights are kept within `clip` of 0.
    /// Source: Arjovsky et al. 2017, algorithm 1.
    WassersteinClipped { clip: f32 },
}

impl GanLoss {
    /// The discriminator's loss for scores of real and of made samples, without penalties.
    pub(crate) fn of_discriminator(&self, graph: &mut Graph, real: Id, made: Id) -> Result<Id> {
        let (real, made) = match self {
            GanLoss::NonSaturating {} => {
                let (real, made) = (logits(graph, real), logits(graph, made));
                let negative = graph.map(Function::Neg, real);
                (softplus(graph, negative)?, softplus(graph, made)?)
            }
            GanLoss::LeastSquares {} => {
                let short = graph.add_scalar(real, -1.0)?;
                (half_square(graph, short)?, half_square(graph, made)?)
            }
            GanLoss::Hinge {} => {
                let zero = graph.scalar(0.0);
                let short = graph.scalar_sub(1.0, real)?;
                let over = graph.add_scalar(made, 1.0)?;
                (graph.max(short, zero)?, graph.max(over, zero)?)
            }
            GanLoss::Wasserstein { .. } | GanLoss::WassersteinClipped { .. } => {
                (graph.map(Function::Neg, real), made)
            }
        };
        let (real, made) = (mean(graph, real)?, mean(graph, made)?);
        graph.add(real, made)
    }

    /// The generator's loss for the scores of what it made.
    pub(crate) fn of_generator(&self, graph: &mut Graph, made: Id) -> Result<Id> {
        let each = match self {
            GanLoss::NonSaturating {} => {
                let made = logits(graph, made);
                let negative = graph.map(Function::Neg, made);
                softplus(graph, negative)?
            }
            GanLoss::LeastSquares {} => {
                let short = graph.add_scalar(made, -1.0)?;
                half_square(graph, short)?
            }
            _ => graph.map(Function::Neg, made),
        };
        mean(graph, each)
    }

    /// What the discriminator's weights are kept within.
    pub(crate) fn clip(&self) -> Option<f32> {
        match self {
            GanLoss::WassersteinClipped { clip } => Some(*clip),
            _ => None,
        }
    }

    pub(crate) fn gradient_penalty(&self) -> Option<f32> {
        match self {
            GanLoss::Wasserstein { gradient_penalty } => Some(*gradient_penalty),
            _ => None,
        }
    }
}

fn logits(graph: &Graph, scores: Id) -> Id {
    graph.logits.get(&scores).copied().unwrap_or(scores)
}

fn half_square(graph: &mut Graph, x: Id) -> Result<Id> {
    let square = graph.square(x)?;
    graph.scale(square, 0.5)
}

/// The mean of everything, without dimensions.
pub(crate) fn mean(graph: &mut Graph, x: Id) -> Result<Id> {
    let count = graph.shape(x).iter().product::<usize>();
    let sum = graph.sum_all(x)?;
    graph.scale(sum, 1.0 / count as f32)
}

/// The squared length of each sample's gradient of its scores: `[batch, 1, ..]`.
fn squared_lengths(graph: &mut Graph, scores: Id, x: Id) -> Result<Id> {
    // Samples don't see each other, so the gradient of the sum is each sample's own.
    let scores = logits(graph, scores);
    let gradient = graph.gradients(scores, &[x])?.remove(0);
    let square = graph.square(gradient)?;
    let axes: Vec<usize> = (1..graph.shape(x).len()).collect();
    graph.sum(square, &axes)
}

/// The mean squared distance to 1 of the length of the gradient of `scores` for `x`.
pub(crate) fn gradient_penalty(graph: &mut Graph, scores: Id, x: Id) -> Result<Id> {
    let square = squared_lengths(graph, scores, x)?;
    let square = graph.add_scalar(square, EPSILON)?;
    let length = graph.map(Function::Sqrt, square);
    let distance = graph.add_scalar(length, -1.0)?;
    let square = graph.square(distance)?;
    mean(graph, square)
}

/// Half the mean squared length of the gradient of `scores` for real samples `x`.
/// Source: Mescheder et al. 2018, equation 9.
pub(crate) fn r1(graph: &mut Graph, scores: Id, x: Id) -> Result<Id> {
    let square = squared_lengths(graph, scores, x)?;
    let mean = mean(graph, square)?;
    graph.scale(mean, 0.5)
}
