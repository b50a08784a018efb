//! The nonlinear functions between matrix products, element by element. An element's bits depend on nothing but its
//! value and the instruction set.

use crate::compute::Isa;
use crate::lanes::{Kernel, Lanes, WIDTH_MAX, dispatch, sigmoid, tanh};

/// `out[i] = gate[i] * sigmoid(gate[i]) * up[i]`, each `[n]`: the gate of SwiGLU.
///
/// Source: Shazeer, GLU Variants Improve Transformer, 2020. Within 1e-6, relatively, above -87.
///
/// # Panics
/// When the lengths differ or `isa` is not this machine's.
pub fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    dispatch(isa, Gate { x: gate, y: up, out, function: SiluMul });
}

/// `out[i] = gelu(gate[i]) * up[i]`, each `[n]`, with the tanh form of GELU: the gate of Gemma's GeGLU.
///
/// `gelu(x) = x/2 (1 + tanh u) = x sigmoid(2u)` with `u = sqrt(2/pi) (x + 0.044715 x³)`; the latter form doesn't cancel.
/// Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016. Within 2e-5, relatively, where the result is not
/// below 1e-30.
///
/// # Panics
/// As [`silu_mul`].
pub fn gelu_tanh_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    dispatch(isa, Gate { x: gate, y: up, out, function: GeluTanhMul });
}

/// `x[i] = cap * tanh(x[i] / cap)`: keeps scores between `-cap` and `cap`, as in Gemma 2.
///
/// # Panics
/// When `cap` is not positive or `isa` is not this machine's.
pub fn softcap(isa: Isa, x: &mut [f32], cap: f32) {
    assert!(cap > 0.0, "a soft cap is positive, not {cap}");
    dispatch(isa, Cap { x, cap: Softcap::new(cap) });
}

/// A function of a vector and of the vector that it scales.
trait Function: Copy {
    fn apply<L: Lanes>(self, lanes: L, x: L::F, y: L::F) -> L::F;
}

#[derive(Clone, Copy)]
struct SiluMul;

impl Function for SiluMul {
    #[inline(always)]
    fn apply<L: Lanes>(self, lanes: L, x: L::F, y: L::F) -> L::F {
        lanes.mul(lanes.mul(x, sigmoid(lanes, x)), y)
    }
}

#[derive(Clone, Copy)]
struct GeluTanhMul;

impl Function for GeluTanhMul {
    #[inline(always)]
    fn apply<L: Lanes>(self, lanes: L, x: L::F, y: L::F) -> L::F {
        const TWO_SQRT_2_OVER_PI: f32 = 1.595_769;
        let cubic = lanes.fma(lanes.mul(x, x), lanes.splat(0.044_715), lanes.splat(1.0));
        let two_u = lanes.mul(lanes.mul(x, cubic), lanes.splat(TWO_SQRT_2_OVER_PI));
        lanes.mul(lanes.mul(x, sigmoid(lanes, two_u)), y)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Softcap {
    cap: f32,
    inverse: f32,
}

impl Softcap {
    /// For a cap above 0.
    pub(crate) fn new(cap: f32) -> Softcap {
        Softcap { cap, inverse: 1.0 / cap }
    }

    #[inline(always)]
    pub(crate) fn of<L: Lanes>(self, lanes: L, x: L::F) -> L::F {
        lanes.mul(tanh(lanes, lanes.mul(x, lanes.splat(self.inverse))), lanes.splat(self.cap))
    }
}

struct Gate<'a, F> {
    x: &'a [f32],
    y: &'a [f32],
    out: &'a mut [f32],
    function: F,
}

impl<F: Function> Kernel for Gate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let n = self.out.len();
        assert!(self.x.len() == n && self.y.len() == n, "each gate has its value and its place");
        let whole = n - n % L::WIDTH;
        for i in (0..whole).step_by(L::WIDTH) {
            let (x, y) = (lanes.read(&self.x[i..]), lanes.read(&self.y[i..]));
            lanes.write(&mut self.out[i..], self.function.apply(lanes, x, y));
        }
        if whole < n {
            // The rest goes through the same instructions, so an element's place doesn't change its bits.
            let (mut x, mut y) = ([0.0; WIDTH_MAX], [0.0; WIDTH_MAX]);
            x[..n - whole].copy_from_slice(&self.x[whole..]);
            y[..n - whole].copy_from_slice(&self.y[whole..]);
            let result = self.function.apply(lanes, lanes.read(&x), lanes.read(&y));
            lanes.write(&mut x, result);
            self.out[whole..].copy_from_slice(&x[..n - whole]);
        }
    }
}

