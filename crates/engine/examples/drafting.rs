//! What guessing ahead brings: `cargo run --release -p engine --example drafting -- MODEL DRAFT [tokens] [temperature]`.
//!
//! Answers the same prompts without guesses, with those out of what was said, and with a draft model's too, one after the
//! other; prints tokens a second of answers alone and in pairs, and how many guesses were right. Answers must not differ.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use engine::llm::request::{Event, GenerateRequest, Sampling};
use engine::llm::{Generation, Llm, Settings};

const PROMPTS: [&str; 6] = [
    "The history of the bicycle begins in the early nineteenth century, when",
    "def fibonacci(n):\n    \"\"\"Returns the first n numbers of the sequence.\"\"\"\n",
    "Dear Sir or Madam,\n\nI am writing to complain about the washing machine that",
    "Question: Why is the sky blue?\nAnswer: The sky is blue because",
    "Three things are needed for a good loaf of bread. First,",
    "Once upon a time there was a lighthouse keeper who",
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, draft, rest @ ..] = arguments.as_slice() else {
        bail!("usage: drafting MODEL DRAFT [tokens] [temperature]");
    };
    let tokens_max = rest.first().map_or(Ok(128), |count| count.parse())?;
    let temperature = rest.get(1).map_or(Ok(0.0), |number| number.parse())?;
    let settings = Settings { context_tokens: Some(1024), sequences_max: 2, ..Settings::default() };
    let load = |draft_tokens_max: usize, draft_model: Option<PathBuf>| {
        let settings = Settings { draft_tokens_max, draft_model, ..settings.clone() };
        Llm::load(&PathBuf::from(model), &settings, &mut |_, _| {}).context("loading")
    };
    let ways = [
        ("no guesses", load(0, None)?),
        ("what was said", load(8, None)?),
        ("a draft model", load(8, Some(PathBuf::from(draft)))?),
    ];
    for together in [1, 2] {
        let mut seconds = [0.0; 3];
        let (mut tokens, mut expected) = (0, Vec::new());
        let before = ways.each_ref().map(|(_, llm)| llm.stats());
        for (turn, prompts) in PROMPTS.chunks(together).enumerate() {
            for way in (0..3).map(|way| (way + turn) % 3) {
                let (took, answers) = ask(&ways[way].1, prompts, tokens_max, temperature)?;
                seconds[way] += took;
                match expected.get(turn) {
                    None => {
                        tokens += answers.iter().map(Vec::len).sum::<usize>();
                        expected.push(answers);
                    }
                    Some(expected) => ensure!(*expected == answers, "{}: another answer", ways[way].0),
                }
            }
        }
        for (way, (name, llm)) in ways.iter().enumerate() {
            let (now, before) = (llm.stats(), before[way]);
            println!(
                "{together} at once, {name}: {:.1} tokens/s; {} of {} guesses right, {} of {} of the draft model's",
                tokens as f64 / seconds[way],
                now.accepted_drafts_total - before.accepted_drafts_total,
                now.drafted_tokens_total - before.drafted_tokens_total,
                now.model_accepted_drafts_total - before.model_accepted_drafts_total,
                now.model_drafted_tokens_total - before.model_drafted_tokens_total,
            );
        }
    }
    Ok(())
}

/// Answers to all prompts at once, and the seconds from the first one's first token.
fn ask(
    llm: &Llm,
    prompts: &[&str],
    tokens_max: usize,
    temperature: f32,
) -> anyhow::Result<(f64, Vec<Vec<u32>>)> {
    let submitted = prompts.iter().map(|prompt| {
        Ok(llm.submit(GenerateRequest {
            prompt: llm.tokenizer().encode(prompt, false, true)?,
            tokens_max,
            sampling: Sampling { temperature, seed: Some(7), ..Sampling::default() },
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
            ignore_end: true,
        })?)
    });
    let mut generations = submitted.collect::<anyhow::Result<Vec<Generation>>>()?;
    let mut began = None;
    let mut answers = Vec::new();
    for generation in &mut generations {
        let mut answer = Vec::new();
        while let Some(event) = generation.blocking_next() {
            match event {
                Event::Token(token) => {
                    began.get_or_insert_with(Instant::now);
                    answer.push(token.id);
                }
                Event::Failed(reason) => bail!("the engine failed: {reason}"),
                Event::Prompt(_) | Event::Done { .. } => {}
            }
        }
        answers.push(answer);
    }
    Ok((began.context("no token came")?.elapsed().as_secs_f64(), answers))
}
