//! The product of quantised rows with one panel of 8 columns, on AVX2.
//!
//! `vpmaddubsw` multiplies unsigned codes with signed activations and adds pairs in 16 bits. Planes of at most 4 bits
//! can be added 8 times before that overflows (`2 · 15 · 127 · 8 = 30480`), so 8-bit codes go as two planes, and the
//! small scales of K-quants come in for free, as the factors of the `vpmaddwd` that widens to 32 bits.

use std::arch::x86_64::*;

use super::Span;
use super::panel::{Format, GROUPS};
use crate::elements::{BLOCK, ElementType, NONLINEAR};
use crate::threads::DisjointMut;

/// Output columns of a panel, one to each 32-bit lane.
const N: usize = 8;

/// Writes `out[row, column]` for the span's rows and columns.
pub(super) fn panel_product(format: Format, span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    use ElementType::*;
    // SAFETY: this path is taken only where `Isa::available` found AVX2, FMA and F16C.
    unsafe {
        match format.element_type {
            Q4_0 => rows::<4, 0, 0, false, 3>(&format, span, out),
            Q4_1 => rows::<4, 0, 0, true, NO_ZERO>(&format, span, out),
            Q5_0 => rows::<4, 1, 0, false, 4>(&format, span, out),
            Q5_1 => rows::<4, 1, 0, true, NO_ZERO>(&format, span, out),
            Q8_0 => rows::<4, 4, 0, false, 7>(&format, span, out),
            Q2_K => rows::<2, 0, 2, true, NO_ZERO>(&format, span, out),
            Q3_K => rows::<2, 1, 2, false, 2>(&format, span, out),
            Q4_K => rows::<4, 0, 1, true, NO_ZERO>(&format, span, out),
            Q5_K => rows::<4, 1, 1, true, NO_ZERO>(&format, span, out),
            Q6_K => rows::<4, 2, 2, false, 5>(&format, span, out),
            IQ4_NL => rows::<4, LOOKED_UP, 0, false, 7>(&format, span, out),
            IQ4_XS => rows::<4, LOOKED_UP, 1, false, 7>(&format, span, out),
            F32 | F16 | BF16 => unreachable!("float panels have their own product"),
        }
    }
}

/// `ZERO` of formats whose codes start at 0.
const NO_ZERO: i32 = -1;
/// `HIGH` of formats whose codes are indices: both planes come out of tables of value + 128.
const LOOKED_UP: usize = 8;

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const LOW: usize, const HIGH: usize, const SUB: usize, const MIN: bool, const ZERO: i32>(
    format: &Format,
    span: &Span<'_>,
    out: &DisjointMut<'_, f32>,
) {
    let mut row = span.rows.start;
    // SAFETY: as for this function.
    unsafe {
        while row + 4 <= span.rows.end {
            tile::<4, LOW, HIGH, SUB, MIN, ZERO>(format, span, row, out);
            row += 4;
        }
        if row + 2 <= span.rows.end {
            tile::<2, LOW, HIGH, SUB, MIN, ZERO>(format, span, row, out);
            row += 2;
        }
        if row < span.rows.end {
            tile::<1, LOW, HIGH, SUB, MIN, ZERO>(format, span, row, out);
        }
    }
}

/// `R` rows from `row` on. Each sum takes the same operations in the same order whatever `R` is.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<
    const R: usize,
    const LOW: usize,
    const HIGH: usize,
    const SUB: usize,
    const MIN: bool,
    const ZERO: i32,
>(
    format: &Format,
    span: &Span<'_>,
    row: usize,
    out: &DisjointMut<'_, f32>,
) {
    let blocks = span.activations.columns / BLOCK;
    let per_super = if SUB == 0 { 1 } else { 8 };
    assert!(format.per_super == per_super && span.panel.len() == blocks / per_super * format.super_bytes(N));
    assert!((row + R) * blocks <= span.activations.scales.len());
    let mut sums = [_mm256_setzero_ps(); R];
    let mut bytes = span.panel.as_ptr();
    let at = |r: usize, block: usize| (row + r) * blocks + block;
    // SAFETY: `bytes` walks over the panel, whose length was checked; block indices of rows were checked above, and
    // the three buffers of activations have matching lengths by construction.
    unsafe {
        for super_block in 0..blocks / per_super {
            let d = _mm256_cvtph_ps(_mm_loadu_si128(bytes.cast()));
            let m = if MIN { _mm256_cvtph_ps(_mm_loadu_si128(bytes.add(2 * N).cast())) } else { d };
            bytes = bytes.add(if MIN { 4 * N } else { 2 * N });
            for block in super_block * per_super..(super_block + 1) * per_super {
                let scales = small_pairs::<SUB, true>(bytes);
                let mins = if MIN { small_pairs::<SUB, false>(bytes.add(SUB * N)) } else { scales };
                bytes = bytes.add(SUB * N * if MIN { 2 } else { 1 });
                let codes =
                    std::array::from_fn(|r| span.activations.codes.as_ptr().add(at(r, block) * BLOCK));
                let products = block_products::<R, LOW, HIGH, SUB>(bytes, codes, scales);
                bytes = bytes.add(BLOCK * N * (LOW + HIGH % LOOKED_UP) / 8);
                for r in 0..R {
                    let half_sums = span.activations.sums.as_ptr().add(2 * at(r, block)).cast::<i32>();
                    let half_sums = _mm256_set1_epi32(half_sums.read_unaligned());
                    let mut product = products[r];
                    if ZERO != NO_ZERO {
                        let zero = _mm256_madd_epi16(scales, half_sums);
                        product = _mm256_sub_epi32(product, _mm256_sll_epi32(zero, _mm_cvtsi32_si128(ZERO)));
                    }
                    let scale = _mm256_set1_ps(*span.activations.scales.get_unchecked(at(r, block)));
                    sums[r] = _mm256_fmadd_ps(_mm256_mul_ps(d, scale), _mm256_cvtepi32_ps(product), sums[r]);
                    if MIN {
                        let min = _mm256_cvtepi32_ps(_mm256_madd_epi16(mins, half_sums));
                        sums[r] = _mm256_fnmadd_ps(_mm256_mul_ps(m, scale), min, sums[r]);
                    }
                }
            }
        }
        for r in 0..R {
            let place = out.slice((row + r) * span.stride + span.column, span.columns);
            let mut all = [0.0f32; N];
            _mm256_storeu_ps(all.as_mut_ptr(), sums[r]);
            place.copy_from_slice(&all[..span.columns]);
        }
    }
}

