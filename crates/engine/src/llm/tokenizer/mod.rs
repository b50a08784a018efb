//! Text to token ids, and ids to the bytes they stand for.
//!
//! Control tokens (`<|im_start|>`) are read from a text only on request, so that what a user writes can't pose
//! as the structure of a conversation: [`Tokenizer::encode`] without `parse_special` yields plain tokens for
//! it, and in a rendered prompt [`LITERAL_MARK`] keeps quoted control tokens apart. User-defined tokens
//! (`<think>`, runs of spaces) are part of ordinary text and always matched, as the published tokenisers do.

mod gguf;
mod json;
mod normalizers;
mod pretokenizers;
mod sentencepiece;
#[cfg(test)]
mod tests;
mod to_gguf;
mod vocabulary;

use ahash::AHashMap;
use formats::tokenizer::TokenizerSource;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::{Replace, Sequence};
use tokenizers::{
    AddedToken, AddedVocabulary, Model, ModelWrapper, NormalizerWrapper, OffsetType, PreTokenizer,
    PreTokenizerWrapper, Token,
};

use sentencepiece::SentencePiece;
pub use to_gguf::to_gguf;
use vocabulary::Vocabulary;

use crate::guarded::guarded;

/// Inside a text that is read with `parse_special`: what it stands in is not a control token. It is removed
/// from the text before anything else. A noncharacter, which no text means to contain.
pub const LITERAL_MARK: char = '\u{FDD0}';

/// Encoded when a tokeniser is loaded: what fails on this fails on any text.
const PROBE: &str = "Hello, 12 \u{e9}\u{4e16}\n\t{}";

/// A model's tokeniser. Shared freely between threads.
pub struct Tokenizer {
    model: TextModel,
    normalizer: Option<NormalizerWrapper>,
    /// Removes [`LITERAL_MARK`], then does what `normalizer` does.
    unmarking: NormalizerWrapper,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Control and user-defined tokens.
    all_added: AddedVocabulary,
    /// The same, but control tokens are passed over.
    user_added: AddedVocabulary,
    vocabulary: Vocabulary,
    prefix: Vec<u32>,
    named: Named,
    control_texts: Vec<String>,
}

/// Tokens that files name by their use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
}

impl Named {
    fn check(&self, vocabulary: usize) -> Result<(), TokenizerError> {
        for (name, id) in [("bos", self.bos), ("eos", self.eos), ("unknown", self.unk), ("padding", self.pad)]
        {
            if let Some(id) = id.filter(|id| *id as usize >= vocabulary) {
                return Err(TokenizerError::NamedToken { name, id, vocabulary });
            }
        }
        Ok(())
    }
}

/// What a file's tokeniser is made of.
struct Parts {
    model: TextModel,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    vocabulary: Vocabulary,
    /// By id: control tokens are `special`, user-defined ones not.
    added: Vec<(u32, AddedToken)>,
    /// What a text begins with: the BOS token, or nothing.
    prefix: Vec<u32>,
    named: Named,
}

enum TextModel {
    Library(Box<ModelWrapper>),
    SentencePiece(Box<SentencePiece>),
}

impl TextModel {
    fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            TextModel::Library(model) => model.tokenize(text),
            TextModel::SentencePiece(model) => {
                let ids = model.encode(text).into_iter();
                Ok(ids.map(|id| Token::new(id, String::new(), (0, 0))).collect())
            }
        }
    }
}

/// Why a tokeniser can't be made of a file, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("the vocabulary has {tokens} tokens; 1 to {limit} are expected")]
    VocabularySize { tokens: usize, limit: usize },
    #[error("tokenizer.ggml.{key} has {found} entries for {tokens} tokens")]
    Lengths { key: &'static str, found: usize, tokens: usize },
    #[error("tokenizer.ggml.model is {0:?}; gpt2, llama and t5 are known")]
    ModelUnknown(String),
    #[error(
        "tokenizer.ggml.pre is missing, so how texts are split into words is unknown: convert the model anew"
    )]
    PreTokenizerMissing,
    #[error("tokenizer.ggml.pre is {0:?}, a pre-tokeniser that is not known here")]
    PreTokenizerUnknown(String),
    #[error("merge {index}, {merge:?}, {reason}")]
    Merge { index: usize, merge: String, reason: &'static str },
    #[error("token {id}, {text:?}, is of type byte but not of the form <0xNN>")]
    ByteToken { id: usize, text: String },
    #[error("token {id} is {bytes} bytes long; at most {limit} are expected")]
    PieceLength { id: usize, bytes: usize, limit: usize },
    #[error("the {name} token is {id}, and the vocabulary has {vocabulary} tokens")]
    NamedToken { name: &'static str, id: u32, vocabulary: usize },
    #[error("the model asks for a BOS token before each text and names none")]
    BosMissing,
    #[error("tokenizer.json contradicts itself: its parts don't fit together")]
    Inconsistent,
    #[error(
        "a GGUF file can't say this tokeniser: {0}; convert the model with llama.cpp's convert_hf_to_gguf.py"
    )]
    NotInGguf(String),
    #[error("the normaliser {0}")]
    Normalizer(String),
    #[error("a text like {text:?} breaks the tokeniser: one of its patterns can't be used")]
    Broken { text: String },
    #[error("{part}: {cause}")]
    Library { part: &'static str, cause: String },
}

