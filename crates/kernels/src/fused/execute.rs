//! Runs the code of a pass, some rows at a time.

use std::ops::Range;

use super::Function;
use super::compile::{Action, Code, Place, Program};
use super::functions::{expm1, log, log1p, random_key, uniform};
use crate::compute::Isa;
use crate::lanes::{Kernel, Lanes, WIDTH_MAX, dispatch, erf, exp, sigmoid, tanh};
use crate::workspace::Memory;

/// Runs `program` over some of its rows.
pub(super) fn run(isa: Isa, program: &Program, memory: Memory<'_>, worker: usize, rows: Range<usize>) {
    dispatch(isa, Chunks { program, memory, worker, rows });
}

struct Chunks<'a> {
    program: &'a Program,
    memory: Memory<'a>,
    worker: usize,
    rows: Range<usize>,
}

impl Kernel for Chunks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let program = self.program;
        for first_row in self.rows.clone().step_by(program.rows_at_once) {
            let rows = program.rows_at_once.min(self.rows.end - first_row);
            let span = Span { chunks: &self, first_row, rows };
            for code in &program.code {
                span.one(lanes, code);
            }
        }
    }
}

/// One chunk: some rows.
struct Span<'a> {
    chunks: &'a Chunks<'a>,
    first_row: usize,
    rows: usize,
}

/// An operand: values one after the other (`step` 1), or the same vector again and again (`step` 0); `pitch` from one line
/// to the next.
#[derive(Clone, Copy)]
struct Operand {
    from: *const f32,
    step: usize,
    pitch: usize,
}

impl Operand {
    /// # Safety
    /// It has such a line.
    #[inline(always)]
    unsafe fn at(self, line: usize) -> Operand {
        // SAFETY: the caller's promise.
        Operand { from: unsafe { self.from.add(line * self.pitch) }, ..self }
    }
}

/// Where a result goes: one line `pitch` from the other.
#[derive(Clone, Copy)]
struct Target {
    to: *mut f32,
    pitch: usize,
}

impl Target {
    /// # Safety
    /// It has such a line.
    #[inline(always)]
    unsafe fn at(self, line: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.to.add(line * self.pitch) }
    }
}

/// The loop over the vectors of some lines of `n` values each. What is left of a line goes through copies, so that nothing
/// beyond it is touched and an element's place doesn't change its bits.
macro_rules! vectors {
    ($lanes:ident, $lines:ident, $n:ident, $operands:ident, $to:ident, |$($x:ident),+| $value:expr) => {{
        for line in 0..if LINES { $lines } else { 1 } {
            // SAFETY: each operand and the result have so many lines.
            let (operands, to) = unsafe { ($operands.map(|operand| operand.at(line)), $to.at(line)) };
            let mut i = 0;
            while i + L::WIDTH <= $n {
                let mut operands = operands.iter();
                $(let $x = match operands.next() {
                    // SAFETY: the operand has `n` values, or one vector at step 0.
                    Some(operand) => unsafe { $lanes.load(operand.from.add(i * operand.step)) },
                    None => $lanes.splat(0.0),
                };)+
                // SAFETY: the result has room for `n` values.
                unsafe { $lanes.store(to.add(i), $value) };
                i += L::WIDTH;
            }
            if i < $n {
                let mut operands = operands.iter();
                $(let mut rest = [0.0f32; WIDTH_MAX];
                let $x = match operands.next() {
                    Some(operand) => {
                        // SAFETY: as above, for the values that are left.
                        unsafe {
                            let from = operand.from.add(i * operand.step);
                            std::ptr::copy_nonoverlapping(from, rest.as_mut_ptr(), $n - i);
                        }
                        $lanes.read(&rest)
                    }
                    None => $lanes.splat(0.0),
                };)+
                let mut rest = [0.0f32; WIDTH_MAX];
                $lanes.write(&mut rest, $value);
                // SAFETY: `n - i` places are left.
                unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(i), $n - i) };
            }
        }
    }};
}

