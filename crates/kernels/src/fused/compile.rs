//! Turns the steps of a pass into code: which values stand in which register, and when outputs are written.

use super::access::{Access, Strided};
use super::{Argument, CHUNK, Expression, Function, REGISTERS_MAX, ROW_MAX};
use crate::lanes::WIDTH_MAX;
use crate::workspace::{SCRATCH, View};

/// Where an operand or a result is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Register(usize),
    /// Elements one after the other from this offset of the workspace; a value a row if `row`.
    Memory {
        offset: usize,
        row: bool,
    },
    /// Lines of the program's `line` elements, of which the first elements are `pitch` apart.
    Lines {
        offset: usize,
        pitch: usize,
    },
    Constant(f32),
    /// One value of the workspace for all elements.
    Scalar(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Compute(Function),
    /// Gathers from the access of this number.
    Load(usize),
    /// Scatters to it.
    Store(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Code {
    pub action: Action,
    pub arguments: [Place; 3],
    pub to: Place,
    pub row: bool,
}

impl Code {
    pub(super) fn has_lines(&self) -> bool {
        self.arguments.iter().chain([&self.to]).any(|place| matches!(place, Place::Lines { .. }))
    }
}

/// The code of a pass.
pub(super) struct Program {
    pub code: Vec<Code>,
    pub accesses: Vec<Strided>,
    pub rows: usize,
    /// Elements of a row; when rows don't matter, all elements are one row each of 1.
    pub row_len: usize,
    /// Rows that are taken at once.
    pub rows_at_once: usize,
    /// Elements of a line: what is taken at once is whole lines.
    pub line: usize,
    /// Floats of a register.
    pub register_len: usize,
    weight: usize,
}

impl Program {
    pub(super) fn chunks(&self) -> usize {
        self.rows.div_ceil(self.rows_at_once.max(1))
    }

    pub(super) fn cost(&self) -> usize {
        self.rows * self.row_len * self.weight
    }

    pub(super) fn compile(expression: &Expression) -> Program {
        let elements: usize = expression.shape.iter().product();
        let uses_rows =
            expression.steps.iter().any(|step| step.row || matches!(step.function, Function::Expand))
                || expression.inputs.iter().any(|input| input.row);
        let row_len = if uses_rows { expression.shape.last().copied().unwrap_or(1) } else { 1 };
        assert!(row_len <= ROW_MAX, "a row of {row_len}, at most {ROW_MAX}");
        let rows = elements.checked_div(row_len).unwrap_or(0);
        let line = if uses_rows { None } else { line(expression) };
        let unit = line.unwrap_or(row_len).max(1);
        let rows_at_once = (CHUNK / unit).max(1) * unit / row_len.max(1);
        let register_len = (rows_at_once * row_len).max(1).next_multiple_of(WIDTH_MAX);
        let weight = expression.steps.iter().map(|step| step.function.weight()).sum::<usize>() + 1;
        let mut builder = Builder::new(expression, line);
        builder.all_steps();
        let registers = builder.registers_used;
        assert!(registers * register_len <= SCRATCH, "{registers} registers of {register_len} don't fit");
        Program {
            code: builder.code,
            accesses: builder.accesses,
            rows,
            row_len,
            rows_at_once,
            line: line.unwrap_or(1),
            register_len,
            weight,
        }
    }
}

/// The length of the lines that operands which don't stand in order consist of: that of the first such.
fn line(expression: &Expression) -> Option<usize> {
    let inputs = expression.inputs.iter().map(|input| &input.view);
    inputs.chain(expression.outputs.iter().map(|(_, view)| view)).find_map(|view| match Access::of(view) {
        Access::Strided(strided) => strided.lines().map(|(line, _)| line),
        _ => None,
    })
}

struct Builder<'a> {
    expression: &'a Expression,
    line: Option<usize>,
    code: Vec<Code>,
    accesses: Vec<Strided>,
    free: Vec<usize>,
    registers_used: usize,
    /// The last step that reads each step's result; `usize::MAX` for results that are stored at the end.
    step_last: Vec<usize>,
    input_last: Vec<usize>,
    step_place: Vec<Option<Place>>,
    input_place: Vec<Option<Place>>,
    /// The step at which no input in an output's place is read any more, for each output.
    safe_from: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn new(expression: &'a Expression, line: Option<usize>) -> Builder<'a> {
        let mut step_last = vec![0; expression.steps.len()];
        let mut input_last = vec![0; expression.inputs.len()];
        for (index, step) in expression.steps.iter().enumerate() {
            for argument in &step.arguments {
                match *argument {
                    Argument::Step(step) => step_last[step] = index,
                    Argument::Input(input) => input_last[input] = index,
                    Argument::Constant(_) => {}
                }
            }
        }
        let safe = |view: &View| {
            let overlapping = expression.inputs.iter().zip(&input_last);
            let reads = overlapping.filter(|(input, _)| !input.view.is_apart(view)).map(|(_, last)| *last);
            reads.max().unwrap_or(0)
        };
        let safe_from: Vec<usize> = expression.outputs.iter().map(|(_, view)| safe(view)).collect();
        for ((step, _), &safe) in expression.outputs.iter().zip(&safe_from) {
            if safe > *step {
                step_last[*step] = usize::MAX;
            }
        }
        Builder {
            expression,
            line,
            code: Vec::new(),
            accesses: Vec::new(),
            free: Vec::new(),
            registers_used: 0,
            step_last,
            input_last,
            step_place: vec![None; expression.steps.len()],
            input_place: vec![None; expression.inputs.len()],
            safe_from,
        }
    }

    fn register(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.registers_used += 1;
            assert!(self.registers_used <= REGISTERS_MAX, "a pass has too many values alive at once");
            self.registers_used - 1
        })
    }

    fn all_steps(&mut self) {
        for index in 0..self.expression.steps.len() {
            self.step(index);
        }
        for output in 0..self.expression.outputs.len() {
            let (step, _) = self.expression.outputs[output];
            if self.safe_from[output] > step {
                self.store(output, step);
            }
        }
    }

    fn step(&mut self, index: usize) {
        let step = &self.expression.steps[index];
        let mut arguments = [Place::Constant(0.0); 3];
        for (place, argument) in arguments.iter_mut().zip(&step.arguments) {
            *place = match *argument {
                Argument::Constant(value) => Place::Constant(value),
                // A step is computed before it is read.
                Argument::Step(step) => self.step_place[step].unwrap_or(Place::Constant(f32::NAN)),
                Argument::Input(input) => self.input(input),
            };
        }
        self.release(index);
        let outputs: Vec<usize> =
            (0..self.expression.outputs.len()).filter(|&o| self.expression.outputs[o].0 == index).collect();
        let read_later = self.step_last[index] > index;
        let to = match outputs.first() {
            Some(&output) if !read_later => self.direct(output),
            _ => None,
        };
        let written = to.is_some();
        // Reduced and expanded values never share a register with their operand: the sizes differ.
        let to = to.unwrap_or_else(|| Place::Register(self.register()));
        self.step_place[index] = Some(to);
        self.code.push(Code { action: Action::Compute(step.function), arguments, to, row: step.row });
        for &output in outputs.iter().skip(written as usize) {
            if self.safe_from[output] <= index {
                self.store(output, index);
            }
        }
        if let (Place::Register(register), false) = (to, read_later) {
            self.free.push(register);
        }
    }

    /// The place of an input, after a load if its elements don't stand in order.
    fn input(&mut self, input: usize) -> Place {
        if let Some(place) = self.input_place[input] {
            return place;
        }
        let given = &self.expression.inputs[input];
        let place = match Access::of(&given.view) {
            Access::Flat(offset) => Place::Memory { offset, row: given.row },
            Access::Scalar(offset) => Place::Scalar(offset),
            Access::Strided(strided) => self.lines(&strided).unwrap_or_else(|| {
                let to = Place::Register(self.register());
                self.accesses.push(strided);
                let action = Action::Load(self.accesses.len() - 1);
                self.code.push(Code { action, arguments: [to; 3], to, row: given.row });
                to
            }),
        };
        self.input_place[input] = Some(place);
        place
    }

    /// Registers of what step `index` reads last are free again, but not for reductions: they write while they read.
    fn release(&mut self, index: usize) {
        let step = &self.expression.steps[index];
        if matches!(step.function, Function::RowSum | Function::RowMax | Function::Expand) {
            return;
        }
        let mut released = Vec::new();
        for argument in &step.arguments {
            let (place, last) = match *argument {
                Argument::Step(step) => (self.step_place[step], self.step_last[step]),
                Argument::Input(input) => (self.input_place[input], self.input_last[input]),
                Argument::Constant(_) => continue,
            };
            if let (Some(Place::Register(register)), true) = (place, last == index) {
                released.push(register);
            }
        }
        released.sort_unstable();
        released.dedup();
        self.free.extend(released);
    }

    /// The output's place, if a step can write there at once.
    fn direct(&self, output: usize) -> Option<Place> {
        let (step, view) = &self.expression.outputs[output];
        match Access::of(view) {
            Access::Flat(offset) => Some(Place::Memory { offset, row: self.expression.steps[*step].row }),
            Access::Strided(strided) => self.lines(&strided),
            Access::Scalar(_) => None,
        }
    }

    /// The place of a view that consists of lines of the program's length.
    fn lines(&self, strided: &Strided) -> Option<Place> {
        let (line, pitch) = strided.lines()?;
        (Some(line) == self.line).then_some(Place::Lines { offset: strided.offset(), pitch })
    }

    fn store(&mut self, output: usize, step: usize) {
        let (_, view) = &self.expression.outputs[output];
        let row = self.expression.steps[step].row;
        let from = self.step_place[step].unwrap_or(Place::Constant(f32::NAN));
        let copy = Action::Compute(Function::Copy);
        let (action, to) = match Access::of(view) {
            Access::Flat(offset) | Access::Scalar(offset) => (copy, Place::Memory { offset, row }),
            Access::Strided(strided) => match self.lines(&strided) {
                Some(lines) => (copy, lines),
                None => {
                    self.accesses.push(strided);
                    (Action::Store(self.accesses.len() - 1), from)
                }
            },
        };
        self.code.push(Code { action, arguments: [from; 3], to, row });
    }
}
