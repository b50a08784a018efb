//! What this machine can do at best: `peaks [THREADS]` prints a line of JSON with the best of many short runs of each of
//! reading 512 MiB, multiply-adds of `f32` and products of bytes that add up (VNNI with AVX-512), all in registers.

use std::time::Instant;

use kernels::compute::{Compute, Isa};
use kernels::peaks;

const RUNS: usize = 15;
const READ_FLOATS: usize = 128 << 20;
const ROUNDS: usize = 2_000_000;

fn main() {
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok());
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let compute = Compute::new(Isa::detect(), threads);
    // Not zeros: those pages would all be one.
    let data = vec![1.0f32; READ_FLOATS];
    let read = best(|| {
        peaks::read(&compute, &data);
        size_of_val(data.as_slice())
    });
    let float = best(|| peaks::multiply_adds(&compute, ROUNDS));
    let bytes = best(|| peaks::byte_products(&compute, ROUNDS));
    println!(
        r#"{{"isa": "{}", "threads": {threads}, "read_gb_s": {read:.1}, "float_gop_s": {float:.1}, "byte_gop_s": {bytes:.1}}}"#,
        compute.isa(),
    );
}

/// Thousand millions a second, at best, of what `run` says it did.
fn best(mut run: impl FnMut() -> usize) -> f64 {
    let mut best: f64 = 0.0;
    for _ in 0..RUNS {
        let started = Instant::now();
        let done = run();
        best = best.max(done as f64 / started.elapsed().as_secs_f64() / 1e9);
    }
    best
}
