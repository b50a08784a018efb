//! The product of float rows with one panel of float weights.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::pack::FLOAT_COLUMNS;
use crate::compute::Isa;
use crate::elements::ElementType;
use crate::multiversion::{multiply_add, multiversion};
use crate::threads::DisjointMut;

/// Elements of `k` that are widened to `f32` at a time.
const STEPS: usize = 128;
/// Rows that share each widened weight.
const ROWS: usize = 4;

type Widened = [[f32; FLOAT_COLUMNS]; STEPS];

/// Writes `out[row, column]` for all rows of `values`, `[m, k]`, and a panel's columns: first, count, and columns of `out`.
pub(super) fn panel_product(
    isa: Isa,
    element_type: ElementType,
    values: &[f32],
    k: usize,
    panel: &[u8],
    (column, columns, stride): (usize, usize, usize),
    out: &DisjointMut<'_, f32>,
) {
    let mut widened: Widened = [[0.0; FLOAT_COLUMNS]; STEPS];
    let step_bytes = FLOAT_COLUMNS * element_type.block_bytes();
    for (chunk, bytes) in panel.chunks(STEPS * step_bytes).enumerate() {
        let steps = bytes.len() / step_bytes;
        widen(isa, element_type, bytes, widened.as_flattened_mut());
        let target = Target { column, columns, stride, first: chunk == 0 };
        multiply(isa, values, k, chunk * STEPS, &widened[..steps], &target, out);
    }
}

/// Where in the result a panel's columns are, and whether they are begun or added to.
struct Target {
    column: usize,
    columns: usize,
    stride: usize,
    first: bool,
}

fn widen(isa: Isa, element_type: ElementType, bytes: &[u8], out: &mut [f32]) {
    match element_type {
        ElementType::F16 => {
            let (bits, _) = bytes.as_chunks::<2>();
            let mut halves = [f16::ZERO; FLOAT_COLUMNS * STEPS];
            let halves = &mut halves[..bits.len()];
            halves.iter_mut().zip(bits).for_each(|(half, bits)| *half = f16::from_le_bytes(*bits));
            halves.convert_to_f32_slice(&mut out[..bits.len()]);
        }
        ElementType::BF16 => widen_bf16(isa, bytes, out),
        _ => crate::elements::dequantize(ElementType::F32, bytes, &mut out[..bytes.len() / 4]),
    }
}

multiversion! {
    fn widen_bf16(bytes: &[u8], out: &mut [f32]) = widen_bf16_body
}

#[inline(always)]
fn widen_bf16_body<const FMA: bool>(bytes: &[u8], out: &mut [f32]) {
    let (bits, _) = bytes.as_chunks::<2>();
    for (out, bits) in out.iter_mut().zip(bits) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bits)) << 16);
    }
}

multiversion! {
    /// Adds `steps` elements of `k`, from `start` on, to every row.
    fn multiply(
        values: &[f32], k: usize, start: usize, steps: &[[f32; FLOAT_COLUMNS]], target: &Target,
        out: &DisjointMut<'_, f32>,
    ) = multiply_body
}

#[inline(always)]
fn multiply_body<const FMA: bool>(
    values: &[f32],
    k: usize,
    start: usize,
    steps: &[[f32; FLOAT_COLUMNS]],
    target: &Target,
    out: &DisjointMut<'_, f32>,
) {
    let m = values.len() / k;
    let mut row = 0;
    while row + ROWS <= m {
        rows::<FMA, ROWS>(values, k, start, steps, target, row, out);
        row += ROWS;
    }
    while row < m {
        rows::<FMA, 1>(values, k, start, steps, target, row, out);
        row += 1;
    }
}

#[inline(always)]
fn rows<const FMA: bool, const R: usize>(
    values: &[f32],
    k: usize,
    start: usize,
    steps: &[[f32; FLOAT_COLUMNS]],
    target: &Target,
    row: usize,
    out: &DisjointMut<'_, f32>,
) {
    let mut sums = [[0.0f32; FLOAT_COLUMNS]; R];
    let place = |r: usize| (row + r) * target.stride + target.column;
    if !target.first {
        for r in 0..R {
            // SAFETY: a panel's columns of a row are used by one task.
            let before = unsafe { out.slice(place(r), target.columns) };
            sums[r][..target.columns].copy_from_slice(before);
        }
    }
    let inputs: [&[f32]; R] = std::array::from_fn(|r| &values[(row + r) * k + start..][..steps.len()]);
    for (i, weights) in steps.iter().enumerate() {
        for r in 0..R {
            let value = inputs[r][i];
            for c in 0..FLOAT_COLUMNS {
                sums[r][c] = multiply_add::<FMA>(value, weights[c], sums[r][c]);
            }
        }
    }
    for r in 0..R {
        // SAFETY: as above.
        unsafe { out.slice(place(r), target.columns) }.copy_from_slice(&sums[r][..target.columns]);
    }
}
