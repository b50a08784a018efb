//! Metrics: what each batch adds to some sums, and the figure that follows from the sums of all batches.

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::graph::{Function, Graph, Id};
use crate::layers::masks::expanded;
use crate::losses::{Loss, one_hot};

mod f_beta;
#[cfg(test)]
mod tests;

pub use f_beta::Average;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
pub enum Metric {
    /// Categorical, sparse or binary, by the shapes and the loss.
    Accuracy {},
    CategoricalAccuracy {},
    SparseCategoricalAccuracy {},
    BinaryAccuracy {
        threshold: f32,
    },
    TopKCategoricalAccuracy {
        k: usize,
    },
    SparseTopKCategoricalAccuracy {
        k: usize,
    },
    Precision {
        threshold: f32,
    },
    Recall {
        threshold: f32,
    },
    /// As `FBetaScore` with a beta of 1.
    F1Score {
        average: Option<Average>,
        threshold: Option<f32>,
    },
    /// How well classes are found, where recall counts `beta` times as much as precision; a figure for each class, or their
    /// average. Without a threshold the greatest value of a sample is its class.
    FBetaScore {
        average: Option<Average>,
        beta: f32,
        threshold: Option<f32>,
    },
    /// By `num_thresholds` thresholds, as Keras interpolates it.
    AUC {
        num_thresholds: usize,
    },
    RootMeanSquaredError {},
    R2Score {},
    /// `e` to the mean of the loss, a cross-entropy.
    Perplexity {},
    /// The mean of a loss.
    Mean {
        name: String,
        loss: Loss,
    },
}

/// Accuracy, by name alone.
#[derive(Clone, Copy, Debug)]
pub struct Accuracy;

impl From<Accuracy> for Metric {
    fn from(_: Accuracy) -> Metric {
        Metric::Accuracy {}
    }
}

impl Metric {
    pub fn name(&self) -> String {
        match self {
            Metric::Accuracy {} => "accuracy".to_owned(),
            Metric::CategoricalAccuracy {} => "categorical_accuracy".to_owned(),
            Metric::SparseCategoricalAccuracy {} => "sparse_categorical_accuracy".to_owned(),
            Metric::BinaryAccuracy { .. } => "binary_accuracy".to_owned(),
            Metric::TopKCategoricalAccuracy { .. } => "top_k_categorical_accuracy".to_owned(),
            Metric::SparseTopKCategoricalAccuracy { .. } => "sparse_top_k_categorical_accuracy".to_owned(),
            Metric::Precision { .. } => "precision".to_owned(),
            Metric::Recall { .. } => "recall".to_owned(),
            Metric::F1Score { .. } => "f1_score".to_owned(),
            Metric::FBetaScore { .. } => "fbeta_score".to_owned(),
            Metric::AUC { .. } => "auc".to_owned(),
            Metric::RootMeanSquaredError {} => "root_mean_squared_error".to_owned(),
            Metric::R2Score {} => "r2_score".to_owned(),
            Metric::Perplexity {} => "perplexity".to_owned(),
            Metric::Mean { name, .. } => name.clone(),
        }
    }

    /// Whether it compares with the numbers of classes where the loss does; others compare with a one for the class.
    fn takes_numbers(&self) -> bool {
        match self {
            Metric::Accuracy {}
            | Metric::SparseCategoricalAccuracy {}
            | Metric::SparseTopKCategoricalAccuracy { .. }
            | Metric::Perplexity {} => true,
            Metric::Mean { loss, .. } => matches!(loss, Loss::SparseCategoricalCrossentropy { .. }),
            _ => false,
        }
    }

