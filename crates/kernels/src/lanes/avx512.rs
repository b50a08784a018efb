//! Sixteen lanes of AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Lanes};

/// The proof that the machine has AVX-512 F, BW, VL and VNNI: only [`call`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Runs `kernel` compiled for AVX-512.
///
/// # Safety
/// The machine must have AVX-512 F, BW, VL and VNNI, AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// A method that is one instruction.
macro_rules! instruction {
    ($name:ident($($arg:ident),*) $instruction:ident) => {
        #[inline(always)]
        fn $name(self, $($arg: Self::F),*) -> Self::F {
            // SAFETY: `self` proves that the machine has it.
            unsafe { $instruction($($arg),*) }
        }
    };
}

impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    const ROWS_MAX: usize = 12;
    type F = __m512;
    type Mask = __mmask16;
    type Pairs = __m512i;

    instruction!(add(a, b) _mm512_add_ps);
    instruction!(sub(a, b) _mm512_sub_ps);
    instruction!(mul(a, b) _mm512_mul_ps);
    instruction!(div(a, b) _mm512_div_ps);
    instruction!(fma(a, b, c) _mm512_fmadd_ps);
    instruction!(min(a, b) _mm512_min_ps);
    instruction!(max(a, b) _mm512_max_ps);
    instruction!(sqrt(a) _mm512_sqrt_ps);

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller promises 16 readable values; `self` proves the instruction.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, values: Self::F) {
        // SAFETY: the caller promises 16 writable places; `self` proves the instruction.
        unsafe { _mm512_storeu_ps(to, values) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::F {
        // SAFETY: the caller promises 16 readable values, which are 32 bytes; `self` proves the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F {
        // SAFETY: the caller promises 16 readable values, which are 32 bytes; `self` proves the instructions.
        unsafe {
            let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(low))
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8, values: Self::F) {
        // SAFETY: the caller promises 16 writable places, which are 16 bytes; `self` proves the instructions.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(values))) }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, values: Self::F) {
        // SAFETY: the caller promises 16 writable places, which are 32 bytes; `self` proves the instructions.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(values))) }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const i16) -> Self::Pairs {
        // SAFETY: the caller promises 32 readable integers; `self` proves the instruction.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_byte_pairs(self, from: *const i8) -> Self::Pairs {
        // SAFETY: the caller promises 32 readable integers; `self` proves the instructions.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn splat_pair(self, from: *const i16) -> Self::Pairs {
        // SAFETY: the caller promises 2 readable integers; `self` proves the instruction.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn no_pairs(self) -> Self::Pairs {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn add_pairs(self, sums: Self::Pairs, a: Self::Pairs, b: Self::Pairs) -> Self::Pairs {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_dpwssd_epi32(sums, a, b) }
    }

    #[inline(always)]
    fn to_float(self, sums: Self::Pairs) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn power_of_two(self, n: Self::F) -> Self::F {
        // SAFETY: `self` proves that the machine has them.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn less(self, a: Self::F, b: Self::F) -> Self::Mask {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn equal(self, a: Self::F, b: Self::F) -> Self::Mask {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, yes: Self::F, no: Self::F) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_mask_blend_ps(mask, no, yes) }
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: isize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's promise; `self` proves the instructions.
        unsafe { transpose(from, from_stride, to, to_stride) }
    }
}

/// As [`Lanes::transpose`].
///
/// # Safety
/// As there, and the machine has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn transpose(from: *const f32, from_stride: isize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's promise.
    let rows: [__m512; 16] =
        std::array::from_fn(|i| unsafe { _mm512_loadu_ps(from.offset(i as isize * from_stride)) });
    // Of four rows each, what belongs to columns `column`, `4 + column`, `8 + column` and `12 + column`.
    let fours: [[__m512; 4]; 4] = std::array::from_fn(|group| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[4 * group + row]);
        let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (low_2, high_2) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let [low, low_2, high, high_2] = [low, low_2, high, high_2].map(|part| _mm512_castps_pd(part));
        [
            _mm512_unpacklo_pd(low, low_2),
            _mm512_unpackhi_pd(low, low_2),
            _mm512_unpacklo_pd(high, high_2),
            _mm512_unpackhi_pd(high, high_2),
        ]
        .map(|part| _mm512_castpd_ps(part))
    });
    for column in 0..4 {
        let [a, b, c, d] = fours.map(|four| four[column]);
        let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (even_2, odd_2) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        let columns = [
            _mm512_shuffle_f32x4::<0x88>(even, even_2),
            _mm512_shuffle_f32x4::<0x88>(odd, odd_2),
            _mm512_shuffle_f32x4::<0xdd>(even, even_2),
            _mm512_shuffle_f32x4::<0xdd>(odd, odd_2),
        ];
        for (quarter, values) in columns.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(to.add((4 * quarter + column) * to_stride), values) };
        }
    }
}
