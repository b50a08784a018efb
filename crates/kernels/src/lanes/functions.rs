//! Transcendental functions on vectors, the same polynomials on every instruction set.

use super::Lanes;

/// Below this `exp` is smaller than the least normal number, and returned as 0.
const EXP_LOW: f32 = -87.336_54;
/// Above this `exp` is returned as infinity, half an octave early: `2^128` has no bits of its own.
const EXP_HIGH: f32 = 88.376_26;
/// `ln 2` as a short part, exact in products with the integers that occur, and the rest.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// The polynomial of `x` with these coefficients, that of the highest power first (Horner).
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(lanes: L, x: L::F, coefficients: [f32; N]) -> L::F {
    let mut sum = lanes.splat(coefficients[0]);
    for coefficient in &coefficients[1..] {
        sum = lanes.fma(sum, x, lanes.splat(*coefficient));
    }
    sum
}

/// `e^x`: `2^n * (1 + r + r^2 P(r))` with `n` the nearest integer to `x / ln 2` and `|r| <= ln(2)/2`.
///
/// `P` is our own minimax fit (relative error of the whole 3.1e-9 in exact arithmetic); with rounding the result is
/// within 2e-7 of `e^x`, relatively, over [-87.336, 88.376]; 0 below, infinity above, NaN for NaN, and exactly 1 for 0.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let low = lanes.splat(EXP_LOW);
    let high = lanes.splat(EXP_HIGH);
    let value = exp_within(lanes, lanes.min(high, lanes.max(low, x)));
    let value = lanes.select(lanes.less(high, x), lanes.splat(f32::INFINITY), value);
    lanes.select(lanes.less(x, low), lanes.splat(0.0), value)
}

/// `e^x` for x from [`EXP_LOW`] to 88.7, infinity from [`EXP_HIGH`] on.
#[inline(always)]
fn exp_within<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let n = lanes.round(lanes.mul(x, lanes.splat(std::f32::consts::LOG2_E)));
    let r = lanes.fma(n, lanes.splat(-LN_2_HIGH), x);
    let r = lanes.fma(n, lanes.splat(-LN_2_LOW), r);
    let p = polynomial(lanes, r, [0.001_381_446_7, 0.008_368_781, 0.041_668_393, 0.166_665_2, 0.499_999_94]);
    let p = lanes.fma(p, lanes.mul(r, r), r);
    lanes.mul(lanes.add(p, lanes.splat(1.0)), lanes.power_of_two(n))
}

/// `1 / (1 + e^-x)`, within 3e-7 relatively for x above -87; 0 below -88.4.
#[inline(always)]
pub(crate) fn sigmoid<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let one = lanes.splat(1.0);
    let minus_x = lanes.sub(lanes.splat(0.0), x);
    // What is beyond becomes 1 or, by way of infinity, 0.
    let minus_x = lanes.min(lanes.splat(88.5), lanes.max(lanes.splat(EXP_LOW), minus_x));
    lanes.div(one, lanes.add(one, exp_within(lanes, minus_x)))
}

/// `tanh x` within 3e-7, relatively: an odd polynomial (our own minimax fit, 4.4e-9 in exact arithmetic) up to 0.625,
/// and `1 - 2 / (e^2x + 1)` beyond, where no digits cancel.
#[inline(always)]
pub(crate) fn tanh<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let one = lanes.splat(1.0);
    let zero = lanes.splat(0.0);
    let minus_x = lanes.sub(zero, x);
    let size = lanes.max(minus_x, x);
    let square = lanes.mul(x, x);
    let p =
        polynomial(lanes, square, [-0.005_705_41, 0.020_639_414, -0.053_739_8, 0.133_314_43, -0.333_332_8]);
    let near = lanes.fma(lanes.mul(p, square), x, x);
    // 1 long before 30.
    let grown = exp_within(lanes, lanes.min(lanes.splat(30.0), lanes.add(size, size)));
    let far = lanes.sub(one, lanes.div(lanes.splat(2.0), lanes.add(grown, one)));
    let far = lanes.select(lanes.less(x, zero), lanes.sub(zero, far), far);
    lanes.select(lanes.less(size, lanes.splat(0.625)), near, far)
}

/// The error function within 4e-7, relatively: up to 1 `x` times a polynomial in `x²` (our own minimax fit, 1.3e-9), beyond
/// `1 - e^-p(x)` (our own fit: within 3e-11 in exact arithmetic), held at 4.
#[inline(always)]
pub(crate) fn erf<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let (zero, one, four) = (lanes.splat(0.0), lanes.splat(1.0), lanes.splat(4.0));
    let square = lanes.mul(x, x);
    let p = polynomial(
        lanes,
        square,
        [
            7.853_861e-5,
            -0.000_801_019_35,
            0.005_188_327_7,
            -0.026_853_812,
            0.112_835_85,
            -0.376_126_26,
            std::f32::consts::FRAC_2_SQRT_PI,
        ],
    );
    let near = lanes.mul(p, x);
    let size = lanes.max(lanes.sub(zero, x), x);
    let held = lanes.min(four, size);
    let p = polynomial(
        lanes,
        held,
        [
            2.149_604_8e-5,
            -0.000_439_105_65,
            0.004_193_607_7,
            -0.025_178_96,
            0.108_372_466,
            0.633_262_6,
            1.129_556_8,
            -0.000_183_443_09,
        ],
    );
    let far = lanes.sub(one, exp_within(lanes, lanes.sub(zero, p)));
    let far = lanes.select(lanes.less(x, zero), lanes.sub(zero, far), far);
    lanes.select(lanes.less(size, one), near, far)
}

