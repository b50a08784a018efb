//! The product of quantised rows with panels of 16 columns, on AVX-512 with VNNI.
//!
//! `vpdpbusd` multiplies four unsigned codes with four signed activations and adds them in 32 bits, exactly: beginning
//! from what the zero point takes off, it sums half a block or a whole one. Codes that stand for signed bytes are taken
//! 128 higher. Small scales are applied in `f32`, where these sums and their products with them are exact too: they
//! stay below `2^24`.

mod codes;

use std::arch::x86_64::*;

use super::Span;
use super::panel::{Format, GROUP, GROUPS, Of, Small, for_quantized};
use super::rows::Rows;
use crate::elements::BLOCK;
use crate::threads::DisjointMut;
use codes::{Factors, Header, group_codes};

/// Output columns of a panel, one to each 32-bit lane.
const N: usize = 16;
/// How far ahead of the codes in use memory is asked for more.
const PREFETCH_BYTES: usize = 3072;

/// Writes `out[row, column]` for the span's rows and columns.
pub(super) fn product(format: &Format, span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    // SAFETY: this path is taken only where `Isa::available` found AVX-512 F, BW, VL and VNNI.
    unsafe {
        for_quantized!(format.element_type, typed(span, out));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn typed<const T: usize>(span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    for panel in span.panels.clone() {
        let mut row = span.rows.start;
        while row + 16 <= span.rows.end {
            tile::<T, 16>(span, panel, row, out);
            row += 16;
        }
        if row + 8 <= span.rows.end {
            tile::<T, 8>(span, panel, row, out);
            row += 8;
        }
        if row + 4 <= span.rows.end {
            tile::<T, 4>(span, panel, row, out);
            row += 4;
        }
        if row + 2 <= span.rows.end {
            tile::<T, 2>(span, panel, row, out);
            row += 2;
        }
        if row < span.rows.end {
            tile::<T, 1>(span, panel, row, out);
        }
    }
}

/// `R` rows from `row` on with one panel. Each sum takes the same operations in the same order whatever `R` is.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile<const T: usize, const R: usize>(
    span: &Span<'_>,
    panel: usize,
    row: usize,
    out: &DisjointMut<'_, f32>,
) {
    let format = &Of::<T>::FORMAT;
    let blocks = span.activations.columns / BLOCK;
    let panel_bytes = span.weights.panel(panel);
    assert!(panel_bytes.len() == blocks / format.per_super * format.super_bytes(N));
    let rows = Rows::<R>::new(&span.activations, row);
    let mut sums = [_mm512_setzero_ps(); R];
    let mut bytes = panel_bytes.as_ptr();
    // SAFETY: `bytes` walks over the panel, whose length was checked.
    unsafe {
        for super_block in 0..blocks / format.per_super {
            let header = Header::read::<T>(bytes);
            bytes = bytes.add(format.header_bytes(N));
            for block in super_block * format.per_super..(super_block + 1) * format.per_super {
                for line in (0..format.block_bytes(N)).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(PREFETCH_BYTES + line).cast());
                }
                let factors = Factors::read::<T>(&header, bytes);
                let codes = bytes.add(format.small_bytes(N));
                add_block::<T, R>(codes, &factors, &rows, block, &mut sums);
                bytes = bytes.add(format.block_bytes(N));
            }
        }
    }
    for r in 0..R {
        // SAFETY: a panel's columns of a row are written by one task, and the mask keeps to those that are there.
        unsafe {
            let place = span.place(out, row + r, panel);
            let columns = ((1u32 << place.len()) - 1) as __mmask16;
            _mm512_mask_storeu_ps(place.as_mut_ptr(), columns, sums[r]);
        }
    }
}

/// Whether the two halves of a block have scales of their own.
const fn halves(format: &Format) -> bool {
    matches!(format.small, Small::ScaleOfHalf | Small::ScaleAndMinOfHalf)
}

/// What is taken off each code, as a shift; codes of signed bytes are all 128 too high.
const fn zero_shift(format: &Format) -> Option<u32> {
    if format.nonlinear { Some(7) } else { format.zero_shift }
}

/// Adds the products of block `block` of `R` rows with that of a panel to `sums`. All codes of the block stay in
/// registers while the rows pass by.
///
/// # Safety
/// `codes` is at the planes of a block of type `T`, and `rows` has the block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn add_block<const T: usize, const R: usize>(
    codes: *const u8,
    factors: &Factors,
    rows: &Rows<R>,
    block: usize,
    sums: &mut [__m512; R],
) {
    let format = &Of::<T>::FORMAT;
    /// One group: written out eight times, since shifts are then constants.
    macro_rules! group {
        ($group:literal) => {
            // SAFETY: as for this function.
            unsafe { group_codes::<T>(codes, $group) }
        };
    }
    let weights: [__m512i; GROUPS] =
        [group!(0), group!(1), group!(2), group!(3), group!(4), group!(5), group!(6), group!(7)];
    for r in 0..R {
        let at = r * rows.blocks + block;
        // SAFETY: as for this function.
        unsafe {
            let [first, second] = products::<T, R>(&weights, rows, at).map(|sum| _mm512_cvtepi32_ps(sum));
            let product = if halves(format) {
                _mm512_fmadd_ps(second, factors.scales[1], _mm512_mul_ps(first, factors.scales[0]))
            } else {
                first
            };
            let scale = _mm512_set1_ps(*rows.scales.add(at));
            sums[r] = _mm512_fmadd_ps(_mm512_mul_ps(factors.d, scale), product, sums[r]);
            if matches!(format.small, Small::ScaleAndMinOfHalf) {
                for half in 0..2 {
                    let sum = f32::from(*rows.half_sums.add(2 * at + half));
                    let sum = _mm512_mul_ps(scale, _mm512_set1_ps(sum));
                    sums[r] = _mm512_fnmadd_ps(factors.mins[half], sum, sums[r]);
                }
            } else if format.has_min {
                let sum = _mm512_set1_ps(*rows.scaled_sums.add(at));
                sums[r] = _mm512_fnmadd_ps(factors.mins[0], sum, sums[r]);
            }
        }
    }
}

/// Sums of code less zero point times activation for block `at` of the rows: of the two halves of the block where these
/// are scaled apart, else of all of it and nothing.
///
/// # Safety
/// As for [`add_block`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn products<const T: usize, const R: usize>(
    weights: &[__m512i; GROUPS],
    rows: &Rows<R>,
    at: usize,
) -> [__m512i; 2] {
    let format = &Of::<T>::FORMAT;
    let mut sums = [_mm512_setzero_si512(); 2];
    if let Some(shift) = zero_shift(format) {
        // SAFETY: each block has the sums of its two halves.
        let [first, second] =
            unsafe { *rows.half_sums.add(2 * at).cast::<[i16; 2]>() }.map(|sum| -(i32::from(sum) << shift));
        sums = if halves(format) {
            [_mm512_set1_epi32(first), _mm512_set1_epi32(second)]
        } else {
            [_mm512_set1_epi32(first + second), sums[1]]
        };
    }
    for group in 0..GROUPS {
        // In two chains in any case: one waits for itself.
        let half = group / (GROUPS / 2);
        // SAFETY: four activations of the block.
        let x = unsafe {
            let x = rows.codes.add(at * BLOCK + group * GROUP);
            _mm512_set1_epi32(x.cast::<i32>().read_unaligned())
        };
        sums[half] = _mm512_dpbusd_epi32(sums[half], weights[group], x);
    }
    if !halves(format) {
        sums[0] = _mm512_add_epi32(sums[0], sums[1]);
    }
    sums
}
