//! Conversations to prompts, by the Jinja template that a model was published with.
//!
//! Templates render as in `transformers` (`apply_chat_template`): its environment, its extra functions and
//! Python's way of writing values. A template comes out of a downloaded file, so its work is bounded; what
//! users wrote can't pose as the conversation's structure, see [`LITERAL_MARK`](super::tokenizer::LITERAL_MARK).

mod literal;
mod python;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

use kernels::thread_bound::{bound_this_thread, unbound_this_thread};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::Value as Json;

use super::tokenizer::Tokenizer;
use literal::Literals;

/// Work of the template interpreter for one prompt: a step, or 64 bytes of text made, each count one. A thousand
/// messages take some hundred thousand.
const STEPS_MAX: u64 = 2_000_000;
/// Stack of the threads that compile and render, bytes of address space: chains of operators, as long as a template may
/// be, are compiled by recursion, and lists in lists, as deep as the steps allow, freed by it.
const STACK_BYTES: usize = 1 << 30;
/// For one prompt. The steps bound all but what a template made to do harm can reach: adding up, comparing or joining
/// lists that hold each other many times over. While a rendering runs that was given up, its template is not used.
const RENDER_TIME_MAX: Duration = Duration::from_secs(10);
/// What a rendering may hold, beyond its conversation: the steps allow 128 MB of texts. One that holds more, or runs for
/// longer than [`RENDER_STOP_TIME`], is stopped where it is, and its template is not used again.
const RENDER_BYTES_MAX: usize = 256 << 20;
const RENDER_STOP_TIME: Duration = Duration::from_secs(60);
/// Between two looks at whether a rendering was stopped.
const RENDER_LOOK_TIME: Duration = Duration::from_millis(20);
/// Nesting of a template's blocks and calls; a call counts for ten.
const RECURSION_MAX: usize = 300;
/// Longest prompt.
const PROMPT_BYTES_MAX: usize = 64 << 20;
/// Longest template: the longest published ones have some 20 kB.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
/// Widest indentation of JSON that a template may ask for.
const INDENT_MAX: usize = 100;
/// Of what a template says where it refuses a conversation.
const REFUSAL_CHARS_MAX: usize = 1000;
/// Largest number in the pattern of `str.format`.
const FORMAT_WIDTH_MAX: usize = 10_000;
const NAME: &str = "chat";

/// The special tokens that templates write and users may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
    /// Every control token's text.
    pub control: Vec<String>,
}

impl TemplateTokens {
    pub fn of(tokenizer: &Tokenizer) -> TemplateTokens {
        let named = tokenizer.named();
        let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id));
        TemplateTokens {
            bos: text(named.bos),
            eos: text(named.eos),
            unk: text(named.unk),
            pad: text(named.pad),
            control: tokenizer.control_texts().to_vec(),
        }
    }
}

/// Why a template can't be used, or a conversation not be rendered by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the model's chat template is {bytes} bytes long; at most {limit} are read")]
    TooLong { bytes: usize, limit: usize },
    #[error("the model's chat template is not valid Jinja, line {line}: {message}")]
    Syntax { line: usize, message: String },
    /// The template refuses the conversation by `raise_exception`: the caller's messages are at fault.
    #[error("the model's chat template refuses this conversation: {message}")]
    Refused { message: String },
    #[error("the model's chat template fails, line {line}: {message}")]
    Failed { line: usize, message: String },
    #[error("the model's chat template takes more than {STEPS_MAX} steps for this conversation")]
    TooMuchWork,
    #[error("the prompt is longer than {PROMPT_BYTES_MAX} bytes")]
    PromptTooLong,
    #[error("the model's chat template takes more than {} seconds for a conversation", RENDER_TIME_MAX.as_secs())]
    TooSlow,
    #[error(
        "the model's chat template took more than {} MiB or {} seconds for a conversation, and is not used any more",
        RENDER_BYTES_MAX >> 20, RENDER_STOP_TIME.as_secs()
    )]
    Stopped,
}

/// What `raise_exception` says, carried through the interpreter.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// A compiled template. Shared freely between threads.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    tokens: TemplateTokens,
    literals: Literals,
    time_max: Duration,
    /// Renderings that nobody waits for any more.
    overdue: Arc<AtomicUsize>,
    /// Whether a rendering was stopped for good. Never freed, as its thread never ends.
    stopped: &'static AtomicBool,
}

