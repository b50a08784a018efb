//! Products and passes one after the other over the same rows: each thread goes through all of them with rows of its own,
//! and they meet once at the end. A recurrence is many small ones, for which a fork and a join each cost as much as the
//! work.

use crate::compute::Compute;
use crate::fused::Fused;
use crate::gemm::Gemm;
use crate::workspace::{View, Workspace};

/// Rows that a thread must have: fewer make products slow.
const ROWS_EACH: usize = 8;
/// Additions that one thread does alone.
const SERIAL: usize = 64 * 1024;

/// One of several over the same rows.
pub enum Operation {
    Product(Gemm),
    Pass(Fused),
}

impl Operation {
    /// How many rows it has, if it can be done some rows at a time.
    pub fn rows(&self) -> Option<usize> {
        match self {
            Operation::Product(gemm) => gemm.rows(),
            Operation::Pass(fused) => fused.rows(),
        }
    }

    /// Roughly how many additions it costs.
    pub fn cost(&self) -> usize {
        match self {
            Operation::Product(gemm) => gemm.multiply_adds() / 8,
            Operation::Pass(fused) => fused.cost(),
        }
    }

    fn touches(&self) -> Vec<Touch<'_>> {
        match self {
            Operation::Product(gemm) => gemm.touches(),
            Operation::Pass(fused) => fused.touches(),
        }
    }

    fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        match self {
            Operation::Product(gemm) => gemm.run(compute, workspace),
            Operation::Pass(fused) => fused.run(compute, workspace),
        }
    }
}

/// A tensor that an operation reads or writes.
pub(crate) struct Touch<'a> {
    pub view: &'a View,
    /// The dimension of the rows; none where every row needs all of it.
    pub axis: Option<usize>,
    pub writes: bool,
}

/// Whether no row of any operation needs or writes what another row of any of them writes. All have the same rows.
pub fn rows_are_apart(operations: &[Operation]) -> bool {
    let mut spans: Vec<Span> = Vec::new();
    for touch in operations.iter().flat_map(Operation::touches) {
        let Touch { view, axis, writes } = touch;
        match axis {
            Some(axis) if view.strides[axis] != 0 => {
                let mut row = view.clone();
                row.shape[axis] = 1;
                let range = row.range();
                for index in 0..view.shape[axis] {
                    let Some(moved) = view.strides[axis].checked_mul(index as isize) else { return false };
                    let at = |place: usize| place.checked_add_signed(moved);
                    let (Some(start), Some(end)) = (at(range.start), at(range.end)) else { return false };
                    spans.push(Span { start, end, row: index, writes });
                }
            }
            _ if writes => return false,
            _ => {
                let range = view.range();
                spans.push(Span { start: range.start, end: range.end, row: EVERY_ROW, writes });
            }
        }
    }
    spans.sort_unstable_by_key(|span| span.start);
    let (mut touched, mut written) = (Reach::default(), Reach::default());
    spans.iter().all(|span| {
        let before = if span.writes { &touched } else { &written };
        let is_apart = before.of_others(span.row) <= span.start;
        touched.add(span);
        if span.writes {
            written.add(span);
        }
        is_apart
    })
}

const EVERY_ROW: usize = usize::MAX;

/// Where the values that a row needs or writes of a tensor are.
struct Span {
    start: usize,
    end: usize,
    row: usize,
    writes: bool,
}

/// How far spans reach: that of the row which reaches farthest, and of all other rows.
#[derive(Default)]
struct Reach {
    farthest: usize,
    row: usize,
    others: usize,
}

impl Reach {
    fn add(&mut self, span: &Span) {
        if span.row == self.row {
            self.farthest = self.farthest.max(span.end);
        } else if span.end > self.farthest {
            *self = Reach { farthest: span.end, row: span.row, others: self.farthest };
        } else {
            self.others = self.others.max(span.end);
        }
    }

    fn of_others(&self, row: usize) -> usize {
        if row == self.row && row != EVERY_ROW { self.others } else { self.farthest }
    }
}

/// Operations over the same rows, prepared.
pub struct ByRows {
    operations: Vec<Operation>,
    rows: usize,
    needed: usize,
    cost: usize,
}

impl std::fmt::Debug for ByRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} operations over {} rows", self.operations.len(), self.rows)
    }
}

impl ByRows {
    /// # Panics
    /// When the operations have different numbers of rows, or their rows aren't apart.
    pub fn new(operations: Vec<Operation>) -> ByRows {
        let rows = operations.first().and_then(Operation::rows).unwrap_or(0);
        assert!(operations.iter().all(|operation| operation.rows() == Some(rows)), "all have {rows} rows");
        assert!(rows_are_apart(&operations), "rows need what others write");
        let touches = operations.iter().flat_map(Operation::touches);
        let needed = touches.map(|touch| touch.view.range().end).max().unwrap_or(0);
        let cost = operations.iter().map(Operation::cost).sum();
        ByRows { operations, rows, needed, cost }
    }

    /// # Panics
    /// When `compute` has another instruction set than they were prepared for, or the workspace is too small.
    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        let threads = compute.pool().threads();
        if threads == 1 || self.rows < ROWS_EACH * threads || self.cost <= SERIAL {
            return self.operations.iter().for_each(|operation| operation.run(compute, workspace));
        }
        let memory = workspace.memory(self.needed, compute.pool());
        let share = self.rows.div_ceil(threads);
        compute.pool().run(|worker| {
            let end = ((worker + 1) * share).min(self.rows);
            let rows = (worker * share).min(end)..end;
            if rows.is_empty() {
                return;
            }
            for operation in &self.operations {
                match operation {
                    Operation::Product(gemm) => gemm.some_rows(compute.isa(), memory, worker, rows.clone()),
                    Operation::Pass(fused) => fused.some_rows(compute.isa(), memory, worker, rows.clone()),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
