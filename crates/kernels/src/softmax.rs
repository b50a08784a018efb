//! Softmax of one row.

use crate::compute::Isa;
use crate::lanes::{Kernel, Lanes, WIDTH_MAX, dispatch, exp};

/// `x[i] = e^(x[i] - max) / sum`, `[n]`; `-inf` gives 0, and a row of nothing but `-inf` all zeros (no NaN, so that a
/// mask that leaves nothing is harmless). A NaN or `+inf` makes the row NaN.
///
/// # Panics
/// When `isa` is not this machine's.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    dispatch(isa, Softmax(x));
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let x = self.0;
        let n = x.len();
        let whole = n - n % L::WIDTH;
        let mut rest = [f32::NEG_INFINITY; WIDTH_MAX];
        rest[..n - whole].copy_from_slice(&x[whole..]);

        let mut largest = lanes.read(&rest);
        for i in (0..whole).step_by(L::WIDTH) {
            largest = lanes.max(lanes.read(&x[i..]), largest);
        }
        let largest = lanes.largest(largest);
        if largest == f32::NEG_INFINITY && x.iter().all(|&x| x == f32::NEG_INFINITY) {
            return x.fill(0.0);
        }

        let shift = lanes.splat(largest);
        let mut sums = lanes.splat(0.0);
        for i in (0..whole).step_by(L::WIDTH) {
            let y = exp(lanes, lanes.sub(lanes.read(&x[i..]), shift));
            lanes.write(&mut x[i..], y);
            sums = lanes.add(sums, y);
        }
        let y = exp(lanes, lanes.sub(lanes.read(&rest), shift));
        lanes.write(&mut rest, y);
        let inverse = 1.0 / lanes.sum(lanes.add(sums, y));

        x[whole..].copy_from_slice(&rest[..n - whole]);
        for x in x.iter_mut() {
            *x *= inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(x: &[f32]) {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let exps: Vec<f64> = x.iter().map(|&x| (x as f64 - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        for isa in Isa::available() {
            let mut y = x.to_vec();
            softmax(isa, &mut y);
            for i in 0..x.len() {
                let expected = exps[i] / sum;
                let error = (y[i] as f64 - expected).abs();
                assert!(
                    error <= (1e-6 + 1e-7 * (x[i] as f64 - max).abs().min(1e3)) * expected + 1e-37,
                    "{isa}, {i}: {} {expected}",
                    y[i]
                );
            }
        }
    }

    proptest! {
        #[test]
        fn softmax_matches_f64(mut x in proptest::collection::vec(-80f32..80.0, 1..200), hole in 0usize..200) {
            check(&x);
            let last = x.len() - 1;
            if hole < last {
                x[hole] = f32::NEG_INFINITY;
                x[last] = 3e38;
                check(&x);
            }
        }
    }

    #[test]
    fn nothing_left_is_zeros_and_nan_stays() {
        for isa in Isa::available() {
            for n in [0, 1, 8, 19] {
                let mut x = vec![f32::NEG_INFINITY; n];
                softmax(isa, &mut x);
                assert_eq!(x, vec![0.0; n], "{isa}");
            }
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = [1.0; 21];
                x[20] = bad;
                softmax(isa, &mut x);
                assert!(x[20].is_nan(), "{isa}");
            }
        }
    }
}
