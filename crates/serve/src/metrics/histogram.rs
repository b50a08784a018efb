//! Durations counted by size, as Prometheus' histograms.

use std::fmt::Write;

use engine::llm::{BOUNDS_SECONDS, DurationCounts};

/// Appends the lines of `NAME{labels}`; `labels` are written already, without braces.
pub fn render_histogram(out: &mut String, name: &str, labels: &str, durations: &DurationCounts) {
    let mut total = 0;
    let bounds = BOUNDS_SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    // Writing to a string does not fail.
    for (count, bound) in durations.counts.iter().zip(bounds) {
        total += count;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", durations.sum_micros as f64 / 1e6);
    let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::llm::Durations;

    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let durations = Durations::default();
        for millis in [1, 2, 400, 900_000] {
            durations.observe(Duration::from_millis(millis));
        }
        let mut out = String::new();
        render_histogram(&mut out, "x_seconds", "model=\"m\"", &durations.read());
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
