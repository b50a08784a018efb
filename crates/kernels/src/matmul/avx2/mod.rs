//! The product of quantised rows with panels of 8 columns, on AVX2.
//!
//! `vpmaddubsw` multiplies unsigned codes with signed activations and adds pairs in 16 bits, which hold the sum over a
//! whole block of 4-bit codes (`2 · 15 · 127 · 8 = 30480`), half a block of 5-bit codes, a quarter of 6-bit ones. There
//! `vpmaddwd` widens it to 32 bits, and multiplies with the small scales of K-quants on the way. Codes that stand for
//! signed bytes are multiplied as magnitudes, their signs moved to the activations, and are widened each time.
//!
//! Few rows read the packed codes directly. Many rows share codes that were unpacked once (`strip`).

mod codes;
mod strip;

use std::arch::x86_64::*;

use super::Span;
use super::panel::{Format, GROUP, GROUPS, Of, Small, for_quantized};
use super::rows::Rows;
use crate::elements::BLOCK;
use crate::threads::DisjointMut;
use codes::{Factors, Header, group_codes};

/// Output columns of a panel, one to each 32-bit lane.
const N: usize = 8;
/// Rows from which on unpacking pays.
const STRIP_ROWS: usize = 12;
/// How far ahead of the codes in use memory is asked for more.
const PREFETCH_BYTES: usize = 1536;

/// Writes `out[row, column]` for the span's rows and columns.
pub(super) fn product(format: &Format, span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    // SAFETY: this path is taken only where `Isa::available` found AVX2, FMA and F16C.
    unsafe {
        for_quantized!(format.element_type, typed(span, out));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn typed<const T: usize>(span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    if span.rows.len() >= STRIP_ROWS {
        return strip::product::<T>(span, out);
    }
    for panel in span.panels.clone() {
        let mut row = span.rows.start;
        while row + 4 <= span.rows.end {
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

/// `R` rows from `row` on with one panel, out of the packed codes. Each sum takes the same operations in the same order
/// whatever `R` is, here and in `strip`.
#[target_feature(enable = "avx2,fma,f16c")]
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
    let mut sums = [[_mm256_setzero_ps()]; R];
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
                add_block::<T, R, 1, false>(
                    bytes.add(format.small_bytes(N)),
                    &[factors],
                    &rows,
                    block,
                    &mut sums,
                );
                bytes = bytes.add(format.block_bytes(N));
            }
        }
    }
    for r in 0..R {
        // SAFETY: a panel's columns of a row are written by one task.
        store(sums[r][0], unsafe { span.place(out, row + r, panel) });
    }
}

/// Four activations, repeated.
///
/// # Safety
/// There are such a row and block.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn activations<const R: usize>(rows: &Rows<R>, row: usize, block: usize, group: usize) -> __m256i {
    // SAFETY: as for this function.
    unsafe {
        let codes = rows.codes.add((row * rows.blocks + block) * BLOCK + group * GROUP);
        _mm256_set1_epi32(codes.cast::<i32>().read_unaligned())
    }
}

/// Adds the products of block `block` of `R` rows with that of `P` panels to `sums`.
///
/// # Safety
/// `codes` has a block's codes of `P` panels, in the form that [`group_codes`] wants, and `rows` has the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_block<const T: usize, const R: usize, const P: usize, const UNPACKED: bool>(
    codes: *const u8,
    factors: &[Factors; P],
    rows: &Rows<R>,
    block: usize,
    sums: &mut [[__m256; P]; R],
) {
    let format = &Of::<T>::FORMAT;
    // SAFETY: as for this function.
    unsafe {
        let products = products::<T, R, P, UNPACKED>(codes, factors, rows, block);
        for r in 0..R {
            let at = r * rows.blocks + block;
            let scale = _mm256_broadcast_ss(&*rows.scales.add(at));
            let half_sums = _mm256_set1_epi32(rows.half_sums.add(2 * at).cast::<i32>().read_unaligned());
            for p in 0..P {
                let mut product = products[r][p];
                if format.zero_shift.is_some() && !signed(format) {
                    product = _mm256_sub_epi32(product, _mm256_madd_epi16(factors[p].zeros, half_sums));
                }
                let scaled = _mm256_mul_ps(factors[p].d, scale);
                sums[r][p] = _mm256_fmadd_ps(scaled, _mm256_cvtepi32_ps(product), sums[r][p]);
                if matches!(format.small, Small::ScaleAndMinOfHalf) {
                    let min = _mm256_cvtepi32_ps(_mm256_madd_epi16(factors[p].mins, half_sums));
                    sums[r][p] = _mm256_fnmadd_ps(_mm256_mul_ps(factors[p].m, scale), min, sums[r][p]);
                } else if format.has_min {
                    let sum = _mm256_broadcast_ss(&*rows.scaled_sums.add(at));
                    sums[r][p] = _mm256_fnmadd_ps(factors[p].m, sum, sums[r][p]);
                }
            }
        }
    }
}

