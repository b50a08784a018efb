//! Losses, with Keras's names, arguments and defaults. Each yields a value a sample (`[batch, ..]`, the last axis gone),
//! of which the mean is taken.

mod ctc;

use serde::{Deserialize, Serialize};

use crate::activations::{clip, log_softmax, softplus};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};
pub(crate) use ctc::check as check_ctc;

/// What keeps logarithms finite, as Keras has it.
const EPSILON: f32 = 1e-7;

/// A loss with its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
pub enum Loss {
    CategoricalCrossentropy {
        from_logits: bool,
        label_smoothing: f32,
    },
    SparseCategoricalCrossentropy {
        from_logits: bool,
    },
    BinaryCrossentropy {
        from_logits: bool,
        label_smoothing: f32,
    },
    CategoricalFocalCrossentropy {
        alpha: f32,
        gamma: f32,
        from_logits: bool,
        label_smoothing: f32,
    },
    BinaryFocalCrossentropy {
        apply_class_balancing: bool,
        alpha: f32,
        gamma: f32,
        from_logits: bool,
        label_smoothing: f32,
    },
    MeanSquaredError {},
    MeanAbsoluteError {},
    MeanAbsolutePercentageError {},
    MeanSquaredLogarithmicError {},
    Huber {
        delta: f32,
    },
    LogCosh {},
    KLDivergence {},
    Poisson {},
    CosineSimilarity {
        axis: isize,
    },
    Hinge {},
    SquaredHinge {},
    CategoricalHinge {},
    /// Of sequences of labels against logits of steps, whichever step has which label (Graves and others, 2006). Targets
    /// are `[batch, labels]`: classes from 1 on, then zeros; class 0 of the logits is the blank.
    CTC {},
}

macro_rules! named {
    ($($name:ident => $loss:expr;)*) => {$(
        /// The loss of this name with Keras's defaults.
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl From<$name> for Loss {
            fn from(_: $name) -> Loss {
                $loss
            }
        }
    )*};
}

named! {
    CategoricalCrossentropy => Loss::CategoricalCrossentropy { from_logits: false, label_smoothing: 0.0 };
    SparseCategoricalCrossentropy => Loss::SparseCategoricalCrossentropy { from_logits: false };
    BinaryCrossentropy => Loss::BinaryCrossentropy { from_logits: false, label_smoothing: 0.0 };
    CategoricalFocalCrossentropy => Loss::CategoricalFocalCrossentropy {
        alpha: 0.25, gamma: 2.0, from_logits: false, label_smoothing: 0.0,
    };
    BinaryFocalCrossentropy => Loss::BinaryFocalCrossentropy {
        apply_class_balancing: false, alpha: 0.25, gamma: 2.0, from_logits: false, label_smoothing: 0.0,
    };
    MeanSquaredError => Loss::MeanSquaredError {};
    MeanAbsoluteError => Loss::MeanAbsoluteError {};
    MeanAbsolutePercentageError => Loss::MeanAbsolutePercentageError {};
    MeanSquaredLogarithmicError => Loss::MeanSquaredLogarithmicError {};
    Huber => Loss::Huber { delta: 1.0 };
    LogCosh => Loss::LogCosh {};
    KLDivergence => Loss::KLDivergence {};
    Poisson => Loss::Poisson {};
    CosineSimilarity => Loss::CosineSimilarity { axis: -1 };
    Hinge => Loss::Hinge {};
    SquaredHinge => Loss::SquaredHinge {};
    CategoricalHinge => Loss::CategoricalHinge {};
    CTC => Loss::CTC {};
}

/// The mean over the last axis, which goes.
fn mean_last(graph: &mut Graph, x: Id) -> Result<Id> {
    let shape = graph.shape(x).to_vec();
    let mean = graph.mean(x, &[shape.len() - 1])?;
    graph.reshape(mean, &shape[..shape.len() - 1])
}

fn sum_last(graph: &mut Graph, x: Id) -> Result<Id> {
    let shape = graph.shape(x).to_vec();
    let sum = graph.sum(x, &[shape.len() - 1])?;
    graph.reshape(sum, &shape[..shape.len() - 1])
}

/// Class numbers `[batch, ..]` or `[batch, .., 1]` as rows of 0 and 1.
pub(crate) fn one_hot(graph: &mut Graph, labels: Id, shape: &[usize]) -> Result<Id> {
    let classes = shape[shape.len() - 1];
    let labels = graph.reshape(labels, &[&shape[..shape.len() - 1], &[1]].concat())?;
    let numbers = graph.iota(classes);
    graph.map2(Function::Equal, labels, numbers)
}

