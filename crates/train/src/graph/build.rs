//! Elementwise operations, reductions and products, with the shapes that they take.

use super::{Function, Graph, Id, Op};
use crate::error::Result;

impl Graph {
    pub fn map(&mut self, function: Function, x: Id) -> Id {
        if let Some(value) = self.known_value(x) {
            let result = super::reference::function(function, [value as f64, 0.0, 0.0]) as f32;
            let shape = self.shape(x).to_vec();
            return self.full(result, &shape);
        }
        let shape = self.shape(x).to_vec();
        self.push(Op::Map(function), vec![x], shape)
    }

    /// A function of two operands, each broadcast to the shape of both as in NumPy.
    pub fn map2(&mut self, function: Function, a: Id, b: Id) -> Result<Id> {
        let (a, b) = self.broadcast_together(function, a, b)?;
        if let Some(simple) = self.simplified(function, a, b) {
            return Ok(simple);
        }
        let shape = self.shape(a).to_vec();
        Ok(self.push(Op::Map(function), vec![a, b], shape))
    }

    /// `yes` where `condition` is not 0, else `no`.
    pub fn select(&mut self, condition: Id, yes: Id, no: Id) -> Result<Id> {
        let (condition, yes) = self.broadcast_together(Function::Select, condition, yes)?;
        let (condition, no) = self.broadcast_together(Function::Select, condition, no)?;
        let shape = self.shape(condition).to_vec();
        let yes = self.broadcast(yes, &shape)?;
        if let Some(value) = self.known_value(condition) {
            return Ok(if value != 0.0 { yes } else { no });
        }
        Ok(self.push(Op::Map(Function::Select), vec![condition, yes, no], shape))
    }

    fn broadcast_together(&mut self, function: Function, a: Id, b: Id) -> Result<(Id, Id)> {
        if self.shape(a) == self.shape(b) {
            return Ok((a, b));
        }
        let (left, right) = (self.shape(a).to_vec(), self.shape(b).to_vec());
        let rank = left.len().max(right.len());
        let mut shape = vec![1; rank];
        for axis in 0..rank {
            let size = |of: &[usize]| (axis + of.len()).checked_sub(rank).map_or(1, |i| of[i]);
            shape[axis] = match (size(&left), size(&right)) {
                (x, y) if x == y => x,
                (1, size) | (size, 1) => size,
                _ => {
                    let expected = "shapes that broadcast (equal sizes, or 1)";
                    return Err(self.shape_error(function_name(function), expected, &[a, b]));
                }
            };
        }
        Ok((self.broadcast(a, &shape)?, self.broadcast(b, &shape)?))
    }

    pub fn add(&mut self, a: Id, b: Id) -> Result<Id> {
        self.map2(Function::Add, a, b)
    }

    pub fn sub(&mut self, a: Id, b: Id) -> Result<Id> {
        self.map2(Function::Sub, a, b)
    }

    pub fn mul(&mut self, a: Id, b: Id) -> Result<Id> {
        self.map2(Function::Mul, a, b)
    }

    pub fn div(&mut self, a: Id, b: Id) -> Result<Id> {
        self.map2(Function::Div, a, b)
    }

    pub fn max(&mut self, a: Id, b: Id) -> Result<Id> {
        self.map2(Function::Max, a, b)
    }

    pub fn min(&mut self, a: Id, b: Id) -> Result<Id> {
        self.map2(Function::Min, a, b)
    }

    pub fn less(&mut self, a: Id, b: Id) -> Result<Id> {
        self.map2(Function::Less, a, b)
    }

    /// `x + value`.
    pub fn add_scalar(&mut self, x: Id, value: f32) -> Result<Id> {
        let value = self.scalar(value);
        self.add(x, value)
    }

    /// `x * value`.
    pub fn scale(&mut self, x: Id, value: f32) -> Result<Id> {
        let value = self.scalar(value);
        self.mul(x, value)
    }

    /// `value - x`.
    pub fn scalar_sub(&mut self, value: f32, x: Id) -> Result<Id> {
        let value = self.scalar(value);
        self.sub(value, x)
    }

    pub fn square(&mut self, x: Id) -> Result<Id> {
        self.mul(x, x)
    }

    /// Numbers in [0, 1) of a stream of their own, drawn anew for each `(seed, step)`.
    pub fn uniform(&mut self, seed: Id, step: Id, shape: &[usize]) -> Id {
        self.streams += 1;
        self.push(Op::Map(Function::Uniform(self.streams)), vec![seed, step], shape.to_vec())
    }

    /// Sums over `axes`, which keep size 1.
    pub fn sum(&mut self, x: Id, axes: &[usize]) -> Result<Id> {
        self.reduce("sum", x, axes, Op::Sum)
    }