/// The loop over a chunk's numbers, for functions that the compiler turns into vectors itself.
macro_rules! numbers {
    ($n:ident, $operands:ident, $to:ident, |$($x:ident),+| $value:expr) => {{
        for i in 0..$n {
            let mut operands = $operands.iter();
            $(let $x = match operands.next() {
                // SAFETY: the operand has `n` values, or a vector of equal ones at step 0.
                Some(operand) => unsafe { *operand.from.add(i * operand.step) },
                None => 0.0,
            };)+
            // SAFETY: the result has room for `n` values.
            unsafe { *$to.add(i) = $value };
        }
    }};
}

impl Span<'_> {
    #[inline(always)]
    fn register(&self, index: usize) -> *mut f32 {
        // SAFETY: a worker uses its own scratch; `Program::compile` checked that all registers fit in it.
        unsafe {
            let scratch = self.chunks.memory.scratch(self.chunks.worker);
            scratch.add(index * self.chunks.program.register_len)
        }
    }

    /// The first value of this chunk in a tensor at `offset`.
    #[inline(always)]
    fn values(&self, offset: usize, row: bool) -> *mut f32 {
        let start = if row { self.first_row } else { self.first_row * self.chunks.program.row_len };
        // SAFETY: the chunk is inside a view that `Fused::new` found inside the workspace.
        unsafe { self.chunks.memory.at(offset + start) }
    }

    /// The first line of this chunk of lines `pitch` apart from `offset` on.
    #[inline(always)]
    fn lines(&self, offset: usize, pitch: usize) -> *mut f32 {
        let program = self.chunks.program;
        let line = self.first_row * program.row_len / program.line;
        // SAFETY: the chunk begins with a line, inside a view that `Fused::new` found inside the workspace.
        unsafe { self.chunks.memory.at(offset + line * pitch) }
    }

    #[inline(always)]
    fn operand(&self, place: Place, splat: &mut [f32; WIDTH_MAX]) -> Operand {
        let line = self.chunks.program.line;
        match place {
            Place::Register(index) => Operand { from: self.register(index), step: 1, pitch: line },
            Place::Memory { offset, row } => Operand { from: self.values(offset, row), step: 1, pitch: line },
            Place::Lines { offset, pitch } => Operand { from: self.lines(offset, pitch), step: 1, pitch },
            Place::Constant(value) => {
                *splat = [value; WIDTH_MAX];
                Operand { from: splat.as_ptr(), step: 0, pitch: 0 }
            }
            Place::Scalar(offset) => {
                // SAFETY: a scalar of a view inside the workspace.
                *splat = [unsafe { *self.chunks.memory.at(offset) }; WIDTH_MAX];
                Operand { from: splat.as_ptr(), step: 0, pitch: 0 }
            }
        }
    }

    #[inline(always)]
    fn one<L: Lanes>(&self, lanes: L, code: &Code) {
        let row_len = self.chunks.program.row_len;
        let n = if code.row { self.rows } else { self.rows * row_len };
        let start = if code.row { self.first_row } else { self.first_row * row_len };
        let mut splats = [[0.0f32; WIDTH_MAX]; 3];
        let [s0, s1, s2] = &mut splats;
        let operands = [
            self.operand(code.arguments[0], s0),
            self.operand(code.arguments[1], s1),
            self.operand(code.arguments[2], s2),
        ];
        let line = self.chunks.program.line;
        let (to, to_pitch) = match code.to {
            Place::Register(index) => (self.register(index), line),
            Place::Memory { offset, row } => (self.values(offset, row), line),
            Place::Lines { offset, pitch } => (self.lines(offset, pitch), pitch),
            Place::Constant(_) | Place::Scalar(_) => return,
        };
        match code.action {
            Action::Load(index) => {
                // SAFETY: the view is inside the workspace, and a register holds a chunk.
                unsafe { self.chunks.program.accesses[index].load(self.chunks.memory, start, n, to) };
            }
            Action::Store(index) => {
                let access = &self.chunks.program.accesses[index];
                // SAFETY: the view is inside the workspace, a chunk's elements are its own.
                unsafe { access.store(self.chunks.memory, start, n, operands[0].from) };
            }
            Action::Compute(Function::RowSum | Function::RowMax) => {
                let greatest = matches!(code.action, Action::Compute(Function::RowMax));
                for row in 0..self.rows {
                    // SAFETY: the operand has `rows` rows of `row_len` values, or equal ones; the result a value each.
                    unsafe {
                        let from = operands[0].from.add(row * row_len * operands[0].step);
                        *to.add(row) = reduce(lanes, from, operands[0].step, row_len, greatest);
                    }
                }
            }
            Action::Compute(Function::Expand) => {
                for row in 0..self.rows {
                    // SAFETY: the operand has a value for each row, the result a row.
                    unsafe {
                        let value = *operands[0].from.add(row * operands[0].step);
                        std::slice::from_raw_parts_mut(to.add(row * row_len), row_len).fill(value);
                    }
                }
            }
            Action::Compute(function) => {
                let to = Target { to, pitch: to_pitch };
                if line > 1 && code.has_lines() {
                    elementwise::<L, true>(lanes, function, operands, (n / line, line), start, to);
                } else {
                    elementwise::<L, false>(lanes, function, operands, (1, n), start, to);
                }
            }
        }
    }
}

