//! Sums and greatest values along an axis of tensors, in an order that the shape alone decides.

use std::ops::Range;

use crate::compute::Compute;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::workspace::{Memory, View, Workspace};

/// Values that are added up side by side, so that additions don't wait for each other.
const WIDE: usize = 128;
/// Blocks of the reduced axis that are added up apart from each other, at most.
const BLOCKS_MAX: usize = 16;
/// Elements of a block, at least.
const BLOCK: usize = 8 * 1024;

/// What becomes of the values along the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    Sum,
    Max,
    /// The place of the first greatest value; where one is NaN, of the first NaN.
    ArgMax,
}

/// Reduces the middle axis of a contiguous `[outer, axis, inner]` to `[outer, inner]`.
pub struct Reduce {
    reduction: Reduction,
    outer: usize,
    axis: usize,
    inner: usize,
    from: usize,
    to: usize,
    partials: usize,
    needed: usize,
}

fn blocks(outer: usize, axis: usize, inner: usize) -> usize {
    if outer >= BLOCKS_MAX { 1 } else { (axis * inner / BLOCK).clamp(1, BLOCKS_MAX).min(axis.max(1)) }
}

impl std::fmt::Debug for Reduce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.reduction, [self.outer, self.axis, self.inner])
    }
}

impl Reduce {
    /// Floats of working memory that a reduction needs.
    pub fn working_memory(outer: usize, axis: usize, inner: usize) -> usize {
        blocks(outer, axis, inner) * outer * inner
    }

    /// Prepares the reduction from offset `from` to offset `to`; `partials` is where working memory is.
    ///
    /// # Panics
    /// When places overlap.
    pub fn new(
        reduction: Reduction,
        [outer, axis, inner]: [usize; 3],
        from: usize,
        to: usize,
        partials: usize,
    ) -> Reduce {
        let input = View::contiguous(from, &[outer * axis * inner]);
        let output = View::contiguous(to, &[outer * inner]);
        let working = View::contiguous(partials, &[Reduce::working_memory(outer, axis, inner)]);
        assert!(input.is_apart(&output) && input.is_apart(&working) && output.is_apart(&working));
        let needed = input.range().end.max(output.range().end).max(working.range().end);
        Reduce { reduction, outer, axis, inner, from, to, partials, needed }
    }

    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        let memory = workspace.memory(self.needed, compute.pool());
        // The place of a greatest value needs the whole axis in one block.
        let blocks = match self.reduction {
            Reduction::ArgMax => 1,
            _ => blocks(self.outer, self.axis, self.inner),
        };
        let block = self.axis.div_ceil(blocks);
        let to = if blocks == 1 { self.to } else { self.partials };
        let items = self.outer * blocks;
        let task = |item: usize| {
            let (outer, part) = (item / blocks, item % blocks);
            let rows = (part * block).min(self.axis)..((part + 1) * block).min(self.axis);
            let to = to + item * self.inner;
            dispatch(compute.isa(), Block { reduce: self, memory, outer, rows, to });
        };
        if self.outer * self.axis * self.inner <= 4 * BLOCK {
            (0..items).for_each(task);
        } else {
            compute.pool().for_each(items, task);
        }
        if blocks > 1 {
            for outer in 0..self.outer {
                let joined = Reduce { outer: 1, axis: blocks, from: self.partials, ..*self };
                let from = self.partials + outer * blocks * self.inner;
                let joined = Reduce { from, ..joined };
                let to = self.to + outer * self.inner;
                dispatch(compute.isa(), Block { reduce: &joined, memory, outer: 0, rows: 0..blocks, to });
            }
        }
    }
}

