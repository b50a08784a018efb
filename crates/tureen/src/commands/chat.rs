//! A conversation in the terminal: lines in, answers streamed out, and a few commands that begin with a slash.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::answer::{Answerer, End, Options, Prompt};
use super::run::stats;
use crate::nearest::nearest;
use crate::settings::data_folder;
use crate::terminal::{print, say};

const HELP: &str = "\
/help              this
/clear             begin anew: what was said is forgotten
/system TEXT       tell the model something before the conversation, and begin anew (`off` for nothing)
/system            show what it is told
/set               show how answers are made
/set NAME VALUE    temperature, top_p, top_k, min_p, repetition_penalty, seed or tokens_max (the last two may be `off`)
/quit              end, as Ctrl-D does
Ctrl-C stops an answer. A line that ends with \\ goes on in the next.";

const COMMANDS: [&str; 7] = ["/help", "/clear", "/system", "/set", "/quit", "/exit", "/bye"];
const OPTIONS: [&str; 7] =
    ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "tokens_max"];

/// A conversation and how it is led.
pub struct Chat {
    answerer: Answerer,
    options: Options,
    messages: Vec<Value>,
    system: Option<String>,
    stats: bool,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
enum Line {
    Nothing,
    Say(String),
    Help,
    Clear,
    System(String),
    Show,
    Set(String, String),
    Quit,
    Unknown(String),
}

impl Chat {
    pub fn new(answerer: Answerer, options: Options, system: Option<String>, stats: bool) -> Chat {
        let mut chat = Chat { answerer, options, messages: Vec::new(), system, stats };
        chat.clear();
        chat
    }

    /// Until `/quit` or Ctrl-D.
    ///
    /// # Errors
    /// A terminal that can't be read. An answer that fails is said, and the chat goes on.
    pub fn run(mut self, runtime: &Runtime) -> anyhow::Result<()> {
        let mut editor = DefaultEditor::new().context("opening the terminal")?;
        let history = history_file();
        // There is none before the first chat.
        let _ = editor.load_history(&history);
        say("Ask something; /help says what else there is, Ctrl-D ends.");
        loop {
            let Some(text) = read(&mut editor)? else { break };
            match parse(&text) {
                Line::Quit => break,
                Line::Say(text) => self.say(runtime, text)?,
                line => print(self.command(line) + "\n")?,
            }
        }
        if let Some(folder) = history.parent()
            && let Err(error) = std::fs::create_dir_all(folder)
                .map_err(Into::into)
                .and_then(|()| editor.save_history(&history))
        {
            tracing::warn!("the history was not kept in {}: {error}", history.display());
        }
        Ok(())
    }

    /// A question and its answer join the conversation; one that failed leaves it as it was.
    fn say(&mut self, runtime: &Runtime, text: String) -> anyhow::Result<()> {
        self.messages.push(json!({"role": "user", "content": text}));
        let prompt = Prompt::Messages(self.messages.clone());
        match runtime.block_on(self.answerer.ask(&prompt, &self.options, |text| print(text))) {
            Ok(ended) => {
                print("\n")?;
                match ended.end {
                    End::Stopped => say("(stopped)"),
                    End::Finished { at_limit: true, usage } => say(self.answerer.limit(&self.options, usage)),
                    End::Finished { .. } => {}
                }
                if self.stats {
                    say(stats(&ended));
                }
                self.messages.push(json!({"role": "assistant", "content": ended.text}));
            }
            Err(error) => {
                self.messages.pop();
                say(format!("error: {error:#}"));
                if self.messages.len() > 1 {
                    say("/clear begins anew, should the conversation be too long.");
                }
            }
        }
        Ok(())
    }

    /// Does what a slash command asks; what to say about it comes back.
    fn command(&mut self, line: Line) -> String {
        match line {
            Line::Help => HELP.to_string(),
            Line::Clear => {
                self.clear();
                "Begun anew.".to_string()
            }
            Line::System(text) if text.is_empty() => match &self.system {
                Some(text) => format!("The model is told: {text} (/system off tells it nothing)"),
                None => "The model is told nothing.".to_string(),
            },
            Line::System(text) => {
                self.system = Some(text).filter(|text| text != "off");
                self.clear();
                match self.system {
                    Some(_) => "The model is told; begun anew.".to_string(),
                    None => "The model is told nothing; begun anew.".to_string(),
                }
            }
            Line::Show => show(&self.options),
            Line::Set(name, value) => match set(&self.options, &name, &value) {
                Ok(options) => {
                    self.options = options;
                    show(&self.options)
                }
                Err(error) => error.to_string(),
            },
            Line::Unknown(name) => match nearest(&name, COMMANDS) {
                Some(close) => format!("there is no {name}; did you mean {close}?"),
                None => format!("there is no {name}; /help says what there is"),
            },
            Line::Nothing | Line::Say(_) | Line::Quit => String::new(),
        }
    }

    fn clear(&mut self) {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        self.messages = system.collect();
    }
}

/// A line, or several joined by `\`; `None` at Ctrl-D. Ctrl-C drops what was typed.
fn read(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { "> " } else { "… " }) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(begun) => {
                    text.push_str(begun);
                    text.push('\n');
                }
                None => {
                    text.push_str(&line);
                    if !text.trim().is_empty() {
                        // A history that takes no more is no reason to stop.
                        let _ = editor.add_history_entry(&text);
                    }
                    return Ok(Some(text));
                }
            },
            Err(ReadlineError::Interrupted) if text.is_empty() => say("(Ctrl-D ends the chat)"),
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("reading the terminal"),
        }
    }
}

