//! What the engine reads of a published language model, whichever file format it came in: a description of
//! its decoder, its tensors by role, its tokeniser and its chat template.
//!
//! Dimension letters: `h` hidden size, `v` vocabulary, `f` feed-forward size, `d` head size, `a` query heads,
//! `g` key/value heads, `e` experts.

use kernels::attention::KvElement;
use kernels::elements::ElementType;

pub use crate::files::ModelFiles;

/// A decoder-only transformer, described by data: one forward pass serves every family.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// The family's name as published: `llama`, `qwen2`, `gemma3`, `phi3`.
    pub family: String,
    pub vocabulary: usize,
    pub hidden: usize,
    /// Positions that the model was made for.
    pub context: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Elements of one query, key or value head.
    pub head_dim: usize,
    /// Inner size of a dense feed-forward block.
    pub feed_forward: usize,
    pub norm_epsilon: f32,
    /// Added to every norm weight on loading: 1 for Gemma checkpoints that store `weight - 1`, else 0.
    pub norm_offset: f32,
    /// Multiplies the embedding of each token: `sqrt(h)` for Gemma, else 1.
    pub embedding_scale: f32,
    /// Multiplies `q · k` before softmax: usually `1 / sqrt(d)`.
    pub attention_scale: f32,
    /// `x -> cap * tanh(x / cap)` on attention scores.
    pub attention_softcap: Option<f32>,
    /// The same on the logits.
    pub logit_softcap: Option<f32>,
    pub activation: Activation,
    pub rotary_layout: RotaryLayout,
    /// Rotary embeddings that layers refer to by index; some families have a local and a global one.
    pub rotaries: Vec<RotarySettings>,
    /// One entry a layer.
    pub layers: Vec<Layer>,
    /// Mixture-of-experts settings, where some layer is [`FeedForward::Experts`].
    pub experts: Option<Experts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `silu(gate) * up`, as in SwiGLU.
    Silu,
    /// `gelu_tanh(gate) * up`, as in Gemma's GeGLU.
    GeluTanh,
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryLayout {
    /// Pairs `(2i, 2i+1)`: GGUF files of the Llama family.
    Interleaved,
    /// Pairs `(i, i + rotary_dim/2)`: everything else.
    Halves,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Keys further back than this many positions (the query's own included in the count) are not seen.
    pub window: Option<usize>,
    /// Index into [`Decoder::rotaries`].
    pub rotary: usize,
    pub feed_forward: FeedForward,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    Dense,
    Experts,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    pub count: usize,
    /// Experts that each token uses.
    pub used: usize,
    /// Inner size of one expert.
    pub hidden: usize,
    /// Whether the weights of the chosen experts are scaled to sum to 1.
    pub normalise: bool,
}

/// A rotary embedding as published, before the context length that it will be used at is known.
#[derive(Clone, Debug, PartialEq)]
pub struct RotarySettings {
    /// Leading elements of a head that are rotated; even, at most `head_dim`.
    pub dim: usize,
    pub theta: f32,
    pub scaling: RotaryScaling,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RotaryScaling {
    None,
    Linear {
        factor: f32,
    },
    /// NTK-aware growth of theta with the context, by the formula of the Hugging Face `dynamic` type.
    Dynamic {
        factor: f32,
        original_context: usize,
    },
    Yarn {
        factor: f32,
        original_context: usize,
        beta_fast: f32,
        beta_slow: f32,
        attention_factor: Option<f32>,
    },
    /// Llama 3.1's by wavelength.
    Llama3 {
        factor: f32,
        low_frequency_factor: f32,
        high_frequency_factor: f32,
        original_context: usize,
    },
    /// Phi-3's: a divisor for each frequency, one list up to the original context and one beyond it.
    LongRope {
        short: Vec<f32>,
        long: Vec<f32>,
        original_context: usize,
        attention_factor: Option<f32>,
    },
    /// A divisor for each frequency, whatever the context (GGUF `rope_freqs.weight`).
    Divisors(Vec<f32>),
}

/// A rotary embedding ready for use.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Radians a position for each rotated pair; `dim / 2` of them.
    pub frequencies: Vec<f32>,
    /// Multiplies cosine and sine.
    pub attention_factor: f32,
}

/// What a tensor is for. Fused and stacked tensors in files are handed out as the rows that a role names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `[v, h]`.
    Embedding,
    /// `[h]`.
    OutputNorm,
    /// `[v, h]`; absent where the embedding is used for it.
    Output,
    /// `[h]`.
    AttentionNorm,
    /// `[a·d, h]`, `[g·d, h]`, `[g·d, h]`.
    Query,
    Key,
    Value,
    /// `[a·d]`, `[g·d]`, `[g·d]`; optional.
    QueryBias,
    KeyBias,
    ValueBias,
    /// `[d]`, per head; optional.
    QueryNorm,
    KeyNorm,
    /// `[h, a·d]`.
    AttentionOutput,
    /// `[h]`; optional.
    AttentionOutputBias,
    /// `[h]`, applied to the attention's output before it is added; optional.
    PostAttentionNorm,
    /// `[h]`, applied before the feed-forward block.
    FeedForwardNorm,
    /// `[f, h]`.
    Gate,
    Up,
    /// `[h, f]`.
    Down,
    /// `[h]`, applied to the feed-forward block's output before it is added; optional.
    PostFeedForwardNorm,
    /// `[e, h]`.
    Router,
    /// `[experts.hidden, h]` of one expert.
    ExpertGate(usize),
    ExpertUp(usize),
    /// `[h, experts.hidden]` of one expert.
    ExpertDown(usize),
}

/// A tensor's bytes in a mapped file, checked to be as long as its shape and type say.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// The name in the file, for messages.
    pub name: &'a str,
    pub element_type: ElementType,
    /// Outermost dimension first: a matrix is `[rows, columns]`, rows contiguous.
    pub shape: Vec<usize>,
    pub bytes: &'a [u8],
}

/// What a model's files say about it, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// As published, or after the file.
    pub name: String,
    pub licence: Option<String>,
    /// `Q4_K_M`, `BF16`: what the file says, or the type that most of its bytes have.
    pub quantisation: String,
    /// Of all files together.
    pub file_bytes: u64,
    pub parameters: u64,
    /// How keys and values are to be kept, where whoever made the file chose that: [`KV_ELEMENT`] of a `.gguf` file.
    pub kv_element: Option<KvElement>,
}

/// The key of a `.gguf` file for `i16` or `i8`: our own, and no other program's.
pub const KV_ELEMENT: &str = "tureen.kv_element";
