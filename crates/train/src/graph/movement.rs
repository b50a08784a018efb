//! Operations that only move elements.

use super::{Graph, Id, Op};
use crate::error::Result;

impl Graph {
    /// The same elements in order under another shape.
    pub fn reshape(&mut self, x: Id, shape: &[usize]) -> Result<Id> {
        if self.shape(x) == shape {
            return Ok(x);
        }
        if self.shape(x).iter().product::<usize>() != shape.iter().product::<usize>() {
            return Err(self.shape_error("reshape", format!("as many elements as {shape:?} has"), &[x]));
        }
        // A reshape of a reshape is one.
        let from = if self.node(x).op == Op::Reshape { self.node(x).inputs[0] } else { x };
        if self.shape(from) == shape {
            return Ok(from);
        }
        Ok(self.push(Op::Reshape, vec![from], shape.to_vec()))
    }

    pub fn transpose(&mut self, x: Id, axes: &[usize]) -> Result<Id> {
        let rank = self.shape(x).len();
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() {
            return Err(self.shape_error(
                "transpose",
                format!("a permutation of its axes, not {axes:?}"),
                &[x],
            ));
        }
        if axes.is_sorted() {
            return Ok(x);
        }
        if let Op::Transpose(before) = &self.node(x).op {
            let joined: Vec<usize> = axes.iter().map(|&axis| before[axis]).collect();
            let from = self.node(x).inputs[0];
            return self.transpose(from, &joined);
        }
        let shape = axes.iter().map(|&axis| self.shape(x)[axis]).collect();
        Ok(self.push(Op::Transpose(axes.to_vec()), vec![x], shape))
    }

    /// Sizes of 1 grown to `shape`; missing leading dimensions count as 1.
    pub fn broadcast(&mut self, x: Id, shape: &[usize]) -> Result<Id> {
        let from = self.shape(x);
        let lead = shape.len().checked_sub(from.len());
        let fits = lead.is_some_and(|lead| from.iter().zip(&shape[lead..]).all(|(&a, &b)| a == b || a == 1));
        if !fits {
            return Err(self.shape_error("broadcast", format!("sizes of 1 or those of {shape:?}"), &[x]));
        }
        Ok(self.broadcast_unchecked(x, shape))
    }

    pub(super) fn broadcast_unchecked(&mut self, x: Id, shape: &[usize]) -> Id {
        if self.shape(x) == shape {
            return x;
        }
        let mut full = vec![1; shape.len() - self.shape(x).len()];
        full.extend_from_slice(self.shape(x));
        let x = if self.shape(x) == full { x } else { self.push(Op::Reshape, vec![x], full.clone()) };
        if full == shape { x } else { self.push(Op::Broadcast, vec![x], shape.to_vec()) }
    }

    /// `size` elements of `axis` from `start` on.
    pub fn slice_axis(&mut self, x: Id, axis: usize, start: usize, size: usize) -> Result<Id> {
        let mut shape = self.shape(x).to_vec();
        let mut starts = vec![0; shape.len()];
        if axis >= shape.len() || start + size > shape[axis] {
            let expected = format!("elements {start}..{} of axis {axis}", start + size);
            return Err(self.shape_error("slice", expected, &[x]));
        }
        shape[axis] = size;
        starts[axis] = start;
        let step = vec![1; shape.len()];
        self.slice(x, &starts, &step, &shape)
    }

    /// Elements `start + i * step` of each axis, as many as `shape` says.
    pub fn slice(&mut self, x: Id, start: &[usize], step: &[usize], shape: &[usize]) -> Result<Id> {
        let from = self.shape(x);
        let rank = from.len();
        let fits = start.len() == rank
            && step.len() == rank
            && shape.len() == rank
            && (0..rank).all(|i| shape[i] > 0 && start[i] + (shape[i] - 1) * step[i] < from[i]);
        if !fits {
            let expected = format!("start {start:?}, step {step:?} and size {shape:?} within the shape");
            return Err(self.shape_error("slice", expected, &[x]));
        }
        if from == shape {
            return Ok(x);
        }
        let op = Op::Slice { start: start.to_vec(), step: step.to_vec() };
        Ok(self.push(op, vec![x], shape.to_vec()))
    }

    /// Zeros of `shape` with `x` at `start + i * step` of each axis.
    pub fn pad(&mut self, x: Id, start: &[usize], step: &[usize], shape: &[usize]) -> Result<Id> {
        let from = self.shape(x);
        let rank = from.len();
        let fits = start.len() == rank
            && step.len() == rank
            && shape.len() == rank
            && (0..rank).all(|i| step[i] > 0 && start[i] + (from[i].max(1) - 1) * step[i] < shape[i]);
        if !fits {
            let expected = format!("start {start:?} and step {step:?} within {shape:?}");
            return Err(self.shape_error("pad", expected, &[x]));
        }
        if from == shape {
            return Ok(x);
        }
        let op = Op::Pad { start: start.to_vec(), step: step.to_vec() };
        Ok(self.push(op, vec![x], shape.to_vec()))
    }

    pub fn reverse(&mut self, x: Id, axes: &[usize]) -> Result<Id> {
        if axes.iter().any(|&axis| axis >= self.shape(x).len()) {
            return Err(self.shape_error("reverse", format!("axes {axes:?} within the shape"), &[x]));
        }
        let shape = self.shape(x).to_vec();
        Ok(self.push(Op::Reverse(axes.to_vec()), vec![x], shape))
    }

    /// Parts one after the other along `axis`.
    pub fn concat(&mut self, parts: &[Id], axis: usize) -> Result<Id> {
        let Some(&first) = parts.first() else {
            return Err(self.shape_error("concatenate", "at least one part", &[]));
        };
        let mut shape = self.shape(first).to_vec();
        if axis >= shape.len() {
            return Err(self.shape_error("concatenate", format!("axis {axis} within the shape"), parts));
        }
        let mut size = 0;
        for &part in parts {
            let mut other = self.shape(part).to_vec();
            if other.len() != shape.len() {
                return Err(self.shape_error("concatenate", "shapes of one rank", parts));
            }
            size += other[axis];
            other[axis] = shape[axis];
            if other != shape {
                let expected = format!("shapes that are equal except at axis {axis}");
                return Err(self.shape_error("concatenate", expected, parts));
            }
        }
        shape[axis] = size;
        if parts.len() == 1 { Ok(first) } else { Ok(self.push(Op::Concat(axis), parts.to_vec(), shape)) }
    }
}
