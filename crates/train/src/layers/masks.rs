//! Masks: which steps of a sequence count. A mask is a tensor of ones and zeros, as a rule `[batch, steps]`, that goes along
//! with what a layer yields, as Keras's do: some layers make one, some pass it on, some heed it, and the others end it. (Keras's
//! `MultiHeadAttention` takes masks off the tensors that it is called on, so that a layer called on the same ones later may
//! see none. Here they stay.)

use serde::{Deserialize, Serialize};

use super::{Call, Layer, arguments, described, one_shape};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// Classes whose output is masked as their first input is: those that say `supports_masking` in Keras and don't compute
/// another. All others yield what has no mask.
const PASS_ON: [&str; 16] = [
    "Activation",
    "BatchNormalization",
    "Dense",
    "Dropout",
    "ELU",
    "GroupNormalization",
    "GroupQueryAttention",
    "LayerNormalization",
    "LeakyReLU",
    "MultiHeadAttention",
    "Normalization",
    "PReLU",
    "ReLU",
    "Rescaling",
    "Softmax",
    "TimeDistributed",
];

/// What stands for a score that isn't to count.
pub(super) const MASKED: f32 = -1e9;

impl Call<'_> {
    /// The mask of input number `input`, if it has one.
    pub fn mask(&self, input: usize) -> Option<Id> {
        self.masks.get(input).copied().flatten()
    }
}

/// See [`Layer::mask`].
pub(super) fn passed_on(class: &str, call: &Call<'_>) -> Option<Id> {
    call.mask(0).filter(|_| PASS_ON.contains(&class))
}

/// 1 where `x` is another number than `value`.
pub(super) fn other_than(graph: &mut Graph, x: Id, value: f32) -> Result<Id> {
    let value = graph.scalar(value);
    let same = graph.map2(Function::Equal, x, value)?;
    graph.scalar_sub(1.0, same)
}

/// 1 where one of the masks is 1; none where an input has none.
pub(super) fn any_of(call: &mut Call<'_>, inputs: usize) -> Result<Option<Id>> {
    let Some(masks) = (0..inputs).map(|input| call.mask(input)).collect::<Option<Vec<Id>>>() else {
        return Ok(None);
    };
    let Some((&first, rest)) = masks.split_first() else { return Ok(None) };
    rest.iter().try_fold(first, |all, &mask| call.graph.max(all, mask)).map(Some)
}

/// Of inputs one after the other along `axis`: 1 where any of a row's last axis counts; none where no input has a mask.
pub(super) fn of_concatenated(call: &mut Call<'_>, inputs: &[Id], axis: usize) -> Result<Option<Id>> {
    if call.masks.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut masks = vec![];
    for (number, &input) in inputs.iter().enumerate() {
        let shape = call.graph.shape(input).to_vec();
        masks.push(match call.mask(number) {
            None => call.graph.full(1.0, &shape),
            Some(mask) => {
                let mask = expanded(call.graph, mask, shape.len())?;
                call.graph.broadcast(mask, &shape)?
            }
        });
    }
    let all = call.graph.concat(&masks, axis)?;
    let shape = call.graph.shape(all).to_vec();
    let any = call.graph.reduce_max(all, &[shape.len() - 1])?;
    call.graph.reshape(any, &shape[..shape.len() - 1]).map(Some)
}

/// The mask with as many further axes of 1 as a rank of `rank` takes.
pub(crate) fn expanded(graph: &mut Graph, mask: Id, rank: usize) -> Result<Id> {
    let mut shape = graph.shape(mask).to_vec();
    while shape.len() > rank && shape.last() == Some(&1) {
        shape.pop();
    }
    shape.resize(rank.max(shape.len()), 1);
    graph.reshape(mask, &shape)
}

/// Where attention's scores `[batch, heads, queries, keys]` count by the masks of the query, of the value and of the key;
/// none where none has one.
pub(super) fn attended(call: &mut Call<'_>, inputs: usize) -> Result<Option<Id>> {
    // A layer of one input attends to itself.
    let of = |call: &Call<'_>, which: usize| call.mask(if inputs == 1 && which == 1 { 0 } else { which });
    let mut all: Option<Id> = None;
    for which in 0..inputs.max(2) {
        let Some(mask) = of(call, which) else { continue };
        let shape = call.graph.shape(mask).to_vec();
        let [batch, steps] = shape[..] else {
            return Err(call.graph.shape_error("attention", "masks of [batch, steps]", &[mask]));
        };
        let shape = if which == 0 { [batch, 1, steps, 1] } else { [batch, 1, 1, steps] };
        let mask = call.graph.reshape(mask, &shape)?;
        all = Some(match all {
            Some(all) => call.graph.mul(all, mask)?,
            None => mask,
        });
    }
    Ok(all)
}

/// Scores that don't count become so low that their share is 0.
pub(super) fn hidden_by(graph: &mut Graph, scores: Id, mask: Id) -> Result<Id> {
    let hidden = graph.add_scalar(mask, -1.0)?;
    let hidden = graph.scale(hidden, -MASKED)?;
    graph.add(scores, hidden)
}

/// Masks the steps of `[batch, steps, ..]` all of whose numbers are `mask_value`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Masking {
    pub mask_value: f32,
}

impl Masking {
    pub fn new() -> Masking {
        Masking::default()
    }

    arguments! { mask_value: f32 }
}

impl Layer for Masking {
    described!("Masking");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<super::Weight>> {
        one_shape("Masking", inputs, 2).map(|_| vec![])
    }

    fn mask(&self, call: &mut Call<'_>, inputs: &[Id]) -> Result<Option<Id>> {
        let other = other_than(call.graph, inputs[0], self.mask_value)?;
        let shape = call.graph.shape(other).to_vec();
        let any = call.graph.reduce_max(other, &[shape.len() - 1])?;
        call.graph.reshape(any, &shape[..shape.len() - 1]).map(Some)
    }

    /// What is masked becomes 0.
    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let other = other_than(call.graph, inputs[0], self.mask_value)?;
        let any = call.graph.reduce_max(other, &[call.graph.shape(other).len() - 1])?;
        let zero = call.graph.scalar(0.0);
        Ok(vec![call.graph.select(any, inputs[0], zero)?])
    }
}
