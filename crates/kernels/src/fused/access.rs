//! How operands of a fused pass stand in memory: one after the other, all the same, or at strides.

use crate::lanes::WIDTH_MAX;
use crate::workspace::{Memory, View};

/// Dimensions that a collapsed view may have.
const RANK_MAX: usize = 8;
/// The longest run that is computed on where it stands.
const LINE_MAX: usize = 1024;

/// Where an operand's elements are, in the order of the pass.
#[derive(Clone, Debug)]
pub(super) enum Access {
    Flat(usize),
    Scalar(usize),
    Strided(Strided),
}

#[derive(Clone, Debug)]
pub(super) struct Strided {
    offset: usize,
    rank: usize,
    sizes: [usize; RANK_MAX],
    strides: [isize; RANK_MAX],
}

impl Access {
    /// # Panics
    /// When the view has more than 8 dimensions that don't collapse.
    pub(super) fn of(view: &View) -> Access {
        let dims = view.collapsed();
        if dims.is_empty() || dims.iter().all(|&(_, stride)| stride == 0) {
            return Access::Scalar(view.offset);
        }
        if dims.len() == 1 && dims[0].1 == 1 {
            return Access::Flat(view.offset);
        }
        assert!(dims.len() <= RANK_MAX, "{} dimensions, at most {RANK_MAX}", dims.len());
        let mut strided =
            Strided { offset: view.offset, rank: dims.len(), sizes: [1; RANK_MAX], strides: [0; RANK_MAX] };
        for (i, &(size, stride)) in dims.iter().enumerate() {
            strided.sizes[i] = size;
            strided.strides[i] = stride;
        }
        Access::Strided(strided)
    }
}

impl Strided {
    /// The length and the distance of runs of whole vectors, if it is nothing but such runs.
    pub(super) fn lines(&self) -> Option<(usize, usize)> {
        let pitch = usize::try_from(self.strides[0]).ok()?;
        let len = self.sizes[1];
        let is_lines = self.rank == 2 && self.strides[1] == 1 && len.is_multiple_of(WIDTH_MAX);
        (is_lines && len <= LINE_MAX).then_some((len, pitch))
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Calls `$each(offset of the run's first element, stride, length, done)` for the runs of the last dimension that
    /// make up elements `start..start + count`.
    #[inline(always)]
    fn runs(&self, start: usize, count: usize, mut each: impl FnMut(usize, isize, usize, usize)) {
        let last = self.rank - 1;
        let (inner, stride) = (self.sizes[last], self.strides[last]);
        let mut position = start % inner;
        let mut rest = start / inner;
        let mut index = [0usize; RANK_MAX];
        let mut base = self.offset as isize;
        for axis in (0..last).rev() {
            index[axis] = rest % self.sizes[axis];
            rest /= self.sizes[axis];
            base += index[axis] as isize * self.strides[axis];
        }
        let mut done = 0;
        while done < count {
            let run = (inner - position).min(count - done);
            each((base + position as isize * stride) as usize, stride, run, done);
            done += run;
            position = 0;
            for axis in (0..last).rev() {
                index[axis] += 1;
                base += self.strides[axis];
                if index[axis] < self.sizes[axis] {
                    break;
                }
                base -= index[axis] as isize * self.strides[axis];
                index[axis] = 0;
            }
        }
    }

    /// Copies elements `start..start + count` of the view to `to`.
    ///
    /// # Safety
    /// The view is inside the workspace, and `to` has room.
    #[inline(always)]
    pub(super) unsafe fn load(&self, memory: Memory<'_>, start: usize, count: usize, to: *mut f32) {
        self.runs(start, count, |at, stride, run, done| {
            // SAFETY: elements of the view; the caller promises room.
            unsafe {
                let (from, to) = (memory.at(at).cast_const(), to.add(done));
                match stride {
                    0 => std::slice::from_raw_parts_mut(to, run).fill(*from),
                    1 => std::ptr::copy_nonoverlapping(from, to, run),
                    _ => (0..run).for_each(|i| *to.add(i) = *from.offset(i as isize * stride)),
                }
            }
        });
    }

    /// Copies `count` elements at `from` to elements `start..` of the view.
    ///
    /// # Safety
    /// The view is inside the workspace, the elements belong to the caller alone, and `from` is readable.
    #[inline(always)]
    pub(super) unsafe fn store(&self, memory: Memory<'_>, start: usize, count: usize, from: *const f32) {
        self.runs(start, count, |at, stride, run, done| {
            // SAFETY: elements of the view, the caller's alone.
            unsafe {
                let (to, from) = (memory.at(at), from.add(done));
                match stride {
                    1 => std::ptr::copy_nonoverlapping(from, to, run),
                    _ => (0..run).for_each(|i| *to.offset(i as isize * stride) = *from.add(i)),
                }
            }
        });
    }
}