impl ChatTemplate {
    pub fn new(source: &str, tokens: TemplateTokens) -> Result<ChatTemplate, TemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: source.len(), limit: TEMPLATE_BYTES_MAX });
        }
        let syntax = |error: Error| TemplateError::Syntax {
            line: error.line().unwrap_or(0),
            message: message(&error),
        };
        let mut environment = environment().map_err(syntax)?;
        let compile =
            || environment.add_template_owned(NAME, without_generation_tags(source)).map_err(syntax);
        std::thread::scope(|scope| {
            let thread = large_stack().spawn_scoped(scope, compile).map_err(|error| no_thread(&error))?;
            thread.join().unwrap_or_else(|_| Err(panicked()))
        })?;
        Ok(ChatTemplate {
            environment: Arc::new(environment),
            literals: Literals::new(&tokens.control),
            tokens,
            time_max: RENDER_TIME_MAX,
            overdue: Arc::default(),
            stopped: Box::leak(Box::default()),
        })
    }

    /// The prompt for a list of messages (`{"role", "content", ...}`), to be encoded with `parse_special`.
    /// `extra` are further variables (`enable_thinking`); they don't replace those named here. Control tokens
    /// within messages, tools and extras carry a [`LITERAL_MARK`](super::tokenizer::LITERAL_MARK), which the
    /// tokeniser removes.
    pub fn render(
        &self,
        messages: &Json,
        tools: Option<&Json>,
        add_generation_prompt: bool,
        extra: Option<&serde_json::Map<String, Json>>,
    ) -> Result<String, TemplateError> {
        let mut variables = vec![("documents".to_owned(), Value::from(()))];
        for (name, value) in extra.into_iter().flatten() {
            variables.push((name.clone(), self.value(value)));
        }
        let mut set = |name: &str, value: Value| variables.push((name.to_owned(), value));
        set("messages", self.value(messages));
        set("tools", tools.map_or(Value::from(()), |tools| self.value(tools)));
        set("add_generation_prompt", Value::from(add_generation_prompt));
        let tokens = &self.tokens;
        let named = [
            ("bos_token", &tokens.bos),
            ("eos_token", &tokens.eos),
            ("unk_token", &tokens.unk),
            ("pad_token", &tokens.pad),
        ];
        for (name, text) in named {
            // Absent ones stay undefined and render as nothing.
            if let Some(text) = text {
                set(name, Value::from(text.as_str()));
            }
        }
        self.render_apart(Value::from_pairs(variables))
    }

    /// On a thread of its own, with a stack that no template can use up and a bound to its memory; a panic of the
    /// interpreter ends there too.
    fn render_apart(&self, variables: Value) -> Result<String, TemplateError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(TemplateError::Stopped);
        }
        if self.overdue.load(Ordering::Acquire) > 0 {
            return Err(TemplateError::TooSlow);
        }
        let (environment, overdue, stopped) = (self.environment.clone(), self.overdue.clone(), self.stopped);
        let (sender, receiver) = channel();
        let settled = Arc::new(AtomicBool::new(false));
        let end = RenderingEnd { settled: settled.clone(), overdue };
        let render = move || {
            let _end = end;
            bound_this_thread(RENDER_BYTES_MAX, Instant::now() + RENDER_STOP_TIME, stopped);
            let rendered = render(&environment, variables);
            unbound_this_thread();
            // Where nobody waits any more, nobody wants it.
            let _ = sender.send(rendered);
        };
        large_stack().spawn(render).map_err(|error| no_thread(&error))?;
        let begun = Instant::now();
        loop {
            let left = self.time_max.saturating_sub(begun.elapsed());
            match receiver.recv_timeout(left.min(RENDER_LOOK_TIME)) {
                Ok(rendered) => return rendered,
                Err(RecvTimeoutError::Disconnected) => return Err(panicked()),
                Err(RecvTimeoutError::Timeout) if self.stopped.load(Ordering::Acquire) => {
                    return Err(TemplateError::Stopped);
                }
                Err(RecvTimeoutError::Timeout) if left > RENDER_LOOK_TIME => {}
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        self.overdue.fetch_add(1, Ordering::AcqRel);
        if settled.swap(true, Ordering::AcqRel) {
            self.overdue.fetch_sub(1, Ordering::AcqRel);
        }
        Err(TemplateError::TooSlow)
    }

    fn value(&self, json: &Json) -> Value {
        Value::from(Serde(self.literals.mark(json)))
    }
}

/// Dropped when a rendering ends, however it ends: one that was given up is overdue no more. `settled` is set by the
/// rendering's end or by its caller's patience, whichever comes first.
struct RenderingEnd {
    settled: Arc<AtomicBool>,
    overdue: Arc<AtomicUsize>,
}

