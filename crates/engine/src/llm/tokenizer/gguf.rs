//! A tokeniser from the `tokenizer.ggml.*` keys of a GGUF file.

use ahash::AHashMap;
use formats::tokenizer::GgufTokenizer;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizer::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, ModelWrapper, PreTokenizerWrapper};

use super::pretokenizers::{self, PreTokenizer};
use super::sentencepiece::{Algorithm, PieceKind, SentencePiece};
use super::vocabulary::{self, Kind, Spelling, Vocabulary};
use super::{Named, Parts, TextModel, TokenizerError};

/// Longest piece of a unigram vocabulary, bytes: every one of these lengths is tried at every place of a text.
const UNIGRAM_PIECE_BYTES_MAX: usize = 512;

/// Values of `tokenizer.ggml.token_type`.
pub(super) const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
const BYTE: i32 = 6;

pub(super) fn parts(source: &GgufTokenizer) -> Result<Parts, TokenizerError> {
    vocabulary::check_size(source.tokens.len())?;
    for (key, found) in [("token_type", source.types.len()), ("scores", source.scores.len())] {
        if found != 0 && found != source.tokens.len() {
            return Err(TokenizerError::Lengths { key, found, tokens: source.tokens.len() });
        }
    }
    let (model, pre_tokenizer, spelling, add_bos) = match source.model.as_str() {
        "gpt2" => {
            let name = source.pre.as_deref().ok_or(TokenizerError::PreTokenizerMissing)?;
            let pre = pretokenizers::by_name(name)
                .ok_or_else(|| TokenizerError::PreTokenizerUnknown(name.to_owned()))?;
            let model = byte_level_bpe(source, pre.ignore_merges)?;
            (model, Some(splitter(&pre)?), Spelling::ByteLevel, pre.add_bos)
        }
        "llama" => (sentencepiece(source, Algorithm::Bpe)?, None, Spelling::SentencePiece, true),
        "t5" => (sentencepiece(source, Algorithm::Unigram)?, None, Spelling::SentencePiece, false),
        other => return Err(TokenizerError::ModelUnknown(other.to_owned())),
    };
    let mut table = Vocabulary::default();
    let mut added = Vec::new();
    let strips = strips_after(source);
    for (id, text) in source.tokens.iter().enumerate() {
        let kind = kind(source, id);
        table.push(text, kind, spelling);
        if matches!(kind, Kind::Control | Kind::UserDefined) && !text.is_empty() {
            let token = AddedToken::from(text.clone(), kind == Kind::Control)
                .normalized(false)
                .rstrip(kind == Kind::Control && strips(text));
            added.push((id as u32, token));
        }
    }
    let prefix = match (source.add_bos, source.bos) {
        (Some(true), None) => return Err(TokenizerError::BosMissing),
        (Some(false), _) | (None, None) => Vec::new(),
        (Some(true), Some(bos)) => vec![bos],
        (None, Some(bos)) => {
            if add_bos {
                vec![bos]
            } else {
                Vec::new()
            }
        }
    };
    let named = Named { bos: source.bos, eos: source.eos, unk: source.unk, pad: source.pad };
    named.check(table.len())?;
    Ok(Parts { model, normalizer: None, pre_tokenizer, vocabulary: table, added, prefix, named })
}

fn kind(source: &GgufTokenizer, id: usize) -> Kind {
    let text = source.tokens[id].as_str();
    match source.types.get(id) {
        Some(&(CONTROL | UNKNOWN)) => Kind::Control,
        _ if vocabulary::looks_like_control(text) => Kind::Control,
        Some(&USER_DEFINED) => Kind::UserDefined,
        Some(&BYTE) => Kind::Byte,
        _ => Kind::Text,
    }
}

/// Phi-3 was trained with the white space after its markers removed, which GGUF files have no key for.
fn strips_after(source: &GgufTokenizer) -> impl Fn(&str) -> bool {
    let has = |wanted: &str| source.tokens.iter().rev().take(512).any(|text| text == wanted);
    let phi3 = source.model == "llama" && has("<|placeholder1|>") && has("<|end|>") && has("<|assistant|>");
    move |text| phi3 && !matches!(text, "<unk>" | "<s>" | "<|endoftext|>")
}

fn splitter(pre: &PreTokenizer) -> Result<PreTokenizerWrapper, TokenizerError> {
    let mut steps = Vec::new();
    for pattern in pre.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(TokenizerError::library("pre-tokeniser pattern"))?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
}

fn byte_level_bpe(source: &GgufTokenizer, ignore_merges: bool) -> Result<TextModel, TokenizerError> {
    // Control tokens are left out, so that no text can spell them.
    let mut ids: AHashMap<String, u32> = AHashMap::with_capacity(source.tokens.len());
    for (id, text) in source.tokens.iter().enumerate() {
        if kind(source, id) != Kind::Control {
            ids.entry(text.clone()).or_insert(id as u32);
        }
    }
    let mut merges = Vec::with_capacity(source.merges.len());
    for (index, merge) in source.merges.iter().enumerate() {
        let error = |reason| TokenizerError::Merge { index, merge: merge.clone(), reason };
        let (left, right) = merge.split_once(' ').ok_or_else(|| error("has no space between its halves"))?;
        if !ids.contains_key(left) || !ids.contains_key(right) {
            return Err(error("has a half that is not in the vocabulary"));
        }
        if !ids.contains_key([left, right].concat().as_str()) {
            return Err(error("makes a token that is not in the vocabulary"));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    let model = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(TokenizerError::library("vocabulary and merges"))?;
    Ok(TextModel::Library(Box::new(ModelWrapper::BPE(model))))
}

fn sentencepiece(source: &GgufTokenizer, algorithm: Algorithm) -> Result<TextModel, TokenizerError> {
    if source.scores.is_empty() {
        return Err(TokenizerError::Lengths { key: "scores", found: 0, tokens: source.tokens.len() });
    }
    let unigram = algorithm == Algorithm::Unigram;
    let mut model = SentencePiece::new(algorithm, source.unk).with_spaces(
        source.add_space_prefix.unwrap_or(true),
        source.remove_extra_whitespaces.unwrap_or(false),
    );
    for (id, text) in source.tokens.iter().enumerate() {
        let piece = match (kind(source, id), source.types.get(id)) {
            (Kind::Control, _) => continue,
            (Kind::Byte, _) => {
                let byte = vocabulary::parse_byte(text);
                let byte = byte.ok_or_else(|| TokenizerError::ByteToken { id, text: text.clone() })?;
                model.add_byte(byte, id as u32);
                continue;
            }
            (Kind::UserDefined, _) => PieceKind::UserDefined,
            (Kind::Text, Some(&UNUSED)) => PieceKind::Unused,
            (Kind::Text, _) => PieceKind::Normal,
        };
        if unigram && text.len() > UNIGRAM_PIECE_BYTES_MAX {
            return Err(TokenizerError::PieceLength {
                id,
                bytes: text.len(),
                limit: UNIGRAM_PIECE_BYTES_MAX,
            });
        }
        model.add_piece(text, id as u32, source.scores[id], piece);
    }
    Ok(TextModel::SentencePiece(Box::new(model)))
}
