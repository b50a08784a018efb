//! Codes and scales of a block of 16 columns, out of their few bits into vectors.

use std::arch::x86_64::*;

use super::N;
use crate::elements::NONLINEAR;
use crate::matmul::panel::{Of, Small};

/// `d` and `m` of a super-block.
pub(super) struct Header {
    d: __m512,
    m: __m512,
}

impl Header {
    /// # Safety
    /// `bytes` is at a super-block of a panel of type `T`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub unsafe fn read<const T: usize>(bytes: *const u8) -> Header {
        // SAFETY: a header has 16 halves, or 32 where there are mins.
        unsafe {
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(bytes.cast()));
            let m = if Of::<T>::FORMAT.has_min {
                _mm512_cvtph_ps(_mm256_loadu_si256(bytes.add(2 * N).cast()))
            } else {
                _mm512_setzero_ps()
            };
            Header { d, m }
        }
    }
}

/// What the integer sums of a block are multiplied with.
pub(super) struct Factors {
    /// With the block's small scale, where it has one for both halves.
    pub d: __m512,
    /// The small scales of the halves, where these have their own.
    pub scales: [__m512; 2],
    /// What is taken off for each unit of activation of a half: `m` times its small min.
    pub mins: [__m512; 2],
}

impl Factors {
    /// # Safety
    /// `bytes` is at a block of a panel of type `T`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub unsafe fn read<const T: usize>(header: &Header, bytes: *const u8) -> Factors {
        let format = &Of::<T>::FORMAT;
        let mut factors = Factors { d: header.d, scales: [header.d; 2], mins: [header.m; 2] };
        // SAFETY: the block begins with its small bytes.
        unsafe {
            match format.small {
                Small::None => {}
                Small::Scale | Small::ScaleAndMin => {
                    let scales = _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.cast()));
                    factors.d = _mm512_mul_ps(header.d, _mm512_cvtepi32_ps(scales));
                    if matches!(format.small, Small::ScaleAndMin) {
                        let mins = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.add(N).cast()));
                        factors.mins = [_mm512_mul_ps(header.m, _mm512_cvtepi32_ps(mins)); 2];
                    }
                }
                Small::ScaleOfHalf => {
                    let pairs = _mm512_cvtepi8_epi16(_mm256_loadu_si256(bytes.cast()));
                    factors.scales = numbers(pairs);
                }
                Small::ScaleAndMinOfHalf => {
                    let pairs = _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.cast()));
                    factors.scales = numbers(_mm512_and_si512(pairs, _mm512_set1_epi16(15)));
                    let mins = numbers(_mm512_srli_epi16::<4>(pairs));
                    factors.mins = mins.map(|min| _mm512_mul_ps(header.m, min));
                }
            }
        }
        factors
    }
}

/// The low and the high 16 bits of each lane, signed, as numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
fn numbers(pairs: __m512i) -> [__m512; 2] {
    let low = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
    [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(_mm512_srai_epi32::<16>(pairs))]
}

/// The codes of one group, an unsigned byte each.
///
/// # Safety
/// `codes` is at the planes of a block of type `T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn group_codes<const T: usize>(codes: *const u8, group: usize) -> __m512i {
    let format = &Of::<T>::FORMAT;
    // SAFETY: a block has its planes here.
    let low = unsafe { plane(codes, format.low_bits, group, 0) };
    if format.nonlinear {
        // SAFETY: the table is as long as a vector.
        return _mm512_shuffle_epi8(unsafe { _mm512_loadu_si512(LOOKUP.as_ptr().cast()) }, low);
    }
    if format.high_bits == 0 {
        return low;
    }
    // SAFETY: as above.
    let high = unsafe { plane(codes.add(format.low_bytes(N)), format.high_bits, group, format.low_bits) };
    _mm512_or_si512(low, high)
}

/// A group's bits in a plane of `bits`, shifted up to bit `to` of each byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
unsafe fn plane(bytes: *const u8, bits: usize, group: usize, to: usize) -> __m512i {
    let per_vector = 8 / bits;
    // SAFETY: as for the caller.
    let vector = unsafe { _mm512_loadu_si512(bytes.add(group / per_vector * 4 * N).cast()) };
    if bits == 8 {
        return vector;
    }
    let from = bits * (group % per_vector);
    let shifted = if from >= to {
        _mm512_srl_epi16(vector, _mm_cvtsi32_si128((from - to) as i32))
    } else {
        _mm512_sll_epi16(vector, _mm_cvtsi32_si128((to - from) as i32))
    };
    _mm512_and_si512(shifted, _mm512_set1_epi8((((1u32 << bits) - 1) << to) as i8))
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
