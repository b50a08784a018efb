//! Which class is said for which: counts of pairs, and how much of each class two answers have in common.
//!
//! Source: Keras's `MeanIoU` and its relatives.

use crate::error::Result;
use crate::graph::{Function, Graph, Id};
use crate::layers::masks::expanded;

/// What Keras adds to each divisor.
const EPSILON: f64 = 1e-7;

/// Counts of samples, or of their steps, by the right class and the one that is said: `[classes * classes]`, a row for each
/// right class. One value a sample is one of two classes, the second above `threshold`. Without it, `t` holds a value for
/// each class, as `y` does.
pub(super) fn sums(
    graph: &mut Graph,
    [t, y]: [Id; 2],
    mask: Option<Id>,
    threshold: Option<f32>,
) -> Result<Id> {
    let shape = graph.shape(y).to_vec();
    let values: usize = shape.iter().product();
    let classes = if threshold.is_some() { 2 } else { shape[shape.len() - 1] };
    let mut coded = |x: Id| match threshold {
        Some(threshold) => {
            let limit = graph.scalar(threshold);
            let x = graph.reshape(x, &[values, 1])?;
            let above = graph.less(limit, x)?;
            let below = graph.scalar_sub(1.0, above)?;
            graph.concat(&[below, above], 1)
        }
        None => {
            let x = graph.reshape(x, &[values / classes, classes])?;
            let greatest = graph.argmax(x, 1)?;
            let greatest = graph.reshape(greatest, &[values / classes, 1])?;
            let each = graph.iota(classes);
            let each = graph.reshape(each, &[1, classes])?;
            graph.map2(Function::Equal, greatest, each)
        }
    };
    let (mut right, said) = (coded(t)?, coded(y)?);
    if let Some(mask) = mask {
        let mask = expanded(graph, mask, shape.len())?;
        let mask = graph.broadcast(mask, &[&shape[..shape.len() - 1], &[1]].concat())?;
        let mask = graph.reshape(mask, &[values / shape[shape.len() - 1], 1])?;
        right = graph.mul(right, mask)?;
    }
    let right = graph.transposed(right)?;
    let counts = graph.matmul(right, said)?;
    graph.reshape(counts, &[classes * classes])
}

/// The mean over `of`, or over all classes, of what is in both answers over what is in either; classes that are in neither
/// don't count.
pub(super) fn intersection_over_union(sums: &[f64], of: Option<&[usize]>) -> f64 {
    let classes = sums.len().isqrt();
    let count = |right: usize, said: usize| sums[right * classes + said];
    let (mut sum, mut there) = (0.0, 0.0);
    for class in (0..classes).filter(|class| of.is_none_or(|of| of.contains(class))) {
        let either: f64 = (0..classes).map(|other| count(class, other) + count(other, class)).sum::<f64>()
            - count(class, class);
        if either > 1e-9 {
            there += 1.0;
            sum += count(class, class) / (either + EPSILON);
        }
    }
    sum / (there + EPSILON)
}
