//! What one fork and join of the pool costs: `barrier [THREADS]`, with nothing to do between them. Keep the machine idle.

use std::time::Instant;

use kernels::threads::Pool;

const ROUNDS: usize = 20_001;

fn main() {
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok());
    let pool =
        Pool::new(threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)));
    let mut nanoseconds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            pool.run(|_| {});
            begun.elapsed().as_nanos()
        })
        .collect();
    nanoseconds.sort_unstable();
    let at = |share: usize| nanoseconds[(ROUNDS - 1) * share / 100] as f64 / 1000.0;
    println!("{} threads: {:.2} us median, {:.2} us at 99%", pool.threads(), at(50), at(99));
}
