//! The order of a model's layers in Keras: by depth, then as they are met from the outputs. Weights of an archive are named
//! by it.

use std::cmp::Reverse;

use crate::model::{Model, Origin};

/// An input of the model, or a layer by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Input(usize),
    Layer(usize),
}

pub(super) fn order(model: &Model) -> Vec<Element> {
    let (inputs, steps) = (model.inputs.len(), &model.steps);
    // Inputs first, then layers; and for calls, inputs first, then steps.
    let call = |origin: &Origin| match *origin {
        Origin::Input(number) => number,
        Origin::Step(step, _) => inputs + step,
    };
    let element = |call: usize| if call < inputs { call } else { inputs + steps[call - inputs].node };
    let elements = inputs + model.nodes.len();

    // As they are met. An input that nothing needs comes before all.
    let mut met: Vec<Option<usize>> = vec![None; elements];
    let mut count = 0;
    let mut finished = vec![false; inputs + steps.len()];
    let mut stack: Vec<usize> = model.outputs.iter().rev().map(call).collect();
    while let Some(at) = stack.pop() {
        if std::mem::replace(&mut finished[at], true) {
            continue;
        }
        met[element(at)].get_or_insert_with(|| {
            count += 1;
            count
        });
        if at >= inputs {
            stack.extend(steps[at - inputs].inputs.iter().rev().map(call));
        }
    }

    // The longest way to an output, over all calls of a layer. Steps stand in the order in which they are computed.
    let mut of_calls = vec![0; inputs + steps.len()];
    let mut depths = vec![0; elements];
    for at in (0..of_calls.len()).rev() {
        let depth = of_calls[at].max(depths[element(at)]);
        of_calls[at] = depth;
        depths[element(at)] = depth;
        if at >= inputs {
            for before in steps[at - inputs].inputs.iter().map(call) {
                of_calls[before] = of_calls[before].max(depth + 1);
            }
        }
    }
    let mut order: Vec<usize> = (0..elements).collect();
    order.sort_by_key(|&element| (Reverse(depths[element]), met[element]));
    let named = |element: usize| match element.checked_sub(inputs) {
        None => Element::Input(element),
        Some(layer) => Element::Layer(layer),
    };
    order.into_iter().map(named).collect()
}
