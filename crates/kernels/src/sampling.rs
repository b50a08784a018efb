//! What choosing a token asks of a whole vocabulary: the largest logit, weights, a draw.

use crate::compute::Isa;
use crate::lanes::{Kernel, Lanes, dispatch, exp};

/// Vectors whose sums are independent of each other, to hide an addition's latency.
const CHAINS: usize = 4;
/// Weights whose sum is taken as one when a draw looks for its place.
const DRAW_BLOCK: usize = 256;

/// Whether no element is infinite or no number.
///
/// # Panics
/// When `isa` is not this machine's, as for all functions here.
pub fn all_finite(isa: Isa, x: &[f32]) -> bool {
    // Zero times anything finite is zero, anything else makes the sum NaN.
    dispatch(isa, Sum { x, factor: 0.0 }) == 0.0
}

/// The index of the largest element, the first of several; `None` where there is none above `-inf`. NaN counts as
/// `-inf`.
pub fn argmax(isa: Isa, x: &[f32]) -> Option<usize> {
    let largest = dispatch(isa, Largest(x));
    if largest == f32::NEG_INFINITY { None } else { x.iter().position(|x| *x == largest) }
}

/// `x[i] = e^((x[i] - largest) / temperature)`.
pub fn weigh(isa: Isa, x: &mut [f32], largest: f32, temperature: f32) {
    dispatch(isa, Weigh { x, largest, temperature });
}

/// The index in whose share of the sum of `weights` a point falls that has `unit`, in 0..1, of the sum before it; the
/// last possible one if rounding leaves it beyond, and `None` where all weights are zero.
pub fn draw(isa: Isa, weights: &[f32], unit: f64) -> Option<usize> {
    let block_sum = |block: &[f32]| f64::from(dispatch(isa, Sum { x: block, factor: 1.0 }));
    let total: f64 = weights.chunks(DRAW_BLOCK).map(block_sum).sum();
    let target = unit * total;
    let mut before = 0.0;
    let mut last = None;
    for (index, block) in weights.chunks(DRAW_BLOCK).enumerate() {
        let sum = block_sum(block);
        if sum == 0.0 {
            continue;
        }
        last = Some(index);
        if before + sum > target {
            break;
        }
        before += sum;
    }
    let first = last? * DRAW_BLOCK;
    let mut sum = before;
    let mut chosen = None;
    for (i, &weight) in weights[first..].iter().take(DRAW_BLOCK).enumerate() {
        if weight > 0.0 {
            sum += f64::from(weight);
            chosen = Some(first + i);
            if sum > target {
                break;
            }
        }
    }
    chosen
}

/// The sum of `factor * x`.
struct Sum<'a> {
    x: &'a [f32],
    factor: f32,
}

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        let factor = lanes.splat(self.factor);
        let mut sums = [lanes.splat(0.0); CHAINS];
        let blocks = self.x.chunks_exact(CHAINS * L::WIDTH);
        let rest = blocks.remainder();
        for block in blocks {
            for i in 0..CHAINS {
                sums[i] = lanes.fma(lanes.read(&block[i * L::WIDTH..]), factor, sums[i]);
            }
        }
        let mut all = 0.0;
        for sum in sums {
            all += lanes.sum(sum);
        }
        for x in rest {
            all += x * self.factor;
        }
        all
    }
}

struct Largest<'a>(&'a [f32]);

impl Kernel for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        let mut most = [lanes.splat(f32::NEG_INFINITY); CHAINS];
        let blocks = self.0.chunks_exact(CHAINS * L::WIDTH);
        let rest = blocks.remainder();
        for block in blocks {
            for i in 0..CHAINS {
                // In this order NaN is passed over.
                most[i] = lanes.max(lanes.read(&block[i * L::WIDTH..]), most[i]);
            }
        }
        let mut all = f32::NEG_INFINITY;
        for most in most {
            all = all.max(lanes.largest(most));
        }
        for &x in rest {
            all = if x > all { x } else { all };
        }
        all
    }
}

struct Weigh<'a> {
    x: &'a mut [f32],
    largest: f32,
    temperature: f32,
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (largest, temperature) = (lanes.splat(self.largest), lanes.splat(self.temperature));
        let mut blocks = self.x.chunks_exact_mut(L::WIDTH);
        for block in &mut blocks {
            let scaled = lanes.div(lanes.sub(lanes.read(block), largest), temperature);
            lanes.write(block, exp(lanes, scaled));
        }
        let rest = blocks.into_remainder();
        let mut padded = [f32::NEG_INFINITY; crate::lanes::WIDTH_MAX];
        padded[..rest.len()].copy_from_slice(rest);
        let scaled = lanes.div(lanes.sub(lanes.read(&padded), largest), temperature);
        lanes.write(&mut padded, exp(lanes, scaled));
        rest.copy_from_slice(&padded[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first_largest(x: &[f32]) -> Option<usize> {
        let mut best = None;
        for (i, &value) in x.iter().enumerate() {
            if value > best.map_or(f32::NEG_INFINITY, |best: usize| x[best]) {
                best = Some(i);
            }
        }
        best
    }

    fn draw_one_by_one(weights: &[f32], unit: f64) -> Option<usize> {
        let target = unit * weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        let mut sum = 0.0;
        let mut last = None;
        for (i, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            sum += f64::from(weight);
            last = Some(i);
            if sum > target {
                break;
            }
        }
        last
    }

    proptest! {
        #[test]
        fn argmax_is_the_first_largest(
            x in prop::collection::vec(
                prop_oneof![-9.0f32..9.0, Just(3.0), Just(f32::NAN), Just(f32::NEG_INFINITY)], 0..300),
        ) {
            for isa in Isa::available() {
                prop_assert_eq!(argmax(isa, &x), first_largest(&x), "{}", isa);
            }
        }

        #[test]
        fn one_element_that_is_not_finite_is_found(n in 1usize..300, at in 0usize..300, kind in 0usize..4) {
            let mut x = vec![f32::MAX; n];
            x[at % n] = [1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY][kind];
            for isa in Isa::available() {
                prop_assert_eq!(all_finite(isa, &x), kind == 0, "{}", isa);
            }
        }

        /// Weights that are multiples of 1/64 add up exactly in any order, so that both agree on every border.
        #[test]
        fn a_draw_falls_where_the_sums_say(
            weights in prop::collection::vec((0u8..20).prop_map(|x| f32::from(x) / 64.0), 0..900),
            unit in 0.0f64..1.0,
        ) {
            for isa in Isa::available() {
                prop_assert_eq!(draw(isa, &weights, unit), draw_one_by_one(&weights, unit), "{}", isa);
            }
        }

        #[test]
        fn weights_are_exponentials(x in prop::collection::vec(-50.0f32..0.0, 0..70), temperature in 0.1f32..3.0) {
            for isa in Isa::available() {
                let mut weights = x.clone();
                weigh(isa, &mut weights, 0.0, temperature);
                for (weight, x) in weights.iter().zip(&x) {
                    let expected = f64::from(x / temperature).exp();
                    prop_assert!((f64::from(*weight) - expected).abs() <= 3e-7 * expected + 1e-37, "{} {}", isa, x);
                }
            }
        }
    }

    #[test]
    fn the_last_weight_takes_what_rounding_leaves() {
        for isa in Isa::available() {
            let mut weights = vec![0.0; 700];
            weights[600] = 1.0;
            assert_eq!(draw(isa, &weights, 1.0), Some(600));
            assert_eq!(draw(isa, &[0.0; 5], 0.5), None);
            assert_eq!(draw(isa, &[], 0.5), None);
        }
    }
}
