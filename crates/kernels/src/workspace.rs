//! The memory that a planned computation runs in: one block of f32, and a scratch for each worker. Operations are
//! prepared once, with every place that they touch checked, and then run on any workspace that is large enough.

use crate::memory::AlignedVec;
use crate::threads::Pool;

/// f32 values that a cache line holds; storage begins at multiples of it.
pub const LINE: usize = 16;

/// f32 values of scratch for each worker: half a second-level cache, and what keeps rows of products apart.
pub const SCRATCH: usize = 130 * 1024;

/// One block of f32 for weights and intermediate values, and a scratch for each worker; on huge pages where the system has
/// them: strides of training reach over many small ones.
pub struct Workspace {
    values: AlignedVec<f32>,
    scratch: AlignedVec<f32>,
    workers: usize,
}

impl Workspace {
    /// At least `floats` zeros, for pools of up to `workers` threads.
    ///
    /// # Panics
    /// When the system refuses the memory.
    pub fn new(floats: usize, workers: usize) -> Workspace {
        let workers = workers.max(1);
        let values = AlignedVec::zeroed(floats.next_multiple_of(LINE));
        Workspace { values, scratch: AlignedVec::zeroed(workers * SCRATCH), workers }
    }

    /// Makes room for `floats` values; what is there stays.
    ///
    /// # Panics
    /// When the system refuses the memory.
    pub fn grow(&mut self, floats: usize) {
        if floats > self.len() {
            let mut values = AlignedVec::zeroed(floats.next_multiple_of(LINE));
            values[..self.len()].copy_from_slice(&self.values);
            self.values = values;
        }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The raw memory for one operation, which has checked that it needs no more than `needed`.
    pub(crate) fn memory(&mut self, needed: usize, pool: &Pool) -> Memory<'_> {
        assert!(needed <= self.len(), "an operation needs {needed} floats, the workspace has {}", self.len());
        assert!(pool.threads() <= self.workers, "the workspace has scratch for {} workers", self.workers);
        Memory {
            start: self.values.as_mut_ptr(),
            scratch: self.scratch.as_mut_ptr(),
            borrowed: std::marker::PhantomData,
        }
    }
}

/// The workspace during one operation: workers read and write through pointers, in places that the operation's
/// preparation found inside the workspace and, for writes, apart from each other.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    start: *mut f32,
    scratch: *mut f32,
    borrowed: std::marker::PhantomData<&'a mut Workspace>,
}

// SAFETY: workers write disjoint places, as each operation promises where it uses the pointers.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above.
unsafe impl Sync for Memory<'_> {}

impl Memory<'_> {
    /// The value at `offset`.
    ///
    /// # Safety
    /// `offset` is inside what the operation asked for.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(offset) }
    }

    /// The scratch of `worker`, [`SCRATCH`] floats.
    ///
    /// # Safety
    /// It is a worker of the pool that the memory was asked for, and uses its own scratch alone.
    #[inline(always)]
    pub(crate) unsafe fn scratch(self, worker: usize) -> *mut f32 {
        // SAFETY: `memory` checked that there is one for each worker, and the caller is one.
        unsafe { self.scratch.add(worker * SCRATCH) }
    }
}

/// A tensor somewhere in a workspace: element `[i, j, ..]` is at `offset + i * strides[0] + j * strides[1] + ..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<isize>,
}

impl View {
    /// Rows after one another from `offset` on.
    pub fn contiguous(offset: usize, shape: &[usize]) -> View {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis] as isize;
        }
        View { offset, shape: shape.to_vec(), strides }
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The least and the greatest offset, as a range.
    ///
    /// # Panics
    /// When the view reaches below the workspace's beginning, or beyond what can be counted.
    pub fn range(&self) -> std::ops::Range<usize> {
        if self.shape.contains(&0) {
            return self.offset..self.offset;
        }
        let (mut low, mut high) = (self.offset as i128, self.offset as i128);
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            let reach = (size as i128 - 1).saturating_mul(stride as i128);
            if reach < 0 { low = low.saturating_add(reach) } else { high = high.saturating_add(reach) }
        }
        assert!(low >= 0, "a view begins {} before the workspace", -low);
        assert!(high < isize::MAX as i128, "a view reaches to {high}");
        low as usize..high as usize + 1
    }

    /// The same elements in the same order with as few dimensions as possible: `(size, stride)` each.
    pub fn collapsed(&self) -> Vec<(usize, isize)> {
        let mut dims: Vec<(usize, isize)> = Vec::new();
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            if size == 1 {
                continue;
            }
            match dims.last_mut() {
                Some(last) if last.1 == stride * size as isize => *last = (last.0 * size, stride),
                _ => dims.push((size, stride)),
            }
        }
        dims
    }

    /// Whether the elements stand one after the other.
    pub fn is_contiguous(&self) -> bool {
        let dims = self.collapsed();
        dims.is_empty() || (dims.len() == 1 && dims[0].1 == 1)
    }

    /// Whether no element of one is an element of the other. May answer no for views that interleave in odd ways.
    pub fn is_apart(&self, other: &View) -> bool {
        let (a, b) = (self.range(), other.range());
        if a.end <= b.start || b.end <= a.start {
            return true;
        }
        let base = self.offset.min(other.offset);
        let periods = self.strides.iter().chain(&other.strides).map(|stride| stride.unsigned_abs());
        periods.filter(|&period| period > 1).any(|period| {
            match (self.window(period, base), other.window(period, base)) {
                (Some(a), Some(b)) => a.end <= b.start || b.end <= a.start,
                _ => false,
            }
        })
    }

    /// The places after `base` modulo `period` that the view lies in, when they are one range that doesn't wrap.
    fn window(&self, period: usize, base: usize) -> Option<std::ops::Range<usize>> {
        let mut extent = 0;
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            if size > 1 && stride.unsigned_abs() % period != 0 {
                extent += usize::try_from(stride).ok()? * (size - 1);
            }
        }
        let start = (self.offset - base) % period;
        (start + extent < period).then_some(start..start + extent + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_interleave_are_apart() {
        let columns = |first: usize| View { offset: first, shape: vec![4, 3], strides: vec![9, 1] };
        assert!(columns(0).is_apart(&columns(3)));
        assert!(columns(6).is_apart(&columns(3)));
        assert!(columns(10).is_apart(&columns(7)));
        assert!(!columns(0).is_apart(&columns(2)));
        assert!(!columns(7).is_apart(&columns(0)));
        assert!(View::contiguous(0, &[9]).is_apart(&View::contiguous(9, &[1])));
    }

    #[test]
    #[should_panic(expected = "a view reaches to")]
    fn a_view_beyond_all_memory_is_refused() {
        View { offset: 0, shape: vec![(1 << 32) + 1], strides: vec![1 << 32] }.range();
    }

    #[test]
    fn dimensions_collapse() {
        assert_eq!(View::contiguous(5, &[2, 3, 4]).collapsed(), [(24, 1)]);
        let transposed = View { offset: 0, shape: vec![3, 2], strides: vec![1, 3] };
        assert_eq!(transposed.collapsed(), [(3, 1), (2, 3)]);
        let broadcast = View { offset: 0, shape: vec![3, 2], strides: vec![0, 0] };
        assert_eq!(broadcast.collapsed(), [(6, 0)]);
    }
}
