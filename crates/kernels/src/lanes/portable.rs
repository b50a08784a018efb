//! Eight lanes in plain Rust: what the other instruction sets are held against.

use half::{bf16, f16};

use super::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct Portable;

const WIDTH: usize = 8;

fn pair_of([first, second]: [i16; 2]) -> i32 {
    i32::from(second) << 16 | i32::from(first as u16)
}

impl Lanes for Portable {
    const WIDTH: usize = WIDTH;
    const ROWS_MAX: usize = 2;
    type F = [f32; WIDTH];
    type Mask = [bool; WIDTH];
    /// A pair has its first integer in the low half.
    type Pairs = [i32; WIDTH];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; WIDTH]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller promises `WIDTH` readable values; alignment isn't assumed.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, values: Self::F) {
        // SAFETY: the caller promises `WIDTH` writable places.
        unsafe { to.cast::<Self::F>().write_unaligned(values) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::F {
        // SAFETY: the caller promises `WIDTH` readable values.
        let values = unsafe { from.cast::<[f16; WIDTH]>().read_unaligned() };
        std::array::from_fn(|i| values[i].to_f32())
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F {
        // SAFETY: the caller promises `WIDTH` readable values.
        let values = unsafe { from.cast::<[bf16; WIDTH]>().read_unaligned() };
        std::array::from_fn(|i| values[i].to_f32())
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8, values: Self::F) {
        // SAFETY: the caller promises `WIDTH` writable places.
        unsafe { to.cast::<[i8; WIDTH]>().write_unaligned(values.map(|x| x as i8)) }
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, values: Self::F) {
        // SAFETY: the caller promises `WIDTH` writable places.
        unsafe { to.cast::<[i16; WIDTH]>().write_unaligned(values.map(|x| x as i16)) }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const i16) -> Self::Pairs {
        // SAFETY: the caller promises twice `WIDTH` readable integers.
        unsafe { from.cast::<[[i16; 2]; WIDTH]>().read_unaligned() }.map(pair_of)
    }

    #[inline(always)]
    unsafe fn load_byte_pairs(self, from: *const i8) -> Self::Pairs {
        // SAFETY: the caller promises twice `WIDTH` readable integers.
        let pairs = unsafe { from.cast::<[[i8; 2]; WIDTH]>().read_unaligned() };
        pairs.map(|pair| pair_of(pair.map(i16::from)))
    }

    #[inline(always)]
    unsafe fn splat_pair(self, from: *const i16) -> Self::Pairs {
        // SAFETY: the caller promises 2 readable integers.
        [pair_of(unsafe { from.cast::<[i16; 2]>().read_unaligned() }); WIDTH]
    }

    #[inline(always)]
    fn no_pairs(self) -> Self::Pairs {
        [0; WIDTH]
    }

    #[inline(always)]
    fn add_pairs(self, sums: Self::Pairs, a: Self::Pairs, b: Self::Pairs) -> Self::Pairs {
        std::array::from_fn(|i| {
            let (low, high) = (|x: i32| i32::from(x as i16), |x: i32| x >> 16);
            sums[i].wrapping_add(low(a[i]) * low(b[i])).wrapping_add(high(a[i]) * high(b[i]))
        })
    }

    #[inline(always)]
    fn to_float(self, sums: Self::Pairs) -> Self::F {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Not `mul_add`: without the instruction that is a slow call for every lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // Adding 1.5 * 2^23 leaves no bits for a fraction; right for |a| < 2^22, which is all that `exp` asks.
        const SHIFT: f32 = 12_582_912.0;
        std::array::from_fn(|i| (a[i] + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn power_of_two(self, n: Self::F) -> Self::F {
        std::array::from_fn(|i| f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn less(self, a: Self::F, b: Self::F) -> Self::Mask {
        std::array::from_fn(|i| a[i] < b[i])
    }

    #[inline(always)]
    fn equal(self, a: Self::F, b: Self::F) -> Self::Mask {
        std::array::from_fn(|i| a[i] == b[i])
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, yes: Self::F, no: Self::F) -> Self::F {
        std::array::from_fn(|i| if mask[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }

    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |largest, x| if x > largest { x } else { largest })
    }
}
