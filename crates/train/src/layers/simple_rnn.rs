//! `SimpleRNN`: the state is the activation of input and state.

use super::dense::linear;
use super::recurrent::{by_steps, dropped, first_states, recurrent, walk};
use super::{Call, Layer, Weight, described, one_shape};
use crate::error::Result;
use crate::graph::Id;

recurrent!(SimpleRNN {});

impl SimpleRNN {
    const SNAKE_NAME: &'static str = "simple_rnn";
}

impl Layer for SimpleRNN {
    described!("SimpleRNN");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("SimpleRNN", &inputs[..1], 3)?;
        let mut weights = vec![
            Weight::new("kernel", [shape[2], self.units], &self.kernel_initializer)
                .held(&self.kernel_regularizer, &None),
            Weight::new("recurrent_kernel", [self.units, self.units], &self.recurrent_initializer)
                .held(&self.recurrent_regularizer, &None),
        ];
        if self.use_bias {
            weights.push(Weight::new("bias", [self.units], &self.bias_initializer));
        }
        Ok(weights.into_iter().map(|weight| weight.under("simple_rnn_cell")).collect())
    }

    fn mask(&self, call: &mut Call<'_>, _: &[Id]) -> Result<Option<Id>> {
        Ok(call.mask(0).filter(|_| self.return_sequences))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let (x, mask) = dropped(call, inputs[0], self.units, self.dropout, self.recurrent_dropout)?;
        let x = by_steps(call.graph, x, self.walk())?;
        let projected = linear(call, x, weights[0], weights.get(2).copied())?;
        let states = first_states(call, inputs, self.units, 1);
        walk(call, projected, self.units, states, self.walk(), |graph, x, states| {
            let h = match mask {
                Some(mask) => graph.mul(states[0], mask)?,
                None => states[0],
            };
            let part = graph.matmul(h, weights[1])?;
            let sum = graph.add(x, part)?;
            Ok(vec![self.activation.apply(graph, sum)?])
        })
    }
}