/// Whether codes stand for signed bytes, beyond what `vpmaddubsw` can add up as unsigned ones.
const fn signed(format: &Format) -> bool {
    format.nonlinear || format.low_bits == 8
}

/// Groups after which 16 bits might overflow, or after which the small scale changes.
const fn groups_to_widen(format: &Format) -> usize {
    match (format.low_bits + format.high_bits, format.small) {
        (6, _) => 2,
        (5, _) | (_, Small::ScaleOfHalf | Small::ScaleAndMinOfHalf) => GROUPS / 2,
        _ => GROUPS,
    }
}

/// Sums of code times activation over a block, times the small scales, for `R` rows and `P` panels.
///
/// # Safety
/// As for [`add_block`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<const T: usize, const R: usize, const P: usize, const UNPACKED: bool>(
    codes: *const u8,
    factors: &[Factors; P],
    rows: &Rows<R>,
    block: usize,
) -> [[__m256i; P]; R] {
    let format = &Of::<T>::FORMAT;
    let zero = _mm256_setzero_si256();
    let (mut narrow, mut wide) = ([[zero; P]; R], [[zero; P]; R]);
    /// One group: written out eight times, since shifts and the places where sums are widened are then constants.
    macro_rules! group {
        ($group:literal) => {
            let weights: [__m256i; P] = std::array::from_fn(|p| {
                // SAFETY: as for this function.
                unsafe { group_codes::<T, P, UNPACKED>(codes, $group, p) }
            });
            let x: [__m256i; R] = std::array::from_fn(|r| {
                // SAFETY: as for this function.
                unsafe { activations(rows, r, block, $group) }
            });
            if signed(format) {
                for p in 0..P {
                    let magnitude = _mm256_abs_epi8(weights[p]);
                    for r in 0..R {
                        let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x[r], weights[p]));
                        let sum = _mm256_madd_epi16(pairs, factors[p].scales[0]);
                        wide[r][p] = pinned(_mm256_add_epi32(wide[r][p], sum));
                    }
                }
            } else {
                for r in 0..R {
                    for p in 0..P {
                        let pairs = _mm256_maddubs_epi16(weights[p], x[r]);
                        narrow[r][p] = pinned(_mm256_add_epi16(narrow[r][p], pairs));
                    }
                }
                if ($group + 1) % groups_to_widen(format) == 0 {
                    for r in 0..R {
                        for p in 0..P {
                            let sum =
                                _mm256_madd_epi16(narrow[r][p], factors[p].scales[$group / (GROUPS / 2)]);
                            wide[r][p] = _mm256_add_epi32(wide[r][p], sum);
                            narrow[r][p] = zero;
                        }
                    }
                }
            }
        };
    }
    group!(0);
    group!(1);
    group!(2);
    group!(3);
    group!(4);
    group!(5);
    group!(6);
    group!(7);
    wide
}

/// The same, in a register here and now: keeps the compiler from adding up row after row instead, with a block's codes
/// in more registers than there are.
#[inline]
#[target_feature(enable = "avx2")]
fn pinned(mut sums: __m256i) -> __m256i {
    // SAFETY: the text is a comment.
    unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) sums, options(nomem, nostack, preserves_flags)) };
    sums
}

/// As many columns as `place` has.
#[target_feature(enable = "avx2")]
fn store(sums: __m256, place: &mut [f32]) {
    let mut all = [0.0f32; N];
    // SAFETY: `all` has the 8 columns.
    unsafe { _mm256_storeu_ps(all.as_mut_ptr(), sums) };
    place.copy_from_slice(&all[..place.len()]);
}