    /// The sums that a batch adds: `[n]`. `mask` says which steps of `y` count; as in Keras, it does so for means of what each
    /// step gives, and not for counts of classes or squares.
    pub(crate) fn sums(
        &self,
        graph: &mut Graph,
        [t, y]: [Id; 2],
        mask: Option<Id>,
        loss: &Loss,
    ) -> Result<Id> {
        let shape = graph.shape(y).to_vec();
        let sparse = matches!(loss, Loss::SparseCategoricalCrossentropy { .. });
        let t = if sparse && !self.takes_numbers() { one_hot(graph, t, &shape)? } else { t };
        match self {
            Metric::Accuracy {} if sparse => {
                Metric::SparseCategoricalAccuracy {}.sums(graph, [t, y], mask, loss)
            }
            Metric::Accuracy {}
                if shape.last() == Some(&1) || matches!(loss, Loss::BinaryCrossentropy { .. }) =>
            {
                Metric::BinaryAccuracy { threshold: 0.5 }.sums(graph, [t, y], mask, loss)
            }
            Metric::Accuracy {} | Metric::CategoricalAccuracy {} => {
                let [right, guess] = [t, y].map(|x| graph.argmax(x, shape.len() - 1));
                let equal = graph.map2(Function::Equal, right?, guess?)?;
                counted(graph, equal, mask)
            }
            Metric::SparseCategoricalAccuracy {} => {
                let guess = graph.argmax(y, shape.len() - 1)?;
                let shape = graph.shape(guess).to_vec();
                let right = graph.reshape(t, &shape)?;
                let equal = graph.map2(Function::Equal, right, guess)?;
                counted(graph, equal, mask)
            }
            Metric::BinaryAccuracy { threshold } => {
                let guess = above(graph, y, *threshold)?;
                let equal = graph.map2(Function::Equal, t, guess)?;
                counted(graph, equal, mask)
            }
            Metric::TopKCategoricalAccuracy { k } => among_top(graph, [t, y], mask, *k),
            Metric::SparseTopKCategoricalAccuracy { k } => {
                let t = one_hot(graph, t, &shape)?;
                among_top(graph, [t, y], mask, *k)
            }
            Metric::F1Score { average, threshold } | Metric::FBetaScore { average, threshold, .. } => {
                f_beta::sums(graph, t, y, *average, *threshold)
            }
            Metric::Precision { threshold } | Metric::Recall { threshold } => {
                let guess = above(graph, y, *threshold)?;
                confusion(graph, t, guess)
            }
            Metric::AUC { num_thresholds } => auc_sums(graph, t, y, *num_thresholds),
            Metric::RootMeanSquaredError {} => {
                let error = graph.sub(t, y)?;
                let square = graph.square(error)?;
                counted(graph, square, None)
            }
            Metric::R2Score {} => {
                let error = graph.sub(t, y)?;
                let square = graph.square(error)?;
                let t_square = graph.square(t)?;
                let parts = [square, t, t_square].map(|x| graph.sum_all(x));
                let count = graph.scalar(shape.iter().product::<usize>() as f32);
                let [a, b, c] = parts;
                side_by_side(graph, &[a?, b?, c?, count])
            }
            Metric::Perplexity {} => {
                let values = loss.values(graph, t, y)?;
                counted(graph, values, mask)
            }
            Metric::Mean { loss, .. } => {
                let values = loss.values(graph, t, y)?;
                counted(graph, values, mask)
            }
        }
    }

