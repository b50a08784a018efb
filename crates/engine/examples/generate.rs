//! Continues a prompt and measures it: `cargo run --release -p engine --example generate -- MODEL "prompt" [tokens]`.
//!
//! Prints the text, then the tokens a second of the prompt and of the answer. `--prompt-tokens N` takes a prompt of
//! `N` tokens, repeating the text, so that long prompts can be measured.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use engine::llm::request::{Event, GenerateRequest, Sampling};
use engine::llm::{Llm, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let length = match arguments.iter().position(|argument| argument == "--prompt-tokens") {
        Some(at) => Some(arguments.drain(at..at + 2).nth(1).unwrap_or_default().parse::<usize>()?),
        None => None,
    };
    let [path, prompt, tokens_max @ ..] = &arguments[..] else {
        return Err("MODEL and prompt are needed".into());
    };
    let start = Instant::now();
    let llm = Llm::load(&PathBuf::from(path), &Settings::default(), &mut |_, _| {})?;
    eprintln!("loaded in {:.2} s: {:?}", start.elapsed().as_secs_f64(), llm.facts());

    let mut prompt = llm.tokenizer().encode(prompt, true, true)?;
    if let Some(length) = length {
        prompt = prompt.iter().copied().cycle().take(length).collect();
    }
    let request = GenerateRequest {
        prompt,
        tokens_max: tokens_max.first().map_or(Ok(64), |count| count.parse())?,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
        ignore_end: length.is_some(),
    };
    let start = Instant::now();
    let mut first = None;
    let mut generation = llm.submit(request)?;
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Prompt(_) => {}
            Event::Token(token) => {
                first.get_or_insert_with(|| start.elapsed().as_secs_f64());
                print!("{}", token.text);
                std::io::stdout().flush()?;
            }
            Event::Done { text, reason, usage } => {
                let (first, all) = (first.unwrap_or_default(), start.elapsed().as_secs_f64());
                println!("{text}");
                let (prompt, answer) = (usage.prompt_tokens as f64, usage.completion_tokens as f64);
                eprintln!("{reason:?}: prompt of {prompt} at {:.0} tokens/s", prompt / first);
                eprintln!("answer of {answer} at {:.1} tokens/s", (answer - 1.0) / (all - first));
            }
            Event::Failed(message) => return Err(message.into()),
        }
    }
    Ok(())
}