struct Cap<'a> {
    x: &'a mut [f32],
    cap: Softcap,
}

impl Kernel for Cap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut parts = self.x.chunks_exact_mut(L::WIDTH);
        for part in &mut parts {
            let capped = self.cap.of(lanes, lanes.read(part));
            lanes.write(part, capped);
        }
        let rest = parts.into_remainder();
        let mut values = [0.0; WIDTH_MAX];
        values[..rest.len()].copy_from_slice(rest);
        let capped = self.cap.of(lanes, lanes.read(&values));
        lanes.write(&mut values, capped);
        rest.copy_from_slice(&values[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(isa: Isa, got: f32, expected: f64, relative: f64) {
        let error = (got as f64 - expected).abs();
        assert!(error <= relative * expected.abs() + 1e-30, "{isa}: {got} instead of {expected}");
    }

    fn check(pairs: &[(f32, f32)]) {
        let up: Vec<f32> = pairs.iter().map(|pair| pair.1).collect();
        let gate: Vec<f32> = pairs.iter().map(|pair| pair.0).collect();
        let run = |f: &dyn Fn(&mut [f32])| {
            let mut out = gate.clone();
            f(&mut out);
            out
        };
        for isa in Isa::available() {
            let silu = run(&|out| silu_mul(isa, &gate, &up, out));
            let gelu = run(&|out| gelu_tanh_mul(isa, &gate, &up, out));
            let capped = run(&|x| softcap(isa, x, 30.0));
            for (i, &(x, y)) in pairs.iter().enumerate() {
                let (x, y) = (x as f64, y as f64);
                near(isa, silu[i], x / (1.0 + (-x).exp()) * y, 1e-6);
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                near(isa, gelu[i], x / (1.0 + (-2.0 * u).exp()) * y, 2e-5);
                near(isa, capped[i], 30.0 * (x / 30.0).tanh(), 1e-6);
            }
            let mut alone = [0.0];
            silu_mul(isa, &gate[..1], &up[..1], &mut alone);
            assert_eq!(alone[0].to_bits(), silu[0].to_bits(), "{isa}: place changes bits");
        }
    }

    proptest! {
        #[test]
        fn activations_match_f64(pairs in proptest::collection::vec((-40f32..40.0, -3f32..3.0), 1..100)) {
            check(&pairs);
        }
    }

    #[test]
    fn large_values_saturate() {
        for isa in Isa::available() {
            let mut out = [7.0; 4];
            silu_mul(isa, &[-1e4, 1e4, f32::MAX, -f32::MAX], &[1.0; 4], &mut out);
            assert_eq!(out, [0.0, 1e4, f32::MAX, 0.0], "{isa}");
            let mut out = [7.0; 3];
            gelu_tanh_mul(isa, &[-1e4, 1e4, f32::INFINITY], &[1.0; 3], &mut out);
            assert_eq!(out, [0.0, 1e4, f32::INFINITY], "{isa}");
            let mut x = [f32::NEG_INFINITY, f32::INFINITY];
            softcap(isa, &mut x, 50.0);
            assert_eq!(x, [-50.0, 50.0], "{isa}");
        }
    }
}
