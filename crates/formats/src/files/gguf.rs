//! What a GGUF model's headers say.

use super::Contents;
use crate::decoder::{check, describe_gguf};
use crate::error::FormatError;
use crate::gguf::{Gguf, end_tokens, read_tokenizer, split};
use crate::model::{Facts, KV_ELEMENT};
use crate::storage::{Bytes, Catalogue, StoredTensor};
use crate::tokenizer::TokenizerSource;
use kernels::attention::KvElement;

/// Reads the parts of one model, whose bytes are `files`; `name` is what it is called if it does not say.
///
/// # Errors
/// When the parts do not belong together, or describe no model that is supported.
pub(super) fn read(parts: &[Gguf<'_>], files: &[Bytes], name: &str) -> Result<Contents, FormatError> {
    split::check_parts(parts)?;
    let first = parts.first().ok_or_else(|| FormatError::Missing {
        what: "a file".to_owned(),
        needed_for: "a model has at least one".to_owned(),
    })?;
    let catalogue = catalogue(parts)?;
    let (decoder, tensors) = describe_gguf(first, &catalogue, files)?;
    check(&catalogue, &tensors, &decoder)?;
    let tokenizer = read_tokenizer(first)?;
    if tokenizer.tokens.len() > decoder.vocabulary {
        return Err(FormatError::Invalid {
            what: "tokenizer.ggml.tokens".to_owned(),
            found: format!("a list of {}", tokenizer.tokens.len()),
            expected: format!("at most the {} tokens that the embedding has rows for", decoder.vocabulary),
        });
    }
    let text = |key: &str| first.text(key).map(|text| text.map(str::to_owned));
    let licence = match text("general.license")? {
        Some(licence) => Some(licence),
        None => text("general.license.name")?,
    };
    let kv_element = match first.text(KV_ELEMENT)? {
        Some(name) => Some(KvElement::find(name).ok_or_else(|| FormatError::Invalid {
            what: KV_ELEMENT.to_owned(),
            found: format!("{name:?}"),
            expected: KvElement::CODED.map(KvElement::name).join(" or "),
        })?),
        None => None,
    };
    let facts = Facts {
        kv_element,
        name: text("general.name")?.unwrap_or_else(|| name.to_owned()),
        licence,
        quantisation: match first.size("general.file_type")?.and_then(file_type) {
            Some(label) => label.to_owned(),
            None => catalogue.majority_type(),
        },
        file_bytes: files.iter().map(|file| file.as_slice().len() as u64).sum(),
        parameters: catalogue.parameters(),
    };
    let end_tokens = end_tokens(&tokenizer);
    Ok(Contents {
        catalogue,
        tensors,
        decoder,
        chat_template: text("tokenizer.chat_template")?,
        end_tokens,
        tokenizer: TokenizerSource::Gguf(Box::new(tokenizer)),
        facts,
    })
}

fn catalogue(parts: &[Gguf<'_>]) -> Result<Catalogue, FormatError> {
    let mut stored = Vec::with_capacity(parts.iter().map(|part| part.tensors().len()).sum());
    for (file, part) in parts.iter().enumerate() {
        stored.extend(part.tensors().iter().map(|tensor| StoredTensor {
            name: tensor.name.to_owned(),
            file,
            start: tensor.bytes.start,
            end: tensor.bytes.end,
            element_type: Ok(tensor.element_type),
            shape: tensor.shape().to_vec(),
        }));
    }
    Catalogue::new(stored)
}

/// The label that `general.file_type` stands for. Source: `llama_ftype` of llama.cpp.
fn file_type(number: usize) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        21 => "Q2_K_S",
        25 => "IQ4_NL",
        30 => "IQ4_XS",
        32 => "BF16",
        _ => return None,
    })
}
