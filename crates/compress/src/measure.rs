//! What a smaller model says otherwise: both read the same text, and what they expect after each token is compared.
//!
//! Perplexity is `exp` of the mean of `-ln p(token)`; the KL divergence of a token is `Σ p ln (p / q)` over the
//! vocabulary, with `p` the original's and `q` the smaller one's. Windows of 512 tokens, each from an empty cache, every
//! token but the first scored.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::llm::tokenizer::Tokenizer;
use formats::model::ModelFiles;
use kernels::compute::Compute;
use kernels::softmax::softmax;
use serde::Serialize;

use crate::error::CompressError;
use crate::sequence::{Reader, STEP, WINDOW, likeliest, tokens_of};

/// Tokens of a text that are read at least.
pub const TOKENS_MIN: usize = WINDOW;
/// Tokens at which the models differ most, in a report.
const EXAMPLES: usize = 12;
/// Tokens before such a one.
const EXAMPLE_CONTEXT: usize = 24;
/// What each model expects there, the likeliest first.
const EXAMPLE_CHOICES: usize = 4;
/// Tokens decoded one by one to find the speed.
const DECODED: usize = 48;

/// What was measured of both models over a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Tokens that were scored.
    pub tokens: usize,
    pub original: Reading,
    pub compressed: Reading,
    /// In nats a token.
    pub kl_mean: f64,
    pub kl_median: f64,
    pub kl_99: f64,
    pub kl_max: f64,
    /// The part of the tokens at which both find the same token likeliest.
    pub same_first: f64,
    /// The tokens of greatest divergence.
    pub examples: Vec<Example>,
}

/// One model's way through the text.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reading {
    pub perplexity: f64,
    /// Bytes of the weights in memory.
    pub weights_bytes: usize,
    pub prompt_tokens_per_second: f64,
    pub answer_tokens_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    pub kl: f64,
    /// What stands before.
    pub context: String,
    /// What stands there.
    pub actual: String,
    pub original: Vec<Expected>,
    pub compressed: Vec<Expected>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expected {
    pub token: String,
    pub probability: f32,
}

/// One token's figures, and where it is.
#[derive(Clone, Copy)]
struct Score {
    at: usize,
    kl: f64,
    /// `-ln p` of the token that follows, by the original and the smaller model.
    surprise: [f64; 2],
    is_same: bool,
}

/// Whether the text is long enough for [`compare`], as the tokeniser of the model at `path` cuts it.
///
/// # Errors
/// A model that can't be read; a text that is too short.
pub fn check_text(path: &Path, text: &str) -> Result<(), CompressError> {
    tokens_of(&ModelFiles::open(path)?, text).map(|_| ())
}

