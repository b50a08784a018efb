//! Numbers as integers with a common scale, whose products are summed exactly.

use super::cache::PAGE_TOKENS;
use crate::lanes::{Lanes, WIDTH_MAX};
use crate::memory::Zeroed;

/// Numbers that are all smaller than this count as zero: their scale's inverse would overflow.
pub(super) const SMALLEST: f32 = 1e-30;

/// An integer of the cache.
pub(super) trait Code: Copy + Zeroed {
    const MOST: i32;

    /// A code that is within the limits.
    fn of(code: i16) -> Self;

    /// Pairs of neighbours.
    ///
    /// # Safety
    /// `from` must be readable for `2 * L::WIDTH` codes.
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self) -> L::Pairs;
}

impl Code for i16 {
    const MOST: i32 = i16::MAX as i32;

    #[inline(always)]
    fn of(code: i16) -> i16 {
        code
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const i16) -> L::Pairs {
        // SAFETY: the caller's promise.
        unsafe { lanes.load_pairs(from) }
    }
}

impl Code for i8 {
    const MOST: i32 = i8::MAX as i32;

    #[inline(always)]
    fn of(code: i16) -> i8 {
        code as i8
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const i8) -> L::Pairs {
        // SAFETY: the caller's promise.
        unsafe { lanes.load_byte_pairs(from) }
    }
}

/// The largest codes of either side of the two products, such that sums stay within 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub query: f32,
    pub key: f32,
    pub weight: f32,
    pub value: f32,
}

impl Limits {
    /// For heads of `head_dim` elements in a cache of `E`.
    pub fn of<E: Code>(head_dim: usize) -> Limits {
        let (query, key) = limits(E::MOST, head_dim);
        let (weight, value) = limits(E::MOST, PAGE_TOKENS);
        Limits { query, key, weight, value }
    }
}

/// Limits of a code of 16 bits and of one of at most `most`, of which `terms` products are summed.
fn limits(most: i32, terms: usize) -> (f32, f32) {
    let product = i32::MAX / terms as i32;
    let kept = most.min(product.isqrt());
    ((product / kept).min(i16::MAX.into()) as f32, kept as f32)
}

/// Rounds `values` to multiples of the scale that is returned, with the largest at `most`; `codes` is as long. Where one
/// is no finite number, the scale is NaN and the codes are 0.
#[inline(always)]
pub(super) fn encode<L: Lanes>(lanes: L, values: &[f32], most: f32, codes: &mut [i16]) -> f32 {
    assert_eq!(values.len(), codes.len());
    let zero = lanes.splat(0.0);
    let (mut largest, mut spoilt) = (zero, zero);
    let (parts, rest) = (values.chunks_exact(L::WIDTH), padded::<L>(values));
    for part in parts.chain(rest.as_ref().map(|rest| &rest[..L::WIDTH])) {
        let x = lanes.read(part);
        largest = lanes.max(lanes.max(x, lanes.sub(zero, x)), largest);
        // Nothing but numbers is zero times zero.
        spoilt = lanes.fma(x, zero, spoilt);
    }
    let largest = lanes.largest(largest);
    let finite = lanes.sum(spoilt) == 0.0;
    if !finite || largest < SMALLEST {
        codes.fill(0);
        return if finite { 0.0 } else { f32::NAN };
    }
    let inverse = lanes.splat(most / largest);
    let mut places = codes.chunks_exact_mut(L::WIDTH);
    for (part, codes) in values.chunks_exact(L::WIDTH).zip(&mut places) {
        let code = lanes.round(lanes.mul(lanes.read(part), inverse));
        // SAFETY: the chunk is as long as a vector.
        unsafe { lanes.store_i16(codes.as_mut_ptr(), code) };
    }
    if let Some(rest) = rest {
        let place = places.into_remainder();
        let mut codes = [0i16; WIDTH_MAX];
        let code = lanes.round(lanes.mul(lanes.read(&rest), inverse));
        // SAFETY: `codes` has room for every width.
        unsafe { lanes.store_i16(codes.as_mut_ptr(), code) };
        place.copy_from_slice(&codes[..place.len()]);
    }
    largest / most
}

/// What whole vectors leave of `values`, with zeros after it.
#[inline(always)]
fn padded<L: Lanes>(values: &[f32]) -> Option<[f32; WIDTH_MAX]> {
    let rest = values.chunks_exact(L::WIDTH).remainder();
    if rest.is_empty() {
        return None;
    }
    let mut all = [0.0; WIDTH_MAX];
    all[..rest.len()].copy_from_slice(rest);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<E: Code>(head_dim: usize) {
        let Limits { query, key, weight, value } = Limits::of::<E>(head_dim);
        assert!(f64::from(query) * f64::from(key) * head_dim as f64 <= f64::from(i32::MAX));
        assert!(f64::from(weight) * f64::from(value) * PAGE_TOKENS as f64 <= f64::from(i32::MAX));
        assert!([query, weight].into_iter().all(|most| most <= i16::MAX.into()));
        assert!([key, value].into_iter().all(|most| most as i32 <= E::MOST));
        assert!(query >= 127.0 && key >= 127.0 && weight >= 127.0 && value >= 127.0);
    }

    #[test]
    fn sums_of_the_largest_codes_fit_32_bits() {
        for head_dim in [1, 2, 64, 80, 128, 256, 512] {
            check::<i16>(head_dim);
            check::<i8>(head_dim);
        }
    }
}
