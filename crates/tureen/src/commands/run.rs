//! `tureen run`: one answer, or a chat in the terminal.

use std::io::{IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use engine::llm::request::Sampling;
use serde_json::json;

use super::answer::{Answerer, End, Ended, Options, Prompt};
use super::{Context, chat, model};
use crate::settings::{Count, Misused, Origin, TABLE};
use crate::terminal::{print, say};

/// Bytes of a prompt from standard input.
const PROMPT_BYTES_MAX: u64 = 16 << 20;
/// Before a person is told what is waited for.
const UNSAID_WAIT_MAX: Duration = Duration::from_secs(5);

/// Ask a model, once or in a chat
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A .gguf file, a folder, or the name of a model that was pulled (with --at, its name there)
    #[arg(value_name = "MODEL")]
    model: String,
    /// What to ask, with what is on standard input (a file or a pipe) below it; without either, a chat
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Go on with the prompt as a plain text, without the chat template
    #[arg(long, conflicts_with = "system")]
    raw: bool,
    /// Ask a server instead of loading the model: http://127.0.0.1:8080 [key: TUREEN_KEY]
    #[arg(long, value_name = "URL")]
    at: Option<String>,
    /// 0 takes the likeliest token each time; more is more varied
    #[arg(long, value_name = "NUMBER", default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    top_p: f32,
    /// Keep so many likeliest tokens; 0 keeps all
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    top_k: usize,
    /// Drop tokens less likely than this share of the likeliest; 0 keeps all
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    min_p: f32,
    /// Makes tokens less likely that were there already; 1 doesn't. 1.1 helps where a small model repeats itself
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Makes answers reproducible
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Tokens of an answer at most; the default is what the context leaves
    #[arg(long, value_name = "TOKENS")]
    tokens_max: Option<usize>,
    /// Say after each answer how long it took, on standard error
    #[arg(long)]
    stats: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen run smollm2:135m                               a chat; /help in it says more
  tureen run smollm2:135m \"Why is the sky blue?\"        one answer
  tureen run smollm2:135m --temperature 0 < letter.txt
  tureen run smollm2:135m \"Summarise this letter:\" < letter.txt
  tureen run ./base.gguf --raw \"Once upon a time\"
  tureen run smollm2:135m --at http://127.0.0.1:8080    a chat with a running server

Beside a PROMPT, what is on standard input, a file or a pipe, goes below it, once it is at its
end; where a pipe stays open for nothing, say < /dev/null. In a chat, Ctrl-C stops the answer and
Ctrl-D ends the chat.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let options = options(arguments)?;
    let prompt = prompt(&arguments.prompt.join(" "), !arguments.prompt.is_empty())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting threads")?;
    let answerer = answerer(context, arguments, prompt.is_none())?;
    let Some(prompt) = prompt else {
        if arguments.raw {
            bail!("--raw goes on with a text: give one as PROMPT or on standard input");
        }
        let chat = chat::Chat::new(answerer, options, arguments.system.clone(), arguments.stats);
        return chat.run(&runtime);
    };
    let prompt =
        if arguments.raw { Prompt::Text(prompt) } else { Prompt::Messages(messages(arguments, &prompt)) };
    let ended = runtime.block_on(answerer.ask(&prompt, &options, |text| print(text)))?;
    print("\n")?;
    if arguments.stats {
        say(stats(&ended));
    }
    match ended.end {
        End::Stopped => Err(Interrupted.into()),
        End::Finished { at_limit, usage } => {
            if at_limit {
                say(answerer.limit(&options, usage));
            }
            Ok(())
        }
    }
}

/// Ended by Ctrl-C, which is no failure to speak of.
#[derive(Debug, thiserror::Error)]
#[error("stopped by Ctrl-C")]
pub struct Interrupted;

/// What was asked on the command line, if anything was, and below it what comes on standard input.
fn prompt(asked: &str, is_asked: bool) -> anyhow::Result<Option<String>> {
    if is_asked && asked.trim().is_empty() {
        bail!("the PROMPT is empty; leave it out for a chat");
    }
    if std::io::stdin().is_terminal() {
        return Ok(is_asked.then(|| asked.to_string()));
    }
    let Some(input) = (if is_asked { input_beside_a_prompt()? } else { Some(read_input()?) }) else {
        return Ok(Some(asked.to_string()));
    };
    match (is_asked, input.trim().is_empty()) {
        (true, true) => Ok(Some(asked.to_string())),
        (true, false) => Ok(Some(format!("{asked}\n\n{input}"))),
        (false, true) => bail!("there is nothing on standard input; give a PROMPT"),
        (false, false) => Ok(Some(input)),
    }
}

