//! F-scores of classes, and their averages.
//!
//! Source: Keras's `FBetaScore`.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// What Keras adds to each divisor.
const EPSILON: f64 = 1e-7;
/// A value that is the greatest of its sample, and not above this, is no guess.
const GUESS_MIN: f32 = 1e-9;

/// How the scores of classes become one. Without, each class has a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// Hits and misses of all classes are counted together.
    Micro,
    /// The mean of the classes' scores.
    Macro,
    /// The same, by the samples of each class.
    Weighted,
}

/// Hits, false guesses and missed ones of each class: `[3 n]`, or `[3]` where all count together. A class is guessed where
/// its value is above `threshold`, or is the greatest of its sample.
pub(super) fn sums(
    graph: &mut Graph,
    t: Id,
    y: Id,
    average: Option<Average>,
    threshold: Option<f32>,
) -> Result<Id> {
    let shape = graph.shape(y).to_vec();
    let last = shape.len() - 1;
    let t = graph.reshape(t, &shape)?;
    let guess = match threshold {
        Some(threshold) => super::above(graph, y, threshold)?,
        None => {
            let greatest = graph.reduce_max(y, &[last])?;
            let is_greatest = graph.map2(Function::Equal, y, greatest)?;
            let square = graph.square(y)?;
            let is_some = super::above(graph, square, GUESS_MIN * GUESS_MIN)?;
            graph.mul(is_greatest, is_some)?
        }
    };
    let hits = graph.mul(t, guess)?;
    let false_guesses = graph.sub(guess, hits)?;
    let missed = graph.sub(t, hits)?;
    let among = if average == Some(Average::Micro) { shape.len() } else { last };
    let axes: Vec<usize> = (0..among).collect();
    let classes = if among == last { shape[last] } else { 1 };
    let mut parts = vec![];
    for each in [hits, false_guesses, missed] {
        let sum = graph.sum(each, &axes)?;
        parts.push(graph.reshape(sum, &[classes])?);
    }
    graph.concat(&parts, 0)
}

/// The scores from the sums of all batches: one, or one for each class.
pub(super) fn results(sums: &[f64], average: Option<Average>, beta: f32) -> Vec<f64> {
    let classes = sums.len() / 3;
    let beta = f64::from(beta * beta);
    let score = |class: usize| {
        let [hits, false_guesses, missed] = [0, 1, 2].map(|part| sums[part * classes + class]);
        let precision = hits / (hits + false_guesses + EPSILON);
        let recall = hits / (hits + missed + EPSILON);
        (1.0 + beta) * precision * recall / (beta * precision + recall + EPSILON)
    };
    let samples = |class: usize| sums[class] + sums[2 * classes + class];
    match average {
        None | Some(Average::Micro) => (0..classes).map(score).collect(),
        Some(Average::Macro) => vec![(0..classes).map(score).sum::<f64>() / classes.max(1) as f64],
        Some(Average::Weighted) => {
            let all: f64 = (0..classes).map(samples).sum();
            vec![(0..classes).map(|class| score(class) * samples(class) / (all + EPSILON)).sum()]
        }
    }
}
