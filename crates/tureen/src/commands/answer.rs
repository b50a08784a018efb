//! Where `run` gets its answers: a model in this process, or a server that speaks the OpenAI API.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use engine::llm::request::{Event, FinishReason, GenerateRequest, Sampling, Usage};
use engine::llm::{Generation, Llm};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of one line of a server's stream.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a server's error.
const ERROR_BYTES_MAX: u64 = 1 << 20;

/// Who answers.
pub enum Answerer {
    Here(Box<Llm>),
    /// Base URL without `/v1`, the model's name there, and a key where one is needed.
    Server {
        url: String,
        model: String,
        key: Option<String>,
    },
}

/// How an answer is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub sampling: Sampling,
    /// `None` goes on to the end of the text or the context.
    pub tokens_max: Option<usize>,
}

/// What is to be answered.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A conversation, by the model's chat template: `[{"role", "content"}, ...]`.
    Messages(Vec<Value>),
    /// A text to go on with as it is.
    Text(String),
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub text: String,
    pub end: End,
    pub first_token: Option<Duration>,
    pub total: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Finished {
        at_limit: bool,
        usage: Option<Usage>,
    },
    /// By Ctrl-C.
    Stopped,
}

/// What comes, bit by bit.
#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Done { at_limit: bool, usage: Option<Usage> },
    Failed(String),
}

enum Pieces {
    /// With the end that follows the text that its last event carried.
    Here(Generation, Option<Piece>),
    Server(UnboundedReceiver<Piece>),
}

impl Answerer {
    /// Why an answer ended before its text did.
    pub fn limit(&self, options: &Options, usage: Option<Usage>) -> String {
        let written = usage.map_or(usize::MAX, |usage| usage.completion_tokens);
        if let Some(tokens_max) = options.tokens_max.filter(|tokens_max| *tokens_max <= written) {
            return format!("(the limit of {tokens_max} tokens is reached)");
        }
        match self {
            Answerer::Here(llm) => {
                let (context, trained) = (llm.facts().context, llm.facts().context_trained);
                let more =
                    if context < trained { format!("; --context up to {trained}") } else { String::new() };
                format!("(the context of {context} tokens is full{more})")
            }
            Answerer::Server { .. } => "(the context that the server gives the model is full)".to_string(),
        }
    }

    /// Asks, and hands out text as it comes, until the end or Ctrl-C, which frees the place within a step.
    ///
    /// # Errors
    /// A prompt that is too long or that the template refuses, an engine or a server that fails, an output that is
    /// closed.
    pub async fn ask(
        &self,
        prompt: &Prompt,
        options: &Options,
        mut show: impl FnMut(&str) -> std::io::Result<()>,
    ) -> anyhow::Result<Ended> {
        let started = Instant::now();
        let mut pieces = match self {
            Answerer::Here(llm) => Pieces::Here(submit(llm, prompt, options)?, None),
            Answerer::Server { url, model, key } => {
                let body = body(model, prompt, options);
                let path = if matches!(prompt, Prompt::Text(_)) { "completions" } else { "chat/completions" };
                Pieces::Server(post(format!("{url}/v1/{path}"), key.clone(), body))
            }
        };
        let (mut text, mut first_token) = (String::new(), None);
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                pressed = tokio::signal::ctrl_c() => {
                    pressed.context("listening for Ctrl-C")?;
                    return Ok(Ended { text, end: End::Stopped, first_token, total: started.elapsed() });
                }
            };
            match piece {
                Piece::Text(more) => {
                    if !more.is_empty() {
                        first_token.get_or_insert_with(|| started.elapsed());
                    }
                    show(&more).context("writing the answer")?;
                    text.push_str(&more);
                }
                Piece::Done { at_limit, usage } => {
                    let end = End::Finished { at_limit, usage };
                    return Ok(Ended { text, end, first_token, total: started.elapsed() });
                }
                Piece::Failed(message) => bail!(message),
            }
        }
    }
}

