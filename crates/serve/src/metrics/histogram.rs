//! Durations counted by size, as Prometheus' histograms.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in seconds; what is longer than the last is counted in `+Inf`.
const BOUNDS_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

#[derive(Default)]
pub struct Histogram {
    /// Observations in each bucket alone; the last is beyond all bounds.
    counts: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket =
            BOUNDS_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS_SECONDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }

    /// Seconds on average; `None` before the first observation.
    pub fn mean_seconds(&self) -> Option<f64> {
        let count: u64 = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        (count > 0).then(|| self.sum_seconds() / count as f64)
    }

    fn sum_seconds(&self) -> f64 {
        self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Appends the lines of `NAME{labels}`; `labels` are written already, without braces.
    pub fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        let bounds = BOUNDS_SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (count, bound) in self.counts.iter().zip(bounds) {
            total += count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum_seconds());
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::default();
        assert_eq!(histogram.mean_seconds(), None);
        for millis in [1, 2, 400, 900_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut out = String::new();
        histogram.render(&mut out, "x_seconds", "model=\"m\"");
        let check = |line: &str| assert!(out.lines().any(|found| found == line), "{line} is not in\n{out}");
        check("x_seconds_bucket{model=\"m\",le=\"0.001\"} 1");
        check("x_seconds_bucket{model=\"m\",le=\"0.0025\"} 2");
        check("x_seconds_bucket{model=\"m\",le=\"0.25\"} 2");
        check("x_seconds_bucket{model=\"m\",le=\"0.5\"} 3");
        check("x_seconds_bucket{model=\"m\",le=\"300\"} 3");
        check("x_seconds_bucket{model=\"m\",le=\"+Inf\"} 4");
        check("x_seconds_sum{model=\"m\"} 900.403");
        check("x_seconds_count{model=\"m\"} 4");
    }
}
