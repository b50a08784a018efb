//! Normalisation of one row. Rows of a batch are the caller's loop, so a row's bits depend on nothing but the row.

use crate::compute::Isa;
use crate::lanes::{Kernel, Lanes, dispatch};

/// `out[i] = row[i] / sqrt(mean(row²) + epsilon) * weight[i]`, all `[n]`.
///
/// The mean square is summed in f32, in one order an instruction set, within 1e-6 of the exact one.
/// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
///
/// # Panics
/// When the lengths differ or `isa` is not this machine's.
pub fn rms_norm(isa: Isa, row: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!(row.len(), out.len(), "rms_norm writes as many elements as it reads");
    let scale = rms_scale(isa, row, epsilon);
    dispatch(isa, ScaleTo { row, mean: 0.0, scale, weight, bias: None, out });
}

/// `out[i] = (row[i] - mean) / sqrt(variance + epsilon) * weight[i] + bias[i]`, all `[n]`.
///
/// Source: Ba, Kiros and Hinton, Layer Normalization, 2016; the variance divides by n.
///
/// # Panics
/// When the lengths differ or `isa` is not this machine's.
pub fn layer_norm(
    isa: Isa,
    row: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    epsilon: f32,
    out: &mut [f32],
) {
    assert_eq!(row.len(), out.len(), "layer_norm writes as many elements as it reads");
    let n = row.len() as f32;
    let mean = dispatch(isa, Sum { row, centre: 0.0, square: false }) / n;
    let variance = dispatch(isa, Sum { row, centre: mean, square: true }) / n;
    let scale = 1.0 / (variance + epsilon).sqrt();
    dispatch(isa, ScaleTo { row, mean, scale, weight, bias, out });
}

fn rms_scale(isa: Isa, row: &[f32], epsilon: f32) -> f32 {
    let squares = dispatch(isa, Sum { row, centre: 0.0, square: true });
    1.0 / (squares / row.len() as f32 + epsilon).sqrt()
}

/// The sum of `row - centre`, or of its squares.
struct Sum<'a> {
    row: &'a [f32],
    centre: f32,
    square: bool,
}

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        // Four vectors of partial sums: short chains of additions are fast, and round less.
        let mut sums = [lanes.splat(0.0); 4];
        let centre = lanes.splat(self.centre);
        let mut blocks = self.row.chunks_exact(4 * L::WIDTH);
        for block in &mut blocks {
            for i in 0..4 {
                let x = lanes.sub(lanes.read(&block[i * L::WIDTH..]), centre);
                sums[i] = if self.square { lanes.fma(x, x, sums[i]) } else { lanes.add(x, sums[i]) };
            }
        }
        let mut rest = 0.0;
        for x in blocks.remainder() {
            let x = x - self.centre;
            rest += if self.square { x * x } else { x };
        }
        lanes.sum(lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3]))) + rest
    }
}

/// `(row - mean) * scale * weight + bias`.
struct ScaleTo<'a> {
    row: &'a [f32],
    mean: f32,
    scale: f32,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Kernel for ScaleTo<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let n = self.row.len();
        assert_eq!(self.weight.len(), n, "a norm has one weight an element");
        assert!(self.bias.is_none_or(|bias| bias.len() == n), "a norm has one bias an element");
        let (mean, scale) = (lanes.splat(self.mean), lanes.splat(self.scale));
        let whole = n - n % L::WIDTH;
        for i in (0..whole).step_by(L::WIDTH) {
            let x = lanes.mul(lanes.sub(lanes.read(&self.row[i..]), mean), scale);
            let mut y = lanes.mul(x, lanes.read(&self.weight[i..]));
            if let Some(bias) = self.bias {
                y = lanes.add(y, lanes.read(&bias[i..]));
            }
            lanes.write(&mut self.out[i..], y);
        }
        for i in whole..n {
            let y = (self.row[i] - self.mean) * self.scale * self.weight[i];
            self.out[i] = self.bias.map_or(y, |bias| y + bias[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_rms(row: &[f32], weight: &[f32]) {
        let squares: f64 = row.iter().map(|&x| x as f64 * x as f64).sum();
        let scale = 1.0 / (squares / row.len() as f64 + 1e-5).sqrt();
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; row.len()];
            rms_norm(isa, row, weight, 1e-5, &mut out);
            for i in 0..row.len() {
                let expected = row[i] as f64 * scale * weight[i] as f64;
                let error = (out[i] as f64 - expected).abs();
                assert!(error <= 1e-6 * expected.abs() + 1e-37, "{isa}, {i}: {} {expected}", out[i]);
            }
        }
    }

    fn check_layer(row: &[f32], weight: &[f32], bias: Option<&[f32]>) {
        let n = row.len() as f64;
        let mean = row.iter().map(|&x| x as f64).sum::<f64>() / n;
        let variance = row.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / n;
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; row.len()];
            layer_norm(isa, row, weight, bias, 1e-5, &mut out);
            for i in 0..row.len() {
                let scaled = (row[i] as f64 - mean) / (variance + 1e-5).sqrt() * weight[i] as f64;
                let expected = scaled + bias.map_or(0.0, |bias| bias[i] as f64);
                let error = (out[i] as f64 - expected).abs();
                assert!(error <= 1e-5 * (1.0 + expected.abs()), "{isa}, {i}: {} {expected}", out[i]);
            }
        }
    }

    proptest! {
        #[test]
        fn norms_match_f64(
            pairs in proptest::collection::vec((-30f32..30.0, -2f32..2.0), 1..700),
            has_bias: bool,
        ) {
            let (row, weight): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            check_rms(&row, &weight);
            let bias: Vec<f32> = weight.iter().map(|w| w * 0.5 - 0.1).collect();
            check_layer(&row, &weight, has_bias.then_some(&bias[..]));
        }
    }

    #[test]
    fn long_rows_stay_within_a_millionth() {
        let row: Vec<f32> = (0..16_384).map(|i| ((i * 7919) % 10_007) as f32 / 997.0).collect();
        check_rms(&row, &vec![1.0; row.len()]);
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        check_rms(&[0.0; 33], &[1.0; 33]);
        check_layer(&[0.0; 33], &[1.0; 33], None);
    }
}
