//! The product of bfloat16 rows with panels of bfloat16 weights, `[k/2, 32, 2]`, on AVX-512 with BF16.
//!
//! `vdpbf16ps` multiplies two neighbours in `k` and adds both products to an `f32`. It takes denormal numbers for zero.
//! A sum is taken in the order of `k`, so that its bits don't depend on how many rows are computed together, nor on where
//! it is put down and taken up again.

use std::arch::x86_64::*;

use super::Span;
use crate::threads::DisjointMut;

/// Output columns of a panel: two vectors.
const N: usize = 32;
/// Pairs of a panel that all rows meet before the next ones: they stay in the first-level cache.
const STEPS: usize = 256;

/// Rounds a row to the nearest, ties to even, two elements to a place. Denormal numbers become zero.
///
/// # Panics
/// When `to` has another length than half of the row's.
pub(super) fn round(values: &[f32], to: &mut [u32]) {
    assert!(to.len() == values.len().div_ceil(2), "a place for each pair");
    // SAFETY: this path is taken only where `Isa::available` found AVX-512 with BF16.
    unsafe { round_row(values, to) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round_row(values: &[f32], to: &mut [u32]) {
    for (values, to) in values.chunks(N).zip(to.chunks_mut(N / 2)) {
        let (first, second) = values.split_at(values.len().min(16));
        let mask = |count: usize| ((1u32 << count) - 1) as __mmask16;
        // SAFETY: masked loads and stores touch only what is there.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask(first.len()), first.as_ptr());
            let high = _mm512_maskz_loadu_ps(mask(second.len()), second.as_ptr());
            let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), mask(to.len()), pairs);
        }
    }
}

/// Writes `out[row, column]` for the span's rows and columns.
pub(super) fn product(span: &Span<'_, &[u32]>, out: &DisjointMut<'_, f32>) {
    // SAFETY: this path is taken only where `Isa::available` found AVX-512 with BF16.
    unsafe { panels(span, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn panels(span: &Span<'_, &[u32]>, out: &DisjointMut<'_, f32>) {
    let pairs = span.weights.columns().div_ceil(2);
    assert!(span.rows.end * pairs <= span.activations.len());
    for panel in span.panels.clone() {
        assert!(span.weights.panel(panel).len() == 4 * N * pairs);
        for first in (0..pairs).step_by(STEPS) {
            let steps = Steps { panel, first, count: STEPS.min(pairs - first), pairs };
            let mut row = span.rows.start;
            while row < span.rows.end {
                // SAFETY: there are such rows and steps, as checked.
                row += unsafe {
                    match span.rows.end - row {
                        12.. => tile::<12>(span, &steps, row, out),
                        8.. => tile::<8>(span, &steps, row, out),
                        4.. => tile::<4>(span, &steps, row, out),
                        2.. => tile::<2>(span, &steps, row, out),
                        _ => tile::<1>(span, &steps, row, out),
                    }
                };
            }
        }
    }
}

/// Some of a panel's pairs.
struct Steps {
    panel: usize,
    first: usize,
    count: usize,
    /// Those of a row.
    pairs: usize,
}

/// Adds the steps to `R` rows from `row` on, and returns `R`.
///
/// # Safety
/// There are such rows in the activations, and such steps in the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn tile<const R: usize>(
    span: &Span<'_, &[u32]>,
    steps: &Steps,
    row: usize,
    out: &DisjointMut<'_, f32>,
) -> usize {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let mut edge = [0.0f32; N];
    if steps.first > 0 {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: a panel's columns of a row are used by one task; `edge` has two vectors.
            unsafe {
                let before = span.place(out, row + r, steps.panel);
                edge[..before.len()].copy_from_slice(before);
                *sums = [_mm512_loadu_ps(edge.as_ptr()), _mm512_loadu_ps(edge.as_ptr().add(16))];
            }
        }
    }
    let weights = span.weights.panel(steps.panel)[4 * N * steps.first..].as_ptr();
    let values = span.activations[row * steps.pairs + steps.first..].as_ptr();
    for i in 0..steps.count {
        // SAFETY: the caller's promise, and `i` is below the count.
        unsafe {
            let at = weights.add(4 * N * i);
            let pairs = [load(at), load(at.add(64))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = *values.add(r * steps.pairs + i) as i32;
                let value: __m512bh = std::mem::transmute(_mm512_set1_epi32(value));
                sums[0] = _mm512_dpbf16_ps(sums[0], value, pairs[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], value, pairs[1]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: as above.
        unsafe {
            _mm512_storeu_ps(edge.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(edge.as_mut_ptr().add(16), sums[1]);
            let place = span.place(out, row + r, steps.panel);
            place.copy_from_slice(&edge[..place.len()]);
        }
    }
    R
}

/// Sixteen pairs.
///
/// # Safety
/// There are as many.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn load(from: *const u8) -> __m512bh {
    // SAFETY: as for this function; every vector of 512 bits may be taken for one of pairs.
    unsafe { std::mem::transmute(_mm512_loadu_si512(from.cast())) }
}
