//! `GroupQueryAttention`: attention whose keys and values are shared by groups of queries (Ainslie and others,
//! arXiv:2305.13245).

use serde::{Deserialize, Serialize};

use super::attention::hidden;
use super::dense::linear;
use super::dropout::drop_out;
use super::{Call, Layer, Weight, argument_error, arguments, described};
use crate::activations::softmax;
use crate::error::{Result, TrainError};
use crate::graph::{Function, Id};
use crate::initializers::Initializer;
use crate::penalties::{Constraint, Regularizer};

/// Attention of queries to keys and values. Inputs are `query, value` or `query, value, key`, each `[batch, steps, width]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupQueryAttention {
    pub head_dim: usize,
    pub num_query_heads: usize,
    /// A divisor of `num_query_heads`.
    pub num_key_value_heads: usize,
    pub dropout: f32,
    pub use_bias: bool,
    /// A query sees keys less than this many steps away; all if there is none.
    pub sliding_window: Option<usize>,
    pub kernel_initializer: Initializer,
    pub bias_initializer: Initializer,
    pub kernel_regularizer: Option<Regularizer>,
    pub bias_regularizer: Option<Regularizer>,
    pub kernel_constraint: Option<Constraint>,
    pub bias_constraint: Option<Constraint>,
    /// Whether a sigmoid of the queries scales what is attended to.
    pub use_gate: bool,
    /// Keras takes this when the layer is called.
    pub use_causal_mask: bool,
}

impl Default for GroupQueryAttention {
    fn default() -> GroupQueryAttention {
        GroupQueryAttention {
            head_dim: 1,
            num_query_heads: 1,
            num_key_value_heads: 1,
            dropout: 0.0,
            use_bias: true,
            sliding_window: None,
            kernel_initializer: Initializer::GlorotUniform {},
            bias_initializer: Initializer::Zeros {},
            kernel_regularizer: None,
            bias_regularizer: None,
            kernel_constraint: None,
            bias_constraint: None,
            use_gate: false,
            use_causal_mask: false,
        }
    }
}

impl GroupQueryAttention {
    pub fn new(head_dim: usize, num_query_heads: usize, num_key_value_heads: usize) -> GroupQueryAttention {
        GroupQueryAttention { head_dim, num_query_heads, num_key_value_heads, ..Default::default() }
    }

    arguments! {
        dropout: f32,
        use_bias: bool,
        sliding_window: Option<usize>,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
        kernel_regularizer: Option<Regularizer>,
        bias_regularizer: Option<Regularizer>,
        kernel_constraint: Option<Constraint>,
        bias_constraint: Option<Constraint>,
        use_gate: bool,
        use_causal_mask: bool,
    }

    fn check(&self, inputs: &[Vec<usize>]) -> Result<()> {
        let fits = (1..=3).contains(&inputs.len())
            && inputs.iter().all(|shape| shape.len() == 3)
            && inputs.get(1).is_none_or(|value| value[2] == inputs[0][2])
            && inputs.get(2).is_none_or(|key| key[1] == inputs[1][1]);
        if !fits {
            return Err(TrainError::Shape {
                layer: "GroupQueryAttention".to_owned(),
                operation: "the layer",
                expected: "query and value of [batch, steps, width] with one width, and perhaps key with the value's \
                           steps"
                    .to_owned(),
                received: inputs.to_vec(),
            });
        }
        let (heads, groups) = (self.num_query_heads, self.num_key_value_heads);
        if groups == 0 || heads == 0 || heads % groups != 0 {
            let expected = format!("a divisor of num_query_heads, which is {heads}");
            let received = groups.to_string();
            return Err(argument_error("GroupQueryAttention", "num_key_value_heads", &expected, received));
        }
        if self.sliding_window == Some(0) {
            return Err(argument_error("GroupQueryAttention", "sliding_window", "1 or more", "0".to_owned()));
        }
        Ok(())
    }

    /// `[batch, steps, heads, size]` of a projection.
    fn projected(&self, call: &mut Call<'_>, x: Id, weights: &[Id]) -> Result<Id> {
        let shape = call.graph.shape(x).to_vec();
        let heads = call.graph.shape(weights[0])[1];
        let kernel = call.graph.reshape(weights[0], &[shape[2], heads * self.head_dim])?;
        let bias = match weights.get(1) {
            Some(&bias) => Some(call.graph.reshape(bias, &[heads * self.head_dim])?),
            None => None,
        };
        let y = linear(call, x, kernel, bias)?;
        call.graph.reshape(y, &[shape[0], shape[1], heads, self.head_dim])
    }

