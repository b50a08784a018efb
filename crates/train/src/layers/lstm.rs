//! `LSTM`: gates for input, forgetting, the cell and the output, in this order.

use super::dense::linear;
use super::recurrent::{by_steps, dropped, first_states, gate, recurrent, walk};
use super::{Call, Layer, Weight, described, one_shape};
use crate::activations::Activation;
use crate::error::Result;
use crate::graph::Id;
use crate::initializers::Initializer;

recurrent!(LSTM { recurrent_activation: Activation = Activation::Sigmoid, unit_forget_bias: bool = true });

impl LSTM {
    const SNAKE_NAME: &'static str = "lstm";
}

impl Layer for LSTM {
    described!("LSTM");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("LSTM", &inputs[..1], 3)?;
        let units = self.units;
        let mut weights = vec![
            Weight::new("kernel", [shape[2], 4 * units], &self.kernel_initializer)
                .held(&self.kernel_regularizer, &None),
            Weight::new("recurrent_kernel", [units, 4 * units], &self.recurrent_initializer)
                .held(&self.recurrent_regularizer, &None),
        ];
        if self.use_bias {
            let begins = match self.unit_forget_bias {
                true => Initializer::UnitForgetBias { units },
                false => self.bias_initializer.clone(),
            };
            weights.push(Weight::new("bias", [4 * units], &begins));
        }
        Ok(weights.into_iter().map(|weight| weight.under("lstm_cell")).collect())
    }

    fn mask(&self, call: &mut Call<'_>, _: &[Id]) -> Result<Option<Id>> {
        Ok(call.mask(0).filter(|_| self.return_sequences))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let units = self.units;
        let (x, mask) = dropped(call, inputs[0], units, self.dropout, self.recurrent_dropout)?;
        let x = by_steps(call.graph, x, self.walk())?;
        let projected = linear(call, x, weights[0], weights.get(2).copied())?;
        let states = first_states(call, inputs, units, 2);
        walk(call, projected, units, states, self.walk(), |graph, x, states| {
            let h = match mask {
                Some(mask) => graph.mul(states[0], mask)?,
                None => states[0],
            };
            let part = graph.matmul(h, weights[1])?;
            let gates = graph.add(x, part)?;
            let parts = [0, 1, 2, 3].map(|which| gate(graph, gates, which, units));
            let [input, forget, cell, output] = parts;
            let input = self.recurrent_activation.apply(graph, input?)?;
            let forget = self.recurrent_activation.apply(graph, forget?)?;
            let cell = self.activation.apply(graph, cell?)?;
            let output = self.recurrent_activation.apply(graph, output?)?;
            let kept = graph.mul(forget, states[1])?;
            let added = graph.mul(input, cell)?;
            let c = graph.add(kept, added)?;
            let bent = self.activation.apply(graph, c)?;
            Ok(vec![graph.mul(output, bent)?, c])
        })
    }
}
