//! Codes and scales of a block of 8 columns, out of their few bits into vectors.

use std::arch::x86_64::*;

use super::{N, signed};
use crate::elements::{BLOCK, NONLINEAR};
use crate::matmul::panel::{GROUPS, Of, Small};

/// `d` and `m` of a super-block.
pub(super) struct Header {
    d: __m256,
    m: __m256,
}

impl Header {
    /// # Safety
    /// `bytes` is at a super-block of a panel of type `T`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn read<const T: usize>(bytes: *const u8) -> Header {
        // SAFETY: a header has 8 halves, or 16 where there are mins.
        unsafe {
            let d = _mm256_cvtph_ps(_mm_loadu_si128(bytes.cast()));
            let m = if Of::<T>::FORMAT.has_min {
                _mm256_cvtph_ps(_mm_loadu_si128(bytes.add(2 * N).cast()))
            } else {
                _mm256_setzero_ps()
            };
            Header { d, m }
        }
    }
}

/// What the integer sums of a block are multiplied with. Where 16-bit pairs are spoken of, a lane has two, which
/// `vpmaddwd` takes to the sums of the even and the odd pairs of elements, or of the two halves of the block.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub d: __m256,
    /// What is taken off for each unit of activation: with the block's min, where it has one for both halves.
    pub m: __m256,
    /// For each half of the block its small scale, as equal 16-bit pairs; ones where there is none.
    pub scales: [__m256i; 2],
    /// The scales of the two halves as a 16-bit pair, times the zero point.
    pub zeros: __m256i,
    /// The mins of the two halves as a 16-bit pair, where they differ.
    pub mins: __m256i,
}

impl Factors {
    /// # Safety
    /// `bytes` is at a block of a panel of type `T`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn read<const T: usize>(header: &Header, bytes: *const u8) -> Factors {
        let format = &Of::<T>::FORMAT;
        let ones = _mm256_set1_epi16(1);
        let mut factors = Factors { d: header.d, m: header.m, scales: [ones; 2], zeros: ones, mins: ones };
        // SAFETY: the block begins with its small bytes.
        unsafe {
            match format.small {
                Small::None => {}
                Small::Scale | Small::ScaleAndMin => {
                    let scales = _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.cast()));
                    factors.zeros = even(scales);
                    factors.scales = [factors.zeros; 2];
                    if matches!(format.small, Small::ScaleAndMin) {
                        let mins = _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.add(N).cast()));
                        factors.m = _mm256_mul_ps(header.m, _mm256_cvtepi32_ps(mins));
                    }
                }
                Small::ScaleOfHalf => {
                    factors.zeros = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes.cast()));
                    factors.scales = [even(factors.zeros), odd(factors.zeros)];
                }
                Small::ScaleAndMinOfHalf => {
                    let both = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.cast()));
                    factors.zeros = _mm256_and_si256(both, _mm256_set1_epi16(15));
                    factors.mins = _mm256_srli_epi16(both, 4);
                    factors.scales = [even(factors.zeros), odd(factors.zeros)];
                }
            }
        }
        if let Some(shift) = format.zero_shift {
            factors.zeros = _mm256_sll_epi16(factors.zeros, _mm_cvtsi32_si128(shift as i32));
        }
        factors
    }
}

/// The low 16 bits of each lane, in both its halves.
#[inline]
#[target_feature(enable = "avx2")]
fn even(lanes: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_and_si256(lanes, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(lanes, 16))
}

/// The high 16 bits of each lane, in both its halves.
#[inline]
#[target_feature(enable = "avx2")]
fn odd(lanes: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_srli_epi32(lanes, 16), _mm256_andnot_si256(_mm256_set1_epi32(0xffff), lanes))
}

/// The codes of one group of panel `p` of `P`, a byte each: unsigned, or signed for the types that are.
///
/// # Safety
/// `codes` is at the planes of a block (`P` is 1), or at a block's codes as [`super::strip`] unpacked them.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn group_codes<const T: usize, const P: usize, const UNPACKED: bool>(
    codes: *const u8,
    group: usize,
    p: usize,
) -> __m256i {
    let format = &Of::<T>::FORMAT;
    if UNPACKED {
        // SAFETY: a block has `GROUPS` vectors for each panel.
        return unsafe { _mm256_load_si256(codes.add((p * GROUPS + group) * 4 * N).cast()) };
    }
    // SAFETY: a block has its planes here.
    let low = unsafe { plane(codes, format.low_bits, group, 0) };
    if format.nonlinear {
        // SAFETY: the table is as long as a vector.
        return _mm256_shuffle_epi8(unsafe { _mm256_loadu_si256(LOOKUP.as_ptr().cast()) }, low);
    }
    if signed(format) {
        return _mm256_xor_si256(low, _mm256_set1_epi8(-128));
    }
    if format.high_bits == 0 {
        return low;
    }
    // SAFETY: as above.
    let high = unsafe { plane(codes.add(format.low_bytes(N)), format.high_bits, group, format.low_bits) };
    _mm256_or_si256(low, high)
}

/// A group's bits in a plane of `bits`, shifted up to bit `to` of each byte.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn plane(bytes: *const u8, bits: usize, group: usize, to: usize) -> __m256i {
    let per_vector = 8 / bits;
    // SAFETY: as for the caller.
    let vector = unsafe { _mm256_loadu_si256(bytes.add(group / per_vector * 4 * N).cast()) };
    if bits == 8 {
        return vector;
    }
    let from = bits * (group % per_vector);
    let shifted = if from >= to {
        _mm256_srl_epi16(vector, _mm_cvtsi32_si128((from - to) as i32))
    } else {
        _mm256_sll_epi16(vector, _mm_cvtsi32_si128((to - from) as i32))
    };
    _mm256_and_si256(shifted, _mm256_set1_epi8((((1u32 << bits) - 1) << to) as i8))
}

/// What 4-bit codes stand for, once for each half of a vector.
static LOOKUP: [i8; 32] = {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = NONLINEAR[i % 16];
        i += 1;
    }
    table
};

/// Unpacks a block of one panel into `GROUPS` vectors at `into`, which is aligned to them.
///
/// # Safety
/// `planes` is at the planes of a block of type `T`; `into` has `BLOCK * N` bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn unpack<const T: usize>(planes: *const u8, into: *mut u8) {
    for group in 0..GROUPS {
        // SAFETY: as for this function.
        unsafe {
            let codes = group_codes::<T, 1, false>(planes, group, 0);
            _mm256_store_si256(into.add(group * 4 * N).cast(), codes);
        }
    }
    const { assert!(GROUPS * 4 * N == BLOCK * N) };
}