    fn is_hidden(&self, query: usize, key: usize) -> bool {
        (self.use_causal_mask && key > query)
            || self.sliding_window.is_some_and(|window| query.abs_diff(key) >= window)
    }
}

impl Layer for GroupQueryAttention {
    described!("GroupQueryAttention");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        self.check(inputs)?;
        let (heads, groups, size) = (self.num_query_heads, self.num_key_value_heads, self.head_dim);
        let width = inputs[0][2];
        let value = inputs.get(1).unwrap_or(&inputs[0])[2];
        let key = inputs.get(2).map_or(value, |key| key[2]);
        let mut all = vec![
            ("query", vec![width, heads, size], vec![heads, size]),
            ("key", vec![key, groups, size], vec![groups, size]),
            ("value", vec![value, groups, size], vec![groups, size]),
            ("attention_output", vec![heads, size, width], vec![width]),
        ];
        if self.use_gate {
            all.insert(2, ("gate", vec![width, heads, size], vec![heads, size]));
        }
        let mut weights = vec![];
        for (name, kernel, bias) in all {
            let kernel = Weight::new("kernel", kernel, &self.kernel_initializer);
            weights.push(kernel.held(&self.kernel_regularizer, &self.kernel_constraint).under(name));
            if self.use_bias {
                let bias = Weight::new("bias", bias, &self.bias_initializer);
                weights.push(bias.held(&self.bias_regularizer, &self.bias_constraint).under(name));
            }
        }
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let mut each = weights.chunks(if self.use_bias { 2 } else { 1 });
        let mut next = || each.next().unwrap_or(&[]);
        let (query, key) = (next(), next());
        let gate = if self.use_gate { next() } else { &[] };
        let (value, output) = (next(), next());
        let values = inputs.get(1).copied().unwrap_or(inputs[0]);
        let keys = inputs.get(2).copied().unwrap_or(values);
        let [batch, steps, width] = <[usize; 3]>::try_from(call.graph.shape(inputs[0])).unwrap_or_default();
        let seen = call.graph.shape(keys)[1];
        let (heads, groups, size) = (self.num_query_heads, self.num_key_value_heads, self.head_dim);
        let q = self.projected(call, inputs[0], query)?;
        let k = self.projected(call, keys, key)?;
        let v = self.projected(call, values, value)?;
        // The queries of a group lie one after the other, and see its keys in one product.
        let q = call.graph.transpose(q, &[0, 2, 1, 3])?;
        let q = call.graph.reshape(q, &[batch, groups, heads / groups * steps, size])?;
        let k = call.graph.transpose(k, &[0, 2, 3, 1])?;
        let v = call.graph.transpose(v, &[0, 2, 1, 3])?;
        let scores = call.graph.matmul(q, k)?;
        let scores = call.graph.scale(scores, 1.0 / (size as f32).sqrt())?;
        let mut scores = call.graph.reshape(scores, &[batch, heads, steps, seen])?;
        let hides = self.use_causal_mask || self.sliding_window.is_some();
        let is_hidden = |query, key| self.is_hidden(query, key);
        scores = hidden(call, scores, inputs.len(), hides.then_some(is_hidden))?;
        let shares = softmax(call.graph, scores)?;
        let shares = drop_out(call, shares, self.dropout, None)?;
        let shares = call.graph.reshape(shares, &[batch, groups, heads / groups * steps, seen])?;
        let mixed = call.graph.matmul(shares, v)?;
        let mixed = call.graph.reshape(mixed, &[batch, heads, steps, size])?;
        let mut mixed = call.graph.transpose(mixed, &[0, 2, 1, 3])?;
        if self.use_gate {
            let opened = self.projected(call, inputs[0], gate)?;
            let opened = call.graph.map(Function::Sigmoid, opened);
            mixed = call.graph.mul(mixed, opened)?;
        }
        let mixed = call.graph.reshape(mixed, &[batch, steps, heads * size])?;
        let kernel = call.graph.reshape(output[0], &[heads * size, width])?;
        Ok(vec![linear(call, mixed, kernel, output.get(1).copied())?])
    }
}
