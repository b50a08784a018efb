//! Rules that look at a weight as a whole.

use super::{Part, Step};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// The coefficients of Keras's Newton-Schulz steps.
const NEWTON_SCHULZ: [f32; 3] = [3.4445, -4.775, 2.0315];

impl Step<'_> {
    /// Applies `change` to each weight's part of a vector over all.
    pub(super) fn each_part(
        &mut self,
        vector: Id,
        mut change: impl FnMut(&mut Graph, Id, &Part) -> Result<Id>,
    ) -> Result<Id> {
        let mut changed = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            let slice = self.graph.slice_axis(vector, 0, part.range.start, part.range.len())?;
            changed.push(change(self.graph, slice, part)?);
        }
        self.graph.concat(&changed, 0)
    }

    pub(super) fn lamb(
        &mut self,
        beta_1: f32,
        beta_2: f32,
        epsilon: f32,
        slots: &[Id],
    ) -> Result<(Id, Vec<Id>)> {
        let (m, v) = self.moments(beta_1, beta_2, slots)?;
        let [m_hat, v_hat] = [(m, beta_1), (v, beta_2)].map(|(moment, beta)| {
            let power = self.power(beta, 0.0)?;
            let rest = self.graph.scalar_sub(1.0, power)?;
            self.graph.div(moment, rest)
        });
        let direction = self.over_root(m_hat?, v_hat?, epsilon)?;
        let p = self.p;
        let scaled = self.each_part(direction, |graph, direction, part| {
            let weight = graph.slice_axis(p, 0, part.range.start, part.range.len())?;
            let [weight_norm, norm] = [weight, direction].map(|x| norm(graph, x));
            let (weight_norm, norm) = (weight_norm?, norm?);
            let zero = graph.scalar(0.0);
            let one = graph.scalar(1.0);
            let ratio = graph.div(weight_norm, norm)?;
            let has_length = graph.less(zero, norm)?;
            let ratio = graph.select(has_length, ratio, one)?;
            let has_weight = graph.less(zero, weight_norm)?;
            let ratio = graph.select(has_weight, ratio, one)?;
            graph.mul(direction, ratio)
        })?;
        Ok((self.descend(scaled)?, vec![m, v]))
    }

    /// Matrices step along their momentum made orthogonal; other weights as in Adam.
    pub(super) fn muon(
        &mut self,
        momentum: f32,
        nesterov: bool,
        ns_steps: usize,
        [beta_1, beta_2, epsilon]: [f32; 3],
        slots: &[Id],
    ) -> Result<(Id, Vec<Id>)> {
        let (adam_p, adam_slots) = self.adam(beta_1, beta_2, epsilon, false, slots)?;
        let (g, p, rate) = (self.g, self.p, self.rate);
        let is_matrix = |part: &Part| part.shape.len() == 2;
        let slice = |graph: &mut Graph, of: Id, part: &Part| {
            graph.slice_axis(of, 0, part.range.start, part.range.len())
        };
        let m = self.each_part(slots[0], |graph, m, part| {
            if !is_matrix(part) {
                return slice(graph, adam_slots[0], part);
            }
            let kept = graph.scale(m, momentum)?;
            let g = slice(graph, g, part)?;
            graph.add(kept, g)
        })?;
        let new_p = self.each_part(adam_p, |graph, adam_p, part| {
            if !is_matrix(part) {
                return Ok(adam_p);
            }
            let mut direction = slice(graph, m, part)?;
            if nesterov {
                let kept = graph.scale(direction, momentum)?;
                let g = slice(graph, g, part)?;
                direction = graph.add(kept, g)?;
            }
            let matrix = graph.reshape(direction, &part.shape)?;
            let matrix = orthogonal(graph, matrix, ns_steps)?;
            let ratio = part.shape[0] as f32 / part.shape[1].max(1) as f32;
            let matrix = graph.scale(matrix, ratio.max(1.0).sqrt())?;
            let flat = graph.reshape(matrix, &[part.range.len()])?;
            let change = graph.mul(flat, rate)?;
            let p = slice(graph, p, part)?;
            graph.sub(p, change)
        })?;
        Ok((new_p, vec![m, adam_slots[1]]))
    }
}

fn norm(graph: &mut Graph, x: Id) -> Result<Id> {
    let square = graph.square(x)?;
    let sum = graph.sum_all(square)?;
    Ok(graph.map(Function::Sqrt, sum))
}

/// A matrix whose singular values are near 1, by Newton and Schulz's iteration.
fn orthogonal(graph: &mut Graph, matrix: Id, steps: usize) -> Result<Id> {
    let tall = graph.shape(matrix)[0] > graph.shape(matrix)[1];
    let x = if tall { graph.transposed(matrix)? } else { matrix };
    let length = norm(graph, x)?;
    let length = graph.add_scalar(length, 1e-7)?;
    let mut x = graph.div(x, length)?;
    let [a, b, c] = NEWTON_SCHULZ;
    for _ in 0..steps {
        let turned = graph.transposed(x)?;
        let gram = graph.matmul(x, turned)?;
        let square = graph.matmul(gram, gram)?;
        let linear = graph.scale(gram, b)?;
        let square = graph.scale(square, c)?;
        let mixed = graph.add(linear, square)?;
        let mixed = graph.matmul(mixed, x)?;
        let kept = graph.scale(x, a)?;
        x = graph.add(kept, mixed)?;
    }
    if tall { graph.transposed(x) } else { Ok(x) }
}
