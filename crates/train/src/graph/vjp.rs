//! What each operation passes back to each of its operands.

use kernels::convolution::Target;
use kernels::convolution::pooling::Pooling;

use super::{Function, Graph, Id, Op};
use crate::error::Result;

impl Graph {
    /// What operand `which` of `id` receives when `id` receives `g`; none if nothing ever.
    pub(super) fn vjp(&mut self, id: Id, which: usize, g: Id) -> Result<Option<Id>> {
        let node = self.node(id).clone();
        let x = node.inputs[which];
        let from = self.shape(x).to_vec();
        let back = match &node.op {
            Op::Input(_) | Op::Variable(_) | Op::Constant(_) | Op::ArgMax(_) => return Ok(None),
            Op::Map(function) => return self.map_vjp(*function, id, &node.inputs, which, g),
            Op::Reshape => self.reshape(g, &from)?,
            Op::Transpose(axes) => {
                let mut inverse = vec![0; axes.len()];
                axes.iter().enumerate().for_each(|(to, &axis)| inverse[axis] = to);
                self.transpose(g, &inverse)?
            }
            Op::Broadcast => {
                let axes: Vec<usize> = (0..from.len()).filter(|&i| from[i] != node.shape[i]).collect();
                self.sum(g, &axes)?
            }
            Op::Slice { start, step } => self.pad(g, start, step, &from)?,
            Op::Pad { start, step } => self.slice(g, start, step, &from)?,
            Op::Reverse(axes) => self.reverse(g, axes)?,
            Op::Again => g,
            Op::Concat(axis) => {
                let start = node.inputs[..which].iter().map(|&part| self.shape(part)[*axis]).sum();
                self.slice_axis(g, *axis, start, from[*axis])?
            }
            Op::Sum(_) => self.broadcast(g, &from)?,
            Op::Max(axes) => {
                let greatest = self.broadcast(id, &from)?;
                let mask = self.map2(Function::Equal, x, greatest)?;
                let count = self.sum(mask, axes)?;
                let share = self.div(g, count)?;
                self.mul(mask, share)?
            }
            Op::MatMul => {
                let other = self.transposed(node.inputs[1 - which])?;
                if which == 0 { self.matmul(g, other)? } else { self.matmul(other, g)? }
            }
            Op::Convolution { .. } | Op::Pool { .. } => {
                return self.spatial_vjp(&node.op, &node.inputs, which, g);
            }
            Op::Take if which == 0 => self.put(node.inputs[1], g, from[0])?,
            Op::Put if which == 1 => {
                let rows = self.push(Op::Take, vec![g, node.inputs[0]], from);
                return Ok(Some(rows));
            }
            Op::Take | Op::Put => return Ok(None),
        };
        Ok(Some(back))
    }

    fn spatial_vjp(&mut self, op: &Op, inputs: &[Id], which: usize, g: Id) -> Result<Option<Id>> {
        let shape = self.shape(inputs[which]).to_vec();
        if let Op::Convolution { target, geometry } = op {
            // The three are one trilinear form, seen from its three sides.
            let other = inputs[1 - which];
            let (target, operands) = match (target, which) {
                (Target::Output, 0) => (Target::Input, [other, g]),
                (Target::Output, _) => (Target::Kernel, [other, g]),
                (Target::Input, 0) => (Target::Kernel, [g, other]),
                (Target::Input, _) => (Target::Output, [g, other]),
                (Target::Kernel, 0) => (Target::Input, [g, other]),
                (Target::Kernel, _) => (Target::Output, [other, g]),
            };
            let op = Op::Convolution { target, geometry: *geometry };
            return Ok(Some(self.push(op, operands.to_vec(), shape)));
        }
        let Op::Pool { pooling, geometry } = op else { return Ok(None) };
        let (pooling, operands) = match (pooling, which) {
            (Pooling::Sum, _) => (Pooling::Spread, vec![g]),
            (Pooling::Spread, _) => (Pooling::Sum, vec![g]),
            (Pooling::Take, 1) => (Pooling::Put, vec![inputs[0], g]),
            (Pooling::Put, 1) => (Pooling::Take, vec![inputs[0], g]),
            // Where a window is greatest doesn't change with a small step.
            (Pooling::Take | Pooling::Put, _) => return Ok(None),
        };
        let op = Op::Pool { pooling, geometry: *geometry };
        Ok(Some(self.push(op, operands, shape)))
    }

