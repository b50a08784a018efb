//! How long a token takes to choose out of a vocabulary of 150,000, by each way of sampling:
//! `cargo run --release -p engine --example sampling`.

use std::time::Instant;

use engine::llm::request::Sampling;
use engine::llm::sampling::{Sampler, logprobs};
use kernels::compute::Isa;

const VOCABULARY: usize = 150_000;
const TOKENS: u32 = 20;

fn main() {
    let mut state = 1u64;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) + 1) as f64 / (1u64 << 31) as f64
    };
    let logits: Vec<f32> = (0..VOCABULARY).map(|_| (unit().ln() * -1.5 - 6.0) as f32).collect();
    let measure = |name: &str, change: fn(&mut Sampling)| {
        let mut settings = Sampling { seed: Some(7), ..Sampling::default() };
        change(&mut settings);
        let mut sampler = Sampler::new(Isa::detect(), &settings, VOCABULARY, &[]);
        let mut copies = vec![logits.clone(); TOKENS as usize];
        let start = Instant::now();
        copies.iter_mut().for_each(|logits| {
            sampler.sample(logits);
        });
        println!("{name}: {:?} a token", start.elapsed() / TOKENS);
    };
    measure("greedy", |s| s.temperature = 0.0);
    measure("temperature", |_| ());
    measure("top-k 40, top-p 0.95", |s| (s.top_k, s.top_p) = (40, 0.95));
    measure("top-p 0.95", |s| s.top_p = 0.95);
    measure("min-p 0.05", |s| s.min_p = 0.05);
    measure("typical 0.9", |s| s.typical_p = 0.9);
    let start = Instant::now();
    (0..TOKENS).for_each(|_| drop(logprobs(&logits, 5, 20)));
    println!("logprobs 20: {:?} a token", start.elapsed() / TOKENS);
}