    /// # Errors
    /// When an argument makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Metric::FBetaScore { beta, .. } if !(beta.is_finite() && *beta > 0.0) => {
                Err(TrainError::Argument {
                    place: self.name(),
                    argument: "beta",
                    expected: "a number above 0".to_owned(),
                    received: beta.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// The names of its figures, for an output of so many classes.
    pub(crate) fn names(&self, classes: usize) -> Vec<String> {
        match self {
            Metric::F1Score { average: None, .. } | Metric::FBetaScore { average: None, .. }
                if classes > 1 =>
            {
                (0..classes).map(|class| format!("{}_{class}", self.name())).collect()
            }
            _ => vec![self.name()],
        }
    }

    /// The figures from the sums of all batches.
    pub(crate) fn results(&self, sums: &[f64]) -> Vec<f64> {
        match self {
            Metric::F1Score { average, .. } => f_beta::results(sums, *average, 1.0),
            Metric::FBetaScore { average, beta, .. } => f_beta::results(sums, *average, *beta),
            _ => vec![self.result(sums)],
        }
    }

    fn result(&self, sums: &[f64]) -> f64 {
        let ratio = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
        match self {
            // True positives, false positives, false negatives.
            Metric::Precision { .. } => ratio(sums[0], sums[0] + sums[1]),
            Metric::Recall { .. } => ratio(sums[0], sums[0] + sums[2]),
            Metric::RootMeanSquaredError {} => ratio(sums[0], sums[1]).sqrt(),
            Metric::R2Score {} => 1.0 - ratio(sums[0], sums[2] - ratio(sums[1] * sums[1], sums[3])),
            Metric::Perplexity {} => ratio(sums[0], sums[1]).exp(),
            Metric::AUC { .. } => auc(sums),
            _ => ratio(sums[0], sums[1]),
        }
    }
}

fn side_by_side(graph: &mut Graph, scalars: &[Id]) -> Result<Id> {
    let parts: Result<Vec<Id>> = scalars.iter().map(|&x| graph.reshape(x, &[1])).collect();
    graph.concat(&parts?, 0)
}

/// The sum and the number of elements that count.
fn counted(graph: &mut Graph, x: Id, mask: Option<Id>) -> Result<Id> {
    if let Some(mask) = mask {
        let shape = graph.shape(x).to_vec();
        let mask = expanded(graph, mask, shape.len())?;
        let mask = graph.broadcast(mask, &shape)?;
        let kept = graph.mul(x, mask)?;
        let (sum, count) = (graph.sum_all(kept)?, graph.sum_all(mask)?);
        return side_by_side(graph, &[sum, count]);
    }
    let count = graph.scalar(graph.shape(x).iter().product::<usize>() as f32);
    let sum = graph.sum_all(x)?;
    side_by_side(graph, &[sum, count])
}

fn above(graph: &mut Graph, y: Id, threshold: f32) -> Result<Id> {
    let threshold = graph.scalar(threshold);
    graph.less(threshold, y)
}

fn confusion(graph: &mut Graph, t: Id, guess: Id) -> Result<Id> {
    let hits = graph.mul(t, guess)?;
    let false_guesses = graph.sub(guess, hits)?;
    let missed = graph.sub(t, hits)?;
    let sums = [hits, false_guesses, missed].map(|x| graph.sum_all(x));
    let [a, b, c] = sums;
    side_by_side(graph, &[a?, b?, c?])
}

/// Whether fewer than `k` classes have a higher value than the right one.
fn among_top(graph: &mut Graph, [t, y]: [Id; 2], mask: Option<Id>, k: usize) -> Result<Id> {
    let last = graph.shape(y).len() - 1;
    let product = graph.mul(t, y)?;
    let right = graph.sum(product, &[last])?;
    let higher = graph.less(right, y)?;
    let count = graph.sum(higher, &[last])?;
    let limit = graph.scalar(k as f32);
    let among = graph.less(count, limit)?;
    counted(graph, among, mask)
}

/// Hits and false guesses above each threshold, then all positives and negatives.
fn auc_sums(graph: &mut Graph, t: Id, y: Id, thresholds: usize) -> Result<Id> {
    let n: usize = graph.shape(y).iter().product();
    let last = thresholds.max(2) - 1;
    let at = |i: usize| match i {
        0 => -1e-7,
        i if i == last => 1.0 + 1e-7,
        i => i as f32 / last as f32,
    };
    let limits: Vec<f32> = (0..=last).map(at).collect();
    let limits = graph.constant(&limits, &[last + 1, 1])?;
    let y = graph.reshape(y, &[1, n])?;
    let t = graph.reshape(t, &[1, n])?;
    let above = graph.less(limits, y)?;
    let hits = graph.mul(above, t)?;
    let false_guesses = graph.sub(above, hits)?;
    let positives = graph.sum(t, &[1])?;
    let rest = graph.scalar_sub(1.0, t)?;
    let negatives = graph.sum(rest, &[1])?;
    let [hits, false_guesses] = [hits, false_guesses].map(|x| graph.sum(x, &[1]));
    let all = graph.concat(&[hits?, false_guesses?, positives, negatives], 0)?;
    graph.reshape(all, &[2 * last + 4])
}

/// The area under the curve of hits over false guesses, by trapezia.
fn auc(sums: &[f64]) -> f64 {
    let n = (sums.len() - 2) / 2;
    let (hits, rest) = sums.split_at(n);
    let (positives, negatives) = (rest[n], rest[n + 1]);
    let area = |i: usize| (rest[i] - rest[i + 1]) / negatives * (hits[i] + hits[i + 1]) / positives / 2.0;
    if positives == 0.0 || negatives == 0.0 { 0.0 } else { (0..n - 1).map(area).sum() }
}
