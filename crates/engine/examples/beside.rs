//! Measures what long prompts cost the answers that run beside them, and the other way round: four answers run while
//! prompts come one after the other.
//!
//! Usage: `beside MODEL THREADS STEP_MS [PROMPT_TOKENS]`; prints the time between tokens of the answers and the time to
//! the first token of the prompts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::llm::request::{Event, GenerateRequest, Sampling};
use engine::llm::{Generation, Llm, Settings};

const ANSWERS: usize = 4;
const PROMPTS: usize = 4;
const PROMPT_TOKENS: usize = 1500;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, step_ms, rest @ ..] = arguments.as_slice() else {
        bail!("usage: beside MODEL THREADS STEP_MS [PROMPT_TOKENS]");
    };
    let prompt_tokens = rest.first().map_or(Ok(PROMPT_TOKENS), |text| text.parse())?;
    let settings = Settings {
        context_tokens: Some(2048.max(prompt_tokens + 2)),
        threads: threads.parse()?,
        sequences_max: ANSWERS + 1,
        step_beside_answers_max: Duration::from_millis(step_ms.parse()?),
        ..Settings::default()
    };
    let llm = Llm::load(Path::new(model), &settings, &mut |_, _| {})?;
    let ask = |first: u32, length: usize, tokens_max: usize| {
        let vocabulary = llm.facts().vocabulary as u32;
        llm.submit(GenerateRequest {
            prompt: (0..length as u32).map(|i| (first + 7919 * i) % vocabulary).collect(),
            tokens_max,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
            ignore_end: true,
        })
    };
    let answers =
        (0..ANSWERS as u32).map(|index| ask(1000 * index, 16, 2000)).collect::<Result<Vec<_>, _>>()?;
    let measured = Arc::new(AtomicBool::new(false));
    let read = |generation| {
        let measured = measured.clone();
        std::thread::spawn(move || gaps(generation, &measured))
    };
    let readers: Vec<_> = answers.into_iter().map(read).collect();
    std::thread::sleep(Duration::from_millis(500));
    let (mut firsts, started) = (Vec::new(), Instant::now());
    for index in 0..PROMPTS as u32 {
        let asked = Instant::now();
        ask(17 + 31 * index, prompt_tokens, 1)?.blocking_next().context("no answer")?;
        firsts.push(asked.elapsed());
    }
    let during = started..Instant::now();
    measured.store(true, Ordering::Relaxed);
    let mut gaps = Vec::new();
    for reader in readers {
        let all = reader.join().ok().context("a reader panicked")?;
        gaps.extend(all.into_iter().filter(|(at, _)| during.contains(at)).map(|(_, gap)| gap));
    }
    for (name, mut times) in [("between tokens", gaps), ("to first token", firsts)] {
        times.sort_unstable();
        let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len() - 1));
        println!("{name}: median {:?}, 99% {:?}, of {}", at(0.5), at(0.99), times.len());
    }
    Ok(())
}

/// When each token but the first came, and how long after the one before, until enough is `measured`.
fn gaps(mut generation: Generation, measured: &AtomicBool) -> Vec<(Instant, Duration)> {
    let (mut gaps, mut last) = (Vec::new(), None);
    while let Some(Event::Token(_)) = generation.blocking_next() {
        if measured.load(Ordering::Relaxed) {
            break;
        }
        let now = Instant::now();
        gaps.extend(last.replace(now).map(|last| (now, now - last)));
    }
    gaps
}
