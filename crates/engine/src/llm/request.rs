//! What callers ask of a language model, and what they get back.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request to continue a prompt.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Token ids, including a beginning-of-text token where the model wants one. Not empty.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most; 0 evaluates the prompt only.
    pub tokens_max: usize,
    pub sampling: Sampling,
    /// Generation ends before the first of these texts, which is not part of the answer.
    pub stop: Vec<String>,
    /// `Some(k)`: report each token's log-probability and the `k` likeliest tokens in its place.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt (needs `logprobs`).
    pub prompt_logprobs: bool,
    /// Generate `tokens_max` tokens even where the model ends its text, as measurements need.
    pub ignore_end: bool,
}

/// On what terms a request is served beside others. They change when its answer comes, and never what it says.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// On whose account: places are shared out fairly among owners. A name, never a secret.
    pub owner: Arc<str>,
    /// Lower goes first, and takes the places of higher ones where there are not enough.
    pub priority: i32,
    /// When it is to end: with what there is of its answer, or an error where it has not begun.
    pub deadline: Option<Instant>,
}

/// How the next token is chosen from the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Keep the `k` likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Locally typical sampling (Meister et al. 2022); 1 keeps all.
    pub typical_p: f32,
    /// Divides positive logits (multiplies negative ones) of tokens seen in prompt or answer; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens that the answer already has.
    pub presence_penalty: f32,
    /// Subtracted once for each time that the answer has the token.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens before all else.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the answer reproducible; without one, each request draws its own.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    /// Plain sampling from the model's distribution: temperature 1, no filter, no penalty.
    fn default() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// What a running request reports, in order: prompt log-probabilities if asked for, tokens, then its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One entry for each prompt token; the first has no log-probability (`f32::NAN`) and no alternatives.
    Prompt(Vec<TokenLogprob>),
    Token(Token),
    /// The last event of a request that ended well, with text that had been held back until then.
    Done {
        text: String,
        reason: FinishReason,
        usage: Usage,
    },
    /// The last event of a request that could not be finished.
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub id: u32,
    /// Text that is settled by now: empty while a character is incomplete or may begin a stop text.
    pub text: String,
    pub logprob: Option<TokenLogprob>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub id: u32,
    /// The token's own bytes, not necessarily whole characters; the name of a control token.
    pub bytes: Vec<u8>,
    /// A control token: no part of a text, except where a caller wrote its name in a prompt.
    pub is_control: bool,
    /// Natural logarithm of its probability under the model's own distribution (temperature 1, no filter).
    pub logprob: f32,
    /// The likeliest tokens in its place, likeliest first: id, bytes, log-probability.
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-text token or a stop text.
    Stop,
    /// `tokens_max` or the context was reached.
    Length,
    /// The deadline was.
    Deadline,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Of these, found in the cache.
    pub cached_tokens: usize,
    /// Those of the answer; the end token that a model closes it with is none.
    pub completion_tokens: usize,
}

/// Why a request that was taken could not be finished.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error("no place became free within {} s, which is as long as a request may take", waited.as_secs())]
    Deadline { waited: Duration },
    #[error(
        "the model computed logits that are infinite or no numbers; its weights are damaged, or overflow for this \
         prompt"
    )]
    NotFinite,
    #[error("too much of this answer waits to be read; read faster, or ask for less at a time")]
    Unread,
    #[error("the engine stopped")]
    Stopped,
    /// A further answer to what was taken was not.
    #[error(transparent)]
    Further(#[from] SubmitError),
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    #[error("the prompt is empty: at least one token is needed")]
    EmptyPrompt,
    #[error("the prompt has {prompt} tokens, and the context is {context}")]
    PromptTooLong {
        prompt: usize,
        context: usize,
        /// Whether the model could be served with a longer one.
        extensible: bool,
    },
    #[error("token {token} is not in the vocabulary of {vocabulary}")]
    UnknownToken { token: u32, vocabulary: usize },
    #[error("{waiting} requests wait already, which is the limit")]
    QueueFull { waiting: usize },
    #[error("the engine stopped")]
    Stopped,
}
