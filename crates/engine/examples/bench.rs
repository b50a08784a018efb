//! Measures one workload of one model as `bench/llm/peer_*.py` measure others; prints a line of JSON.
//!
//! Usage: `bench MODEL THREADS WORKLOAD SEED [PACKED]`, where PACKED is a folder for packed weights and WORKLOAD is one of
//! - `prefill:N`: the time until the first token after a prompt of N random tokens;
//! - `decode:N`: the rate of the tokens after it (of one where N is 0);
//! - `batch:B`: the rate, in all, of B answers that run together after prompts of 32 tokens;
//! - `start`: the time from nothing to the first token after 32.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use engine::llm::request::{Event, GenerateRequest, Sampling};
use engine::llm::{Generation, Llm, PackedFolder, Settings};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DECODE_TOKENS: usize = 64;
const SHORT_PROMPT_TOKENS: usize = 32;
/// What the smallest of the measured models was made for: a prompt of that length is cut so that its answer fits.
const CONTEXT_MAX: usize = 8192;

struct Workload {
    prompt_tokens: usize,
    sequences: usize,
    answer_tokens: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, name, seed, rest @ ..] = arguments.as_slice() else {
        bail!("usage: bench MODEL THREADS WORKLOAD SEED [PACKED]");
    };
    let (kind, number) = name.split_once(':').unwrap_or((name, "1"));
    let number: usize = number.parse()?;
    let (prompt_tokens, sequences, answer_tokens) = match kind {
        "prefill" => (number, 1, 1),
        "decode" => (number.max(1), 1, DECODE_TOKENS),
        "batch" => (SHORT_PROMPT_TOKENS, number, DECODE_TOKENS),
        "start" => (SHORT_PROMPT_TOKENS, 1, 1),
        _ => bail!("no workload {name}"),
    };
    let prompt_tokens = prompt_tokens.min(CONTEXT_MAX - answer_tokens - 1);
    let workload = Workload { prompt_tokens, sequences, answer_tokens };
    let settings = Settings {
        context_tokens: Some(prompt_tokens + answer_tokens + 1),
        threads: threads.parse()?,
        sequences_max: sequences,
        // Peers guess nothing ahead, and answers that mean nothing go in circles, which would make guessing easy.
        draft_tokens_max: 0,
        packed: rest.first().map(|path| PackedFolder { path: path.into(), bytes_max: u64::MAX }),
        ..Settings::default()
    };
    let started = Instant::now();
    let llm = Llm::load(Path::new(model), &settings, &mut |_, _| {})?;
    let load_ms = milliseconds(started);
    let mut state: u64 = seed.parse()?;
    if kind != "start" {
        // Once unmeasured, so that every page of the weights and buffers has been touched.
        measure(&llm, &Workload { answer_tokens: 4, ..workload }, &mut state)?;
    }
    let (first_ms, tokens_per_s) = measure(&llm, &workload, &mut state)?;
    let first_ms = if kind == "start" { milliseconds(started) } else { first_ms };
    println!(
        r#"{{"first_token_ms": {first_ms:.2}, "tokens_per_s": {tokens_per_s:.2}, "load_ms": {load_ms:.1}, "resident_mib": {:.1}, "kv_mib": {:.1}, "isa": "{}"}}"#,
        resident_mib().unwrap_or(f64::NAN),
        llm.facts().memory.kv_bytes as f64 / (1 << 20) as f64,
        settings.isa
    );
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The time to the last first token, and the tokens a second while every answer ran.
fn measure(llm: &Llm, workload: &Workload, state: &mut u64) -> anyhow::Result<(f64, f64)> {
    let vocabulary = llm.facts().vocabulary as u64;
    let mut random = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*state >> 33) % vocabulary) as u32
    };
    let started = Instant::now();
    let generations: Vec<Generation> = (0..workload.sequences)
        .map(|_| {
            llm.submit(GenerateRequest {
                prompt: (0..workload.prompt_tokens).map(|_| random()).collect(),
                tokens_max: workload.answer_tokens,
                sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                stop: Vec::new(),
                logprobs: None,
                prompt_logprobs: false,
                ignore_end: true,
            })
        })
        .collect::<Result<_, _>>()?;
    let readers = generations.into_iter().map(|generation| std::thread::spawn(|| times(generation)));
    let readers: Vec<_> = readers.collect();
    let mut answers = Vec::new();
    for reader in readers {
        answers.push(reader.join().ok().context("a reader panicked")??);
    }
    let all_run = answers.iter().filter_map(|times| times.first()).max().context("no token came")?;
    let first_ends = answers.iter().filter_map(|times| times.last()).min().context("no token came")?;
    let between = |time: &&Instant| *time > all_run && *time <= first_ends;
    let tokens = answers.iter().flatten().filter(between).count();
    let seconds = first_ends.saturating_duration_since(*all_run).as_secs_f64();
    Ok(((*all_run - started).as_secs_f64() * 1e3, if tokens > 0 { tokens as f64 / seconds } else { 0.0 }))
}

/// When each token came.
fn times(mut generation: Generation) -> anyhow::Result<Vec<Instant>> {
    let mut times = Vec::new();
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Token(_) => times.push(Instant::now()),
            Event::Failed(reason) => bail!("the engine failed: {reason}"),
            Event::Prompt(_) | Event::Done { .. } => {}
        }
    }
    Ok(times)
}

/// The most memory that this process has had resident.
fn resident_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
