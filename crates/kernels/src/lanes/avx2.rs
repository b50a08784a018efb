//! Eight lanes of AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Lanes};

/// The proof that the machine has AVX2, FMA and F16C: only [`call`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Runs `kernel` compiled for AVX2.
///
/// # Safety
/// The machine must have AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
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

impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    const ROWS_MAX: usize = 6;
    type F = __m256;
    type Mask = __m256;
    type Pairs = __m256i;

    instruction!(add(a, b) _mm256_add_ps);
    instruction!(sub(a, b) _mm256_sub_ps);
    instruction!(mul(a, b) _mm256_mul_ps);
    instruction!(div(a, b) _mm256_div_ps);
    instruction!(fma(a, b, c) _mm256_fmadd_ps);
    instruction!(min(a, b) _mm256_min_ps);
    instruction!(max(a, b) _mm256_max_ps);
    instruction!(sqrt(a) _mm256_sqrt_ps);

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller promises 8 readable values; `self` proves the instruction.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, values: Self::F) {
        // SAFETY: the caller promises 8 writable places; `self` proves the instruction.
        unsafe { _mm256_storeu_ps(to, values) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::F {
        // SAFETY: the caller promises 8 readable values, which are 16 bytes; `self` proves the instructions.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F {
        // SAFETY: the caller promises 8 readable values, which are 16 bytes; `self` proves the instructions.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low))
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8, values: Self::F) {
        // SAFETY: the caller promises 8 writable places, which are 8 bytes; `self` proves the instructions.
        unsafe {
            let wide = _mm256_cvtps_epi32(values);
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            _mm_storel_epi64(to.cast(), _mm_packs_epi16(halves, halves));
        }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, values: Self::F) {
        // SAFETY: the caller promises 8 writable places, which are 16 bytes; `self` proves the instructions.
        unsafe {
            let wide = _mm256_cvtps_epi32(values);
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            _mm_storeu_si128(to.cast(), halves);
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const i16) -> Self::Pairs {
        // SAFETY: the caller promises 16 readable integers; `self` proves the instruction.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_byte_pairs(self, from: *const i8) -> Self::Pairs {
        // SAFETY: the caller promises 16 readable integers; `self` proves the instructions.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn splat_pair(self, from: *const i16) -> Self::Pairs {
        // SAFETY: the caller promises 2 readable integers; `self` proves the instruction.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn no_pairs(self) -> Self::Pairs {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn add_pairs(self, sums: Self::Pairs, a: Self::Pairs, b: Self::Pairs) -> Self::Pairs {
        // SAFETY: `self` proves that the machine has them.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    fn to_float(self, sums: Self::Pairs) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm256_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn power_of_two(self, n: Self::F) -> Self::F {
        // SAFETY: `self` proves that the machine has them.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn less(self, a: Self::F, b: Self::F) -> Self::Mask {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn equal(self, a: Self::F, b: Self::F) -> Self::Mask {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, yes: Self::F, no: Self::F) -> Self::F {
        // SAFETY: `self` proves that the machine has it.
        unsafe { _mm256_blendv_ps(no, yes, mask) }
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the machine has them.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        // SAFETY: `self` proves that the machine has them.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
