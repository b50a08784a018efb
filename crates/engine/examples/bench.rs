//! Measures one model as the peer is measured by `bench/llm/run.py`: the time to the first token of a prompt of
//! random tokens, and the rate of the tokens after it. Prints one line of JSON.
//!
//! Usage: `bench MODEL THREADS PROMPT_TOKENS DECODE_TOKENS SEED`

use std::path::Path;
use std::time::Instant;

use engine::llm::request::{Event, GenerateRequest, Sampling};
use engine::llm::{Llm, Settings};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, prompt_tokens, decode_tokens, seed] = arguments.as_slice() else {
        anyhow::bail!("usage: bench MODEL THREADS PROMPT_TOKENS DECODE_TOKENS SEED");
    };
    let (prompt_tokens, decode_tokens): (usize, usize) = (prompt_tokens.parse()?, decode_tokens.parse()?);
    let settings = Settings {
        context_tokens: Some(prompt_tokens + decode_tokens + 1),
        threads: threads.parse()?,
        sequences_max: 1,
        ..Settings::default()
    };
    let llm = Llm::load(Path::new(model), &settings, &mut |_, _| {})?;
    let vocabulary = llm.facts().vocabulary as u64;
    let mut state: u64 = seed.parse()?;
    let mut prompt = |tokens: usize| -> Vec<u32> {
        (0..tokens)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) % vocabulary) as u32
            })
            .collect()
    };
    // Once unmeasured, so that every page of the weights and buffers has been touched.
    measure(&llm, prompt(prompt_tokens), 4)?;
    let (first_ms, decode_tokens_per_s) = measure(&llm, prompt(prompt_tokens), decode_tokens)?;
    println!(
        r#"{{"first_token_ms": {first_ms:.2}, "decode_tokens_per_s": {decode_tokens_per_s:.2}, "isa": "{}"}}"#,
        settings.isa
    );
    Ok(())
}

fn measure(llm: &Llm, prompt: Vec<u32>, decode_tokens: usize) -> anyhow::Result<(f64, f64)> {
    let request = GenerateRequest {
        prompt,
        tokens_max: decode_tokens + 1,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
        ignore_end: true,
    };
    let started = Instant::now();
    let mut generation = llm.submit(request)?;
    let mut first = None;
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Token(_) => first = first.or(Some(Instant::now())),
            Event::Failed(reason) => anyhow::bail!("the engine failed: {reason}"),
            Event::Prompt(_) | Event::Done { .. } => {}
        }
    }
    let ended = Instant::now();
    let Some(first) = first else { anyhow::bail!("no token came") };
    let rate = decode_tokens as f64 / (ended - first).as_secs_f64();
    Ok(((first - started).as_secs_f64() * 1e3, rate))
}