struct Block<'a> {
    reduce: &'a Reduce,
    memory: Memory<'a>,
    outer: usize,
    rows: Range<usize>,
    to: usize,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Reduce { reduction, axis, inner, from, .. } = *self.reduce;
        let start = from + (self.outer * axis + self.rows.start) * inner;
        // SAFETY: the block's rows lie inside the input, and the place of its results is its own; both were found
        // inside the workspace and apart from each other.
        let (values, to) = unsafe {
            let values = self.memory.at(start).cast_const();
            (
                std::slice::from_raw_parts(values, self.rows.len() * inner),
                std::slice::from_raw_parts_mut(self.memory.at(self.to), inner),
            )
        };
        match reduction {
            Reduction::Sum => fold(values, to, 0.0, |a, b| a + b),
            Reduction::Max => {
                fold(values, to, f32::NEG_INFINITY, |a, b| if a > b || a.is_nan() { a } else { b })
            }
            Reduction::ArgMax => {
                for (column, to) in to.iter_mut().enumerate() {
                    let mut best = (f32::NEG_INFINITY, 0);
                    for row in 0..self.rows.len() {
                        let x = values[row * inner + column];
                        if x > best.0 || (x.is_nan() && !best.0.is_nan()) {
                            best = (x, row);
                        }
                    }
                    *to = best.1 as f32;
                }
            }
        }
    }
}

/// Combines rows as wide as `to`: several side by side in an accumulator, which is then folded.
#[inline(always)]
fn fold(values: &[f32], to: &mut [f32], empty: f32, combine: impl Fn(f32, f32) -> f32) {
    let inner = to.len();
    if inner == 0 {
        return;
    }
    to.fill(empty);
    if inner >= WIDE {
        for row in values.chunks_exact(inner) {
            for (to, &x) in to.iter_mut().zip(row) {
                *to = combine(*to, x);
            }
        }
        return;
    }
    let wide = WIDE / inner * inner;
    let mut sums = [empty; WIDE];
    let mut groups = values.chunks_exact(wide);
    for group in &mut groups {
        for (sum, &x) in sums[..wide].iter_mut().zip(group) {
            *sum = combine(*sum, x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(groups.remainder()) {
        *sum = combine(*sum, x);
    }
    for row in sums[..wide].chunks_exact(inner) {
        for (to, &x) in to.iter_mut().zip(row) {
            *to = combine(*to, x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Isa;

    fn run(isa: Isa, threads: usize, reduction: Reduction, dims: [usize; 3]) -> (Vec<f32>, Vec<f32>) {
        let [outer, axis, inner] = dims;
        let from = outer * axis * inner;
        let compute = Compute::new(isa, threads);
        let working = Reduce::working_memory(outer, axis, inner);
        let mut workspace = Workspace::new(from + outer * inner + working, threads);
        for (i, x) in workspace.values_mut().iter_mut().enumerate() {
            *x = ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
        }
        let values = workspace.values()[..from].to_vec();
        Reduce::new(reduction, dims, 0, from, from + outer * inner).run(&compute, &mut workspace);
        (values, workspace.values()[from..from + outer * inner].to_vec())
    }

    #[test]
    fn reductions_match_f64_and_do_not_depend_on_threads() {
        for dims in [
            [1, 1, 1],
            [3, 5, 7],
            [1, 50_000, 32],
            [2, 9000, 10],
            [100, 100, 1],
            [1, 40, 300],
            [1, 30_000, 1],
        ] {
            for isa in Isa::available() {
                let (values, found) = run(isa, 1, Reduction::Sum, dims);
                let greatest = run(isa, 1, Reduction::Max, dims).1;
                let place = run(isa, 1, Reduction::ArgMax, dims).1;
                let [_, axis, inner] = dims;
                for (i, found) in found.iter().enumerate() {
                    let at = |row: usize| values[(i / inner * axis + row) * inner + i % inner];
                    let sum: f64 = (0..axis).map(|row| at(row) as f64).sum();
                    assert!(
                        (*found as f64 - sum).abs() < 1e-6 * axis as f64 + 1e-6,
                        "{isa} {dims:?}: {found} {sum}"
                    );
                    let max = (0..axis).map(at).fold(f32::NEG_INFINITY, f32::max);
                    assert_eq!(greatest[i], max);
                    assert_eq!((0..axis).position(|row| at(row) == max), Some(place[i] as usize));
                }
                assert_eq!(found, run(isa, 3, Reduction::Sum, dims).1, "threads change bits");
            }
        }
    }
}
