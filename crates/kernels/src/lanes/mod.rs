//! Vectors of f32 under one interface, so that an operation is written once and runs on every instruction set.
//!
//! [`Portable`] specifies; the others do the same with wider registers and fused multiply-adds. A value of a lanes type
//! is the proof that the machine has its instructions, so its methods are safe. [`dispatch`] is the one door: it checks
//! the machine and calls a [`Kernel`] compiled for the instruction set. For that to work everything that a kernel calls
//! has to be inlined into it: `#[inline(always)]` on every function that is generic over [`Lanes`], and no closures.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod functions;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::transpose;
pub(crate) use element::{Element, for_runs_of_rows};
pub(crate) use functions::{erf, exp, sigmoid, tanh};
pub(crate) use portable::Portable;

use half::{bf16, f16};

use crate::compute::Isa;

/// The most lanes that a vector has.
pub(crate) const WIDTH_MAX: usize = 16;

/// Operations on vectors of [`Lanes::WIDTH`] f32 values. Where an operand of `min` or `max` is NaN the result is the
/// second operand.
pub(crate) trait Lanes: Copy {
    const WIDTH: usize;
    /// Rows that the matrix microkernels hold in registers at once, two vectors each.
    const ROWS_MAX: usize;
    type F: Copy;
    type Mask: Copy;
    /// [`Lanes::WIDTH`] pairs of 16-bit integers, or sums of 32 bits.
    type Pairs: Copy;

    fn splat(self, value: f32) -> Self::F;
    /// # Safety
    /// `from` must be readable for `WIDTH` values.
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// # Safety
    /// `to` must be writable for `WIDTH` values.
    unsafe fn store(self, to: *mut f32, values: Self::F);
    /// Widens exactly.
    ///
    /// # Safety
    /// `from` must be readable for `WIDTH` values.
    unsafe fn load_f16(self, from: *const f16) -> Self::F;
    /// Widens exactly.
    ///
    /// # Safety
    /// `from` must be readable for `WIDTH` values.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F;
    /// `values` are integers from -128 to 127; what is no number becomes any of them, on each instruction set another.
    ///
    /// # Safety
    /// `to` must be writable for `WIDTH` values.
    unsafe fn store_i8(self, to: *mut i8, values: Self::F);
    /// `values` are integers of 16 bits; what is no number becomes any of them, on each instruction set another.
    ///
    /// # Safety
    /// `to` must be writable for `WIDTH` values.
    unsafe fn store_i16(self, to: *mut i16, values: Self::F);

    /// # Safety
    /// `from` must be readable for `2 * WIDTH` integers.
    unsafe fn load_pairs(self, from: *const i16) -> Self::Pairs;
    /// Widens.
    ///
    /// # Safety
    /// `from` must be readable for `2 * WIDTH` integers.
    unsafe fn load_byte_pairs(self, from: *const i8) -> Self::Pairs;
    /// # Safety
    /// `from` must be readable for 2 integers.
    unsafe fn splat_pair(self, from: *const i16) -> Self::Pairs;
    /// Zeros.
    fn no_pairs(self) -> Self::Pairs;
    /// `sums + a.0 * b.0 + a.1 * b.1`, where that is within 32 bits.
    fn add_pairs(self, sums: Self::Pairs, a: Self::Pairs, b: Self::Pairs) -> Self::Pairs;
    /// Of sums, rounded to nearest.
    fn to_float(self, sums: Self::Pairs) -> Self::F;

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integral `n` in -126..=127; infinity for 128.
    fn power_of_two(self, n: Self::F) -> Self::F;
    /// `a < b`, false where one is NaN.
    fn less(self, a: Self::F, b: Self::F) -> Self::Mask;
    /// `a == b`, false where one is NaN.
    fn equal(self, a: Self::F, b: Self::F) -> Self::Mask;
    /// `yes` where the mask is set, else `no`.
    fn select(self, mask: Self::Mask, yes: Self::F, no: Self::F) -> Self::F;
    /// The sum of all lanes, in one order.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::F) -> f32;

    /// Writes a square of `WIDTH` by `WIDTH` values transposed: what is at `from + i * from_stride + j` goes to
    /// `to + j * to_stride + i`.
    ///
    /// # Safety
    /// All of the square is readable and writable, and `from` and `to` are apart.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: isize, to: *mut f32, to_stride: usize) {
        for i in 0..Self::WIDTH {
            for j in 0..Self::WIDTH {
                // SAFETY: the caller's promise.
                unsafe { *to.add(j * to_stride + i) = *from.offset(i as isize * from_stride + j as isize) };
            }
        }
    }

    /// The first `WIDTH` of `values`.
    #[inline(always)]
    fn read(self, values: &[f32]) -> Self::F {
        assert!(values.len() >= Self::WIDTH);
        // SAFETY: that many values are there.
        unsafe { self.load(values.as_ptr()) }
    }

    /// Writes the first `WIDTH` of `to`.
    #[inline(always)]
    fn write(self, to: &mut [f32], values: Self::F) {
        assert!(to.len() >= Self::WIDTH);
        // SAFETY: that many places are there.
        unsafe { self.store(to.as_mut_ptr(), values) }
    }

    /// Writes the first `WIDTH` of `to`, as [`Lanes::store_i8`].
    #[inline(always)]
    fn write_i8(self, to: &mut [i8], values: Self::F) {
        assert!(to.len() >= Self::WIDTH);
        // SAFETY: that many places are there.
        unsafe { self.store_i8(to.as_mut_ptr(), values) }
    }
}

/// An operation that is compiled for every instruction set. Implement `run` with `#[inline(always)]`.
pub(crate) trait Kernel {
    type Output;
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Runs `kernel` on `isa`.
///
/// # Panics
/// When this machine does not have `isa`.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        Isa::Portable => kernel.run(Portable),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_available() => {
            // SAFETY: the machine has AVX2, FMA and F16C, as just checked.
            unsafe { avx2::call(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 if isa.is_available() => {
            // SAFETY: the machine has AVX-512 F, BW, VL and VNNI with AVX2, FMA and F16C, as just checked.
            unsafe { avx512::call(kernel) }
        }
        _ => panic!("this machine has no {isa}; it has {:?}", Isa::available()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Transpose<'a>(&'a [f32], &'a mut [f32]);

    impl Kernel for Transpose<'_> {
        type Output = usize;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> usize {
            // SAFETY: both are as long as the greatest square at these strides.
            unsafe { lanes.transpose(self.0.as_ptr(), 19, self.1.as_mut_ptr(), 23) };
            L::WIDTH
        }
    }

    #[test]
    fn squares_are_transposed_and_nothing_else_is_written() {
        let from: Vec<f32> = (0..19 * WIDTH_MAX).map(|i| i as f32).collect();
        for isa in Isa::available() {
            let mut to = vec![-1.0; 23 * WIDTH_MAX];
            let width = dispatch(isa, Transpose(&from, &mut to));
            for (place, &found) in to.iter().enumerate() {
                let (j, i) = (place / 23, place % 23);
                let expected = if j < width && i < width { from[i * 19 + j] } else { -1.0 };
                assert_eq!(found, expected, "{isa} at {j}, {i}");
            }
        }
    }
}