/// The sum or the greatest of `n` values (at `step` 0, of the same value `n` times).
///
/// # Safety
/// `from` has `n` values, or one vector of equal ones.
#[inline(always)]
unsafe fn reduce<L: Lanes>(lanes: L, from: *const f32, step: usize, n: usize, greatest: bool) -> f32 {
    let empty = if greatest { f32::NEG_INFINITY } else { 0.0 };
    let mut sums = [lanes.splat(empty); 4];
    let mut i = 0;
    while i + L::WIDTH <= n {
        let slot = (i / L::WIDTH) % 4;
        // SAFETY: the caller's promise.
        let x = unsafe { lanes.load(from.add(i * step)) };
        sums[slot] = if greatest { lanes.max(sums[slot], x) } else { lanes.add(sums[slot], x) };
        i += L::WIDTH;
    }
    if i < n {
        let mut rest = [empty; WIDTH_MAX];
        // SAFETY: the caller's promise, for what is left.
        unsafe { std::ptr::copy_nonoverlapping(from.add(i * step), rest.as_mut_ptr(), n - i) };
        let x = lanes.read(&rest);
        sums[0] = if greatest { lanes.max(sums[0], x) } else { lanes.add(sums[0], x) };
    }
    if greatest {
        lanes.largest(lanes.max(lanes.max(sums[0], sums[1]), lanes.max(sums[2], sums[3])))
    } else {
        lanes.sum(lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3])))
    }
}