#[cfg(test)]
mod tests {
    use super::super::{Kernel, WIDTH_MAX, dispatch};
    use super::*;
    use crate::compute::Isa;

    enum Function {
        Exp,
        Sigmoid,
        Tanh,
        Erf,
    }

    struct Apply<'a>(&'a Function, [f32; WIDTH_MAX]);

    impl Kernel for Apply<'_> {
        type Output = [f32; WIDTH_MAX];

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> [f32; WIDTH_MAX] {
            let mut out = self.1;
            for part in out.chunks_exact_mut(L::WIDTH) {
                let x = lanes.read(part);
                let y = match self.0 {
                    Function::Exp => exp(lanes, x),
                    Function::Sigmoid => sigmoid(lanes, x),
                    Function::Tanh => tanh(lanes, x),
                    Function::Erf => erf(lanes, x),
                };
                lanes.write(part, y);
            }
            out
        }
    }

    /// The largest relative error against `exact` in f64 over `range`.
    fn check(function: Function, range: std::ops::Range<f32>, exact: fn(f64) -> f64, limit: f64) {
        for isa in Isa::available() {
            let mut worst = (0.0, 0.0);
            let steps = 200_000;
            for start in (0..steps).step_by(WIDTH_MAX) {
                let x: [f32; WIDTH_MAX] = std::array::from_fn(|i| {
                    range.start + (range.end - range.start) * ((start + i) as f32 / steps as f32)
                });
                let y = dispatch(isa, Apply(&function, x));
                for i in 0..WIDTH_MAX {
                    let expected = exact(x[i] as f64);
                    let error = ((y[i] as f64 - expected) / expected.abs().max(1e-300)).abs();
                    if x[i] != 0.0 && error > worst.0 {
                        worst = (error, x[i]);
                    }
                }
            }
            println!("{isa}: relative error {:.2e} at {}", worst.0, worst.1);
            assert!(worst.0 < limit, "{isa}: {:.3e} at {}", worst.0, worst.1);
        }
    }

    #[test]
    fn exp_is_within_its_bound() {
        check(Function::Exp, -87.33..88.37, f64::exp, 2e-7);
        check(Function::Exp, -1.0..1.0, f64::exp, 2e-7);
    }

    #[test]
    fn sigmoid_is_within_its_bound() {
        check(Function::Sigmoid, -87.0..87.0, |x| 1.0 / (1.0 + (-x).exp()), 3e-7);
    }

    #[test]
    fn tanh_is_within_its_bound() {
        check(Function::Tanh, -20.0..20.0, f64::tanh, 3e-7);
        check(Function::Tanh, -1.0..1.0, f64::tanh, 3e-7);
        check(Function::Tanh, -1e-3..1e-3, f64::tanh, 3e-7);
    }

    #[test]
    fn erf_is_within_its_bound() {
        check(Function::Erf, -1.0..1.0, libm::erf, 4e-7);
        check(Function::Erf, -6.0..6.0, libm::erf, 4e-7);
    }

    #[test]
    fn edges_are_exact_on_every_instruction_set() {
        let edges = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -87.4, 88.5];
        for isa in Isa::available() {
            let at = |function, x| dispatch(isa, Apply(&function, [x; WIDTH_MAX]))[0];
            let exps: Vec<f32> = edges.iter().map(|&x| at(Function::Exp, x)).collect();
            let infinity = f32::INFINITY;
            assert_eq!(exps, [1.0, 1.0, infinity, 0.0, infinity, 0.0, 0.0, infinity], "{isa}");
            let tanhs: Vec<f32> = edges.iter().map(|&x| at(Function::Tanh, x)).collect();
            assert_eq!(tanhs, [0.0, 0.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0], "{isa}");
            let sigmoids: Vec<f32> = edges[2..].iter().map(|&x| at(Function::Sigmoid, x)).collect();
            assert_eq!(sigmoids[..4], [1.0, 0.0, 1.0, 0.0], "{isa}");
            let erfs: Vec<f32> = edges.iter().map(|&x| at(Function::Erf, x)).collect();
            assert_eq!(erfs, [0.0, 0.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0], "{isa}");
            for function in [Function::Exp, Function::Sigmoid, Function::Tanh, Function::Erf] {
                assert!(at(function, f32::NAN).is_nan(), "{isa}");
            }
        }
    }
}
