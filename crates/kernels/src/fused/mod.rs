//! Chains of elementwise operations and reductions of rows in one pass over memory: a small program that is run on some
//! hundred elements at a time, whose intermediate values stay in the first-level cache.

mod access;
mod compile;
mod execute;
mod functions;

pub use functions::{random_key, random_uniform};

use std::ops::Range;

use crate::by_rows::Touch;
use crate::compute::{Compute, Isa};
use crate::workspace::{Memory, View, Workspace};
use compile::Program;

/// Elements that a step of the program takes at once.
const CHUNK: usize = 512;
/// The longest row that can be reduced within a pass.
pub const ROW_MAX: usize = 2048;
/// Elements times the weights of their steps that one thread does alone.
const SERIAL: usize = 48 * 1024;
/// Values that are alive at once: registers of [`CHUNK`] or of a row must fit in a worker's scratch.
pub const REGISTERS_MAX: usize = 48;

/// What a step computes, element by element except for the last three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    Copy,
    Neg,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sqrt,
    Tanh,
    Sigmoid,
    Erf,
    Abs,
    /// -1, 0 or 1.
    Sign,
    Floor,
    Sin,
    Cos,
    Add,
    Sub,
    Mul,
    Div,
    /// NaN if the first operand is.
    Max,
    /// NaN if the first operand is.
    Min,
    Pow,
    /// 1 where the first is less, else 0.
    Less,
    /// 1 where both are equal, else 0.
    Equal,
    /// The second where the first is not 0, else the third.
    Select,
    /// Numbers in [0, 1) of stream `.0`; operands are the run's seed and step.
    Uniform(u32),
    /// The sum of a row.
    RowSum,
    /// The greatest of a row.
    RowMax,
    /// A row's value for each element of the row.
    Expand,
}

impl Function {
    /// How many operands it has.
    pub fn arity(self) -> usize {
        use Function::*;
        match self {
            Add | Sub | Mul | Div | Max | Min | Pow | Less | Equal | Uniform(_) => 2,
            Select => 3,
            _ => 1,
        }
    }

    /// Roughly how many additions it costs.
    fn weight(self) -> usize {
        use Function::*;
        match self {
            Exp | Tanh | Sigmoid | Erf | Log | Log1p | Expm1 | Uniform(_) => 8,
            Sin | Cos | Pow => 200,
            Div | Sqrt => 4,
            _ => 1,
        }
    }
}

/// An operand of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// The result of an earlier step.
    Step(usize),
    Input(usize),
    Constant(f32),
}

/// One operation of a pass. `row` says that it has one value for each row.
#[derive(Clone, Debug)]
pub struct Step {
    pub function: Function,
    pub arguments: Vec<Argument>,
    pub row: bool,
}

/// A tensor that a pass reads. `row` says that it has one value for each row, so a last dimension of 1.
#[derive(Clone, Debug)]
pub struct Input {
    pub view: View,
    pub row: bool,
}

/// What a pass computes over a tensor of `shape`, of which the last dimension is the row.
#[derive(Clone, Debug)]
pub struct Expression {
    pub shape: Vec<usize>,
    pub inputs: Vec<Input>,
    pub steps: Vec<Step>,
    /// Steps and the places of their results.
    pub outputs: Vec<(usize, View)>,
}

/// A prepared pass.
pub struct Fused {
    shape: Vec<usize>,
    inputs: Vec<View>,
    outputs: Vec<View>,
    program: Program,
    needed: usize,
}

impl std::fmt::Debug for Fused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in {} steps", self.shape, self.program.code.len())
    }
}

impl Fused {
    /// Prepares the pass. An output may take the place of an input with the same view.
    ///
    /// # Panics
    /// When shapes disagree, an output overlaps an input otherwise, a reduced row is longer than [`ROW_MAX`], or more
    /// than [`REGISTERS_MAX`] values are alive at once.
    pub fn new(expression: &Expression) -> Fused {
        let mut needed = 0;
        let row_shape = |row: bool| {
            let mut shape = expression.shape.clone();
            if let (true, Some(last)) = (row, shape.last_mut()) {
                *last = 1;
            }
            shape
        };
        for input in &expression.inputs {
            assert_eq!(
                input.view.shape,
                row_shape(input.row),
                "an input of a pass over {:?}",
                expression.shape
            );
            needed = needed.max(input.view.range().end);
        }
        for (i, (step, view)) in expression.outputs.iter().enumerate() {
            assert_eq!(view.shape, row_shape(expression.steps[*step].row), "an output of a pass");
            needed = needed.max(view.range().end);
            for input in &expression.inputs {
                assert!(
                    input.view.is_apart(view)
                        || (input.view == *view && input.row == expression.steps[*step].row),
                    "an output overlaps an input: {view:?} and {:?}",
                    input.view
                );
            }
            for (_, other) in &expression.outputs[..i] {
                assert!(other.is_apart(view), "outputs overlap: {view:?} and {other:?}");
            }
        }
        Fused {
            shape: expression.shape.clone(),
            inputs: expression.inputs.iter().map(|input| input.view.clone()).collect(),
            outputs: expression.outputs.iter().map(|(_, view)| view.clone()).collect(),
            program: Program::compile(expression),
            needed,
        }
    }

    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        let memory = workspace.memory(self.needed, compute.pool());
        let program = &self.program;
        let chunks = program.chunks();
        let threads = compute.pool().threads();
        if program.cost() <= SERIAL || chunks < 2 || threads == 1 {
            return execute::run(compute.isa(), program, memory, 0, 0..program.rows);
        }
        let share = chunks.div_ceil(threads) * program.rows_at_once;
        compute.pool().run(|worker| {
            let end = ((worker + 1) * share).min(program.rows);
            execute::run(compute.isa(), program, memory, worker, worker * share..end);
        });
    }

    /// The first dimension, if the pass can be made over a part of it.
    pub(crate) fn rows(&self) -> Option<usize> {
        (self.shape.len() >= 2 && self.program.rows > 0).then(|| self.shape[0])
    }

    /// Roughly how many additions it costs.
    pub(crate) fn cost(&self) -> usize {
        self.program.cost()
    }

    pub(crate) fn touches(&self) -> Vec<Touch<'_>> {
        let touch = |writes: bool| move |view| Touch { view, axis: Some(0), writes };
        self.inputs.iter().map(touch(false)).chain(self.outputs.iter().map(touch(true))).collect()
    }

    /// Makes the pass over `rows` of the first dimension, which no other worker touches.
    pub(crate) fn some_rows(&self, isa: Isa, memory: Memory<'_>, worker: usize, rows: Range<usize>) {
        let each = self.program.rows / self.shape[0];
        execute::run(isa, &self.program, memory, worker, rows.start * each..rows.end * each);
    }
}

#[cfg(test)]
mod tests;