impl Drop for RenderingEnd {
    fn drop(&mut self) {
        if self.settled.swap(true, Ordering::AcqRel) {
            self.overdue.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn render(environment: &Environment<'_>, variables: Value) -> Result<String, TemplateError> {
    let mut prompt = Limited(Vec::new());
    let template = environment.get_template(NAME).map_err(|error| failure(&error))?;
    template.render_captured_to(variables, &mut prompt).map_err(|error| failure(&error))?;
    // The interpreter writes nothing but strings.
    Ok(String::from_utf8_lossy(&prompt.0).into_owned())
}

fn large_stack() -> std::thread::Builder {
    std::thread::Builder::new().name("chat template".into()).stack_size(STACK_BYTES)
}

fn no_thread(error: &std::io::Error) -> TemplateError {
    TemplateError::Failed { line: 0, message: format!("no thread for it: {error}") }
}

fn panicked() -> TemplateError {
    TemplateError::Failed { line: 0, message: "the interpreter panicked".to_owned() }
}

/// The environment that `transformers` makes for chat templates.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_fuel(Some(STEPS_MAX));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(|out, state, value| charged(state, out, |out| python::write_str(value, out)));
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        if method == "format" {
            check_widths(value)?;
        }
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        let message: String = message.chars().take(REFUSAL_CHARS_MAX).collect();
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
    });
    environment.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        python::strftime(format, SystemTime::now())
            .map_err(|directive| refuse(&format!("strftime_now: {directive} is not supported")))
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |state: &State, value: &Value| -> Result<String, Error> {
        let mut text = String::new();
        charged(state, &mut text, |out| python::write_str(value, out))?;
        Ok(text)
    });
    // Writes a list that holds others many times over without counting steps, and no model's template has it.
    environment.remove_filter("pprint");
    Ok(environment)
}

/// Writes a value and counts it as steps: one for each part, and for each 64 bytes.
fn charged(
    state: &State,
    out: &mut dyn std::fmt::Write,
    write: impl FnOnce(&mut dyn std::fmt::Write) -> std::fmt::Result,
) -> Result<(), Error> {
    let mut out = Charged { state, out, failed: None };
    match (write(&mut out), out.failed) {
        (_, Some(error)) => Err(error),
        (Err(_), None) => Err(refuse("the value is nested too deeply, or can't be written")),
        (Ok(()), None) => Ok(()),
    }
}

struct Charged<'a, 's> {
    state: &'a State<'s, 's>,
    out: &'a mut dyn std::fmt::Write,
    failed: Option<Error>,
}

impl std::fmt::Write for Charged<'_, '_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if let Err(error) = self.state.consume_fuel(1 + text.len() as u64 / 64) {
            self.failed = Some(error);
            return Err(std::fmt::Error);
        }
        self.out.write_str(text)
    }
}

fn refuse(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}

/// `'{:>9999999999}'.format(x)` would fill the memory before its steps are counted.
fn check_widths(pattern: &Value) -> Result<(), Error> {
    let text = pattern.as_str().unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    if numbers.any(|number| number.parse().map_or(true, |width: usize| width > FORMAT_WIDTH_MAX)) {
        return Err(refuse("format: a number in the pattern is too large"));
    }
    Ok(())
}

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, as Python's `json.dumps`.
fn tojson(state: &State, value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let separators: Option<(String, String)> = match arguments.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            let part = |index: usize| pair.get_item_by_index(index).map(|part| part.to_string());
            Some((part(0)?, part(1)?))
        }
        _ => None,
    };
    let options = python::JsonOptions {
        ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: arguments.get::<Option<usize>>("indent")?,
        separators,
        sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    arguments.assert_all_used()?;
    if options.indent.is_some_and(|width| width > INDENT_MAX) {
        return Err(refuse("tojson: the indent is too large"));
    }
    let (mut json, mut refused) = (String::new(), None);
    let written = charged(state, &mut json, |out| {
        python::write_json(value, &options, 0, out).map_err(|reason| {
            refused = reason;
            std::fmt::Error
        })
    });
    match refused {
        Some(reason) => Err(refuse(&format!("tojson: {reason}"))),
        None => written.map(|()| Value::from(json)),
    }
}

/// `{% generation %}` marks what an assistant wrote, for training. It prints its contents and nothing else, as
/// does a condition that holds; white-space control stays where it was.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + len];
        let trimmed = tag.trim_matches(['-', '+']);
        let replacement = match trimmed.trim() {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        out.push_str(&rest[..start + 2]);
        match replacement {
            Some(replacement) => out.push_str(&tag.replace(trimmed.trim(), replacement)),
            None => out.push_str(tag),
        }
        out.push_str("%}");
        rest = &rest[start + len + 2..];
    }
    out.push_str(rest);
    out
}

/// The error's own words, without the interpreter's positions.
fn message(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

fn failure(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Refusal(message)) = current.downcast_ref() {
            return TemplateError::Refused { message: message.clone() };
        }
        if let Some(inner) = current.downcast_ref::<Error>() {
            match inner.kind() {
                ErrorKind::OutOfFuel => return TemplateError::TooMuchWork,
                ErrorKind::WriteFailure => return TemplateError::PromptTooLong,
                _ => {}
            }
        }
        cause = current.source();
    }
    TemplateError::Failed { line: error.line().unwrap_or(0), message: message(error) }
}

/// Takes at most [`PROMPT_BYTES_MAX`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > PROMPT_BYTES_MAX {
            return Err(std::io::Error::other("the prompt is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
