//! `MultiHeadAttention`.

use serde::{Deserialize, Serialize};

use super::dense::linear;
use super::dropout::drop_out;
use super::masks::{MASKED, attended, hidden_by};
use super::{Call, Layer, Weight, arguments, described};
use crate::activations::softmax;
use crate::error::{Result, TrainError};
use crate::graph::Id;
use crate::initializers::Initializer;

/// Values of a mask.
const MASK_MAX: usize = 1 << 26;

/// Attention of queries to keys and values. Inputs are `query, value` or `query, value, key`, each `[batch, steps, width]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct MultiHeadAttention {
    pub num_heads: usize,
    pub key_dim: usize,
    /// None is as `key_dim`.
    pub value_dim: Option<usize>,
    pub dropout: f32,
    pub use_bias: bool,
    /// The last size of the output; none is the query's.
    pub output_shape: Option<usize>,
    pub kernel_initializer: Initializer,
    pub bias_initializer: Initializer,
    /// Keras takes this when the layer is called.
    pub use_causal_mask: bool,
}

impl Default for MultiHeadAttention {
    fn default() -> MultiHeadAttention {
        MultiHeadAttention {
            num_heads: 1,
            key_dim: 1,
            value_dim: None,
            dropout: 0.0,
            use_bias: true,
            output_shape: None,
            kernel_initializer: Initializer::GlorotUniform {},
            bias_initializer: Initializer::Zeros {},
            use_causal_mask: false,
        }
    }
}

impl MultiHeadAttention {
    pub fn new(num_heads: usize, key_dim: usize) -> MultiHeadAttention {
        MultiHeadAttention { num_heads, key_dim, ..MultiHeadAttention::default() }
    }

    arguments! {
        value_dim: Option<usize>,
        dropout: f32,
        use_bias: bool,
        output_shape: Option<usize>,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
        use_causal_mask: bool,
    }

    /// `[batch, heads, steps, size]` of a projection.
    fn heads(&self, call: &mut Call<'_>, x: Id, size: usize, weights: &[Id]) -> Result<Id> {
        let shape = call.graph.shape(x).to_vec();
        let kernel = call.graph.reshape(weights[0], &[shape[2], self.num_heads * size])?;
        let bias = match weights.get(1) {
            Some(&bias) => Some(call.graph.reshape(bias, &[self.num_heads * size])?),
            None => None,
        };
        let y = linear(call, x, kernel, bias)?;
        let y = call.graph.reshape(y, &[shape[0], shape[1], self.num_heads, size])?;
        call.graph.transpose(y, &[0, 2, 1, 3])
    }
}

/// `scores` `[batch, heads, queries, keys]` where a query doesn't see the keys of which `is_hidden` says so, nor those that
/// the inputs' masks leave out.
pub(super) fn hidden(
    call: &mut Call<'_>,
    scores: Id,
    inputs: usize,
    is_hidden: Option<impl Fn(usize, usize) -> bool>,
) -> Result<Id> {
    let Some(masks) = attended(call, inputs)? else {
        return match is_hidden {
            Some(is_hidden) => {
                let hidden = table(call, scores, is_hidden, [MASKED, 0.0])?;
                call.graph.add(scores, hidden)
            }
            None => Ok(scores),
        };
    };
    let masks = match is_hidden {
        Some(is_hidden) => {
            let seen = table(call, scores, is_hidden, [0.0, 1.0])?;
            call.graph.mul(masks, seen)?
        }
        None => masks,
    };
    hidden_by(call.graph, scores, masks)
}

/// A value for each query and key, the first where the key is hidden: `[queries, keys]`.
fn table(
    call: &mut Call<'_>,
    scores: Id,
    is_hidden: impl Fn(usize, usize) -> bool,
    [hidden, seen]: [f32; 2],
) -> Result<Id> {
    let shape = call.graph.shape(scores);
    let (queries, keys) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    if queries.saturating_mul(keys) > MASK_MAX {
        let expected = format!("a mask of at most {MASK_MAX} values");
        return Err(call.graph.shape_error("attention", expected, &[scores]));
    }
    let value = |i: usize| if is_hidden(i / keys, i % keys) { hidden } else { seen };
    let values: Vec<f32> = (0..queries * keys).map(value).collect();
    call.graph.constant(&values, &[queries, keys])
}

impl Layer for MultiHeadAttention {
    described!("MultiHeadAttention");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        if !(1..=3).contains(&inputs.len()) || inputs.iter().any(|shape| shape.len() != 3) {
            return Err(TrainError::Shape {
                layer: "MultiHeadAttention".to_owned(),
                operation: "the layer",
                expected: "query, value and perhaps key of [batch, steps, width]".to_owned(),
                received: inputs.to_vec(),
            });
        }
        let (heads, key_dim) = (self.num_heads, self.key_dim);
        let value_dim = self.value_dim.unwrap_or(key_dim);
        let output = self.output_shape.unwrap_or(inputs[0][2]);
        let value = inputs.get(1).unwrap_or(&inputs[0]);
        let key = inputs.get(2).unwrap_or(value);
        let mut weights = vec![];
        for (name, kernel, bias) in [
            ("query", vec![inputs[0][2], heads, key_dim], vec![heads, key_dim]),
            ("key", vec![key[2], heads, key_dim], vec![heads, key_dim]),
            ("value", vec![value[2], heads, value_dim], vec![heads, value_dim]),
            ("attention_output", vec![heads, value_dim, output], vec![output]),
        ] {
            weights.push(Weight::new("kernel", kernel, &self.kernel_initializer).under(name));
            if self.use_bias {
                weights.push(Weight::new("bias", bias, &self.bias_initializer).under(name));
            }
        }
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let each = if self.use_bias { 2 } else { 1 };
        let of = |which: usize| &weights[which * each..(which + 1) * each];
        let value_dim = self.value_dim.unwrap_or(self.key_dim);
        let value = inputs.get(1).copied().unwrap_or(inputs[0]);
        let key = inputs.get(2).copied().unwrap_or(value);
        let q = self.heads(call, inputs[0], self.key_dim, of(0))?;
        let k = self.heads(call, key, self.key_dim, of(1))?;
        let v = self.heads(call, value, value_dim, of(2))?;
        let k = call.graph.transposed(k)?;
        let scores = call.graph.matmul(q, k)?;
        let mut scores = call.graph.scale(scores, 1.0 / (self.key_dim as f32).sqrt())?;
        let shape = call.graph.shape(scores).to_vec();
        let (batch, queries) = (shape[0], shape[2]);
        let is_hidden = |query, key| self.use_causal_mask && key > query;
        scores = hidden(call, scores, inputs.len(), self.use_causal_mask.then_some(is_hidden))?;
        let shares = softmax(call.graph, scores)?;
        let shares = drop_out(call, shares, self.dropout, None)?;
        let mixed = call.graph.matmul(shares, v)?;
        let mixed = call.graph.transpose(mixed, &[0, 2, 1, 3])?;
        let width = self.num_heads * value_dim;
        let mixed = call.graph.reshape(mixed, &[batch, queries, width])?;
        let kernel = of(3)[0];
        let output = call.graph.shape(kernel)[2];
        let kernel = call.graph.reshape(kernel, &[width, output])?;
        Ok(vec![linear(call, mixed, kernel, of(3).get(1).copied())?])
    }
}
