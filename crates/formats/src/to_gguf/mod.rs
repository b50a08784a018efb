//! A Hugging Face folder's model as a GGUF file says it: the metadata, the tokeniser, and tensors by llama.cpp's names.
//!
//! Source: llama.cpp's `convert_hf_to_gguf.py`. What was written is read back and compared, so that what GGUF has no
//! words for is refused.

mod metadata;
mod tensors;

pub use tensors::GgufTensor;

use crate::decoder::{check, describe_gguf};
use crate::error::FormatError;
use crate::files::ModelFiles;
use crate::gguf::{Writer, end_tokens, read};
use crate::model::Decoder;
use crate::storage::{Bytes, Catalogue, StoredTensor};
use crate::tokenizer::GgufTokenizer;

/// Frequencies are rounded twice on their way through a file's divisors.
const DEPARTURE_MAX: f32 = 1e-6;

/// `general.architecture` of a family, and whether rows of queries and keys are in the order of
/// [`crate::model::RotaryLayout::Interleaved`] there.
fn architecture(family: &str) -> (&str, bool) {
    match family {
        "llama" | "mistral" | "mixtral" => ("llama", true),
        "qwen3_moe" => ("qwen3moe", false),
        other => (other, false),
    }
}

/// The header of a GGUF file without tensors that says what `model`, out of a folder, is.
///
/// # Errors
/// When llama.cpp's architecture of that family has no word for what this model computes, or its tokeniser for tokens that
/// end an answer.
pub fn gguf_header(model: &ModelFiles, tokenizer: &GgufTokenizer) -> Result<Vec<u8>, FormatError> {
    let tokenizer = with_ends(tokenizer, model.end_tokens())?;
    let mut writer = Writer::default();
    metadata::write(model, &mut writer);
    metadata::write_tokenizer(&tokenizer, model.chat_template(), &mut writer);
    let header = writer.header();
    read_back(model, &header)?;
    Ok(header)
}

/// The tensors of such a file, in the order of the layers.
///
/// # Errors
/// When the experts of a layer are of several types.
pub fn gguf_tensors(model: &ModelFiles) -> Result<Vec<GgufTensor<'_>>, FormatError> {
    tensors::all(model)
}

fn unsupported(family: &str, found: &str) -> FormatError {
    FormatError::Unsupported {
        what: format!("what the model of the family {family} computes"),
        found: format!("a GGUF file can't say it: {found}"),
        supported: "what llama.cpp's architectures compute; serve the folder as it is".to_owned(),
    }
}

fn read_back(model: &ModelFiles, header: &[u8]) -> Result<(), FormatError> {
    let (mut computed, mut stored) = (Vec::new(), Vec::new());
    for tensor in gguf_tensors(model)? {
        let start = computed.len();
        if tensor.is_computed() {
            computed.extend_from_slice(&tensor.bytes());
        }
        stored.push(StoredTensor {
            name: tensor.name,
            file: 0,
            start,
            end: computed.len(),
            element_type: Ok(tensor.element_type),
            shape: tensor.shape,
        });
    }
    let catalogue = Catalogue::new(stored)?;
    let (found, tensors) = describe_gguf(&read(header)?, &catalogue, &[Bytes::Memory(computed)])?;
    check(&catalogue, &tensors, &found)?;
    match difference(model.decoder(), &found) {
        Some(what) => Err(unsupported(&model.decoder().family, what)),
        None => Ok(()),
    }
}

/// What the file would compute differently.
fn difference(wanted: &Decoder, found: &Decoder) -> Option<&'static str> {
    let is_close = |one: f32, other: f32| (one - other).abs() <= DEPARTURE_MAX * one.abs();
    let windows = |decoder: &Decoder| -> Vec<_> {
        decoder.layers.iter().map(|layer| (layer.window, layer.rotary)).collect()
    };
    let routed =
        |decoder: &Decoder| -> Vec<_> { decoder.layers.iter().map(|layer| layer.feed_forward).collect() };
    let is_same_rotary = |context: usize| {
        let (wanted, found) = (wanted.rotaries_at(context), found.rotaries_at(context));
        wanted.len() == found.len()
            && wanted.iter().zip(&found).all(|(one, other)| {
                is_close(one.attention_factor, other.attention_factor)
                    && one.frequencies.len() == other.frequencies.len()
                    && one.frequencies.iter().zip(&other.frequencies).all(|(x, y)| is_close(*x, *y))
            })
    };
    let sizes = |decoder: &Decoder| {
        let Decoder { vocabulary, hidden, context, heads, kv_heads, head_dim, feed_forward, .. } = *decoder;
        [vocabulary, hidden, context, heads, kv_heads, head_dim, feed_forward]
    };
    let scales = [wanted, found].map(|decoder| (decoder.embedding_scale, decoder.norm_epsilon));
    let softcaps = [wanted, found].map(|decoder| (decoder.attention_softcap, decoder.logit_softcap));
    let is_mixed = wanted.experts.is_some() && routed(wanted).windows(2).any(|pair| pair[0] != pair[1]);
    [
        ("its sizes", sizes(wanted) == sizes(found)),
        ("its sliding windows", windows(wanted) == windows(found)),
        ("its experts", wanted.experts == found.experts && routed(wanted) == routed(found)),
        ("layers with experts among layers without", !is_mixed),
        ("its attention scale", is_close(wanted.attention_scale, found.attention_scale)),
        ("its embedding scale or its norms' epsilon", scales[0] == scales[1]),
        ("its soft caps", softcaps[0] == softcaps[1]),
        ("its activation", wanted.activation == found.activation),
        (
            "its rotary embedding",
            [1, wanted.context, wanted.context.saturating_mul(2)].into_iter().all(is_same_rotary),
        ),
    ]
    .into_iter()
    .find_map(|(what, is_same)| (!is_same).then_some(what))
}

/// The tokeniser with keys for all tokens that end an answer.
fn with_ends(tokenizer: &GgufTokenizer, ends: &[u32]) -> Result<GgufTokenizer, FormatError> {
    let mut tokenizer = tokenizer.clone();
    tokenizer.eos = tokenizer.eos.or(ends.first().copied());
    let known = end_tokens(&tokenizer);
    let mut missing = ends.iter().copied().filter(|id| !known.contains(id));
    tokenizer.eot = tokenizer.eot.or_else(|| missing.next());
    tokenizer.eom = tokenizer.eom.or_else(|| missing.next());
    match missing.next() {
        Some(id) => Err(FormatError::Unsupported {
            what: "a token that ends an answer (eos_token_id of generation_config.json)".to_owned(),
            found: format!("{id}, one of {} and more than a GGUF file has keys for", ends.len()),
            supported: "three beside those that all models have".to_owned(),
        }),
        None => Ok(tokenizer),
    }
}