/// The small integers of a block, for each column as a pair of 16 bits: one a half of the block. Ones where `SUB` is 0.
#[target_feature(enable = "avx2")]
unsafe fn small_pairs<const SUB: usize, const SIGNED: bool>(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's block has `SUB * N` bytes here.
    unsafe {
        match (SUB, SIGNED) {
            (0, _) => _mm256_set1_epi16(1),
            (1, true) => both_halves(_mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.cast()))),
            (1, false) => both_halves(_mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.cast()))),
            (_, true) => _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes.cast())),
            (_, false) => _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.cast())),
        }
    }
}

/// The low 16 bits of each lane, in both its halves.
#[target_feature(enable = "avx2")]
fn both_halves(lanes: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_and_si256(lanes, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(lanes, 16))
}

/// The high 16 bits of each lane, in both its halves.
#[target_feature(enable = "avx2")]
fn both_high_halves(lanes: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_srli_epi32(lanes, 16), _mm256_andnot_si256(_mm256_set1_epi32(0xffff), lanes))
}

/// Sums of code times activation over a block, each half times its small scale, for `R` rows.
#[target_feature(enable = "avx2")]
unsafe fn block_products<const R: usize, const LOW: usize, const HIGH: usize, const SUB: usize>(
    planes: *const u8,
    activations: [*const i8; R],
    scales: __m256i,
) -> [__m256i; R] {
    let zero = _mm256_setzero_si256();
    let (mut low_sums, mut high_sums) = ([zero; R], [zero; R]);
    let mut products = [zero; R];
    for group in 0..GROUPS {
        // SAFETY: the caller's block has its planes here, and 32 activations a row.
        unsafe {
            let (low, high) = codes::<LOW, HIGH>(planes, group);
            for r in 0..R {
                let x = _mm256_set1_epi32(activations[r].add(4 * group).cast::<i32>().read_unaligned());
                low_sums[r] = _mm256_add_epi16(low_sums[r], _mm256_maddubs_epi16(low, x));
                if HIGH > 0 {
                    high_sums[r] = _mm256_add_epi16(high_sums[r], _mm256_maddubs_epi16(high, x));
                }
            }
        }
        let ends_half = SUB == 2 && group == GROUPS / 2 - 1;
        if ends_half || group == GROUPS - 1 {
            let scales = match (SUB, ends_half) {
                (2, true) => both_halves(scales),
                (2, false) => both_high_halves(scales),
                _ => scales,
            };
            let high_scales =
                if LOW == 2 { _mm256_slli_epi16(scales, 2) } else { _mm256_slli_epi16(scales, 4) };
            for r in 0..R {
                products[r] = _mm256_add_epi32(products[r], _mm256_madd_epi16(low_sums[r], scales));
                if HIGH > 0 {
                    products[r] = _mm256_add_epi32(products[r], _mm256_madd_epi16(high_sums[r], high_scales));
                }
            }
            (low_sums, high_sums) = ([zero; R], [zero; R]);
        }
    }
    products
}

/// One group's codes as bytes, in two planes of at most 4 bits.
#[target_feature(enable = "avx2")]
unsafe fn codes<const LOW: usize, const HIGH: usize>(planes: *const u8, group: usize) -> (__m256i, __m256i) {
    // SAFETY: as for the caller.
    unsafe {
        let low = plane::<LOW>(planes, group);
        if HIGH == LOOKED_UP {
            let table = _mm256_loadu_si256(LOOKUP.as_ptr().cast());
            let value = _mm256_shuffle_epi8(table, low);
            let mask = _mm256_set1_epi8(15);
            return (_mm256_and_si256(value, mask), _mm256_and_si256(_mm256_srli_epi16(value, 4), mask));
        }
        if HIGH == 0 {
            return (low, low);
        }
        (low, plane::<HIGH>(planes.add(BLOCK * N * LOW / 8), group))
    }
}

#[target_feature(enable = "avx2")]
unsafe fn plane<const BITS: usize>(bytes: *const u8, group: usize) -> __m256i {
    let per_vector = 8 / BITS;
    // SAFETY: as for the caller.
    let vector = unsafe { _mm256_loadu_si256(bytes.add(group / per_vector * 4 * N).cast()) };
    let shift = _mm_cvtsi32_si128((BITS * (group % per_vector)) as i32);
    _mm256_and_si256(_mm256_srl_epi16(vector, shift), _mm256_set1_epi8((1 << BITS) - 1))
}

/// What 4-bit codes stand for, plus 128, once for each half of a vector.
static LOOKUP: [u8; 32] = {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = (NONLINEAR[i % 16] as i16 + 128) as u8;
        i += 1;
    }
    table
};
