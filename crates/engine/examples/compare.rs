//! Compares this engine with llama.cpp on a real model: perplexity over a text, and greedy answers token for token.
//! `e2e/numbers` fetches the files and runs it.
//!
//! Usage: `compare MODEL.gguf VARIANT fixtures/smollm2 [THREADS]`, where `fixtures/smollm2/reference.json` holds what
//! llama.cpp computed for VARIANT (see `reference.py` there for what is measured, and how). Fails where the
//! perplexities differ by more than half a percent, or an answer departs where the peer was sure of its token.

use std::path::Path;
use std::process::ExitCode;

use engine::llm::request::{Event, GenerateRequest, Sampling, TokenLogprob};
use engine::llm::{Llm, Settings};
use serde::Deserialize;

const PERPLEXITY_DEPARTURE_MAX: f64 = 0.005;

#[derive(Deserialize)]
struct Reference {
    peer: String,
    window: usize,
    text_tokens: usize,
    prompts: Vec<Prompt>,
    variants: std::collections::BTreeMap<String, Variant>,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Variant {
    perplexity: f64,
    rounding: Rounding,
    greedy: Vec<Answer>,
}

/// How far int8 activations move the gap between the peer's two likeliest tokens: see `reference.py`.
#[derive(Deserialize)]
struct Rounding {
    half: f64,
    /// 99 steps of 100 are moved by less.
    most: f64,
}

/// The peer's first and second choice at each step, how far apart their logits are, and how far apart they are
/// where the same weights are multiplied as `f32`.
#[derive(Deserialize)]
struct Answer {
    first: Vec<u32>,
    second: Vec<u32>,
    gap: Vec<f64>,
    exact: Vec<f64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, name, folder, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: compare MODEL.gguf VARIANT fixtures/smollm2 [THREADS]");
    };
    let folder = Path::new(folder);
    let reference: Reference = serde_json::from_slice(&std::fs::read(folder.join("reference.json"))?)?;
    let Some(variant) = reference.variants.get(name) else {
        anyhow::bail!("the reference has no variant {name}");
    };
    let mut settings = Settings { context_tokens: Some(reference.window), ..Settings::default() };
    if let Some(threads) = rest.first() {
        settings.threads = threads.parse()?;
    }
    let llm = Llm::load(Path::new(model), &settings, &mut |_, _| {})?;
    println!("# {name}: {} on {}, against {}", llm.facts().name, settings.isa, reference.peer);
    let answers_agree = compare_answers(&llm, &reference.prompts, variant)?;
    let text = std::fs::read_to_string(folder.join("alice.txt"))?;
    let perplexity_agrees = compare_perplexity(&llm, &text, &reference, variant)?;
    Ok(if answers_agree && perplexity_agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Greedy answers until each departs; false where one departs though the peer was sure.
fn compare_answers(llm: &Llm, prompts: &[Prompt], variant: &Variant) -> anyhow::Result<bool> {
    let rounding = &variant.rounding;
    println!(
        "the peer's own rounding moves a gap by {:.2} (median), {:.2} (99%)",
        rounding.half, rounding.most
    );
    let (mut same, mut agree) = (0, true);
    for (prompt, answer) in prompts.iter().zip(&variant.greedy) {
        if llm.tokenizer().encode(&prompt.text, true, false)? != prompt.tokens {
            println!("DIFFERS: the tokens of {:?}", prompt.text);
            agree = false;
        }
        let ours = generate(llm, prompt.tokens.clone(), answer.first.len())?;
        let Some(step) = ours.iter().zip(&answer.first).position(|(ours, theirs)| ours.id != *theirs) else {
            same += 1;
            continue;
        };
        // A gap that only rounding made large decides nothing: ours rounds otherwise.
        let within = answer.gap[step].min(answer.exact[step]) <= rounding.most;
        agree &= within;
        let [ours, first, second] = [ours[step].id, answer.first[step], answer.second[step]]
            .map(|id| String::from_utf8_lossy(llm.tokenizer().token_bytes(id)).into_owned());
        println!(
            "{}: {:?} departs at step {step}: ours {ours:?}; peer {first:?}, then {second:?} by {:.3} ({:.3} in f32)",
            if within { "within rounding" } else { "DIFFERS" },
            prompt.text.chars().rev().take(40).collect::<Vec<_>>().iter().rev().collect::<String>(),
            answer.gap[step],
            answer.exact[step],
        );
    }
    println!("{same} of {} greedy answers are the same to the last of their tokens", prompts.len());
    Ok(agree)
}

fn generate(llm: &Llm, prompt: Vec<u32>, tokens_max: usize) -> anyhow::Result<Vec<TokenLogprob>> {
    let mut generation = llm.submit(request(prompt, tokens_max, false))?;
    let mut tokens = Vec::new();
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Token(token) => tokens.extend(token.logprob),
            Event::Failed(reason) => anyhow::bail!("the engine failed: {reason}"),
            Event::Prompt(_) | Event::Done { .. } => {}
        }
    }
    Ok(tokens)
}

fn request(prompt: Vec<u32>, tokens_max: usize, prompt_logprobs: bool) -> GenerateRequest {
    GenerateRequest {
        prompt,
        tokens_max,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        logprobs: Some(0),
        prompt_logprobs,
        ignore_end: true,
    }
}

fn compare_perplexity(
    llm: &Llm,
    text: &str,
    reference: &Reference,
    variant: &Variant,
) -> anyhow::Result<bool> {
    let tokens = llm.tokenizer().encode(text, false, false)?;
    if tokens.len() != reference.text_tokens {
        println!("DIFFERS: the text has {} tokens, the peer found {}", tokens.len(), reference.text_tokens);
        return Ok(false);
    }
    let (mut sum, mut scored) = (0.0, 0);
    for window in tokens.chunks_exact(reference.window) {
        let mut generation = llm.submit(request(window.to_vec(), 0, true))?;
        while let Some(event) = generation.blocking_next() {
            match event {
                Event::Prompt(entries) => {
                    sum -= entries[1..].iter().map(|entry| f64::from(entry.logprob)).sum::<f64>();
                    scored += entries.len() - 1;
                }
                Event::Failed(reason) => anyhow::bail!("the engine failed: {reason}"),
                Event::Token(_) | Event::Done { .. } => {}
            }
        }
    }
    let ours = (sum / scored as f64).exp();
    let departure = ours / variant.perplexity - 1.0;
    let agrees = departure.abs() <= PERPLEXITY_DEPARTURE_MAX;
    println!(
        "{}: perplexity {ours:.4} over {scored} tokens; peer {:.4}: {:+.3}%",
        if agrees { "agrees" } else { "DIFFERS" },
        variant.perplexity,
        100.0 * departure,
    );
    Ok(agrees)
}
