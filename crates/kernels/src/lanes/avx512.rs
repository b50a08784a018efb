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
}
