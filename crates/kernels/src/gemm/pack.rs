//! The right operand of a product, laid out in strips of two vectors of columns: `[k, 2 · WIDTH]` each, and a last one
//! of one or two vectors, filled up with zeros.

use crate::compute::Compute;
use crate::compute::Isa;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::workspace::{Memory, View, Workspace};

/// Elements that are packed without waking the other threads.
const SERIAL: usize = 32 * 1024;

/// f32 values of a vector of `isa`.
pub fn width(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 | Isa::Avx512Bf16 => 16,
        Isa::Avx2 | Isa::Portable => 8,
    }
}

/// Columns of `n` with those that a packed operand adds.
pub fn padded_columns(isa: Isa, n: usize) -> usize {
    n.div_ceil(width(isa)) * width(isa)
}

/// What products are computed in; sums are f32 in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    #[default]
    Float32,
    /// Operands are rounded to bfloat16, of 8 bits: twice the speed.
    Bfloat16,
}

impl Precision {
    pub fn is_had_by(self, isa: Isa) -> bool {
        match self {
            Precision::Float32 => true,
            Precision::Bfloat16 => isa == Isa::Avx512Bf16,
        }
    }
}

/// Values that a packed `[k, n]` takes: pairs of bfloat16 take one.
pub fn packed_values(isa: Isa, precision: Precision, k: usize, n: usize) -> usize {
    let steps = match precision {
        Precision::Float32 => k,
        Precision::Bfloat16 => k.div_ceil(2),
    };
    steps * padded_columns(isa, n)
}

/// Packs `[.., k, n]` into strips. `to` has `batches` times [`packed_values`].
pub struct Pack {
    isa: Isa,
    precision: Precision,
    pub(super) from: View,
    pub(super) to: usize,
    needed: usize,
}

impl Pack {
    /// Prepares packing of `from`, of two dimensions or more, to the contiguous place `to`.
    ///
    /// # Panics
    /// When both overlap, `from` has fewer than two dimensions, or `isa` doesn't have the precision.
    pub fn new((isa, precision): (Isa, Precision), from: View, to: usize) -> Pack {
        assert!(precision.is_had_by(isa), "{isa} has no products of {precision:?}");
        let rank = from.shape.len();
        assert!(rank >= 2, "a matrix has two dimensions");
        let batches: usize = from.shape[..rank - 2].iter().product();
        let values = batches * packed_values(isa, precision, from.shape[rank - 2], from.shape[rank - 1]);
        let target = View::contiguous(to, &[values]);
        assert!(from.is_apart(&target), "packing in place");
        let needed = from.range().end.max(to + values);
        Pack { isa, precision, from, to, needed }
    }

    /// # Panics
    /// When `compute` has another instruction set than it was prepared for, or the workspace is too small.
    pub fn run(&self, compute: &Compute, workspace: &mut Workspace) {
        assert_eq!(self.isa, compute.isa(), "the instruction sets of a packing and of its threads");
        let memory = workspace.memory(self.needed, compute.pool());
        let rank = self.from.shape.len();
        let (k, n) = (self.from.shape[rank - 2], self.from.shape[rank - 1]);
        let strip = 2 * width(self.isa);
        let strips = n.div_ceil(strip);
        let batches: usize = self.from.shape[..rank - 2].iter().product();
        let task = |item: usize| {
            let (batch, strip) = (item / strips, item % strips);
            match self.precision {
                Precision::Float32 => dispatch(self.isa, Strip { pack: self, memory, batch, strip }),
                // SAFETY: the instruction set has it, as `new` found, and is `compute`'s, so the machine has that; `new`
                // checked the views; each strip is packed once.
                #[cfg(target_arch = "x86_64")]
                Precision::Bfloat16 => unsafe { super::bf16::pack_strip(self, memory, batch, strip) },
                #[cfg(not(target_arch = "x86_64"))]
                Precision::Bfloat16 => unreachable!("`new` refuses it here"),
            }
        };
        if batches * k * n <= SERIAL {
            (0..batches * strips).for_each(task);
        } else {
            compute.pool().for_each(batches * strips, task);
        }
    }
}

/// The offset of the `index`-th of the elements that `shape` and `strides` span.
pub(super) fn offset_of(shape: &[usize], strides: &[isize], mut index: usize) -> isize {
    let mut offset = 0;
    for (&size, &stride) in shape.iter().zip(strides).rev() {
        offset += (index % size) as isize * stride;
        index /= size;
    }
    offset
}

struct Strip<'a> {
    pack: &'a Pack,
    memory: Memory<'a>,
    batch: usize,
    strip: usize,
}

impl Kernel for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let from = &self.pack.from;
        let rank = from.shape.len();
        let (k, n) = (from.shape[rank - 2], from.shape[rank - 1]);
        let padded = n.div_ceil(L::WIDTH) * L::WIDTH;
        let first = self.strip * 2 * L::WIDTH;
        let strip_width = (2 * L::WIDTH).min(padded - first);
        let columns = strip_width.min(n - first);
        let (k_stride, n_stride) = (from.strides[rank - 2], from.strides[rank - 1]);
        let base = offset_of(&from.shape[..rank - 2], &from.strides[..rank - 2], self.batch);
        let start = from.offset as isize + base + first as isize * n_stride;
        // SAFETY: a strip's place is its own, `[k, strip_width]`, and `new` found it inside the workspace.
        let to = unsafe {
            let at = self.memory.at(self.pack.to + self.batch * k * padded + first * k);
            std::slice::from_raw_parts_mut(at, k * strip_width)
        };
        for (i, row) in to.chunks_exact_mut(strip_width).enumerate() {
            row[columns..].fill(0.0);
            if n_stride == 1 {
                // SAFETY: `columns` elements of row `i` of the view, which `new` found inside the workspace and apart.
                let values = unsafe {
                    let at = self.memory.at((start + i as isize * k_stride) as usize);
                    std::slice::from_raw_parts(at, columns)
                };
                // A call for so few takes longer than they do.
                if columns == 2 * L::WIDTH {
                    lanes.write(row, lanes.read(values));
                    lanes.write(&mut row[L::WIDTH..], lanes.read(&values[L::WIDTH..]));
                } else {
                    row[..columns].copy_from_slice(values);
                }
            }
        }
        if n_stride == 1 {
            return;
        }
        // Sixteen steps of k at a time: the lines that a column's values are read from stay in the first cache.
        let whole_columns = if k_stride == 1 { columns / L::WIDTH * L::WIDTH } else { 0 };
        for block in (0..k).step_by(16) {
            let steps = 16.min(k - block);
            let whole_steps = steps / L::WIDTH * L::WIDTH;
            for column in (0..whole_columns).step_by(L::WIDTH) {
                for step in (block..block + whole_steps).step_by(L::WIDTH) {
                    let at = start + step as isize + column as isize * n_stride;
                    let to = &mut to[step * strip_width + column..];
                    assert!(to.len() > (L::WIDTH - 1) * strip_width + L::WIDTH - 1);
                    // SAFETY: a square of the view, inside the workspace, and as just seen of the strip.
                    unsafe {
                        let from = self.memory.at(at as usize).cast_const();
                        lanes.transpose(from, n_stride, to.as_mut_ptr(), strip_width);
                    }
                }
            }
            for column in 0..columns {
                let first = if column < whole_columns { block + whole_steps } else { block };
                for i in first..block + steps {
                    let at = start + i as isize * k_stride + column as isize * n_stride;
                    // SAFETY: an element of the view, inside the workspace.
                    to[i * strip_width + column] = unsafe { *self.memory.at(at as usize) };
                }
            }
        }
    }
}