impl TokenizerError {
    fn library<E: std::fmt::Display>(part: &'static str) -> impl Fn(E) -> Self {
        move |error| TokenizerError::Library { part, cause: error.to_string() }
    }
}

impl Tokenizer {
    pub fn new(source: &TokenizerSource) -> Result<Tokenizer, TokenizerError> {
        let parts = match source {
            TokenizerSource::Gguf(source) => gguf::parts(source)?,
            TokenizerSource::TokenizerJson { json, config } => json::parts(json, config.as_ref())?,
        };
        parts.normalizer.as_ref().map_or(Ok(()), normalizers::check)?;
        let unmark =
            Replace::new(LITERAL_MARK.to_string(), "").map_err(TokenizerError::library("literal mark"))?;
        let steps = std::iter::once(NormalizerWrapper::Replace(unmark)).chain(parts.normalizer.clone());
        let all_added = added_vocabulary(&parts.added, parts.normalizer.as_ref())?;
        let mut user_added = all_added.clone();
        user_added.set_encode_special_tokens(true);
        let control = parts.added.into_iter().filter(|(_, token)| token.special);
        let tokenizer = Tokenizer {
            model: parts.model,
            unmarking: NormalizerWrapper::Sequence(Sequence::new(steps.collect())),
            normalizer: parts.normalizer,
            pre_tokenizer: parts.pre_tokenizer,
            all_added,
            user_added,
            vocabulary: parts.vocabulary,
            prefix: parts.prefix,
            named: parts.named,
            control_texts: control.map(|(_, token)| token.content).collect(),
        };
        tokenizer.encode(PROBE, true, true)?;
        Ok(tokenizer)
    }

    /// Bytes that a text of at most `tokens` tokens has at most: those of the longest token, each time. Only what a
    /// tokeniser leaves out (marks, white space beside some tokens, characters it has no token for) could make a longer
    /// text fit.
    pub fn text_bytes_max(&self, tokens: usize) -> usize {
        tokens.saturating_mul(self.vocabulary.token_bytes_max())
    }

    /// The ids of a text. `parse_special` reads control tokens in it as such (a prompt rendered by a chat
    /// template), otherwise they are plain text. `add_special` puts the BOS token in front where the model
    /// wants one and the text doesn't begin with it; never an end token, since what is encoded here is
    /// continued. Bytes that the vocabulary has no token for are left out, as the published tokenisers do.
    pub fn encode(
        &self,
        text: &str,
        parse_special: bool,
        add_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        // The library unwraps where a pattern out of a file does what it doesn't expect.
        let ids = guarded(|| self.encode_plain(text, parse_special));
        let broken = || TokenizerError::Broken { text: text.chars().take(PROBE.len()).collect() };
        let mut ids = ids.map_err(|_| broken())??;
        if add_special && !ids.starts_with(&self.prefix) {
            ids.splice(0..0, self.prefix.iter().copied());
        }
        Ok(ids)
    }

    fn encode_plain(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let added = if parse_special { &self.all_added } else { &self.user_added };
        let normalizer = if parse_special && text.contains(LITERAL_MARK) {
            Some(&self.unmarking)
        } else {
            self.normalizer.as_ref()
        };
        let mut pieces = added.extract_and_normalize(normalizer, text);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(TokenizerError::library("pre-tokeniser"))?;
        }
        let failed = TokenizerError::library("encoding");
        pieces.tokenize(|piece| self.model.tokenize(piece.get())).map_err(&failed)?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None).map_err(&failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// What a token adds to a text: exact bytes, not necessarily whole characters; nothing for a control token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        if self.is_special(id) { &[] } else { self.vocabulary.bytes(id) }
    }

    /// The same, with the names of control tokens.
    pub fn token_bytes_with_special(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// Number of ids.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether a token is structure and not text.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.is_control(id)
    }

    pub fn named(&self) -> Named {
        self.named
    }

    /// A token's name in the file, for chat templates (`bos_token`) and messages.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.vocabulary.bytes(id)).into_owned()
    }

    /// The texts of all control tokens.
    pub fn control_texts(&self) -> &[String] {
        &self.control_texts
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = formatter.debug_struct("Tokenizer");
        out.field("vocabulary", &self.vocabulary()).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn added_vocabulary(
    tokens: &[(u32, AddedToken)],
    normalizer: Option<&NormalizerWrapper>,
) -> Result<AddedVocabulary, TokenizerError> {
    // The library asks a model which id a token has: this one knows these and no others.
    let ids: AHashMap<String, u32> = tokens.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
    let ids = WordLevel::builder().vocab(ids).build().map_err(TokenizerError::library("added tokens"))?;
    let tokens: Vec<AddedToken> = tokens.iter().map(|(_, token)| token.clone()).collect();
    let mut added = AddedVocabulary::new();
    added.add_tokens(&tokens, &ids, normalizer);
    Ok(added)
}