/// Lets both models read the text, of a long one the first `tokens_max`, and compares them. `progress` hears how many of
/// how many windows are done, and may ask to stop.
///
/// # Errors
/// A model that can't be run; vocabularies that differ; a text that is too short.
pub fn compare(
    original: &Path,
    compressed: &Path,
    compute: &Arc<Compute>,
    text: &str,
    tokens_max: usize,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Comparison, CompressError> {
    let mut readers = [Reader::open(original, compute)?, Reader::open(compressed, compute)?];
    let [first, second] = [0, 1].map(|i: usize| readers[i].forward.decoder().vocabulary);
    if first != second {
        return Err(CompressError::Vocabularies(first, second));
    }
    let mut tokens = readers[0].tokens(text)?;
    tokens.truncate(tokens_max.max(TOKENS_MIN));
    let windows = tokens.len() / WINDOW;
    let mut scores = Vec::with_capacity(windows * WINDOW);
    let mut took = [Duration::ZERO; 2];
    for window in 0..windows {
        if progress(window, windows).is_break() {
            return Err(CompressError::Stopped);
        }
        let window = window * WINDOW..(window + 1) * WINDOW;
        compare_window(readers.each_mut(), compute, &tokens, window, &mut took, &mut scores);
    }
    let _ = progress(windows, windows);
    let tokenizer = Tokenizer::new(readers[0].files.tokenizer())?;
    scores.sort_by(|a, b| b.kl.total_cmp(&a.kl));
    let count = scores.len() as f64;
    let mean = |of: &dyn Fn(&Score) -> f64| scores.iter().map(of).sum::<f64>() / count;
    let at = |part: f64| scores[((1.0 - part) * (count - 1.0)) as usize].kl;
    let examples = scores.iter().take(EXAMPLES);
    let examples = examples.map(|score| example(&mut readers, &tokenizer, &tokens, score)).collect();
    let mut reading = |i: usize| Reading {
        perplexity: mean(&|score| score.surprise[i]).exp(),
        weights_bytes: readers[i].forward.weights().bytes(),
        prompt_tokens_per_second: (windows * WINDOW) as f64 / took[i].as_secs_f64().max(1e-9),
        answer_tokens_per_second: decode_rate(&mut readers[i], &tokens),
    };
    Ok(Comparison {
        tokens: scores.len(),
        original: reading(0),
        compressed: reading(1),
        kl_mean: mean(&|score| score.kl),
        kl_median: at(0.5),
        kl_99: at(0.99),
        kl_max: at(1.0),
        same_first: mean(&|score| f64::from(u8::from(score.is_same))),
        examples,
    })
}

/// The mean divergence over a window, in nats a token.
pub(crate) fn divergence(
    original: &mut Reader,
    compressed: &mut Reader,
    compute: &Compute,
    window: &[u32],
) -> f64 {
    let (mut scores, mut took) = (Vec::with_capacity(window.len()), [Duration::ZERO; 2]);
    compare_window([original, compressed], compute, window, 0..window.len(), &mut took, &mut scores);
    scores.iter().map(|score| score.kl).sum::<f64>() / scores.len().max(1) as f64
}

/// One window's scores.
fn compare_window(
    [one, other]: [&mut Reader; 2],
    compute: &Compute,
    tokens: &[u32],
    window: std::ops::Range<usize>,
    took: &mut [Duration; 2],
    scores: &mut Vec<Score>,
) {
    let v = one.forward.decoder().vocabulary;
    for first in (0..WINDOW).step_by(STEP) {
        let at = window.start + first;
        let step = &tokens[at..at + STEP];
        let started = Instant::now();
        let original = one.logits(step, first);
        let between = Instant::now();
        let compressed = other.logits(step, first);
        took[0] += between - started;
        took[1] += between.elapsed();
        // What follows the window's last token is not in it.
        let scored = STEP.min(window.end - 1 - at);
        let rows: Vec<_> =
            original.chunks_mut(v).zip(compressed.chunks_mut(v)).take(scored).map(Mutex::new).collect();
        let found = Mutex::new(Vec::with_capacity(scored));
        compute.pool().for_each(scored, |row| {
            let mut pair = rows[row].lock().unwrap_or_else(PoisonError::into_inner);
            let (p, q) = &mut *pair;
            let score = score(compute, at + row, tokens[at + row + 1] as usize, p, q);
            found.lock().unwrap_or_else(PoisonError::into_inner).push(score);
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|score| score.at);
        scores.append(&mut found);
    }
}

/// `p` and `q` are logits, and probabilities afterwards.
fn score(compute: &Compute, at: usize, next: usize, p: &mut [f32], q: &mut [f32]) -> Score {
    let logits = [p[next], q[next]];
    let peaks = [&*p, &*q].map(likeliest);
    let heights = [p[peaks[0]], q[peaks[1]]];
    // p ln (p / q) with the logarithms from the logits, of which none is infinite: p and q differ by them and by what
    // both were divided by.
    let raw: Vec<f32> = p.iter().zip(&*q).map(|(p, q)| p - q).collect();
    softmax(compute.isa(), p);
    softmax(compute.isa(), q);
    // The logarithm of the sum of exponentials: what is taken off a logit.
    let norms = [
        f64::from(heights[0]) - f64::from(p[peaks[0]]).ln(),
        f64::from(heights[1]) - f64::from(q[peaks[1]]).ln(),
    ];
    let mut apart = 0.0;
    for (p, raw) in p.chunks(64).zip(raw.chunks(64)) {
        apart += f64::from(p.iter().zip(raw).map(|(p, raw)| p * raw).sum::<f32>());
    }
    Score {
        at,
        // What is no number is as far apart as can be; rounding may bring the same a little below 0.
        kl: Some(apart - norms[0] + norms[1])
            .filter(|kl| !kl.is_nan())
            .map_or(f64::INFINITY, |kl| kl.max(0.0)),
        surprise: [norms[0] - f64::from(logits[0]), norms[1] - f64::from(logits[1])],
        is_same: peaks[0] == peaks[1],
    }
}

/// What both models expect after the token of `score`, by reading its window again.
fn example(readers: &mut [Reader; 2], tokenizer: &Tokenizer, tokens: &[u32], score: &Score) -> Example {
    let start = score.at / WINDOW * WINDOW;
    let text = |tokens: &[u32]| -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|id| tokenizer.token_bytes(*id).to_vec()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let choices = |reader: &mut Reader| {
        let v = reader.forward.decoder().vocabulary;
        let isa = reader.forward.compute.isa();
        let mut last = Vec::new();
        for (step, tokens) in tokens[start..=score.at].chunks(STEP).enumerate() {
            let logits = reader.logits(tokens, step * STEP);
            last = logits[logits.len() - v..].to_vec();
        }
        softmax(isa, &mut last);
        let mut order: Vec<usize> = (0..v).collect();
        order.sort_by(|a, b| last[*b].total_cmp(&last[*a]));
        order.truncate(EXAMPLE_CHOICES);
        order.iter().map(|id| Expected { token: text(&[*id as u32]), probability: last[*id] }).collect()
    };
    let [one, other] = readers;
    Example {
        kl: score.kl,
        context: text(&tokens[start.max((score.at + 1).saturating_sub(EXAMPLE_CONTEXT))..=score.at]),
        actual: text(&tokens[score.at + 1..score.at + 2]),
        original: choices(one),
        compressed: choices(other),
    }
}

/// Tokens a second, one by one.
fn decode_rate(reader: &mut Reader, tokens: &[u32]) -> f64 {
    let started = Instant::now();
    for (position, token) in tokens[..DECODED].iter().enumerate() {
        reader.logits(&[*token], position);
    }
    DECODED as f64 / started.elapsed().as_secs_f64().max(1e-9)
}

#[test]
fn what_is_no_number_is_as_far_apart_as_can_be() {
    let compute = Compute::new(kernels::compute::Isa::detect(), 1);
    let kl = |p: [f32; 3], q: [f32; 3]| score(&compute, 0, 1, &mut { p }, &mut { q }).kl;
    assert_eq!(kl([1.0, 2.0, 3.0], [1.0, f32::NAN, 3.0]), f64::INFINITY);
    assert!(kl([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) < 1e-6);
    assert!((kl([0.0, 0.0, 0.0], [1.0, 0.0, 0.0]) - 0.1195).abs() < 1e-3);
}