    /// The greatest over `axes`, which keep size 1.
    pub fn reduce_max(&mut self, x: Id, axes: &[usize]) -> Result<Id> {
        self.reduce("max", x, axes, Op::Max)
    }

    /// The mean over `axes`, which keep size 1.
    pub fn mean(&mut self, x: Id, axes: &[usize]) -> Result<Id> {
        let count: usize = axes.iter().map(|&axis| self.shape(x).get(axis).copied().unwrap_or(1)).product();
        let sum = self.sum(x, axes)?;
        self.scale(sum, 1.0 / count as f32)
    }

    /// The sum of everything, without dimensions.
    pub fn sum_all(&mut self, x: Id) -> Result<Id> {
        let flat = self.reshape(x, &[self.shape(x).iter().product()])?;
        let sum = self.sum(flat, &[0])?;
        self.reshape(sum, &[])
    }

    fn reduce(&mut self, name: &'static str, x: Id, axes: &[usize], op: fn(Vec<usize>) -> Op) -> Result<Id> {
        let mut shape = self.shape(x).to_vec();
        if axes.iter().any(|&axis| axis >= shape.len()) {
            return Err(self.shape_error(name, format!("axes {axes:?} within the shape"), &[x]));
        }
        let mut axes: Vec<usize> = axes.iter().copied().filter(|&axis| shape[axis] != 1).collect();
        axes.sort_unstable();
        axes.dedup();
        axes.iter().for_each(|&axis| shape[axis] = 1);
        if axes.is_empty() { Ok(x) } else { Ok(self.push(op(axes), vec![x], shape)) }
    }

    /// The place of the first greatest element along `axis`, which keeps size 1.
    pub fn argmax(&mut self, x: Id, axis: usize) -> Result<Id> {
        let mut shape = self.shape(x).to_vec();
        if axis >= shape.len() {
            return Err(self.shape_error("argmax", format!("axis {axis} within the shape"), &[x]));
        }
        shape[axis] = 1;
        Ok(self.push(Op::ArgMax(axis), vec![x], shape))
    }

    /// `[.., m, k]` times `[.., k, n]`, with equal batch dimensions.
    pub fn matmul(&mut self, a: Id, b: Id) -> Result<Id> {
        let (left, right) = (self.shape(a), self.shape(b));
        let rank = left.len();
        let fits = rank >= 2 && right.len() == rank && left[..rank - 2] == right[..rank - 2];
        if !fits || left[rank - 1] != right[rank - 2] {
            let expected = "[.., m, k] and [.., k, n] with one k and equal batch sizes";
            return Err(self.shape_error("matmul", expected, &[a, b]));
        }
        let mut shape = left.to_vec();
        shape[rank - 1] = right[rank - 1];
        // The state that a recurrent layer begins with.
        if self.known_value(a) == Some(0.0) || self.known_value(b) == Some(0.0) {
            return Ok(self.full(0.0, &shape));
        }
        Ok(self.push(Op::MatMul, vec![a, b], shape))
    }

    /// The last two axes swapped.
    pub fn transposed(&mut self, x: Id) -> Result<Id> {
        let rank = self.shape(x).len();
        let mut axes: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            axes.swap(rank - 2, rank - 1);
        }
        self.transpose(x, &axes)
    }

    /// Rows of `table` `[rows, width]` by number: `[.., width]` for `indices` of any shape.
    pub fn take(&mut self, table: Id, indices: Id) -> Result<Id> {
        if self.shape(table).len() != 2 {
            return Err(self.shape_error("take", "a table [rows, width] and indices", &[table, indices]));
        }
        let (count, width) = (self.shape(indices).iter().product(), self.shape(table)[1]);
        let mut shape = self.shape(indices).to_vec();
        shape.push(width);
        let flat = self.reshape(indices, &[count])?;
        let rows = self.push(Op::Take, vec![table, flat], vec![count, width]);
        self.reshape(rows, &shape)
    }

    /// Adds `values` `[count, width]` up in a table of `rows` rows by `indices` `[count]`.
    pub fn put(&mut self, indices: Id, values: Id, rows: usize) -> Result<Id> {
        let (i, v) = (self.shape(indices), self.shape(values));
        if i.len() != 1 || v.len() != 2 || i[0] != v[0] {
            return Err(self.shape_error(
                "put",
                "indices [count] and values [count, width]",
                &[indices, values],
            ));
        }
        let width = v[1];
        Ok(self.push(Op::Put, vec![indices, values], vec![rows, width]))
    }
}

/// An operation's name in errors.
fn function_name(function: Function) -> &'static str {
    match function {
        Function::Add => "add",
        Function::Sub => "subtract",
        Function::Mul => "multiply",
        Function::Div => "divide",
        Function::Max => "maximum",
        Function::Min => "minimum",
        Function::Pow => "power",
        Function::Less => "less",
        Function::Equal => "equal",
        Function::Select => "select",
        _ => "an elementwise function",
    }
}
