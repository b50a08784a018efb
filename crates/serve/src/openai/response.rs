//! The JSON of answers, whole and in chunks, of both endpoints.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::llm::request::{FinishReason, TokenLogprob, Usage};
use serde::Serialize;

use super::answer::Piece;
use super::logprobs::{ChatLogprobs, TextLogprobs, chat_logprobs, text_logprobs};
use super::urgency::Tier;
use crate::unique::unique;

/// Which endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Text,
}

impl Kind {
    /// The parameter that holds the prompt.
    pub fn prompt_param(self) -> &'static str {
        match self {
            Kind::Chat => "messages",
            Kind::Text => "prompt",
        }
    }
}

/// What every part of an answer repeats.
pub struct Head {
    pub kind: Kind,
    pub id: String,
    pub created: u64,
    pub model: String,
    pub fingerprint: String,
    pub logprobs: bool,
    /// The tier that it is served on, for who asked for one.
    pub tier: Option<Tier>,
}

impl Head {
    pub fn new(kind: Kind, model: String, fingerprint: String, logprobs: bool, tier: Option<Tier>) -> Head {
        let id = unique(if kind == Kind::Chat { "chatcmpl" } else { "cmpl" });
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Head { kind, id, created, model, fingerprint, logprobs, tier }
    }

    fn envelope<'a, C>(
        &'a self,
        object: &'static str,
        choices: Vec<C>,
        usage: UsageField,
    ) -> Envelope<'a, C> {
        Envelope {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            service_tier: self.tier.map(Tier::name),
            choices,
            usage,
        }
    }

    /// The answer as one JSON object; each piece is everything of its choice.
    pub fn whole(&self, pieces: Vec<Piece>, usage: Usage) -> serde_json::Result<String> {
        let usage = Some(Some(usage.into()));
        match self.kind {
            Kind::Chat => {
                let choices = pieces.into_iter().map(|piece| ChatChoice {
                    index: piece.index,
                    message: Message { role: "assistant", content: piece.text, refusal: () },
                    logprobs: self.logprobs.then(|| chat_logprobs(piece.logprobs)),
                    finish_reason: piece.finish.map(finish_reason),
                });
                serde_json::to_string(&self.envelope("chat.completion", choices.collect(), usage))
            }
            Kind::Text => {
                let choices = pieces.into_iter().map(|piece| self.text_choice(piece)).collect();
                serde_json::to_string(&self.envelope("text_completion", choices, usage))
            }
        }
    }

    /// The JSON of the chunks that a piece makes: none while its text is held back. `with_usage`: the stream will
    /// end with a chunk of counts, so each other says that it has none.
    pub fn chunks(&self, piece: Piece, with_usage: bool) -> serde_json::Result<Vec<String>> {
        let usage = || with_usage.then_some(None);
        let worth_sending = !piece.text.is_empty() || !piece.logprobs.is_empty();
        if self.kind == Kind::Text {
            if !worth_sending && piece.finish.is_none() {
                return Ok(Vec::new());
            }
            let chunk = self.envelope("text_completion", vec![self.text_choice(piece)], usage());
            return Ok(vec![serde_json::to_string(&chunk)?]);
        }
        let mut chunks = Vec::new();
        let mut chunk = |delta, logprobs, finish: Option<FinishReason>| {
            let choice =
                ChatChunk { index: piece.index, delta, logprobs, finish_reason: finish.map(finish_reason) };
            chunks.push(serde_json::to_string(&self.envelope(
                "chat.completion.chunk",
                vec![choice],
                usage(),
            ))?);
            Ok::<(), serde_json::Error>(())
        };
        if piece.first {
            chunk(Delta { role: Some("assistant"), content: Some(String::new()) }, None, None)?;
        }
        if worth_sending {
            chunk(Delta { role: None, content: Some(piece.text) }, self.chat_logprobs(piece.logprobs), None)?;
        }
        if piece.finish.is_some() {
            chunk(Delta { role: None, content: None }, None, piece.finish)?;
        }
        Ok(chunks)
    }

    /// The chunk of counts that ends a stream.
    pub fn usage_chunk(&self, usage: Usage) -> serde_json::Result<String> {
        let object = if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" };
        serde_json::to_string(&self.envelope::<()>(object, Vec::new(), Some(Some(usage.into()))))
    }

    fn chat_logprobs(&self, tokens: Vec<TokenLogprob>) -> Option<ChatLogprobs> {
        (self.logprobs && !tokens.is_empty()).then(|| chat_logprobs(tokens))
    }

    fn text_choice(&self, piece: Piece) -> TextChoice {
        TextChoice {
            index: piece.index,
            text: piece.text,
            logprobs: self.logprobs.then(|| text_logprobs(&piece.logprobs, piece.offsets_chars)),
            finish_reason: piece.finish.map(finish_reason),
        }
    }
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Deadline => "length",
    }
}

/// Absent, `null`, or counts.
type UsageField = Option<Option<UsageJson>>;

#[derive(Serialize)]
struct Envelope<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    choices: Vec<C>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: UsageField,
}

#[derive(Serialize)]
struct UsageJson {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokens,
}

#[derive(Serialize)]
struct PromptTokens {
    cached_tokens: usize,
}

impl From<Usage> for UsageJson {
    fn from(usage: Usage) -> UsageJson {
        UsageJson {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptTokens { cached_tokens: usage.cached_tokens },
        }
    }
}

#[derive(Serialize)]
struct ChatChoice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
    refusal: (),
}

#[derive(Serialize)]
struct ChatChunk {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Serialize)]
struct TextChoice {
    index: usize,
    text: String,
    logprobs: Option<TextLogprobs>,
    finish_reason: Option<&'static str>,
}
