//! Activations, element by element, on a vectorised exponential.

use crate::multiversion::{multiply_add, multiversion};

/// Below this, `exp` is zero here: results that would be denormal are dropped.
const EXP_MIN: f32 = -87.3;
/// Above this, `exp` would overflow; it stays at its value there.
const EXP_MAX: f32 = 88.0;

/// `e^x`, within 2e-7 relative between the limits above.
///
/// `2^n · p(r)` with `n = round(x / ln 2)`, `|r| <= ln 2 / 2` and a Taylor polynomial of degree 7. Exactly 1 at 0.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding this leaves the rounded integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < EXP_MAX { x } else { EXP_MAX };
    let shifted = multiply_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN2_HIGH, clamped);
    let r = multiply_add::<FMA>(n, -LN2_LOW, r);
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = multiply_add::<FMA>(p, r, coefficient);
    }
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < EXP_MIN { 0.0 } else { p * scale }
}

/// `tanh(x)`, within 3e-7 absolute.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

multiversion! {
    /// `gate[i] = gate[i] * sigmoid(gate[i]) * up[i]`: SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020).
    pub fn silu_mul(gate: &mut [f32], up: &[f32]) = silu_mul_body
}

#[inline(always)]
fn silu_mul_body<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up of one length");
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp::<FMA>(-*gate)) * up;
    }
}

multiversion! {
    /// `gate[i] = gelu(gate[i]) * up[i]` with the tanh form of GELU (Hendrycks and Gimpel, 2016).
    pub fn gelu_tanh_mul(gate: &mut [f32], up: &[f32]) = gelu_tanh_mul_body
}

#[inline(always)]
fn gelu_tanh_mul_body<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    /// `sqrt(2 / pi)`.
    const SCALE: f32 = 0.797_884_6;
    assert_eq!(gate.len(), up.len(), "gate and up of one length");
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = *gate;
        let inner = SCALE * multiply_add::<FMA>(0.044715 * x * x, x, x);
        *gate = 0.5 * x * (1.0 + tanh::<FMA>(inner)) * up;
    }
}

multiversion! {
    /// `x[i] = cap * tanh(x[i] / cap)`: Gemma 2's bound on scores and logits.
    pub fn softcap(x: &mut [f32], cap: f32) = softcap_body
}

#[inline(always)]
fn softcap_body<const FMA: bool>(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * tanh::<FMA>(*x / cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Isa;
    use proptest::prelude::*;

    #[test]
    fn exp_is_close_and_one_at_zero() {
        assert_eq!(exp::<true>(0.0), 1.0);
        assert_eq!(exp::<false>(0.0), 1.0);
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert!(exp::<true>(f32::INFINITY).is_finite());
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let expected = f64::from(x).exp();
            for found in [exp::<true>(x), exp::<false>(x)] {
                let error = (f64::from(found) - expected).abs() / expected;
                assert!(error < 3e-7, "exp({x}) = {found}, off by {error}");
            }
        }
    }

    proptest! {
        #[test]
        fn activations_agree_with_double_precision(
            gate in prop::collection::vec(-30.0f32..30.0, 1..70), cap in 1.0f32..60.0
        ) {
            let up: Vec<f32> = (0..gate.len()).map(|i| 1.0 + i as f32 * 0.1).collect();
            let check = |found: &[f32], expected: &dyn Fn(f64, f64) -> f64| {
                for ((found, gate), up) in found.iter().zip(&gate).zip(&up) {
                    let expected = expected(f64::from(*gate), f64::from(*up));
                    assert!((f64::from(*found) - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{found} {expected}");
                }
            };
            for isa in Isa::available() {
                let mut x = gate.clone();
                silu_mul(isa, &mut x, &up);
                check(&x, &|g, u| g / (1.0 + (-g).exp()) * u);
                let mut x = gate.clone();
                gelu_tanh_mul(isa, &mut x, &up);
                let scale = (2.0 / std::f64::consts::PI).sqrt();
                check(&x, &|g, u| 0.5 * g * (1.0 + (scale * (g + 0.044715 * g * g * g)).tanh()) * u);
                let mut x = gate.clone();
                softcap(isa, &mut x, cap);
                check(&x, &|g, _| f64::from(cap) * (g / f64::from(cap)).tanh());
            }
        }
    }
}
