//! Runs of small operations over the same rows, which threads go through with rows of their own.

use std::collections::HashSet;
use std::ops::Range;

use kernels::by_rows::{Operation, rows_are_apart};
use kernels::compute::Isa;

use super::drafts::Draft;
use super::places::Storage;
use super::program::by_rows;

/// The greatest cost of an operation of a run: meeting after a larger one costs little beside it.
const COST_MAX: usize = 1024 * 1024;
/// Values of a packed operand, at most: every thread reads all of it, from its second-level cache.
const PACKED_MAX: usize = 128 * 1024;
/// Values of an operand that is packed first, at most: a larger one would be gone from the cache when it is needed.
const PACKED_FIRST_MAX: usize = 32 * 1024;
/// More rows are seldom small, and comparing each with each takes long.
const ROWS_MAX: usize = 256;
/// Operations from which on a run is worth it.
const LEN_MIN: usize = 3;
/// Operations of a run, at most: what they touch lives as long as it.
const LEN_MAX: usize = 32;

/// Moves the packing of small operands to the front where nothing before makes them: there it stands between no others.
pub(super) fn pack_first(drafts: &mut Vec<Draft>, storages: &[Storage]) {
    let mut written = HashSet::new();
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for draft in drafts.drain(..) {
        written.extend(draft.writes().into_iter().map(|place| place.storage));
        match &draft {
            Draft::Pack { from, to, .. }
                if storages[to.storage].len <= PACKED_FIRST_MAX && !written.contains(&from.storage) =>
            {
                first.push(draft);
            }
            _ => others.push(draft),
        }
    }
    first.append(&mut others);
    *drafts = first;
}

/// The runs, as ranges of `drafts`, in order.
pub(super) fn runs(drafts: &[Draft], storages: &[Storage], isa: Isa) -> Vec<Range<usize>> {
    // Storages apart from each other, as they will be as long as a run goes on.
    let mut offsets = Vec::with_capacity(storages.len());
    let mut end = 0;
    for storage in storages {
        offsets.push(end);
        end += storage.len;
    }
    let mut runs = Vec::new();
    let mut run: Vec<Operation> = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let operation = small(draft, storages, &offsets, isa);
        let rows = operation.as_ref().and_then(Operation::rows);
        if run.len() == LEN_MAX || run.first().is_some_and(|first| first.rows() != rows) {
            found(index, &mut run, &mut runs);
        }
        run.extend(operation);
    }
    found(drafts.len(), &mut run, &mut runs);
    runs
}

/// Notes what `run`, which ends before `end`, has of operations whose rows are apart.
fn found(end: usize, run: &mut Vec<Operation>, runs: &mut Vec<Range<usize>>) {
    let mut start = end - run.len();
    while run.len() >= LEN_MIN {
        let longest = longest_apart(run);
        if longest >= LEN_MIN {
            runs.push(start..start + longest);
        }
        start += longest.max(1);
        run.drain(..longest.max(1));
    }
    run.clear();
}

/// How many operations from the first on have rows that are apart: what holds for some holds for fewer.
fn longest_apart(run: &[Operation]) -> usize {
    if rows_are_apart(run) {
        return run.len();
    }
    let (mut holds, mut fails) = (0, run.len());
    while fails - holds > 1 {
        let middle = holds + (fails - holds) / 2;
        if rows_are_apart(&run[..middle]) { holds = middle } else { fails = middle }
    }
    holds
}

/// The operation, if it is a small one over rows.
fn small(draft: &Draft, storages: &[Storage], offsets: &[usize], isa: Isa) -> Option<Operation> {
    match draft {
        Draft::Fused { .. } => {}
        Draft::Gemm { b, .. } if storages[b.storage].len <= PACKED_MAX => {}
        _ => return None,
    }
    let operation = by_rows(draft, offsets, isa)?;
    let is_small = operation.rows()? <= ROWS_MAX && operation.cost() <= COST_MAX;
    is_small.then_some(operation)
}
