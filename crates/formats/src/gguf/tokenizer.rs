//! Takes the tokeniser out of a GGUF file's metadata.

use super::{Array, Gguf, Value};
use crate::error::FormatError;
use crate::tokenizer::GgufTokenizer;

/// Control tokens by which published models end a text or a turn, whatever the metadata call the end of text: files
/// made before `eot_token_id` existed name only one of them.
const END_TEXTS: [&str; 12] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
];
const CONTROL: i32 = 3;

/// # Errors
/// When keys have the wrong types, lists that go together have different lengths, or the tokeniser is missing.
pub(crate) fn read_tokenizer(gguf: &Gguf<'_>) -> Result<GgufTokenizer, FormatError> {
    let missing = |key: &str| FormatError::Missing {
        what: format!("metadata key {key}"),
        needed_for: "the file has no tokeniser, so it cannot be used by itself".to_owned(),
    };
    let model = gguf.text("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?;
    let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
    if tokens.is_empty() {
        return Err(missing("tokenizer.ggml.tokens"));
    }
    let scores = list(gguf, "tokenizer.ggml.scores", tokens.len(), "floats", |value| value.float())?;
    let types = list(gguf, "tokenizer.ggml.token_type", tokens.len(), "integers", |value| {
        i32::try_from(value.integer()?).ok()
    })?;
    let id = |key: &str| token_id(gguf, key, tokens.len());
    Ok(GgufTokenizer {
        model: model.to_owned(),
        pre: gguf.text("tokenizer.ggml.pre")?.map(str::to_owned),
        scores,
        types,
        merges: texts(gguf, "tokenizer.ggml.merges")?,
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos: id("tokenizer.ggml.eos_token_id")?,
        eot: id("tokenizer.ggml.eot_token_id")?,
        eom: id("tokenizer.ggml.eom_token_id")?,
        unk: id("tokenizer.ggml.unknown_token_id")?,
        pad: id("tokenizer.ggml.padding_token_id")?,
        add_bos: gguf.boolean("tokenizer.ggml.add_bos_token")?,
        add_space_prefix: gguf.boolean("tokenizer.ggml.add_space_prefix")?,
        remove_extra_whitespaces: gguf.boolean("tokenizer.ggml.remove_extra_whitespaces")?,
        tokens,
    })
}

/// Ids of the tokens that end an answer, each once.
pub(crate) fn end_tokens(tokenizer: &GgufTokenizer) -> Vec<u32> {
    let mut by_text = [None; END_TEXTS.len()];
    for (id, (text, kind)) in (0u32..).zip(tokenizer.tokens.iter().zip(&tokenizer.types)) {
        if let Some(index) = END_TEXTS.iter().position(|end| *kind == CONTROL && end == text) {
            by_text[index].get_or_insert(id);
        }
    }
    let mut ids: Vec<u32> = Vec::new();
    for id in [tokenizer.eos, tokenizer.eot, tokenizer.eom].into_iter().chain(by_text).flatten() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

fn invalid(what: &str, found: String, expected: String) -> FormatError {
    FormatError::Invalid { what: what.to_owned(), found, expected }
}

fn texts(gguf: &Gguf<'_>, key: &str) -> Result<Vec<String>, FormatError> {
    let Some(array) = gguf.array(key)? else { return Ok(Vec::new()) };
    convert(&array, key, "texts", |value| value.text().map(str::to_owned))
}

/// A list with one entry a token, or an empty one where the key is missing.
fn list<T>(
    gguf: &Gguf<'_>,
    key: &str,
    tokens: usize,
    expected: &str,
    element: impl Fn(Value<'_>) -> Option<T>,
) -> Result<Vec<T>, FormatError> {
    let Some(array) = gguf.array(key)? else { return Ok(Vec::new()) };
    if array.len() != tokens {
        return Err(invalid(
            key,
            format!("a list of {}", array.len()),
            format!("one entry for each of {tokens} tokens"),
        ));
    }
    convert(&array, key, expected, element)
}

fn convert<T>(
    array: &Array<'_>,
    key: &str,
    expected: &str,
    element: impl Fn(Value<'_>) -> Option<T>,
) -> Result<Vec<T>, FormatError> {
    let converted: Option<Vec<T>> = array.iter().map(element).collect();
    converted.ok_or_else(|| invalid(key, Value::Array(*array).describe(), format!("an array of {expected}")))
}

/// A special token's id; the largest number, which stands for -1, means that there is none.
fn token_id(gguf: &Gguf<'_>, key: &str, tokens: usize) -> Result<Option<u32>, FormatError> {
    let Some(value) = gguf.get(key) else { return Ok(None) };
    match value.integer() {
        Some(-1) => Ok(None),
        Some(id) if id == i128::from(u32::MAX) => Ok(None),
        Some(id) if id >= 0 && (id as u128) < tokens as u128 => Ok(Some(id as u32)),
        _ => Err(invalid(key, value.describe(), format!("the id of one of {tokens} tokens"))),
    }
}
