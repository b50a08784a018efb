//! Figures of how hits and false guesses go together over thresholds.
//!
//! Source: Keras's `AUC`, `PrecisionAtRecall` and its relatives, which go by as many thresholds, evenly spread.

use crate::error::Result;
use crate::graph::{Graph, Id};

/// Hits and false guesses above each threshold, then all positives and negatives. `beyond` is how far the first and the last
/// threshold lie outside of 0 to 1.
pub(super) fn sums(graph: &mut Graph, t: Id, y: Id, thresholds: usize, beyond: f32) -> Result<Id> {
    let n: usize = graph.shape(y).iter().product();
    let last = thresholds.max(2) - 1;
    let at = |i: usize| match i {
        0 => -beyond,
        i if i == last => 1.0 + beyond,
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

/// What [`sums`] adds up to: of each threshold hits and false guesses, and all positives and negatives.
struct Curve<'a> {
    hits: &'a [f64],
    false_guesses: &'a [f64],
    positives: f64,
    negatives: f64,
}

impl Curve<'_> {
    fn of(sums: &[f64]) -> Curve<'_> {
        let n = (sums.len() - 2) / 2;
        let (hits, rest) = sums.split_at(n);
        Curve { hits, false_guesses: &rest[..n], positives: rest[n], negatives: rest[n + 1] }
    }
}

/// The area under the curve of hits over false guesses, by trapezia.
pub(super) fn area(sums: &[f64]) -> f64 {
    let Curve { hits, false_guesses, positives, negatives } = Curve::of(sums);
    let area = |i: usize| {
        let width = (false_guesses[i] - false_guesses[i + 1]) / negatives;
        width * (hits[i] + hits[i + 1]) / positives / 2.0
    };
    if positives == 0.0 || negatives == 0.0 { 0.0 } else { (0..hits.len() - 1).map(area).sum() }
}

/// A share of right answers at a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Of what is said to be.
    Precision,
    /// Of what is: sensitivity, too.
    Recall,
    /// Of what isn't.
    Specificity,
}

/// The greatest `wanted` of all thresholds at which `held` is `least` or more; 0 where it never is.
pub(super) fn greatest_at(sums: &[f64], wanted: Share, held: Share, least: f32) -> f64 {
    let Curve { hits, false_guesses, positives, negatives } = Curve::of(sums);
    let ratio = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
    let share = |of: Share, i: usize| match of {
        Share::Precision => ratio(hits[i], hits[i] + false_guesses[i]),
        Share::Recall => ratio(hits[i], positives),
        Share::Specificity => ratio(negatives - false_guesses[i], negatives),
    };
    // In the precision that Keras compares in.
    let held = (0..hits.len()).filter(|i| share(held, *i) as f32 >= least);
    held.map(|i| share(wanted, i)).fold(0.0, f64::max)
}
