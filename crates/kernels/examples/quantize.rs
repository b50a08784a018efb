//! What quantising takes a weight on one thread, and the error that it leaves. An argument names the one type to measure.

use std::time::Instant;

use kernels::compute::Isa;
use kernels::elements::{ElementType, quantize};

fn main() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // Sums of four are near normal.
    let values: Vec<f32> =
        (0..1 << 20).map(|_| (0..4).map(|_| uniform()).sum::<f32>() - 2.0).map(|x| x * 0.05).collect();
    let squares: f64 = values.iter().map(|x| f64::from(x * x)).sum();
    let columns = 1024;
    let importance: Vec<f32> = (0..columns).map(|_| uniform() + 0.1).collect();
    use ElementType::*;
    let only = std::env::args().nth(1);
    for kind in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K] {
        if only.as_ref().is_some_and(|only| *only != kind.to_string()) {
            continue;
        }
        let mut out = vec![0; kind.row_bytes(values.len()).unwrap_or_default()];
        for importance in [None, Some(&importance[..])] {
            let mut best = f64::INFINITY;
            let mut error = 0.0;
            for _ in 0..7 {
                let began = Instant::now();
                error = quantize(Isa::detect(), kind, &values, columns, importance, &mut out);
                best = best.min(began.elapsed().as_secs_f64());
            }
            let weighed = if importance.is_some() { "weighed" } else { "" };
            println!(
                "{kind:8} {weighed:8} {:6.2} ns a weight, relative error {:.5}",
                best * 1e9 / values.len() as f64,
                (error / squares).sqrt()
            );
        }
    }
}
