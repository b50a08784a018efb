//! Normalisation of one row.

use crate::multiversion::{multiply_add, multiversion};

/// Partial sums kept side by side; the order of additions is the same on every instruction set.
const LANES: usize = 32;

multiversion! {
    /// `out[i] = x[i] * weight[i] / sqrt(mean(x²) + epsilon)` over a row of `h` elements.
    ///
    /// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn rms_norm(row: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_body
}

#[inline(always)]
fn rms_norm_body<const FMA: bool>(row: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(
        row.len() == weight.len() && row.len() == out.len(),
        "a row, its weight and its result differ in length"
    );
    let squares = sum_products::<FMA>(row, row);
    let scale = 1.0 / (squares / row.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
        *out = x * scale * weight;
    }
}

multiversion! {
    /// `out[i] = (x[i] - mean) / sqrt(variance + epsilon) * weight[i] + bias[i]` over a row of `h` elements.
    ///
    /// Source: Ba et al., "Layer Normalization" (2016).
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn layer_norm(row: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32])
        = layer_norm_body
}

#[inline(always)]
fn layer_norm_body<const FMA: bool>(
    row: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    epsilon: f32,
    out: &mut [f32],
) {
    assert!(
        row.len() == weight.len() && row.len() == out.len(),
        "a row, its weight and its result differ in length"
    );
    let length = row.len() as f32;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() as f32 / length;
    for (out, x) in out.iter_mut().zip(row) {
        *out = x - mean;
    }
    let scale = 1.0 / (sum_products::<FMA>(out, out) / length + epsilon).sqrt();
    for (out, weight) in out.iter_mut().zip(weight) {
        *out *= scale * weight;
    }
    if let Some(bias) = bias {
        assert_eq!(bias.len(), out.len(), "a bias as long as the row");
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

#[inline(always)]
fn sum_products<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_blocks.remainder(), b_blocks.remainder());
    for (a, b) in a_blocks.zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] = multiply_add::<FMA>(a[lane], b[lane], lanes[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] = multiply_add::<FMA>(*a, *b, lanes[lane]);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Isa;
    use proptest::prelude::*;

    fn close(found: &[f32], expected: impl Iterator<Item = f64>) {
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() <= 3e-6 * expected.abs().max(1.0),
                "{found} for {expected}"
            );
        }
    }

    proptest! {
        #[test]
        fn norms_agree_with_double_precision(
            row in prop::collection::vec(-50.0f32..50.0, 1..400), epsilon in 1e-6f32..1e-3
        ) {
            let weight: Vec<f32> = (0..row.len()).map(|i| 0.5 + i as f32 * 0.01).collect();
            let n = row.len() as f64;
            let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
            let mean: f64 = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let variance: f64 = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
            for isa in Isa::available() {
                let mut out = vec![0.0; row.len()];
                rms_norm(isa, &row, &weight, epsilon, &mut out);
                let rms = (squares / n + f64::from(epsilon)).sqrt();
                close(&out, row.iter().zip(&weight).map(|(x, w)| f64::from(*x) / rms * f64::from(*w)));
                // A nearly constant row has few digits left after its mean is taken.
                if variance > 1.0 {
                    layer_norm(isa, &row, &weight, Some(&weight), epsilon, &mut out);
                    let deviation = (variance + f64::from(epsilon)).sqrt();
                    let of = |(x, w): (&f32, &f32)| (f64::from(*x) - mean) / deviation * f64::from(*w) + f64::from(*w);
                    for (found, expected) in out.iter().zip(row.iter().zip(&weight).map(of)) {
                        prop_assert!((f64::from(*found) - expected).abs() <= 2e-5 * expected.abs().max(1.0));
                    }
                }
            }
        }
    }
}