impl Pieces {
    async fn next(&mut self) -> Piece {
        match self {
            Pieces::Server(pieces) => pieces
                .recv()
                .await
                .unwrap_or_else(|| Piece::Failed("the server's answer broke off".to_string())),
            Pieces::Here(_, end @ Some(_)) => end.take().unwrap_or_else(no_answer),
            Pieces::Here(generation, end) => match generation.next().await {
                Some(Event::Prompt(_)) => Piece::Text(String::new()),
                Some(Event::Token(token)) => Piece::Text(token.text),
                Some(Event::Done { text, reason, usage }) => {
                    *end = Some(Piece::Done { at_limit: reason == FinishReason::Length, usage: Some(usage) });
                    Piece::Text(text)
                }
                Some(Event::Failed(failure)) => Piece::Failed(failure.to_string()),
                None => no_answer(),
            },
        }
    }
}

fn no_answer() -> Piece {
    Piece::Failed("the engine ended without an answer".to_string())
}

fn submit(llm: &Llm, prompt: &Prompt, options: &Options) -> anyhow::Result<Generation> {
    let tokenizer = llm.tokenizer();
    let tokens = match prompt {
        // Control tokens in it count, as in a server's /v1/completions.
        Prompt::Text(text) => {
            check_size(llm, text)?;
            tokenizer.encode(text, true, true)?
        }
        Prompt::Messages(messages) => {
            let template = llm.template().context(
                "this model has no chat template, so how a conversation is written for it is unknown; \
                 --raw goes on with a text as it is",
            )?;
            let text = template.render(&Value::from(messages.clone()), None, true, None)?;
            check_size(llm, &text)?;
            tokenizer.encode(&text, true, false)?
        }
    };
    let generation = llm.submit(GenerateRequest {
        prompt: tokens,
        tokens_max: options.tokens_max.unwrap_or(usize::MAX),
        sampling: options.sampling.clone(),
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
        ignore_end: false,
    })?;
    Ok(generation)
}

/// Refuses what no number of tokens that the context has could hold, before minutes and gigabytes go into counting them.
fn check_size(llm: &Llm, text: &str) -> anyhow::Result<()> {
    let context = llm.facts().context;
    let bytes_max = llm.tokenizer().text_bytes_max(context);
    if text.len() > bytes_max {
        bail!(
            "the prompt is {} bytes long, and this model's context of {context} tokens holds at most {bytes_max}: \
             shorten the prompt",
            text.len()
        );
    }
    Ok(())
}

fn body(model: &str, prompt: &Prompt, options: &Options) -> Value {
    let sampling = &options.sampling;
    let mut body = json!({
        "model": model,
        "stream": true,
        "stream_options": {"include_usage": true},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    });
    let mut set = |key: &str, value: Value| body[key] = value;
    match prompt {
        Prompt::Messages(messages) => set("messages", Value::from(messages.clone())),
        Prompt::Text(text) => set("prompt", Value::from(text.as_str())),
    }
    // These aren't OpenAI's, so a server of another kind sees them only when they are asked for.
    if sampling.top_k > 0 {
        set("top_k", json!(sampling.top_k));
    }
    if sampling.min_p > 0.0 {
        set("min_p", json!(sampling.min_p));
    }
    if sampling.repetition_penalty != 1.0 {
        set("repetition_penalty", json!(sampling.repetition_penalty));
    }
    if let Some(seed) = sampling.seed {
        set("seed", json!(seed));
    }
    if let Some(tokens_max) = options.tokens_max {
        set("max_tokens", json!(tokens_max));
    }
    body
}

/// Asks a server in a thread of its own. When nobody listens any more, the connection is closed, which cancels: with the
/// next line that comes, or with this process.
fn post(url: String, key: Option<String>, body: Value) -> UnboundedReceiver<Piece> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        if let Err(error) = stream(&url, key.as_deref(), &body, &sender) {
            // Whoever has gone doesn't want to know.
            let _ = sender.send(Piece::Failed(format!("{error:#}")));
        }
    });
    receiver
}

