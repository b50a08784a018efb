//! Fills the description of a decoder from a GGUF file's metadata or a `config.json`, and finds its tensors.

mod config;
mod gguf;
mod names;
mod roles;
mod rotary;
mod rotary_config;
mod section;

pub use config::read_config;
pub(crate) use config::{Configured, describe as describe_config};
pub(crate) use gguf::describe as describe_gguf;
pub(crate) use names::candidates;
pub(crate) use roles::{check, find};

use crate::error::FormatError;
use crate::model::{Decoder, FeedForward};

/// Layers of one model; the largest published ones have fewer than two hundred.
pub const LAYERS_MAX: usize = 1024;
/// Experts of one layer.
pub const EXPERTS_MAX: usize = 1024;
/// Tokens; the largest published vocabularies have a quarter of a million.
pub const VOCABULARY_MAX: usize = 1 << 24;
/// Elements along any other dimension; with it, products of three dimensions cannot overflow.
pub const DIMENSION_MAX: usize = 1 << 20;
/// Positions that a model may claim to be made for.
pub const CONTEXT_MAX: usize = 1 << 31;

/// Which tensors a model has, and how they are named.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensors {
    pub naming: Naming,
    /// Biases of query, key and value.
    pub attention_bias: Presence,
    pub attention_output_bias: Presence,
    /// Norms of each query and key head.
    pub head_norms: Presence,
    /// Norms after the attention and feed-forward blocks.
    pub post_norms: Presence,
    /// A matrix of its own for the logits.
    pub output: Presence,
    /// Gate and up projections are one tensor.
    pub fused_gate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
    Absent,
}

impl Presence {
    pub fn required_if(required: bool) -> Presence {
        if required { Presence::Required } else { Presence::Absent }
    }
}

/// How a file calls its tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Naming {
    Gguf,
    HuggingFace {
        /// What comes before `embed_tokens` and `layers`.
        prefix: &'static str,
        output: &'static str,
        /// Norms around both blocks are named as in Gemma 2.
        sandwich_norms: bool,
    },
}

/// Checks what a description must hold for its sizes to be used without care.
///
/// # Errors
/// When a size is zero or beyond its limit, or sizes do not fit together.
fn check_sizes(decoder: &Decoder) -> Result<(), FormatError> {
    within("the hidden size", decoder.hidden, DIMENSION_MAX)?;
    within("the feed-forward size", decoder.feed_forward, DIMENSION_MAX)?;
    within("the number of heads", decoder.heads, DIMENSION_MAX)?;
    within("the number of key/value heads", decoder.kv_heads, DIMENSION_MAX)?;
    within("the head size", decoder.head_dim, DIMENSION_MAX)?;
    within("the size of all heads", decoder.heads.saturating_mul(decoder.head_dim), DIMENSION_MAX)?;
    within("the context", decoder.context, CONTEXT_MAX)?;
    if let Some(experts) = decoder.experts {
        within("the number of experts", experts.count, EXPERTS_MAX)?;
        within("the number of experts used", experts.used, experts.count)?;
        within("an expert's feed-forward size", experts.hidden, DIMENSION_MAX)?;
    }
    if decoder.kv_heads > decoder.heads || !decoder.heads.is_multiple_of(decoder.kv_heads) {
        return Err(FormatError::Invalid {
            what: "the number of key/value heads".to_owned(),
            found: decoder.kv_heads.to_string(),
            expected: format!("a divisor of the {} heads", decoder.heads),
        });
    }
    for layer in &decoder.layers {
        assert!(
            layer.feed_forward == FeedForward::Dense || decoder.experts.is_some(),
            "experts are described"
        );
        if layer.window == Some(0) {
            return Err(FormatError::Invalid {
                what: "the sliding window".to_owned(),
                found: "0".to_owned(),
                expected: "a positive number of positions".to_owned(),
            });
        }
    }
    for value in [decoder.norm_epsilon, decoder.attention_scale, decoder.embedding_scale] {
        if !value.is_finite() || value <= 0.0 {
            return Err(FormatError::Invalid {
                what: "the norms' epsilon, the attention scale or the embedding scale".to_owned(),
                found: value.to_string(),
                expected: "a positive number".to_owned(),
            });
        }
    }
    rotary::check(decoder)
}

/// The number of layers, before anything is made of it.
fn checked_layers(count: usize) -> Result<usize, FormatError> {
    within("the number of layers", count, LAYERS_MAX).map(|()| count)
}

/// The number of the embedding's rows.
fn checked_vocabulary(rows: usize) -> Result<usize, FormatError> {
    within("the number of tokens", rows, VOCABULARY_MAX).map(|()| rows)
}

/// # Errors
/// When `found` is 0 or beyond `limit`.
fn within(what: &str, found: usize, limit: usize) -> Result<(), FormatError> {
    match found {
        0 => Err(FormatError::Invalid {
            what: what.to_owned(),
            found: "0".to_owned(),
            expected: "a positive number".to_owned(),
        }),
        _ if found > limit => Err(FormatError::TooLarge {
            format: "model",
            what: what.to_owned(),
            found: found as u64,
            limit: limit as u64,
        }),
        _ => Ok(()),
    }
}
