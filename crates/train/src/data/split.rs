//! A part for training and one for validation, and what is learned of the first.

use kernels::fused::{random_key, random_uniform};

use crate::definition::Normalize;
use crate::model::Array;

/// The stream of random numbers that splits.
const STREAM: u32 = 0x5911;

/// Numbers of the samples to train with, and of a share of them to validate with, chosen by `seed`.
pub fn split(samples: usize, share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let validation = ((samples as f64 * share).round() as usize).min(samples.saturating_sub(1));
    let mut order: Vec<usize> = (0..samples).collect();
    if validation == 0 {
        return (order, vec![]);
    }
    let key = random_key(STREAM, seed as u32 as f32, (seed >> 32) as f32);
    for i in (1..samples).rev() {
        let draw = random_uniform(key, 2 * i as u32) as f64
            + random_uniform(key, 2 * i as u32 + 1) as f64 / 16_777_216.0;
        order.swap(i, (draw * (i + 1) as f64) as usize);
    }
    let mut train = order.split_off(validation);
    // The order of the file: an epoch's own is the fit's.
    train.sort_unstable();
    order.sort_unstable();
    (train, order)
}

/// What a `Normalization` layer is set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
}

impl Scale {
    /// Of each value of a sample over all samples. A value that is always the same is only moved to 0.
    pub fn learned(x: &Array, normalize: Normalize) -> Scale {
        let (len, samples) = (x.sample_len().max(1), x.samples().max(1) as f64);
        let mut mean = vec![0f64; len];
        let mut variance = vec![0f64; len];
        if normalize == Normalize::MinMax {
            let mut greatest = vec![f64::NEG_INFINITY; len];
            mean.fill(f64::INFINITY);
            for sample in x.values.chunks_exact(len) {
                for (i, &value) in sample.iter().enumerate() {
                    mean[i] = mean[i].min(value as f64);
                    greatest[i] = greatest[i].max(value as f64);
                }
            }
            for i in 0..len {
                variance[i] = (greatest[i] - mean[i]).powi(2);
            }
        } else {
            for sample in x.values.chunks_exact(len) {
                mean.iter_mut().zip(sample).for_each(|(sum, &value)| *sum += value as f64 / samples);
            }
            for sample in x.values.chunks_exact(len) {
                for (i, &value) in sample.iter().enumerate() {
                    variance[i] += (value as f64 - mean[i]).powi(2) / samples;
                }
            }
        }
        let or_one = |variance: f64| if (variance as f32).sqrt() < 1e-6 { 1.0 } else { variance as f32 };
        Scale {
            mean: mean.into_iter().map(|x| x as f32).collect(),
            variance: variance.into_iter().map(or_one).collect(),
        }
    }
}
