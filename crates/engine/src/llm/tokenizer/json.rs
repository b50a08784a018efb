//! A tokeniser from a Hugging Face `tokenizer.json`, and the settings beside it in `tokenizer_config.json`.

use serde_json::Value;
use tokenizers::{AddedToken, Encoding, Model, PostProcessor, PostProcessorWrapper, Token};

use super::vocabulary::{self, Kind, Spelling, Vocabulary};
use super::{Named, Parts, TextModel, TokenizerError};
use crate::guarded::guarded;

/// Stands for the text while a post-processor shows what it puts around it.
const PLACEHOLDER: u32 = u32::MAX;

/// The library unwraps in places where a file is inconsistent; to us that is a bad file, not a crash.
pub(super) fn parts(json: &[u8], config: Option<&Value>) -> Result<Parts, TokenizerError> {
    guarded(|| read(json, config)).map_err(|_| TokenizerError::Inconsistent)?
}

fn read(json: &[u8], config: Option<&Value>) -> Result<Parts, TokenizerError> {
    let parsed =
        tokenizers::Tokenizer::from_bytes(json).map_err(TokenizerError::library("tokenizer.json"))?;
    let decoder = serde_json::to_string(&parsed.get_decoder()).unwrap_or_default();
    let pre = serde_json::to_string(&parsed.get_pre_tokenizer()).unwrap_or_default();
    let spelling = if decoder.contains("ByteLevel") || pre.contains("ByteLevel") {
        Spelling::ByteLevel
    } else if decoder.contains("Metaspace") || decoder.contains('▁') || pre.contains("Metaspace") {
        Spelling::SentencePiece
    } else {
        Spelling::Plain
    };

    let mut added: Vec<(u32, AddedToken)> = parsed.get_added_tokens_decoder().into_iter().collect();
    added.sort_unstable_by_key(|(id, _)| *id);
    let mut texts: Vec<(String, u32)> = parsed.get_model().get_vocab().into_iter().collect();
    texts.sort_unstable_by_key(|(_, id)| *id);
    let last = texts.iter().map(|(_, id)| *id).chain(added.iter().map(|(id, _)| *id)).max().unwrap_or(0);
    vocabulary::check_size(last as usize + 1)?;
    let mut table: Vec<(&str, Kind)> = vec![("", Kind::Text); last as usize + 1];
    for (text, id) in &texts {
        let byte = spelling == Spelling::SentencePiece && vocabulary::parse_byte(text).is_some();
        table[*id as usize] = (text, if byte { Kind::Byte } else { Kind::Text });
    }
    for (_, token) in &mut added {
        if token.special || vocabulary::looks_like_control(&token.content) {
            token.special = true;
            token.normalized = false;
        }
    }
    for (id, token) in &added {
        let kind = if token.special { Kind::Control } else { Kind::UserDefined };
        table[*id as usize] = (&token.content, kind);
    }
    let mut bytes = Vocabulary::default();
    table.iter().for_each(|(text, kind)| bytes.push(text, *kind, spelling));

    let id_of = |key: &str| -> Option<u32> {
        let text = special_text(config?, key)?;
        parsed.token_to_id(text)
    };
    let mut named = Named {
        bos: id_of("bos_token"),
        eos: id_of("eos_token"),
        unk: id_of("unk_token"),
        pad: id_of("pad_token"),
    };
    let from_processor = prefix(parsed.get_post_processor())?;
    named.bos = named.bos.or(from_processor.first().copied());
    named.check(bytes.len())?;
    let prefix = match (config.and_then(|config| config.get("add_bos_token")?.as_bool()), named.bos) {
        (Some(true), Some(bos)) => vec![bos],
        (Some(true), None) => return Err(TokenizerError::BosMissing),
        (Some(false), _) => Vec::new(),
        (None, _) => from_processor,
    };
    let inner = parsed.into_inner();
    Ok(Parts {
        normalizer: inner.get_normalizer().cloned(),
        pre_tokenizer: inner.get_pre_tokenizer().cloned(),
        model: TextModel::Library(Box::new(inner.get_model().clone())),
        vocabulary: bytes,
        added,
        prefix,
        named,
    })
}

/// `"bos_token": "<s>"` or `"bos_token": {"content": "<s>", ...}`.
fn special_text<'a>(config: &'a Value, key: &str) -> Option<&'a str> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// What the post-processor puts before a text; at most a few tokens.
fn prefix(processor: Option<&PostProcessorWrapper>) -> Result<Vec<u32>, TokenizerError> {
    let Some(processor) = processor else { return Ok(Vec::new()) };
    let text = Encoding::from_tokens(vec![Token::new(PLACEHOLDER, String::new(), (0, 0))], 0);
    let around = processor.process(text, None, true).map_err(TokenizerError::library("post_processor"))?;
    Ok(around.get_ids().iter().copied().take_while(|id| *id != PLACEHOLDER).collect())
}