fn parse(text: &str) -> Line {
    let text = text.trim();
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    match name {
        "" => Line::Nothing,
        "/help" | "/?" => Line::Help,
        "/clear" => Line::Clear,
        "/system" => Line::System(rest.to_string()),
        "/quit" | "/exit" | "/bye" => Line::Quit,
        "/set" => match rest.split_once(char::is_whitespace) {
            None if rest.is_empty() => Line::Show,
            None => Line::Set(rest.to_string(), String::new()),
            Some((name, value)) => Line::Set(name.to_string(), value.trim().to_string()),
        },
        _ if name.starts_with('/') && !name[1..].contains('/') => Line::Unknown(name.to_string()),
        _ => Line::Say(text.to_string()),
    }
}

fn show(options: &Options) -> String {
    let sampling = &options.sampling;
    let or_off = |value: Option<String>| value.unwrap_or_else(|| "off".to_string());
    format!(
        "temperature {}, top_p {}, top_k {}, min_p {}, repetition_penalty {}, seed {}, tokens_max {}",
        sampling.temperature,
        sampling.top_p,
        sampling.top_k,
        sampling.min_p,
        sampling.repetition_penalty,
        or_off(sampling.seed.map(|seed| seed.to_string())),
        or_off(options.tokens_max.map(|tokens| tokens.to_string())),
    )
}

/// The options with one changed.
fn set(options: &Options, name: &str, value: &str) -> anyhow::Result<Options> {
    let mut options = options.clone();
    let sampling = &mut options.sampling;
    let wrong = || format!("{name} is a number, received {value:?}");
    let number = || value.parse::<f32>().with_context(wrong);
    let off = value == "off";
    match name {
        "temperature" => sampling.temperature = number()?,
        "top_p" => sampling.top_p = number()?,
        "min_p" => sampling.min_p = number()?,
        "repetition_penalty" => sampling.repetition_penalty = number()?,
        "top_k" => sampling.top_k = value.parse().with_context(wrong)?,
        "seed" if off => sampling.seed = None,
        "seed" => sampling.seed = Some(value.parse().with_context(wrong)?),
        "tokens_max" if off => options.tokens_max = None,
        "tokens_max" => options.tokens_max = Some(value.parse().with_context(wrong)?),
        _ => match nearest(name, OPTIONS) {
            Some(close) => bail!("there is no {name}; did you mean {close}?"),
            None => bail!("there is no {name}; there are {}", OPTIONS.join(", ")),
        },
    }
    check_options(&options)?;
    Ok(options)
}

/// # Errors
/// A number outside its range.
pub fn check_options(options: &Options) -> anyhow::Result<()> {
    let sampling = &options.sampling;
    let ranges = [
        ("temperature", sampling.temperature, 0.0, 2.0),
        ("top_p", sampling.top_p, f32::MIN_POSITIVE, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("repetition_penalty", sampling.repetition_penalty, f32::MIN_POSITIVE, 2.0),
    ];
    for (name, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            bail!(
                "{name} is to be from {} to {most}, received {value}",
                if least > 0.0 { "above 0" } else { "0" }
            );
        }
    }
    if options.tokens_max == Some(0) {
        bail!("tokens_max is to be at least 1, received 0");
    }
    Ok(())
}

fn history_file() -> PathBuf {
    data_folder().join("chat-history")
}

#[cfg(test)]
mod tests {
    use engine::llm::request::Sampling;

    use super::*;

    fn chat() -> Chat {
        let answerer = Answerer::Server { url: String::new(), model: String::new(), key: None };
        let options = Options { sampling: Sampling::default(), tokens_max: None };
        Chat::new(answerer, options, Some("Be kind.".to_string()), false)
    }

    #[test]
    fn lines_are_understood() {
        let check = |text: &str, expected: Line| assert_eq!(parse(text), expected, "{text}");
        check("  ", Line::Nothing);
        check(" hello there ", Line::Say("hello there".to_string()));
        check("/usr/bin is a folder", Line::Say("/usr/bin is a folder".to_string()));
        check("/system Be brief.", Line::System("Be brief.".to_string()));
        check("/set", Line::Show);
        check("/set top_k  40", Line::Set("top_k".to_string(), "40".to_string()));
        check("/hepl", Line::Unknown("/hepl".to_string()));
        check("/quit", Line::Quit);
    }

    #[test]
    fn options_are_set_and_checked() {
        let mut chat = chat();
        let mut check = |text: &str, expected: &str| {
            let said = chat.command(parse(text));
            assert!(said.contains(expected), "{text}: {said}");
        };
        check("/set temperature 0.5", "temperature 0.5");
        check("/set temperature -1", "temperature is to be from 0 to 2");
        check("/set temperature hot", "is a number, received \"hot\"");
        check("/set seed 7", "seed 7");
        check("/set seed off", "seed off");
        check("/set top_p 0", "from above 0 to 1");
        check("/set repetition_penalty 1.1", "repetition_penalty 1.1");
        check("/set temprature 1", "did you mean temperature?");
        check("/clera", "did you mean /clear?");
        check("/set", "temperature 0.5");
    }

    #[test]
    fn clearing_keeps_what_the_model_is_told() {
        let mut chat = chat();
        chat.messages.push(json!({"role": "user", "content": "x"}));
        chat.command(Line::Clear);
        assert_eq!(chat.messages, [json!({"role": "system", "content": "Be kind."})]);
        assert!(chat.command(parse("/system")).contains("Be kind."));
        assert_eq!(chat.messages.len(), 1);
        chat.command(parse("/system off"));
        assert!(chat.messages.is_empty());
    }
}
