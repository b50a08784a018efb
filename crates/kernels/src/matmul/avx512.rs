//! The product of quantised rows with one panel of 16 columns, on AVX-512 with VNNI.
//!
//! `vpdpbusd` multiplies four unsigned codes with four signed activations and adds them in 32 bits, exactly.

use std::arch::x86_64::*;

use super::Span;
use super::panel::{Format, GROUPS};
use crate::elements::{BLOCK, ElementType, NONLINEAR};
use crate::threads::DisjointMut;

/// Output columns of a panel, one to each 32-bit lane.
const N: usize = 16;

/// Writes `out[row, column]` for the span's rows and columns.
pub(super) fn panel_product(format: Format, span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    use ElementType::*;
    // SAFETY: this path is taken only where `Isa::available` found AVX-512 F, BW, VL and VNNI.
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
/// `HIGH` of formats whose codes are indices into a table of value + 128.
const LOOKED_UP: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn rows<const LOW: usize, const HIGH: usize, const SUB: usize, const MIN: bool, const ZERO: i32>(
    format: &Format,
    span: &Span<'_>,
    out: &DisjointMut<'_, f32>,
) {
    let mut row = span.rows.start;
    // SAFETY: as for this function.
    unsafe {
        while row + 8 <= span.rows.end {
            tile::<8, LOW, HIGH, SUB, MIN, ZERO>(format, span, row, out);
            row += 8;
        }
        if row + 4 <= span.rows.end {
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
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
    let mut sums = [_mm512_setzero_ps(); R];
    let mut bytes = span.panel.as_ptr();
    let at = |r: usize, block: usize| (row + r) * blocks + block;
    // SAFETY: `bytes` walks over the panel, whose length was checked; block indices of rows were checked above, and
    // the three buffers of activations have matching lengths by construction.
    unsafe {
        for super_block in 0..blocks / per_super {
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(bytes.cast()));
            let m = if MIN { _mm512_cvtph_ps(_mm256_loadu_si256(bytes.add(2 * N).cast())) } else { d };
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
                    let half_sums = _mm512_set1_epi32(half_sums.read_unaligned());
                    let mut product = products[r];
                    if ZERO != NO_ZERO {
                        let zero = _mm512_madd_epi16(scales, half_sums);
                        product = _mm512_sub_epi32(product, _mm512_sll_epi32(zero, _mm_cvtsi32_si128(ZERO)));
                    }
                    let scale = _mm512_set1_ps(*span.activations.scales.get_unchecked(at(r, block)));
                    sums[r] = _mm512_fmadd_ps(_mm512_mul_ps(d, scale), _mm512_cvtepi32_ps(product), sums[r]);
                    if MIN {
                        let min = _mm512_cvtepi32_ps(_mm512_madd_epi16(mins, half_sums));
                        sums[r] = _mm512_fnmadd_ps(_mm512_mul_ps(m, scale), min, sums[r]);
                    }
                }
            }
        }
        for r in 0..R {
            let place = out.slice((row + r) * span.stride + span.column, span.columns);
            let mut all = [0.0f32; N];
            _mm512_storeu_ps(all.as_mut_ptr(), sums[r]);
            place.copy_from_slice(&all[..span.columns]);
        }
    }
}

/// The small integers of a block, for each column as a pair of 16 bits: one a half of the block. Ones where `SUB` is 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
unsafe fn small_pairs<const SUB: usize, const SIGNED: bool>(bytes: *const u8) -> __m512i {
    // SAFETY: the caller's block has `SUB * N` bytes here.
    unsafe {
        match (SUB, SIGNED) {
            (0, _) => _mm512_set1_epi16(1),
            (1, true) => both_halves(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.cast()))),
            (1, false) => both_halves(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast()))),
            (_, true) => _mm512_cvtepi8_epi16(_mm256_loadu_si256(bytes.cast())),
            (_, false) => _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.cast())),
        }
    }
}

/// The low 16 bits of each lane, in both its halves.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
fn both_halves(lanes: __m512i) -> __m512i {
    _mm512_or_si512(_mm512_and_si512(lanes, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(lanes, 16))
}

/// Sums of code times activation over a block, each half times its small scale, for `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
unsafe fn block_products<const R: usize, const LOW: usize, const HIGH: usize, const SUB: usize>(
    planes: *const u8,
    activations: [*const i8; R],
    scales: __m512i,
) -> [__m512i; R] {
    let zero = _mm512_setzero_si512();
    let (mut sums, mut products) = ([zero; R], [zero; R]);
    for group in 0..GROUPS {
        // SAFETY: the caller's block has its planes here, and 32 activations a row.
        unsafe {
            let codes = codes::<LOW, HIGH>(planes, group);
            for r in 0..R {
                let x = _mm512_set1_epi32(activations[r].add(4 * group).cast::<i32>().read_unaligned());
                sums[r] = _mm512_dpbusd_epi32(sums[r], codes, x);
            }
        }
        if SUB == 2 && group == GROUPS / 2 - 1 {
            // Sign extension of the pair's low half.
            let scales = _mm512_srai_epi32(_mm512_slli_epi32(scales, 16), 16);
            for r in 0..R {
                products[r] = _mm512_mullo_epi32(sums[r], scales);
            }
            sums = [zero; R];
        }
    }
    let scales = _mm512_srai_epi32(scales, 16);
    for r in 0..R {
        products[r] = match SUB {
            0 => sums[r],
            _ => _mm512_add_epi32(products[r], _mm512_mullo_epi32(sums[r], scales)),
        };
    }
    products
}

/// One group's codes as bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
unsafe fn codes<const LOW: usize, const HIGH: usize>(planes: *const u8, group: usize) -> __m512i {
    // SAFETY: as for the caller.
    unsafe {
        let low = plane::<LOW>(planes, group);
        if HIGH == LOOKED_UP {
            let table = _mm512_loadu_si512(LOOKUP.as_ptr().cast());
            return _mm512_shuffle_epi8(table, low);
        }
        if HIGH == 0 {
            return low;
        }
        let high = plane::<HIGH>(planes.add(BLOCK * N * LOW / 8), group);
        let high = if LOW == 2 { _mm512_slli_epi16(high, 2) } else { _mm512_slli_epi16(high, 4) };
        _mm512_or_si512(low, high)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
unsafe fn plane<const BITS: usize>(bytes: *const u8, group: usize) -> __m512i {
    let per_vector = 8 / BITS;
    // SAFETY: as for the caller.
    let vector = unsafe { _mm512_loadu_si512(bytes.add(group / per_vector * 4 * N).cast()) };
    let shift = _mm_cvtsi32_si128((BITS * (group % per_vector)) as i32);
    _mm512_and_si512(_mm512_srl_epi16(vector, shift), _mm512_set1_epi8((1 << BITS) - 1))
}

/// What 4-bit codes stand for, plus 128, once for each quarter of a vector.
static LOOKUP: [u8; 64] = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        table[i] = (NONLINEAR[i % 16] as i16 + 128) as u8;
        i += 1;
    }
    table
};
