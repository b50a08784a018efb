//! A published model's tokeniser as its files state it: contents only, no encoding.

/// Where a tokeniser is described. Ids index `tokens`; nothing here is checked to be consistent yet.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource {
    Gguf(Box<GgufTokenizer>),
    /// A Hugging Face folder's `tokenizer.json` and, where there is one, its `tokenizer_config.json`.
    TokenizerJson {
        json: Vec<u8>,
        config: Option<serde_json::Value>,
    },
}

/// The `tokenizer.ggml.*` keys of a GGUF file. Source: the GGUF specification, "Tokenizer".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokenizer {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece BPE), `t5` (SentencePiece unigram), ...
    pub model: String,
    /// The pre-tokeniser's name (`llama-bpe`, `qwen2`), for byte-level BPE.
    pub pre: Option<String>,
    pub tokens: Vec<String>,
    /// One a token for SentencePiece models, else empty.
    pub scores: Vec<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. One a token, or empty.
    pub types: Vec<i32>,
    /// `left right` pairs, best first, for byte-level BPE.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message.
    pub eom: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_space_prefix: Option<bool>,
    pub remove_extra_whitespaces: Option<bool>,
}
