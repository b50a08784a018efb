//! Activations as 8-bit integers: one scale for each 32 elements of a row.

use crate::compute::Compute;
use crate::elements::BLOCK;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::memory::AlignedVec;
use crate::threads::DisjointMut;

/// Blocks whose largest element is below this count as zero: their scale's inverse would overflow.
const SMALLEST: f32 = 1e-30;

/// A batch's activations in the form that quantised weights read. Its buffers are made once, for the largest batch.
pub struct QuantizedRows {
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
    /// Buffers for `rows_max` rows of `columns_max` elements.
    pub fn new(rows_max: usize, columns_max: usize) -> QuantizedRows {
        let blocks = rows_max * columns_max.div_ceil(BLOCK);
        QuantizedRows {
            columns: 0,
            rows: 0,
            codes: AlignedVec::zeroed(blocks * BLOCK),
            scales: AlignedVec::zeroed(blocks),
            sums: AlignedVec::zeroed(2 * blocks),
            scaled_sums: AlignedVec::zeroed(blocks),
        }
    }

    /// Quantises `values`, `[m, columns]`. Rows that are no whole number of blocks are left out: only float weights
    /// have such, and these don't read this form.
    ///
    /// # Panics
    /// When the buffers are too small.
    pub fn quantize(&mut self, compute: &Compute, values: &[f32], columns: usize) {
        (self.rows, self.columns) = (values.len() / columns, columns);
        if !columns.is_multiple_of(BLOCK) {
            self.rows = 0;
            return;
        }
        let blocks = columns / BLOCK;
        let codes = DisjointMut::new(&mut self.codes[..self.rows * columns]);
        let scales = DisjointMut::new(&mut self.scales[..self.rows * blocks]);
        let sums = DisjointMut::new(&mut self.sums[..2 * self.rows * blocks]);
        let scaled_sums = DisjointMut::new(&mut self.scaled_sums[..self.rows * blocks]);
        let rows = self.rows;
        let share = rows.div_ceil(compute.pool().threads()).max(4);
        compute.pool().for_each(rows.div_ceil(share), |task| {
            for row in task * share..((task + 1) * share).min(rows) {
                // SAFETY: each row is written by one task.
                let (codes, scales, sums, scaled_sums) = unsafe {
                    (
                        codes.slice(row * columns, columns),
                        scales.slice(row * blocks, blocks),
                        sums.slice(2 * row * blocks, 2 * blocks),
                        scaled_sums.slice(row * blocks, blocks),
                    )
                };
                let values = &values[row * columns..][..columns];
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
        let blocks = columns / BLOCK;
        Activations {
            columns,
            codes: &self.codes[..m * columns],
            scales: &self.scales[..m * blocks],
            sums: &self.sums[..2 * m * blocks],
            scaled_sums: &self.scaled_sums[..m * blocks],
        }
    }
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