#[inline(always)]
fn elementwise<L: Lanes, const LINES: bool>(
    lanes: L,
    function: Function,
    operands: [Operand; 3],
    (lines, n): (usize, usize),
    start: usize,
    to: Target,
) {
    let (zero, one) = (lanes.splat(0.0), lanes.splat(1.0));
    match function {
        Function::Copy => vectors!(lanes, lines, n, operands, to, |x| x),
        Function::Neg => vectors!(lanes, lines, n, operands, to, |x| lanes.sub(zero, x)),
        Function::Exp => vectors!(lanes, lines, n, operands, to, |x| exp(lanes, x)),
        Function::Sqrt => vectors!(lanes, lines, n, operands, to, |x| lanes.sqrt(x)),
        Function::Erf => vectors!(lanes, lines, n, operands, to, |x| erf(lanes, x)),
        Function::Tanh => vectors!(lanes, lines, n, operands, to, |x| tanh(lanes, x)),
        Function::Sigmoid => vectors!(lanes, lines, n, operands, to, |x| sigmoid(lanes, x)),
        Function::Add => vectors!(lanes, lines, n, operands, to, |x, y| lanes.add(x, y)),
        Function::Sub => vectors!(lanes, lines, n, operands, to, |x, y| lanes.sub(x, y)),
        Function::Mul => vectors!(lanes, lines, n, operands, to, |x, y| lanes.mul(x, y)),
        Function::Div => vectors!(lanes, lines, n, operands, to, |x, y| lanes.div(x, y)),
        Function::Max => vectors!(lanes, lines, n, operands, to, |x, y| lanes.max(y, x)),
        Function::Min => vectors!(lanes, lines, n, operands, to, |x, y| lanes.min(y, x)),
        Function::Abs => vectors!(lanes, lines, n, operands, to, |x| lanes.max(x, lanes.sub(zero, x))),
        Function::Less => {
            vectors!(lanes, lines, n, operands, to, |x, y| lanes.select(lanes.less(x, y), one, zero))
        }
        Function::Equal => {
            vectors!(lanes, lines, n, operands, to, |x, y| lanes.select(lanes.equal(x, y), one, zero))
        }
        Function::Select => {
            vectors!(lanes, lines, n, operands, to, |x, y, z| lanes.select(lanes.equal(x, zero), z, y));
        }
        _ => {
            for line in 0..lines {
                // SAFETY: each operand and the result have so many lines.
                let (operands, to) = unsafe { (operands.map(|operand| operand.at(line)), to.at(line)) };
                rarer(lanes, function, operands, n, start + line * n, to);
            }
        }
    }
}

#[inline(always)]
fn rarer<L: Lanes>(
    lanes: L,
    function: Function,
    operands: [Operand; 3],
    n: usize,
    start: usize,
    to: *mut f32,
) {
    match function {
        Function::Sign => {
            numbers!(n, operands, to, |x| if x == 0.0 { 0.0 } else { 1.0f32.copysign(x) })
        }
        Function::Floor => numbers!(n, operands, to, |x| x.floor()),
        Function::Log => numbers!(n, operands, to, |x| log(x)),
        Function::Log1p => numbers!(n, operands, to, |x| log1p(x)),
        Function::Sin => numbers!(n, operands, to, |x| x.sin()),
        Function::Cos => numbers!(n, operands, to, |x| x.cos()),
        Function::Pow => numbers!(n, operands, to, |x, y| x.powf(y)),
        Function::Expm1 => in_parts(lanes, operands[0], n, to),
        Function::Uniform(stream) => {
            // SAFETY: both operands are at least one value.
            let key = unsafe { random_key(stream, *operands[0].from, *operands[1].from) };
            for i in 0..n {
                // SAFETY: the result has room for `n` values.
                unsafe { *to.add(i) = uniform(key, (start + i) as u32) };
            }
        }
        _ => {}
    }
}

/// `e^x - 1`: the exponential by vectors, the rest by numbers, a vector's worth at a time.
#[inline(always)]
fn in_parts<L: Lanes>(lanes: L, operand: Operand, n: usize, to: *mut f32) {
    let mut i = 0;
    while i < n {
        let count = L::WIDTH.min(n - i);
        let mut x = [0.0f32; WIDTH_MAX];
        // SAFETY: the operand has `n` values, or one vector at step 0.
        unsafe { std::ptr::copy_nonoverlapping(operand.from.add(i * operand.step), x.as_mut_ptr(), count) };
        let mut grown = [0.0f32; WIDTH_MAX];
        lanes.write(&mut grown, exp(lanes, lanes.read(&x)));
        let mut y = [0.0f32; WIDTH_MAX];
        for lane in 0..L::WIDTH {
            y[lane] = expm1(x[lane], grown[lane]);
        }
        // SAFETY: `count` places are left.
        unsafe { std::ptr::copy_nonoverlapping(y.as_ptr(), to.add(i), count) };
        i += count;
    }
}
