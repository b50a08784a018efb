//! `GRU`: gates for update, reset and the candidate, in this order.

use super::dense::linear;
use super::recurrent::{by_steps, dropped, first_states, gate, recurrent, walk};
use super::{Call, Layer, Weight, described, one_shape};
use crate::activations::Activation;
use crate::error::Result;
use crate::graph::Id;

recurrent!(GRU { recurrent_activation: Activation = Activation::Sigmoid, reset_after: bool = true });

impl GRU {
    const SNAKE_NAME: &'static str = "gru";
}

impl Layer for GRU {
    described!("GRU");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("GRU", &inputs[..1], 3)?;
        let units = self.units;
        let mut weights = vec![
            Weight::new("kernel", [shape[2], 3 * units], &self.kernel_initializer)
                .held(&self.kernel_regularizer, &None),
            Weight::new("recurrent_kernel", [units, 3 * units], &self.recurrent_initializer)
                .held(&self.recurrent_regularizer, &None),
        ];
        if self.use_bias {
            let shape = if self.reset_after { vec![2, 3 * units] } else { vec![3 * units] };
            weights.push(Weight::new("bias", shape, &self.bias_initializer));
        }
        Ok(weights.into_iter().map(|weight| weight.under("gru_cell")).collect())
    }

    fn mask(&self, call: &mut Call<'_>, _: &[Id]) -> Result<Option<Id>> {
        Ok(call.mask(0).filter(|_| self.return_sequences))
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let (units, after) = (self.units, self.reset_after);
        let (x, mask) = dropped(call, inputs[0], units, self.dropout, self.recurrent_dropout)?;
        let mut biases = [weights.get(2).copied(), None];
        if let (true, Some(bias)) = (after, biases[0]) {
            let [input, recurrent] = [0, 1].map(|row| {
                let row = call.graph.slice_axis(bias, 0, row, 1)?;
                call.graph.reshape(row, &[3 * units])
            });
            biases = [Some(input?), Some(recurrent?)];
        }
        let x = by_steps(call.graph, x, self.walk())?;
        let projected = linear(call, x, weights[0], biases[0])?;
        let states = first_states(call, inputs, units, 1);
        walk(call, projected, units, states, self.walk(), |graph, x, states| {
            let before = states[0];
            let h = match mask {
                Some(mask) => graph.mul(before, mask)?,
                None => before,
            };
            let columns = if after { 3 * units } else { 2 * units };
            let kernel = graph.slice_axis(weights[1], 1, 0, columns)?;
            let mut recurrent = graph.matmul(h, kernel)?;
            if let Some(bias) = biases[1] {
                recurrent = graph.add(recurrent, bias)?;
            }
            let [update, reset] = [0, 1].map(|which| {
                let (x, part) = (gate(graph, x, which, units)?, gate(graph, recurrent, which, units)?);
                let sum = graph.add(x, part)?;
                self.recurrent_activation.apply(graph, sum)
            });
            let (update, reset) = (update?, reset?);
            let x = gate(graph, x, 2, units)?;
            let part = if after {
                let part = gate(graph, recurrent, 2, units)?;
                graph.mul(reset, part)?
            } else {
                let kernel = gate(graph, weights[1], 2, units)?;
                let kept = graph.mul(reset, h)?;
                graph.matmul(kept, kernel)?
            };
            let sum = graph.add(x, part)?;
            let candidate = self.activation.apply(graph, sum)?;
            let kept = graph.mul(update, before)?;
            let rest = graph.scalar_sub(1.0, update)?;
            let added = graph.mul(rest, candidate)?;
            Ok(vec![graph.add(kept, added)?])
        })
    }
}
