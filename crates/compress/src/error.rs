//! Why a model was not made smaller, said so that its reader can do something about it.

use std::io;
use std::path::PathBuf;

use engine::llm::tokenizer::TokenizerError;
use engine::llm::weights::WeightsError;
use formats::error::FormatError;
use kernels::attention::KvLayoutError;

#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("cannot {operation} {}: {cause}", path.display())]
    Io { operation: &'static str, path: PathBuf, cause: io::Error },
    #[error("tensor {tensor} holds {found} in row {row}, which {to} has no number for: {advice}")]
    Number { tensor: String, row: usize, found: f32, to: String, advice: &'static str },
    #[error("{} would be written over the model that is read; name another file", path.display())]
    SameFile { path: PathBuf },
    #[error("the text has {found} tokens, and at least {needed} are needed")]
    ShortText { found: usize, needed: usize },
    #[error("{found} layers are to go, and the model has {layers}: leave one at least")]
    Layers { found: usize, layers: usize },
    #[error(
        "layers of the family {family} differ by their number, as long as the file has no list at {key}: none can be left \
         out without changing what the others do"
    )]
    LayersByNumber { family: String, key: String },
    #[error("the models have {0} and {1} tokens in their vocabularies, so what they say can't be compared")]
    Vocabularies(usize, usize),
    #[error("{option} {asked} can't be had: {least}")]
    Wish { option: &'static str, asked: String, least: String },
    #[error("loading the model: {0}")]
    Weights(#[from] WeightsError),
    #[error("reading the tokeniser: {0}")]
    Tokenizer(#[from] TokenizerError),
    #[error("the cache of keys and values: {0}")]
    Layout(#[from] KvLayoutError),
    #[error("memory for keys and values: {0}")]
    Memory(io::Error),
    /// Whoever was told of the progress asked for it.
    #[error("stopped")]
    Stopped,
}
