//! What values products are given, seen on samples, and which of them 8 bits should tell apart.

use std::collections::HashMap;

use engine::onnx::Elements;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::error::Result;
use super::integers::Range;
use super::measure::{Running, Samples};

/// How a range is chosen from the values that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    /// All that was seen.
    #[default]
    MinMax,
    /// All but one of ten thousand at each end.
    Percentile,
    /// The range within which 8 bits lose least, by the divergence of what they say from what was seen (Migacz, "8-bit
    /// inference with TensorRT", 2017).
    Entropy,
}

/// Values that are kept of each activation; beyond it, each second is.
const KEPT_MAX: usize = 1 << 20;
const PERCENTILE: f64 = 1e-4;
const BINS: usize = 2048;
const LEVELS: usize = 128;

/// Values of one activation.
#[derive(Default)]
struct Seen {
    low: f32,
    high: f32,
    kept: Vec<f32>,
    /// Of how many one is kept.
    every: usize,
    skipped: usize,
}

impl Seen {
    fn add(&mut self, values: &[f32]) {
        self.every = self.every.max(1);
        for &value in values.iter().filter(|value| value.is_finite()) {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
            self.skipped += 1;
            if self.skipped >= self.every {
                self.skipped = 0;
                self.kept.push(value);
            }
            if self.kept.len() >= KEPT_MAX {
                let mut at = 0usize;
                self.kept.retain(|_| {
                    at += 1;
                    at.is_multiple_of(2)
                });
                self.every *= 2;
            }
        }
    }

    fn range(mut self, calibration: Calibration) -> Range {
        let all = Range { low: self.low, high: self.high };
        if self.kept.is_empty() || calibration == Calibration::MinMax {
            return all;
        }
        if calibration == Calibration::Percentile {
            self.kept.sort_by(f32::total_cmp);
            let last = self.kept.len() - 1;
            let beyond = (last as f64 * PERCENTILE).ceil() as usize;
            return Range {
                low: self.kept[beyond.min(last)].min(0.0),
                high: self.kept[last - beyond.min(last)].max(0.0),
            };
        }
        let most = self.low.abs().max(self.high.abs());
        let threshold = least_divergent(&self.kept, most);
        Range { low: self.low.max(-threshold), high: self.high.min(threshold) }
    }
}

/// The size up to which values are told apart that loses least.
fn least_divergent(values: &[f32], most: f32) -> f32 {
    if most <= 0.0 {
        return most;
    }
    let mut counts = vec![0f64; BINS];
    for value in values.iter().filter(|value| **value != 0.0) {
        let bin = (value.abs() / most * BINS as f32) as usize;
        counts[bin.min(BINS - 1)] += 1.0;
    }
    let mut best = (f64::INFINITY, BINS);
    for bins in (LEVELS..=BINS).step_by(LEVELS / 8) {
        let beyond: f64 = counts[bins..].iter().sum();
        let mut seen = counts[..bins].to_vec();
        seen[bins - 1] += beyond;
        let divergence = divergence(&seen, &counts[..bins]);
        if divergence < best.0 {
            best = (divergence, bins);
        }
    }
    most * best.1 as f32 / BINS as f32
}

/// Of `seen` from `inside` at [`LEVELS`] levels.
fn divergence(seen: &[f64], inside: &[f64]) -> f64 {
    let mut said = vec![0f64; seen.len()];
    for level in 0..LEVELS {
        let bins = level * seen.len() / LEVELS..(level + 1) * seen.len() / LEVELS;
        let filled = bins.clone().filter(|&bin| seen[bin] > 0.0).count();
        let total: f64 = inside[bins.clone()].iter().sum();
        for bin in bins.filter(|&bin| seen[bin] > 0.0) {
            said[bin] = total / filled as f64;
        }
    }
    let (all_seen, all_said): (f64, f64) = (seen.iter().sum(), said.iter().sum());
    if all_seen == 0.0 || all_said == 0.0 {
        return f64::INFINITY;
    }
    let terms = seen.iter().zip(&said).filter(|(seen, _)| **seen > 0.0);
    terms
        .map(|(seen, said)| {
            let (p, q) = (seen / all_seen, (said / all_said).max(1e-12));
            p * (p / q).ln()
        })
        .sum()
}

/// The ranges of the values `names` when `document` runs on `samples`.
///
/// # Errors
/// When the model can't be run, or doesn't take the samples.
pub fn calibrate(
    document: &Document,
    names: &[String],
    samples: &Samples,
    calibration: Calibration,
) -> Result<HashMap<String, Range>> {
    let own = document.outputs().len();
    let given: Vec<String> = samples.inputs.iter().map(|(name, _)| name.clone()).collect();
    // What the model is given itself needs no run, and is no value that it could give.
    let inside: Vec<String> = names.iter().filter(|name| !given.contains(name)).cloned().collect();
    let mut seen: HashMap<String, Seen> = names.iter().map(|name| (name.clone(), Seen::default())).collect();
    for (name, array) in &samples.inputs {
        if let Some(seen) = seen.get_mut(name) {
            seen.add(&array.values);
        }
    }
    if !inside.is_empty() {
        let running = Running::new(&document.watched(&inside).encode())?;
        running.batches(samples, |outputs| {
            for (name, tensor) in inside.iter().zip(&outputs[own..]) {
                if let (Some(seen), Elements::Float(values)) = (seen.get_mut(name), &tensor.elements) {
                    seen.add(values);
                }
            }
        })?;
    }
    Ok(seen.into_iter().map(|(name, seen)| (name, seen.range(calibration))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_far_value_widens_the_whole_range_only() {
        let mut values: Vec<f32> = (0..100_000).map(|at| ((at * 7919) % 1000) as f32 / 1000.0).collect();
        values.push(50.0);
        let range = |calibration| {
            let mut seen = Seen::default();
            seen.add(&values);
            seen.range(calibration)
        };
        assert_eq!(range(Calibration::MinMax), Range { low: 0.0, high: 50.0 });
        assert!(range(Calibration::Percentile).high < 1.1);
        assert!(range(Calibration::Entropy).high < 10.0, "{:?}", range(Calibration::Entropy));
    }
}
