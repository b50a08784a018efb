//! A part for training and one for validation, and what is learned of the first.

use kernels::fused::{random_key, random_uniform};

use crate::definition::Normalize;

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

/// What is learned while samples pass by, once. Source: Welford 1962 for the variance.
#[derive(Clone, Debug)]
pub struct Learning {
    normalize: Normalize,
    samples: f64,
    /// Means; the least values for [`Normalize::MinMax`].
    first: Vec<f64>,
    /// Sums of squared distances to the mean; the greatest values for [`Normalize::MinMax`].
    second: Vec<f64>,
}

impl Learning {
    /// Of samples of `len` values.
    pub fn new(len: usize, normalize: Normalize) -> Learning {
        let (first, second) = match normalize {
            Normalize::MinMax => (f64::INFINITY, f64::NEG_INFINITY),
            _ => (0.0, 0.0),
        };
        Learning { normalize, samples: 0.0, first: vec![first; len], second: vec![second; len] }
    }

    /// Adds samples that lie one after the other.
    pub fn add(&mut self, values: &[f32]) {
        for sample in values.chunks_exact(self.first.len().max(1)) {
            self.samples += 1.0;
            for ((first, second), &value) in self.first.iter_mut().zip(&mut self.second).zip(sample) {
                let value = value as f64;
                if self.normalize == Normalize::MinMax {
                    (*first, *second) = (first.min(value), second.max(value));
                } else {
                    let away = value - *first;
                    *first += away / self.samples;
                    *second += away * (value - *first);
                }
            }
        }
    }

    /// Of each value of a sample over all samples. A value that is always the same is only moved to 0.
    pub fn scale(&self) -> Scale {
        let or_one = |variance: f64| if (variance as f32).sqrt() < 1e-6 { 1.0 } else { variance as f32 };
        let variance = |(first, second): (&f64, &f64)| match self.normalize {
            Normalize::MinMax => (second - first).powi(2),
            _ => second / self.samples.max(1.0),
        };
        Scale {
            mean: self.first.iter().map(|&x| x as f32).collect(),
            variance: self.first.iter().zip(&self.second).map(variance).map(or_one).collect(),
        }
    }
}
