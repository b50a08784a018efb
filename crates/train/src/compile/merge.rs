//! Passes over the same space that follow each other become one, where none needs what the other writes: what both read is
//! read once, and threads meet once.

use kernels::fused::{Argument, Step};

use super::drafts::Draft;
use super::fuse::SIZE_MAX;
use super::places::{Place, overlap};

pub(super) fn neighbours(drafts: &mut Vec<Draft>) {
    let mut merged: Vec<Draft> = Vec::with_capacity(drafts.len());
    for draft in drafts.drain(..) {
        match merged.last_mut().and_then(|last| both(last, &draft)) {
            Some(both) => {
                merged.pop();
                merged.push(both);
            }
            None => merged.push(draft),
        }
    }
    *drafts = merged;
}

/// The two as one pass, if they may be.
fn both(first: &Draft, second: &Draft) -> Option<Draft> {
    let Draft::Fused { shape, inputs, steps, outputs } = first else { return None };
    let Draft::Fused { shape: other_shape, inputs: others, steps: other_steps, outputs: other_outputs } =
        second
    else {
        return None;
    };
    let is_touched =
        |place: &&Place| first.reads().into_iter().chain(first.writes()).any(|other| overlap(place, other));
    let is_written = |place: &&Place| outputs.iter().any(|(_, to)| overlap(place, to));
    let shares_one = others.iter().any(|input| inputs.contains(input));
    let is_apart = !second.writes().iter().any(is_touched) && !second.reads().iter().any(is_written);
    if shape != other_shape || !shares_one || !is_apart {
        return None;
    }
    let (mut inputs, mut steps, mut outputs) = (inputs.clone(), steps.clone(), outputs.clone());
    let place_of: Vec<usize> = others
        .iter()
        .map(|input| {
            inputs.iter().position(|other| other == input).unwrap_or_else(|| {
                inputs.push(input.clone());
                inputs.len() - 1
            })
        })
        .collect();
    let first_step = steps.len();
    steps.extend(other_steps.iter().map(|step| {
        let moved = |argument: &Argument| match *argument {
            Argument::Step(step) => Argument::Step(first_step + step),
            Argument::Input(input) => Argument::Input(place_of[input]),
            constant => constant,
        };
        Step { arguments: step.arguments.iter().map(moved).collect(), ..step.clone() }
    }));
    outputs.extend(other_outputs.iter().map(|(step, to)| (first_step + step, to.clone())));
    (inputs.len() + steps.len() <= SIZE_MAX).then(|| Draft::Fused {
        shape: shape.clone(),
        inputs,
        steps,
        outputs,
    })
}
