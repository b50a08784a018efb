//! The loss of Graves and others ("Connectionist Temporal Classification", 2006): all ways of saying the labels in time,
//! added up step by step in logarithms.

use crate::activations::log_softmax;
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// The logarithm of what can't be. Finite, so that no difference of two is without a value.
const NEVER: f32 = -1e30;
/// Each step is operations of its own.
const STEPS_MAX: usize = 4096;

/// The loss of each sample, for labels `t` `[batch, labels]` and logits `y` `[batch, steps, classes]`.
pub(super) fn values(graph: &mut Graph, t: Id, y: Id) -> Result<Id> {
    let (labels, logits) = (graph.shape(t).to_vec(), graph.shape(y).to_vec());
    let (&[batch, count], &[_, steps, classes]) = (&labels[..], &logits[..]) else {
        let expected = "labels of [batch, labels] and logits of [batch, steps, classes]";
        return Err(graph.shape_error("CTC", expected, &[t, y]));
    };
    if steps > STEPS_MAX {
        return Err(graph.shape_error("CTC", format!("at most {STEPS_MAX} steps"), &[y]));
    }
    // A blank before, between and after the labels.
    let places = 2 * count + 1;
    let apart = graph.reshape(t, &[batch, count, 1])?;
    let spread = graph.pad(apart, &[0, 0, 1], &[1; 3], &[batch, count, 2])?;
    let spread = graph.reshape(spread, &[batch, 2 * count])?;
    let spread = graph.pad(spread, &[0, 0], &[1, 1], &[batch, places])?;
    let log = log_softmax(graph, y)?;
    let of_places = {
        let spread = graph.reshape(spread, &[batch, places, 1])?;
        let numbers = graph.iota(classes);
        let one_hot = graph.map2(Function::Equal, spread, numbers)?;
        let turned = graph.transposed(one_hot)?;
        graph.matmul(log, turned)?
    };
    let leaps = leaps(graph, spread, batch, places)?;
    // A way begins with the first blank or the first label.
    let begins: Vec<f32> = (0..places).map(|place| if place < 2 { 0.0 } else { NEVER }).collect();
    let begins = graph.constant(&begins, &[1, places])?;
    let mut ways = at_step(graph, of_places, 0, batch, places)?;
    ways = graph.add(ways, begins)?;
    for step in 1..steps {
        let one = shifted(graph, ways, 1, batch, places)?;
        let two = shifted(graph, ways, 2, batch, places)?;
        let two = graph.add(two, leaps)?;
        let all = sum_of_logs(graph, &[ways, one, two])?;
        let now = at_step(graph, of_places, step, batch, places)?;
        ways = graph.add(all, now)?;
    }
    let ends = ends(graph, t, batch, places)?;
    let ended = graph.add(ways, ends)?;
    let greatest = graph.reduce_max(ended, &[1])?;
    let less = graph.sub(ended, greatest)?;
    let grown = graph.map(Function::Exp, less);
    let sum = graph.sum(grown, &[1])?;
    let log = graph.map(Function::Log, sum);
    let likely = graph.add(log, greatest)?;
    let loss = graph.map(Function::Neg, likely);
    graph.reshape(loss, &[batch])
}

fn at_step(graph: &mut Graph, of_places: Id, step: usize, batch: usize, places: usize) -> Result<Id> {
    let now = graph.slice_axis(of_places, 1, step, 1)?;
    graph.reshape(now, &[batch, places])
}

/// Each place's value at the place `by` later; nothing comes to the first ones.
fn shifted(graph: &mut Graph, ways: Id, by: usize, batch: usize, places: usize) -> Result<Id> {
    let nothing = graph.full(NEVER, &[batch, by.min(places)]);
    if by >= places {
        return graph.slice_axis(nothing, 1, 0, places);
    }
    let kept = graph.slice_axis(ways, 1, 0, places - by)?;
    graph.concat(&[nothing, kept], 1)
}

/// 0 where a way may leave out the blank before a label, which is where the label before is another one.
fn leaps(graph: &mut Graph, spread: Id, batch: usize, places: usize) -> Result<Id> {
    if places < 3 {
        return Ok(graph.full(NEVER, &[batch, places]));
    }
    let before = graph.slice_axis(spread, 1, 0, places - 2)?;
    let own = graph.slice_axis(spread, 1, 2, places - 2)?;
    // Two blanks are equal, so that none is leapt to.
    let same = graph.map2(Function::Equal, before, own)?;
    let closed = graph.scale(same, NEVER)?;
    let first = graph.full(NEVER, &[batch, 2]);
    graph.concat(&[first, closed], 1)
}

/// 0 at the last label and the blank after it.
fn ends(graph: &mut Graph, t: Id, batch: usize, places: usize) -> Result<Id> {
    let zero = graph.scalar(0.0);
    let is_label = graph.less(zero, t)?;
    let count = graph.sum(is_label, &[1])?;
    let blank = graph.scale(count, 2.0)?;
    let label = graph.add_scalar(blank, -1.0)?;
    let numbers = graph.iota(places);
    let numbers = graph.broadcast(numbers, &[batch, places])?;
    let [one, other] = [blank, label].map(|end| graph.map2(Function::Equal, numbers, end));
    let is_end = graph.add(one?, other?)?;
    let is_other = graph.scalar_sub(1.0, is_end)?;
    graph.scale(is_other, NEVER)
}

fn sum_of_logs(graph: &mut Graph, logs: &[Id]) -> Result<Id> {
    let greatest = logs[1..].iter().try_fold(logs[0], |greatest, &log| graph.max(greatest, log))?;
    let mut sum = graph.scalar(0.0);
    for &log in logs {
        let less = graph.sub(log, greatest)?;
        let grown = graph.map(Function::Exp, less);
        sum = graph.add(sum, grown)?;
    }
    let log = graph.map(Function::Log, sum);
    graph.add(log, greatest)
}

/// What is wrong with the labels of the first sample where something is, and which it is.
pub(crate) fn check(labels: &[f32], count: usize, steps: usize, classes: usize) -> Option<(usize, String)> {
    let problem = |row: &[f32]| {
        let is_class = |&label: &f32| label >= 0.0 && label < classes as f32 && label.fract() == 0.0;
        if let Some(label) = row.iter().find(|label| !is_class(label)) {
            return Some(format!("the label {label}; there are 0 (none) to {}", classes.saturating_sub(1)));
        }
        let len = row.iter().position(|&label| label == 0.0).unwrap_or(count);
        if row[len..].iter().any(|&label| label != 0.0) {
            return Some("a label after a 0; zeros only fill up the end".to_owned());
        }
        let repeated = row[..len].windows(2).filter(|pair| pair[0] == pair[1]).count();
        let needed = len + repeated;
        (needed > steps).then(|| format!("{len} labels that take {needed} steps; the model has {steps}"))
    };
    labels.chunks(count.max(1)).enumerate().find_map(|(sample, row)| Some((sample, problem(row)?)))
}