/// Logarithms of class probabilities, from logits wherever they are known.
fn log_probabilities(graph: &mut Graph, y: Id, from_logits: bool) -> Result<Id> {
    if from_logits {
        return log_softmax(graph, y);
    }
    if let Some(&logits) = graph.logits.get(&y) {
        return log_softmax(graph, logits);
    }
    let last = graph.shape(y).len() - 1;
    let sum = graph.sum(y, &[last])?;
    let shares = graph.div(y, sum)?;
    let shares = clip(graph, shares, EPSILON, 1.0 - EPSILON)?;
    Ok(graph.map(Function::Log, shares))
}

/// `-(t ln y + (1 - t) ln(1 - y))` of each element, from logits wherever they are known.
fn binary(graph: &mut Graph, t: Id, y: Id, from_logits: bool) -> Result<Id> {
    let logits = if from_logits { Some(y) } else { graph.logits.get(&y).copied() };
    if let Some(x) = logits {
        let plus = softplus(graph, x)?;
        let product = graph.mul(t, x)?;
        return graph.sub(plus, product);
    }
    let y = clip(graph, y, EPSILON, 1.0 - EPSILON)?;
    let log = graph.map(Function::Log, y);
    let rest = graph.scalar_sub(1.0, y)?;
    let log_rest = graph.map(Function::Log, rest);
    let t_rest = graph.scalar_sub(1.0, t)?;
    let a = graph.mul(t, log)?;
    let b = graph.mul(t_rest, log_rest)?;
    let sum = graph.add(a, b)?;
    Ok(graph.map(Function::Neg, sum))
}

fn smoothed(graph: &mut Graph, t: Id, smoothing: f32, classes: f32) -> Result<Id> {
    let kept = graph.scale(t, 1.0 - smoothing)?;
    graph.add_scalar(kept, smoothing / classes)
}

impl Loss {
    /// The loss of each sample. `t` has `y`'s shape, or class numbers for the sparse one.
    pub fn values(&self, graph: &mut Graph, t: Id, y: Id) -> Result<Id> {
        let classes = graph.shape(y).last().copied().unwrap_or(1) as f32;
        match *self {
            Loss::CategoricalCrossentropy { from_logits, label_smoothing } => {
                let t = smoothed(graph, t, label_smoothing, classes)?;
                let log = log_probabilities(graph, y, from_logits)?;
                let product = graph.mul(t, log)?;
                let sum = sum_last(graph, product)?;
                Ok(graph.map(Function::Neg, sum))
            }
            Loss::SparseCategoricalCrossentropy { from_logits } => {
                let shape = graph.shape(y).to_vec();
                let t = one_hot(graph, t, &shape)?;
                let log = log_probabilities(graph, y, from_logits)?;
                let product = graph.mul(t, log)?;
                let sum = sum_last(graph, product)?;
                Ok(graph.map(Function::Neg, sum))
            }
            Loss::BinaryCrossentropy { from_logits, label_smoothing } => {
                let t = smoothed(graph, t, label_smoothing, 2.0)?;
                let each = binary(graph, t, y, from_logits)?;
                mean_last(graph, each)
            }
            Loss::CategoricalFocalCrossentropy { .. } | Loss::BinaryFocalCrossentropy { .. } => {
                self.focal(graph, t, y, classes)
            }
            Loss::KLDivergence {} | Loss::Poisson {} | Loss::CosineSimilarity { .. } => {
                self.divergence(graph, t, y)
            }
            Loss::Hinge {} | Loss::SquaredHinge {} | Loss::CategoricalHinge {} => self.hinge(graph, t, y),
            Loss::CTC {} => ctc::values(graph, t, y),
            _ => {
                let each = self.difference(graph, t, y)?;
                mean_last(graph, each)
            }
        }
    }

    /// Losses of the difference, element by element.
    fn difference(&self, graph: &mut Graph, t: Id, y: Id) -> Result<Id> {
        let error = graph.sub(y, t)?;
        match *self {
            Loss::MeanAbsoluteError {} => Ok(graph.map(Function::Abs, error)),
            Loss::MeanAbsolutePercentageError {} => {
                let (size, least) = (graph.map(Function::Abs, t), graph.scalar(EPSILON));
                let size = graph.max(size, least)?;
                let ratio = graph.div(error, size)?;
                let ratio = graph.map(Function::Abs, ratio);
                graph.scale(ratio, 100.0)
            }
            Loss::MeanSquaredLogarithmicError {} => {
                let least = graph.scalar(EPSILON);
                let [y, t] = [y, t].map(|x| graph.max(x, least).map(|x| graph.map(Function::Log1p, x)));
                let error = graph.sub(y?, t?)?;
                graph.square(error)
            }
            Loss::Huber { delta } => {
                let size = graph.map(Function::Abs, error);
                let square = graph.square(error)?;
                let near = graph.scale(square, 0.5)?;
                let far = graph.scale(size, delta)?;
                let far = graph.add_scalar(far, -0.5 * delta * delta)?;
                let limit = graph.scalar(delta);
                let beyond = graph.less(limit, size)?;
                graph.select(beyond, far, near)
            }
            Loss::LogCosh {} => {
                let doubled = graph.scale(error, -2.0)?;
                let plus = softplus(graph, doubled)?;
                let sum = graph.add(error, plus)?;
                graph.add_scalar(sum, -std::f32::consts::LN_2)
            }
            _ => graph.square(error),
        }
    }

