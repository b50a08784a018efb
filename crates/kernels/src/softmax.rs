//! Softmax of one row.

use crate::activation::exp;
use crate::multiversion::multiversion;

multiversion! {
    /// `x[i] = e^(x[i] - max) / sum`, in place. A row without a finite element becomes uniform.
    pub fn softmax(x: &mut [f32]) = softmax_body
}

#[inline(always)]
fn softmax_body<const FMA: bool>(x: &mut [f32]) {
    let mut max = f32::NEG_INFINITY;
    for x in x.iter() {
        max = if *x > max { *x } else { max };
    }
    if !max.is_finite() {
        let share = 1.0 / x.len().max(1) as f32;
        x.fill(share);
        return;
    }
    let mut sum = 0.0f64;
    for x in x.iter_mut() {
        *x = exp::<FMA>(*x - max);
        sum += f64::from(*x);
    }
    let scale = (1.0 / sum) as f32;
    for x in x {
        *x *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Isa;

    fn check(input: &[f32], expected: &[f32]) {
        for isa in Isa::available() {
            let mut x = input.to_vec();
            softmax(isa, &mut x);
            for (found, expected) in x.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{isa}: {x:?} for {expected:?}");
            }
        }
    }

    #[test]
    fn known_rows() {
        check(&[], &[]);
        check(&[3.0], &[1.0]);
        check(&[0.0, 0.0], &[0.5, 0.5]);
        check(&[1000.0, 1000.0], &[0.5, 0.5]);
        check(&[0.0, std::f32::consts::LN_2], &[1.0 / 3.0, 2.0 / 3.0]);
        check(&[f32::NEG_INFINITY, 1.0], &[0.0, 1.0]);
        check(&[f32::NEG_INFINITY, f32::NEG_INFINITY], &[0.5, 0.5]);
    }
}