/// Standard input beside a PROMPT: a file's, or a pipe's. Whether a pipe has a text to come, only its end tells, so it is
/// waited for, as every program that reads one does.
fn input_beside_a_prompt() -> anyhow::Result<Option<String>> {
    let Ok(kind) = std::fs::metadata("/dev/stdin").map(|facts| facts.file_type()) else { return Ok(None) };
    if kind.is_file() || kind.is_fifo() || kind.is_socket() { read_input().map(Some) } else { Ok(None) }
}

/// The base of a server's address, without `/v1`.
fn server_url(context: &Context, url: &str) -> anyhow::Result<String> {
    // As browsers and curl do.
    let url = if url.contains("://") { url.to_string() } else { format!("http://{url}") };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        bail!("--at {url}: a server's address is wanted, such as http://127.0.0.1:8080");
    }
    let mut settings = TABLE.iter().zip(&context.resolved.said_by);
    let loads = settings
        .find(|(setting, (_, _, origin))| setting.is_for_loading() && matches!(origin, Origin::Flag(_)));
    if let Some((_, (_, _, flag))) = loads {
        bail!(
            "{flag} is for a model loaded here, and --at asks a server, which has loaded it: leave one of them out"
        );
    }
    Ok(url.trim_end_matches('/').trim_end_matches("/v1").to_string())
}

fn answerer(context: &Context, arguments: &Arguments, is_chat: bool) -> anyhow::Result<Answerer> {
    if let Some(url) = &arguments.at {
        let url = server_url(context, url)?;
        let key = std::env::var("TUREEN_KEY").ok().filter(|key| !key.is_empty());
        return Ok(Answerer::Server { url, model: arguments.model.clone(), key });
    }
    let model = model::find_to_load(context, &arguments.model)?;
    // One conversation at a time, whatever a server would be set to.
    let settings = crate::settings::Settings { sequences_max: Count(1), ..context.resolved.settings.clone() };
    let llm = model::load(&model, &settings, 0, is_chat || arguments.stats)?;
    Ok(Answerer::Here(Box::new(llm)))
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_p: arguments.top_p,
        top_k: arguments.top_k,
        min_p: arguments.min_p,
        repetition_penalty: arguments.repetition_penalty,
        seed: arguments.seed,
        ..Sampling::default()
    };
    let options = Options { sampling, tokens_max: arguments.tokens_max };
    chat::check_options(&options).map_err(|error| Misused(error.to_string()))?;
    Ok(options)
}

fn messages(arguments: &Arguments, prompt: &str) -> Vec<serde_json::Value> {
    let system = arguments.system.iter().map(|text| json!({"role": "system", "content": text}));
    system.chain([json!({"role": "user", "content": prompt})]).collect()
}

/// All of standard input. One that keeps a person waiting is said to.
fn read_input() -> anyhow::Result<String> {
    let (_ended, ends) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if ends.recv_timeout(UNSAID_WAIT_MAX) == Err(RecvTimeoutError::Timeout) {
            say("waiting for the end of standard input (`< /dev/null` if nothing is to come)");
        }
    });
    let mut text = String::new();
    std::io::stdin()
        .take(PROMPT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .context("reading standard input")?;
    if text.len() as u64 > PROMPT_BYTES_MAX {
        bail!("standard input has more than {PROMPT_BYTES_MAX} bytes, the longest prompt that is read");
    }
    Ok(text)
}

/// How long an answer took, in a line.
pub fn stats(ended: &Ended) -> String {
    let first = ended.first_token.unwrap_or(ended.total);
    let rest = (ended.total - first).as_secs_f64();
    let mut line =
        format!("first text after {:.2} s, {:.2} s in all", first.as_secs_f64(), ended.total.as_secs_f64());
    if let End::Finished { usage: Some(usage), .. } = &ended.end {
        line.push_str(&format!("; {} tokens read, {} written", usage.prompt_tokens, usage.completion_tokens));
        if usage.completion_tokens > 1 && rest > 0.0 {
            line.push_str(&format!(", {:.1} a second", (usage.completion_tokens - 1) as f64 / rest));
        }
    }
    line
}
