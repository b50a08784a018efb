//! Activations in the forms that weights read: 8-bit integers with a scale for each 32 elements of a row, and pairs of
//! bfloat16.

#[cfg(target_arch = "x86_64")]
use super::avx512_bf16;
use crate::compute::{Compute, Isa};
use crate::elements::BLOCK;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::memory::AlignedVec;
use crate::threads::DisjointMut;

/// Blocks whose largest element is below this count as zero: their scale's inverse would overflow.
const SMALLEST: f32 = 1e-30;

/// Forms of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// 8-bit integers, for quantised weights.
    pub codes: bool,
    /// Pairs of bfloat16, for weights of that type where the instruction set multiplies such.
    pub pairs: bool,
}

impl std::ops::BitOr for Forms {
    type Output = Forms;

    fn bitor(self, other: Forms) -> Forms {
        Forms { codes: self.codes | other.codes, pairs: self.pairs | other.pairs }
    }
}

/// A batch's activations in the forms that its weights read. Its buffers are made once, for the largest batch.
pub struct QuantizedRows {
    forms: Forms,
    columns: usize,
    rows: usize,
    /// `[m, k]`, between -127 and 127.
    codes: AlignedVec<i8>,
    /// `[m, k/32]`: an element is its code times its block's scale.
    scales: AlignedVec<f32>,
    /// `[m, k/32, 2]`: the sums of the codes of each half block.
    sums: AlignedVec<i16>,
    /// `[m, k/32]`: the sum of a block's codes times its scale.
    scaled_sums: AlignedVec<f32>,
    /// `[m, k/2]`: two elements each, the first in the low half.
    pairs: AlignedVec<u32>,
}

/// Quantised rows as kernels see them.
#[derive(Clone, Copy)]
pub(super) struct Activations<'a> {
    pub columns: usize,
    pub codes: &'a [i8],
    pub scales: &'a [f32],
    pub sums: &'a [i16],
    pub scaled_sums: &'a [f32],
}

impl QuantizedRows {
    /// Buffers for `rows_max` rows of `columns_max` elements in these forms.
    pub fn new(rows_max: usize, columns_max: usize, forms: Forms) -> QuantizedRows {
        let blocks = if forms.codes { rows_max * columns_max.div_ceil(BLOCK) } else { 0 };
        let pairs = if forms.pairs { rows_max * columns_max.div_ceil(2) } else { 0 };
        QuantizedRows {
            forms,
            columns: 0,
            rows: 0,
            codes: AlignedVec::zeroed(blocks * BLOCK),
            scales: AlignedVec::zeroed(blocks),
            sums: AlignedVec::zeroed(2 * blocks),
            scaled_sums: AlignedVec::zeroed(blocks),
            pairs: AlignedVec::zeroed(pairs),
        }
    }

    /// Has `fill(row, values)` write each row of `values`, `[m, columns]`, and takes it while it is in the cache. Rows
    /// that are no whole number of blocks have no codes: only float weights meet such.
    ///
    /// # Panics
    /// When the buffers are too small.
    pub fn fill(
        &mut self,
        compute: &Compute,
        values: &mut [f32],
        columns: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        assert!(values.len().is_multiple_of(columns), "{} are no whole rows of {columns}", values.len());
        (self.rows, self.columns) = (values.len() / columns, columns);
        let rows = self.rows;
        let rounds = self.forms.pairs && compute.isa() == Isa::Avx512Bf16;
        let blocks = if self.forms.codes && columns.is_multiple_of(BLOCK) { columns / BLOCK } else { 0 };
        let stride = if rounds { columns.div_ceil(2) } else { 0 };
        let values = DisjointMut::new(values);
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] // only there rows are rounded
        let pairs = DisjointMut::new(&mut self.pairs[..rows * stride]);
        let codes = DisjointMut::new(&mut self.codes[..rows * blocks * BLOCK]);
        let scales = DisjointMut::new(&mut self.scales[..rows * blocks]);
        let sums = DisjointMut::new(&mut self.sums[..2 * rows * blocks]);
        let scaled_sums = DisjointMut::new(&mut self.scaled_sums[..rows * blocks]);
        for_shares(compute, rows, |row| {
            // SAFETY: each row is written by one task.
            let values = unsafe { values.slice(row * columns, columns) };
            fill(row, values);
            #[cfg(target_arch = "x86_64")]
            if rounds {
                // SAFETY: as above.
                avx512_bf16::round(values, unsafe { pairs.slice(row * stride, stride) });
            }
            if blocks > 0 {
                // SAFETY: as above.
                let (codes, scales, sums, scaled_sums) = unsafe {
                    (
                        codes.slice(row * columns, columns),
                        scales.slice(row * blocks, blocks),
                        sums.slice(2 * row * blocks, 2 * blocks),
                        scaled_sums.slice(row * blocks, blocks),
                    )
                };
                dispatch(compute.isa(), QuantizeRow { values, codes, scales, sums, scaled_sums });
            }
        });
    }

    /// What was quantised last, which must have been `m` rows of `columns`.
    pub(super) fn rows(&self, m: usize, columns: usize) -> Activations<'_> {
        assert_eq!(
            (self.rows, self.columns),
            (m, columns),
            "rows and columns quantised, and those asked for"
        );
        assert!(self.forms.codes && columns.is_multiple_of(BLOCK), "rows of {columns} have no codes");
        let blocks = columns / BLOCK;
        Activations {
            columns,
            codes: &self.codes[..m * columns],
            scales: &self.scales[..m * blocks],
            sums: &self.sums[..2 * m * blocks],
            scaled_sums: &self.scaled_sums[..m * blocks],
        }
    }

    /// The pairs of what was taken last, which must have been `m` rows of `columns`.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn pairs(&self, m: usize, columns: usize) -> &[u32] {
        assert_eq!((self.rows, self.columns), (m, columns), "rows and columns rounded, and those asked for");
        &self.pairs[..m * columns.div_ceil(2)]
    }
}

