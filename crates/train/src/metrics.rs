//! Metrics: what each batch adds to some sums, and the figure that follows from the sums of all batches.

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::graph::{Function, Graph, Id};
use crate::layers::masks::expanded;
use crate::losses::{Loss, one_hot};

mod curves;
mod f_beta;
mod matrix;
#[cfg(test)]
mod tests;

use curves::Share;
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
    TruePositives {
        threshold: f32,
    },
    TrueNegatives {
        threshold: f32,
    },
    FalsePositives {
        threshold: f32,
    },
    FalseNegatives {
        threshold: f32,
    },
    /// The best precision of all thresholds with so much recall; the next three likewise.
    PrecisionAtRecall {
        recall: f32,
        num_thresholds: usize,
    },
    RecallAtPrecision {
        precision: f32,
        num_thresholds: usize,
    },
    SensitivityAtSpecificity {
        specificity: f32,
        num_thresholds: usize,
    },
    SpecificityAtSensitivity {
        sensitivity: f32,
        num_thresholds: usize,
    },
    /// How many samples of each class are said to be of each: a figure for each pair, `confusion_matrix_RIGHT_SAID`. An output of
    /// one value tells two classes apart, at a half.
    ConfusionMatrix {},
    /// What two answers have in common of each class, over what is in either: the mean of all classes.
    OneHotMeanIoU {},
    /// The same, of some classes.
    OneHotIoU {
        target_class_ids: Vec<usize>,
    },
    /// The same, of outputs of one value.
    BinaryIoU {
        target_class_ids: Vec<usize>,
        threshold: f32,
    },
    /// Of a sample's values with the right ones.
    PearsonCorrelation {},
    ConcordanceCorrelation {},
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
            Metric::TruePositives { .. } => "true_positives".to_owned(),
            Metric::TrueNegatives { .. } => "true_negatives".to_owned(),
            Metric::FalsePositives { .. } => "false_positives".to_owned(),
            Metric::FalseNegatives { .. } => "false_negatives".to_owned(),
            Metric::PrecisionAtRecall { .. } => "precision_at_recall".to_owned(),
            Metric::RecallAtPrecision { .. } => "recall_at_precision".to_owned(),
            Metric::SensitivityAtSpecificity { .. } => "sensitivity_at_specificity".to_owned(),
            Metric::SpecificityAtSensitivity { .. } => "specificity_at_sensitivity".to_owned(),
            Metric::ConfusionMatrix {} => "confusion_matrix".to_owned(),
            Metric::OneHotMeanIoU {} => "one_hot_mean_io_u".to_owned(),
            Metric::OneHotIoU { .. } => "one_hot_io_u".to_owned(),
            Metric::BinaryIoU { .. } => "binary_io_u".to_owned(),
            Metric::PearsonCorrelation {} => "pearson_correlation".to_owned(),
            Metric::ConcordanceCorrelation {} => "concordance_correlation".to_owned(),
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
        if let Some(values) = self.values(graph, [t, y], loss)? {
            return counted(graph, values, mask);
        }
        let all = graph.scalar(shape.iter().product::<usize>() as f32);
        match self {
            Metric::F1Score { average, threshold } | Metric::FBetaScore { average, threshold, .. } => {
                f_beta::sums(graph, t, y, *average, *threshold)
            }
            Metric::Precision { threshold }
            | Metric::Recall { threshold }
            | Metric::TruePositives { threshold }
            | Metric::TrueNegatives { threshold }
            | Metric::FalsePositives { threshold }
            | Metric::FalseNegatives { threshold } => {
                let guess = above(graph, y, *threshold)?;
                confusion(graph, t, guess, all)
            }
            Metric::AUC { num_thresholds } => curves::sums(graph, t, y, *num_thresholds, 1e-7),
            Metric::PrecisionAtRecall { num_thresholds, .. }
            | Metric::RecallAtPrecision { num_thresholds, .. }
            | Metric::SensitivityAtSpecificity { num_thresholds, .. }
            | Metric::SpecificityAtSensitivity { num_thresholds, .. } => {
                curves::sums(graph, t, y, *num_thresholds, 0.0)
            }
            Metric::ConfusionMatrix {} => {
                matrix::sums(graph, [t, y], mask, Some(0.5).filter(|_| shape.last() == Some(&1)))
            }
            Metric::OneHotMeanIoU {} | Metric::OneHotIoU { .. } => matrix::sums(graph, [t, y], None, None),
            Metric::BinaryIoU { threshold, .. } => matrix::sums(graph, [t, y], None, Some(*threshold)),
            Metric::R2Score {} => {
                let error = graph.sub(t, y)?;
                let square = graph.square(error)?;
                let t_square = graph.square(t)?;
                let parts = [square, t, t_square].map(|x| graph.sum_all(x));
                let [a, b, c] = parts;
                side_by_side(graph, &[a?, b?, c?, all])
            }
            _ => {
                let error = graph.sub(t, y)?;
                let square = graph.square(error)?;
                counted(graph, square, None)
            }
        }
    }

    /// What each sample or step gives, where the figure is the mean of that.
    fn values(&self, graph: &mut Graph, [t, y]: [Id; 2], loss: &Loss) -> Result<Option<Id>> {
        let shape = graph.shape(y).to_vec();
        let last = shape.len() - 1;
        let is_sparse = matches!(loss, Loss::SparseCategoricalCrossentropy { .. });
        let is_binary = shape[last] == 1 || matches!(loss, Loss::BinaryCrossentropy { .. });
        let kind = match self {
            Metric::Accuracy {} if is_sparse => &Metric::SparseCategoricalAccuracy {},
            Metric::Accuracy {} if is_binary => &Metric::BinaryAccuracy { threshold: 0.5 },
            Metric::Accuracy {} => &Metric::CategoricalAccuracy {},
            other => other,
        };
        let values = match kind {
            Metric::CategoricalAccuracy {} => {
                let [right, guess] = [t, y].map(|x| graph.argmax(x, last));
                graph.map2(Function::Equal, right?, guess?)?
            }
            Metric::SparseCategoricalAccuracy {} => {
                let guess = graph.argmax(y, last)?;
                let shape = graph.shape(guess).to_vec();
                let right = graph.reshape(t, &shape)?;
                graph.map2(Function::Equal, right, guess)?
            }
            Metric::BinaryAccuracy { threshold } => {
                let guess = above(graph, y, *threshold)?;
                graph.map2(Function::Equal, t, guess)?
            }
            Metric::TopKCategoricalAccuracy { k } => among_top(graph, t, y, *k)?,
            Metric::SparseTopKCategoricalAccuracy { k } => {
                let t = one_hot(graph, t, &shape)?;
                among_top(graph, t, y, *k)?
            }
            Metric::PearsonCorrelation {} => correlation(graph, t, y)?,
            Metric::ConcordanceCorrelation {} => concordance(graph, t, y)?,
            Metric::Perplexity {} => loss.values(graph, t, y)?,
            Metric::Mean { loss, .. } => loss.values(graph, t, y)?,
            _ => return Ok(None),
        };
        Ok(Some(values))
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
            Metric::ConfusionMatrix {} => {
                let classes = classes.max(2);
                let name = |right: usize| move |said: usize| format!("confusion_matrix_{right}_{said}");
                (0..classes).flat_map(|right| (0..classes).map(name(right))).collect()
            }
            _ => vec![self.name()],
        }
    }

    /// The figures from the sums of all batches.
    pub(crate) fn results(&self, sums: &[f64]) -> Vec<f64> {
        match self {
            Metric::F1Score { average, .. } => f_beta::results(sums, *average, 1.0),
            Metric::FBetaScore { average, beta, .. } => f_beta::results(sums, *average, *beta),
            Metric::ConfusionMatrix {} => sums.to_vec(),
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
            Metric::AUC { .. } => curves::area(sums),
            // Hits, false guesses, missed ones, and all.
            Metric::TruePositives { .. } => sums[0],
            Metric::FalsePositives { .. } => sums[1],
            Metric::FalseNegatives { .. } => sums[2],
            Metric::TrueNegatives { .. } => sums[3] - sums[0] - sums[1] - sums[2],
            Metric::PrecisionAtRecall { recall, .. } => {
                curves::greatest_at(sums, Share::Precision, Share::Recall, *recall)
            }
            Metric::RecallAtPrecision { precision, .. } => {
                curves::greatest_at(sums, Share::Recall, Share::Precision, *precision)
            }
            Metric::SensitivityAtSpecificity { specificity, .. } => {
                curves::greatest_at(sums, Share::Recall, Share::Specificity, *specificity)
            }
            Metric::SpecificityAtSensitivity { sensitivity, .. } => {
                curves::greatest_at(sums, Share::Specificity, Share::Recall, *sensitivity)
            }
            Metric::OneHotMeanIoU {} => matrix::intersection_over_union(sums, None),
            Metric::OneHotIoU { target_class_ids } | Metric::BinaryIoU { target_class_ids, .. } => {
                matrix::intersection_over_union(sums, Some(target_class_ids))
            }
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

/// Hits, false guesses, missed ones, and how many there are in all.
fn confusion(graph: &mut Graph, t: Id, guess: Id, all: Id) -> Result<Id> {
    let hits = graph.mul(t, guess)?;
    let false_guesses = graph.sub(guess, hits)?;
    let missed = graph.sub(t, hits)?;
    let sums = [hits, false_guesses, missed].map(|x| graph.sum_all(x));
    let [a, b, c] = sums;
    side_by_side(graph, &[a?, b?, c?, all])
}

/// Whether fewer than `k` classes have a higher value than the right one.
fn among_top(graph: &mut Graph, t: Id, y: Id, k: usize) -> Result<Id> {
    let last = graph.shape(y).len() - 1;
    let product = graph.mul(t, y)?;
    let right = graph.sum(product, &[last])?;
    let higher = graph.less(right, y)?;
    let count = graph.sum(higher, &[last])?;
    let limit = graph.scalar(k as f32);
    graph.less(count, limit)
}

/// A sample's values less their mean, and their mean square.
fn centred(graph: &mut Graph, x: Id) -> Result<(Id, Id)> {
    let last = graph.shape(x).len() - 1;
    let mean = graph.mean(x, &[last])?;
    let off = graph.sub(x, mean)?;
    let square = graph.square(off)?;
    Ok((off, graph.mean(square, &[last])?))
}

/// Pearson's correlation along the last axis.
fn correlation(graph: &mut Graph, t: Id, y: Id) -> Result<Id> {
    let ((t, of_t), (y, of_y)) = (centred(graph, t)?, centred(graph, y)?);
    let [of_t, of_y] = [of_t, of_y].map(|variance| graph.map(Function::Sqrt, variance));
    let (t, y) = (graph.div(t, of_t)?, graph.div(y, of_y)?);
    mean_of_product(graph, t, y)
}

/// Lin's concordance correlation along the last axis, with Keras's least divisor.
fn concordance(graph: &mut Graph, t: Id, y: Id) -> Result<Id> {
    let last = graph.shape(y).len() - 1;
    let (mean_t, mean_y) = (graph.mean(t, &[last])?, graph.mean(y, &[last])?);
    let apart = graph.sub(mean_t, mean_y)?;
    let apart = graph.square(apart)?;
    let ((t, of_t), (y, of_y)) = (centred(graph, t)?, centred(graph, y)?);
    let all = graph.add(of_t, of_y)?;
    let all = graph.add(all, apart)?;
    let all = graph.add_scalar(all, 1e-7)?;
    let double = graph.scale(t, 2.0)?;
    let y = graph.div(y, all)?;
    mean_of_product(graph, double, y)
}

fn mean_of_product(graph: &mut Graph, a: Id, b: Id) -> Result<Id> {
    let product = graph.mul(a, b)?;
    let shape = graph.shape(product).to_vec();
    let mean = graph.mean(product, &[shape.len() - 1])?;
    graph.reshape(mean, &shape[..shape.len() - 1])
}
