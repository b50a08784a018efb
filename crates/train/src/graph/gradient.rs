//! Reverse-mode differentiation as a rewrite: the gradient is more nodes of the same operations, so it can be
//! differentiated again.

use std::collections::HashMap;

use super::{Graph, Id, Op};
use crate::error::Result;

/// Products that are joined into one, at least.
const JOINED_MIN: usize = 4;
/// Rows of products that are joined, at most: above that each is large enough by itself.
const ROWS_MAX: usize = 512;

impl Graph {
    /// The gradient of the sum of `loss` for each of `of`, which are nodes that it was computed from. Zeros where it
    /// doesn't depend on one.
    pub fn gradients(&mut self, loss: Id, of: &[Id]) -> Result<Vec<Id>> {
        let mut depends = vec![false; loss.index() + 1];
        for id in of {
            if id.index() < depends.len() {
                depends[id.index()] = true;
            }
        }
        for index in 0..depends.len() {
            depends[index] |= self.nodes[index].inputs.iter().any(|input| depends[input.index()]);
        }
        let mut contributions: HashMap<Id, Vec<Id>> = HashMap::new();
        let ones = self.full_like(1.0, loss);
        contributions.insert(loss, vec![ones]);
        let mut found: HashMap<Id, Id> = HashMap::new();
        for index in (0..depends.len()).rev().filter(|&index| depends[index]) {
            let id = Id(index as u32);
            let Some(parts) = contributions.remove(&id) else { continue };
            let gradient = self.accumulated(parts)?;
            if of.contains(&id) {
                found.insert(id, gradient);
            }
            for (which, input) in self.node(id).inputs.clone().into_iter().enumerate() {
                // A node of `of` may itself depend on another of them; what depends on none is left alone.
                if depends[input.index()]
                    && let Some(part) = self.vjp(id, which, gradient)?
                {
                    contributions.entry(input).or_default().push(part);
                }
            }
        }
        Ok(of.iter().map(|id| found.get(id).copied().unwrap_or_else(|| self.full_like(0.0, *id))).collect())
    }

    /// The sum of what several consumers contribute. Slices that lie side by side are concatenated, not padded and added.
    fn accumulated(&mut self, mut parts: Vec<Id>) -> Result<Id> {
        if let Some(joined) = self.joined_slices(&parts)? {
            return Ok(joined);
        }
        self.join_products(&mut parts)?;
        let mut sum = parts.remove(0);
        for part in parts {
            sum = self.add(sum, part)?;
        }
        Ok(sum)
    }

    /// Makes one product of products `xᵗ · y` with few rows, as the steps of a recurrence contribute to its weights: the
    /// sum over steps becomes a part of the sum over rows.
    fn join_products(&mut self, parts: &mut Vec<Id>) -> Result<()> {
        let mut factors: Vec<(Id, Id)> =
            parts.iter().filter_map(|&part| self.rows_multiplied(part)).collect();
        if factors.len() < JOINED_MIN {
            return Ok(());
        }
        parts.retain(|&part| self.rows_multiplied(part).is_none());
        // In the order of steps: gradients were made from the last to the first.
        factors.sort_unstable();
        let (left, right): (Vec<Id>, Vec<Id>) = factors.into_iter().unzip();
        let (left, right) = (self.concat(&left, 0)?, self.concat(&right, 0)?);
        let left = self.transposed(left)?;
        parts.push(self.matmul(left, right)?);
        Ok(())
    }

    /// `x` and `y` where `product` is `xᵗ · y` over few rows.
    fn rows_multiplied(&self, product: Id) -> Option<(Id, Id)> {
        let node = self.node(product);
        if node.op != Op::MatMul || node.shape.len() != 2 {
            return None;
        }
        let (transposed, y) = (self.node(node.inputs[0]), node.inputs[1]);
        let is_transposed = matches!(&transposed.op, Op::Transpose(axes) if axes[..] == [1, 0]);
        (is_transposed && self.shape(y)[0] <= ROWS_MAX).then(|| (transposed.inputs[0], y))
    }

    fn joined_slices(&mut self, parts: &[Id]) -> Result<Option<Id>> {
        if parts.len() < 2 {
            return Ok(None);
        }
        let shape = self.shape(parts[0]).to_vec();
        let mut along = None;
        let mut pieces = Vec::new();
        for &part in parts {
            let node = self.node(part);
            let Op::Pad { start, step } = &node.op else { return Ok(None) };
            let from = self.shape(node.inputs[0]);
            let mut differing = (0..shape.len()).filter(|&axis| from[axis] != shape[axis]);
            let (Some(axis), None) = (differing.next(), differing.next()) else { return Ok(None) };
            if step[axis] != 1 || along.is_some_and(|along| along != axis) {
                return Ok(None);
            }
            along = Some(axis);
            pieces.push((start[axis], from[axis], node.inputs[0]));
        }
        let Some(axis) = along else { return Ok(None) };
        pieces.sort_unstable_by_key(|(start, ..)| *start);
        let mut joined = Vec::new();
        let mut at = 0;
        let zeros = |graph: &mut Graph, size: usize| {
            let mut gap = shape.clone();
            gap[axis] = size;
            graph.full(0.0, &gap)
        };
        for (start, size, id) in pieces {
            if start < at {
                return Ok(None);
            }
            if start > at {
                joined.push(zeros(self, start - at));
            }
            joined.push(id);
            at = start + size;
        }
        if at < shape[axis] {
            joined.push(zeros(self, shape[axis] - at));
        }
        self.concat(&joined, axis).map(Some)
    }
}