    fn focal(&self, graph: &mut Graph, t: Id, y: Id, classes: f32) -> Result<Id> {
        match *self {
            Loss::CategoricalFocalCrossentropy { alpha, gamma, from_logits, label_smoothing } => {
                let t = smoothed(graph, t, label_smoothing, classes)?;
                let log = log_probabilities(graph, y, from_logits)?;
                let y = graph.map(Function::Exp, log);
                let rest = graph.scalar_sub(1.0, y)?;
                let gamma = graph.scalar(gamma);
                let factor = graph.map2(Function::Pow, rest, gamma)?;
                let entropy = graph.mul(t, log)?;
                let product = graph.mul(factor, entropy)?;
                let sum = sum_last(graph, product)?;
                graph.scale(sum, -alpha)
            }
            Loss::BinaryFocalCrossentropy {
                apply_class_balancing,
                alpha,
                gamma,
                from_logits,
                label_smoothing,
            } => {
                let t = smoothed(graph, t, label_smoothing, 2.0)?;
                let entropy = binary(graph, t, y, from_logits)?;
                let y = if from_logits { graph.map(Function::Sigmoid, y) } else { y };
                let between = |graph: &mut Graph, yes: Id, no: Id| {
                    let a = graph.mul(t, yes)?;
                    let t_rest = graph.scalar_sub(1.0, t)?;
                    let b = graph.mul(t_rest, no)?;
                    graph.add(a, b)
                };
                let rest = graph.scalar_sub(1.0, y)?;
                let right = between(graph, y, rest)?;
                let wrong = graph.scalar_sub(1.0, right)?;
                let gamma = graph.scalar(gamma);
                let factor = graph.map2(Function::Pow, wrong, gamma)?;
                let mut each = graph.mul(factor, entropy)?;
                if apply_class_balancing {
                    let (yes, no) = (graph.scalar(alpha), graph.scalar(1.0 - alpha));
                    let weight = between(graph, yes, no)?;
                    each = graph.mul(weight, each)?;
                }
                mean_last(graph, each)
            }
            _ => mean_last(graph, y),
        }
    }

    fn divergence(&self, graph: &mut Graph, t: Id, y: Id) -> Result<Id> {
        match *self {
            Loss::KLDivergence {} => {
                let [t, y] = [t, y].map(|x| clip(graph, x, EPSILON, 1.0));
                let (t, y) = (t?, y?);
                let ratio = graph.div(t, y)?;
                let log = graph.map(Function::Log, ratio);
                let product = graph.mul(t, log)?;
                sum_last(graph, product)
            }
            Loss::Poisson {} => {
                let grown = graph.add_scalar(y, EPSILON)?;
                let log = graph.map(Function::Log, grown);
                let product = graph.mul(t, log)?;
                let each = graph.sub(y, product)?;
                mean_last(graph, each)
            }
            _ => {
                let [t, y] = [t, y].map(|x| {
                    let last = graph.shape(x).len() - 1;
                    let square = graph.square(x)?;
                    let sum = graph.sum(square, &[last])?;
                    let least = graph.scalar(1e-12);
                    let sum = graph.max(sum, least)?;
                    let norm = graph.map(Function::Sqrt, sum);
                    graph.div(x, norm)
                });
                let product = graph.mul(t?, y?)?;
                let sum = sum_last(graph, product)?;
                Ok(graph.map(Function::Neg, sum))
            }
        }
    }

    fn hinge(&self, graph: &mut Graph, t: Id, y: Id) -> Result<Id> {
        let zero = graph.scalar(0.0);
        if let Loss::CategoricalHinge {} = self {
            let product = graph.mul(t, y)?;
            let right = sum_last(graph, product)?;
            let rest = graph.scalar_sub(1.0, t)?;
            let others = graph.mul(rest, y)?;
            let shape = graph.shape(others).to_vec();
            let wrong = graph.reduce_max(others, &[shape.len() - 1])?;
            let wrong = graph.reshape(wrong, &shape[..shape.len() - 1])?;
            let margin = graph.sub(wrong, right)?;
            let margin = graph.add_scalar(margin, 1.0)?;
            return graph.max(margin, zero);
        }
        // Labels 0 and 1 count as -1 and 1.
        let half = graph.scalar(0.5);
        let above = graph.less(half, t)?;
        let doubled = graph.scale(above, 2.0)?;
        let signs = graph.add_scalar(doubled, -1.0)?;
        let product = graph.mul(signs, y)?;
        let margin = graph.scalar_sub(1.0, product)?;
        let mut margin = graph.max(margin, zero)?;
        if let Loss::SquaredHinge {} = self {
            margin = graph.square(margin)?;
        }
        mean_last(graph, margin)
    }
}