fn stream(url: &str, key: Option<&str>, body: &Value, sender: &UnboundedSender<Piece>) -> anyhow::Result<()> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .build()
        .new_agent();
    let mut request = agent.post(url).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let answer = request.send(body.to_string()).with_context(|| format!("asking {url}"))?;
    let status = answer.status().as_u16();
    let mut reader = answer.into_body().into_with_config().limit(u64::MAX).reader();
    if status != 200 {
        let mut text = String::new();
        reader.by_ref().take(ERROR_BYTES_MAX).read_to_string(&mut text)?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let message = value["error"]["message"].as_str().unwrap_or(text.trim());
        bail!("the server answers {status}: {message}");
    }
    let mut reader = BufReader::new(reader);
    let (mut at_limit, mut usage) = (false, None);
    loop {
        let mut line = String::new();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        if sender.is_closed() {
            return Ok(()); // Ctrl-C
        }
        let Some(data) = line.strip_prefix("data:").map(str::trim) else {
            if read == 0 {
                bail!("the server's answer broke off");
            }
            continue;
        };
        if data == "[DONE]" {
            let _ = sender.send(Piece::Done { at_limit, usage });
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data).context("the server's stream isn't JSON")?;
        if let Some(message) = chunk["error"]["message"].as_str() {
            return Err(anyhow!("the server fails: {message}"));
        }
        let choice = &chunk["choices"][0];
        at_limit |= choice["finish_reason"] == "length";
        if let Some(counts) = chunk["usage"].as_object() {
            let count = |key: &str| counts.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
            let (prompt_tokens, completion_tokens) = (count("prompt_tokens"), count("completion_tokens"));
            usage = Some(Usage { prompt_tokens, cached_tokens: 0, completion_tokens });
        }
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            // Whether anybody listens, the next line asks.
            let _ = sender.send(Piece::Text(text.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::test_server::{Page, Server};

    fn options() -> Options {
        Options { sampling: Sampling { seed: Some(7), ..Sampling::default() }, tokens_max: Some(3) }
    }

    fn ask(page: Page) -> Result<(String, Ended), String> {
        let server = Server::start();
        server.serve("/v1/chat/completions", page);
        let answerer =
            Answerer::Server { url: server.url.clone(), model: "m".to_string(), key: Some("k".to_string()) };
        let mut shown = String::new();
        let prompt = Prompt::Messages(vec![json!({"role": "user", "content": "hi"})]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(answerer.ask(&prompt, &options(), |text| {
            shown.push_str(text);
            Ok(())
        }));
        assert_eq!(server.seen()[0].headers["authorization"], "Bearer k");
        ended.map(|ended| (shown, ended)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_servers_stream_becomes_text() {
        let chunks = [
            r#"{"choices": [{"delta": {"role": "assistant", "content": ""}}]}"#,
            r#"{"choices": [{"delta": {"content": "Hel"}}]}"#,
            r#"{"choices": [{"delta": {"content": "lo"}, "finish_reason": "length"}]}"#,
            r#"{"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}"#,
            "[DONE]",
        ];
        let body: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        let (shown, ended) = ask(Page::new(format!(": comment\n\n{body}"))).unwrap();
        assert_eq!((shown.as_str(), ended.text.as_str()), ("Hello", "Hello"));
        let usage = Some(Usage { prompt_tokens: 4, cached_tokens: 0, completion_tokens: 3 });
        assert_eq!(ended.end, End::Finished { at_limit: true, usage });
    }

    #[test]
    fn a_stream_that_nobody_listens_to_ends_with_its_next_line() {
        let server = Server::start();
        // Comments alone, as a server sends while it reads a long prompt.
        server.serve("/v1/x", Page { drip: true, ..Page::new("") });
        let (sender, receiver) = unbounded_channel();
        drop(receiver);
        stream(&format!("{}/v1/x", server.url), None, &json!({}), &sender).unwrap();
    }

    #[test]
    fn a_servers_error_is_told() {
        let page = Page { status: 404, ..Page::new(r#"{"error": {"message": "no model m"}}"#) };
        assert_eq!(ask(page).unwrap_err(), "the server answers 404: no model m");
        let broken = Page::new("data: {\"choices\": [{\"delta\": {\"content\": \"Hel\"}}]}\n\n");
        assert_eq!(ask(broken).unwrap_err(), "the server's answer broke off");
    }

    #[test]
    fn an_answer_that_was_cut_says_by_what() {
        let server = Answerer::Server { url: String::new(), model: String::new(), key: None };
        let check = |tokens_max: Option<usize>, written: usize, expected: &str| {
            let options = Options { tokens_max, ..options() };
            let usage = Usage { completion_tokens: written, ..Usage::default() };
            assert!(server.limit(&options, Some(usage)).contains(expected), "{tokens_max:?} {written}");
        };
        check(Some(3), 3, "the limit of 3 tokens");
        check(Some(30), 3, "context");
        check(None, 3, "context");
    }
}