    fn map_vjp(
        &mut self,
        function: Function,
        y: Id,
        inputs: &[Id],
        which: usize,
        g: Id,
    ) -> Result<Option<Id>> {
        let x = inputs[which];
        let slope = match function {
            Function::Copy => return Ok(Some(g)),
            Function::Neg => return Ok(Some(self.map(Function::Neg, g))),
            Function::Exp => y,
            Function::Expm1 => self.add_scalar(y, 1.0)?,
            Function::Log => return self.div(g, x).map(Some),
            Function::Log1p => {
                let divisor = self.add_scalar(x, 1.0)?;
                return self.div(g, divisor).map(Some);
            }
            Function::Sqrt => {
                let half = self.scale(g, 0.5)?;
                return self.div(half, y).map(Some);
            }
            Function::Tanh => {
                let square = self.square(y)?;
                self.scalar_sub(1.0, square)?
            }
            Function::Sigmoid => {
                let rest = self.scalar_sub(1.0, y)?;
                self.mul(y, rest)?
            }
            Function::Erf => {
                let square = self.square(x)?;
                let negative = self.map(Function::Neg, square);
                let bell = self.map(Function::Exp, negative);
                self.scale(bell, std::f32::consts::FRAC_2_SQRT_PI)?
            }
            Function::Abs => self.map(Function::Sign, x),
            Function::Sin => self.map(Function::Cos, x),
            Function::Cos => {
                let sine = self.map(Function::Sin, x);
                self.map(Function::Neg, sine)
            }
            Function::Sign | Function::Floor | Function::Less | Function::Equal | Function::Uniform(_) => {
                return Ok(None);
            }
            Function::RowSum | Function::RowMax | Function::Expand => return Ok(None),
            _ => return self.pair_vjp(function, y, inputs, which, g),
        };
        self.mul(g, slope).map(Some)
    }

    fn pair_vjp(
        &mut self,
        function: Function,
        y: Id,
        inputs: &[Id],
        which: usize,
        g: Id,
    ) -> Result<Option<Id>> {
        let (a, b) = (inputs[0], inputs[1]);
        let back = match (function, which) {
            (Function::Add, _) | (Function::Sub, 0) => g,
            (Function::Sub, _) => self.map(Function::Neg, g),
            (Function::Mul, 0) => self.mul(g, b)?,
            (Function::Mul, _) => self.mul(g, a)?,
            (Function::Div, 0) => self.div(g, b)?,
            (Function::Div, _) => {
                let ratio = self.div(y, b)?;
                let part = self.mul(g, ratio)?;
                self.map(Function::Neg, part)
            }
            // Where both are equal the second receives all: ReLU at 0 passes nothing, as in Keras.
            (Function::Max, 0) => {
                let wins = self.less(b, a)?;
                self.mul(g, wins)?
            }
            (Function::Max, _) => {
                let wins = self.less(b, a)?;
                let loses = self.scalar_sub(1.0, wins)?;
                self.mul(g, loses)?
            }
            (Function::Min, 0) => {
                let wins = self.less(a, b)?;
                self.mul(g, wins)?
            }
            (Function::Min, _) => {
                let wins = self.less(a, b)?;
                let loses = self.scalar_sub(1.0, wins)?;
                self.mul(g, loses)?
            }
            (Function::Pow, 0) => {
                let less = self.add_scalar(b, -1.0)?;
                let power = self.map2(Function::Pow, a, less)?;
                let slope = self.mul(b, power)?;
                self.mul(g, slope)?
            }
            (Function::Pow, _) => {
                let log = self.map(Function::Log, a);
                let slope = self.mul(y, log)?;
                self.mul(g, slope)?
            }
            (Function::Select, 1) => {
                let zero = self.full_like(0.0, g);
                self.select(inputs[0], g, zero)?
            }
            (Function::Select, 2) => {
                let zero = self.full_like(0.0, g);
                self.select(inputs[0], zero, g)?
            }
            _ => return Ok(None),
        };
        Ok(Some(back))
    }
}