/// Each row once, a few at a time by whichever thread is free.
fn for_shares(compute: &Compute, rows: usize, row: impl Fn(usize) + Sync) {
    let share = rows.div_ceil(compute.pool().threads()).max(4);
    compute.pool().for_each(rows.div_ceil(share), |task| {
        (task * share..((task + 1) * share).min(rows)).for_each(&row);
    });
}

/// One row: to the nearest code, ties to even; a block with an infinity or no number in it scales by NaN.
struct QuantizeRow<'a> {
    values: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i16],
    scaled_sums: &'a mut [f32],
}

impl Kernel for QuantizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (values, codes) = (self.values.as_chunks::<BLOCK>().0, self.codes.as_chunks_mut::<BLOCK>().0);
        let all_finite = is_finite(lanes, self.values);
        let blocks = values.iter().zip(codes).zip(self.scales).zip(self.sums.as_chunks_mut::<2>().0);
        for ((((values, codes), scale), sums), scaled_sum) in blocks.zip(self.scaled_sums) {
            let zero = lanes.splat(0.0);
            let mut largest = zero;
            for i in (0..BLOCK).step_by(L::WIDTH) {
                let x = lanes.read(&values[i..]);
                largest = lanes.max(lanes.max(x, lanes.sub(zero, x)), largest);
            }
            let largest = lanes.largest(largest);
            let finite = all_finite || is_finite(lanes, values);
            if !finite || largest < SMALLEST {
                *scale = if finite { 0.0 } else { f32::NAN };
                (*codes, *sums, *scaled_sum) = ([0; BLOCK], [0; 2], *scale);
                continue;
            }
            *scale = largest / 127.0;
            let inverse = lanes.splat(127.0 / largest);
            for half in 0..2 {
                let mut sum = zero;
                for i in (half * BLOCK / 2..(half + 1) * BLOCK / 2).step_by(L::WIDTH) {
                    let code = lanes.round(lanes.mul(lanes.read(&values[i..]), inverse));
                    sum = lanes.add(sum, code);
                    // SAFETY: a block has `BLOCK` codes, a multiple of twice every width.
                    unsafe { lanes.store_i8(codes.as_mut_ptr().add(i), code) };
                }
                sums[half] = lanes.sum(sum) as i16;
            }
            *scaled_sum = *scale * f32::from(sums[0] + sums[1]);
        }
    }
}

/// Whether a whole number of blocks has no infinity and no NaN: nothing else is other than zero times zero.
#[inline(always)]
fn is_finite<L: Lanes>(lanes: L, values: &[f32]) -> bool {
    let zero = lanes.splat(0.0);
    let mut spoilt = zero;
    for i in (0..values.len()).step_by(L::WIDTH) {
        spoilt = lanes.fma(lanes.read(&values[i..]), zero, spoilt);
    }
    lanes.sum(spoilt) == 0.0
}
