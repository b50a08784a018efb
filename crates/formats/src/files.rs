//! Opens a published model, a GGUF file or a Hugging Face folder, and checks at once all that serving it needs.

use std::path::{Path, PathBuf};

use kernels::elements::ElementType;
use kernels::memory::MappedFile;

use crate::decoder::{Tensors, check, describe_gguf, find};
use crate::error::FormatError;
use crate::gguf::{Gguf, end_tokens, read, read_tokenizer, split};
use crate::model::{Decoder, Facts, Role, Tensor};
use crate::storage::{Bytes, Catalogue, StoredTensor, part};
use crate::tokenizer::TokenizerSource;

/// A model's files, mapped, and what they say.
#[derive(Debug)]
pub struct ModelFiles {
    files: Vec<Bytes>,
    catalogue: Catalogue,
    tensors: Tensors,
    decoder: Decoder,
    tokenizer: TokenizerSource,
    chat_template: Option<String>,
    end_tokens: Vec<u32>,
    facts: Facts,
}

impl ModelFiles {
    /// Opens a `.gguf` file (with all parts, where it is split) or a folder with `config.json`, and checks that
    /// every tensor that the model needs is there, in its shape.
    ///
    /// # Errors
    /// When a file cannot be read, is malformed, or describes a model that is not supported.
    pub fn open(path: &Path) -> Result<ModelFiles, FormatError> {
        let io = |source| FormatError::Io { operation: "open", path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(io)?.is_dir() {
            return Err(FormatError::Unsupported {
                what: path.display().to_string(),
                found: "a folder".into(),
                supported: "files".into(),
            });
        }
        let paths = split::part_paths(path)?;
        let files = paths.iter().map(|path| map(path)).collect::<Result<Vec<Bytes>, _>>()?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        ModelFiles::from_gguf(files, &paths, &stem)
    }

    /// The same from the bytes of a GGUF file, or of all its parts in order, named `name`.
    ///
    /// # Errors
    /// As for [`ModelFiles::open`].
    pub fn from_gguf_bytes(parts: Vec<Vec<u8>>, name: &str) -> Result<ModelFiles, FormatError> {
        let paths: Vec<PathBuf> = parts.iter().map(|_| PathBuf::from(name)).collect();
        ModelFiles::from_gguf(parts.into_iter().map(Bytes::Memory).collect(), &paths, name)
    }

    fn from_gguf(files: Vec<Bytes>, paths: &[PathBuf], name: &str) -> Result<ModelFiles, FormatError> {
        let mut parts = Vec::with_capacity(files.len());
        for (file, path) in files.iter().zip(paths) {
            parts.push(read(file.as_slice()).map_err(|error| error.in_file(path))?);
        }
        let described = GgufModel::read(&parts, &files, name).map_err(|error| match paths.first() {
            Some(path) => error.in_file(path),
            None => error,
        })?;
        let GgufModel { catalogue, tensors, decoder, tokenizer, chat_template, end_tokens, facts } =
            described;
        Ok(ModelFiles { files, catalogue, tensors, decoder, tokenizer, chat_template, end_tokens, facts })
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The tensor of `role`, in a layer where the role is in one; `None` where this model does without it.
    ///
    /// # Errors
    /// None, in fact, for roles and layers that the decoder has: opening has checked them all.
    ///
    /// # Panics
    /// When the decoder has no such layer or expert.
    pub fn tensor(&self, role: Role, layer: Option<usize>) -> Result<Option<Tensor<'_>>, FormatError> {
        assert!(
            layer.is_none_or(|layer| layer < self.decoder.layers.len()),
            "layer {layer:?} does not exist"
        );
        if let Role::ExpertGate(expert) | Role::ExpertUp(expert) | Role::ExpertDown(expert) = role {
            let count = self.decoder.experts.map_or(0, |experts| experts.count);
            assert!(expert < count, "expert {expert} of {count} does not exist");
        }
        match find(&self.catalogue, &self.tensors, &self.decoder, role, layer.unwrap_or(0))? {
            Some((stored, first, shape)) => part(&self.files, stored, first, shape).map(Some),
            None => Ok(None),
        }
    }

    pub fn tokenizer(&self) -> &TokenizerSource {
        &self.tokenizer
    }

    /// The Jinja source by which a conversation becomes a prompt.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Tokens that end an answer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

fn map(path: &Path) -> Result<Bytes, FormatError> {
    let mapped = MappedFile::open(path);
    mapped.map(Bytes::Mapped).map_err(|source| FormatError::Io {
        operation: "open",
        path: path.to_owned(),
        source,
    })
}

/// What a GGUF model's headers say.
struct GgufModel {
    catalogue: Catalogue,
    tensors: Tensors,
    decoder: Decoder,
    tokenizer: TokenizerSource,
    chat_template: Option<String>,
    end_tokens: Vec<u32>,
    facts: Facts,
}

impl GgufModel {
    fn read(parts: &[Gguf<'_>], files: &[Bytes], name: &str) -> Result<GgufModel, FormatError> {
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
                expected: format!(
                    "at most the {} tokens that the embedding has rows for",
                    decoder.vocabulary
                ),
            });
        }
        let text = |key: &str| first.text(key).map(|text| text.map(str::to_owned));
        let licence = match text("general.license")? {
            Some(licence) => Some(licence),
            None => text("general.license.name")?,
        };
        let facts = Facts {
            name: text("general.name")?.unwrap_or_else(|| name.to_owned()),
            licence,
            quantisation: match first.size("general.file_type")?.and_then(file_type) {
                Some(label) => label.to_owned(),
                None => majority(&catalogue),
            },
            file_bytes: files.iter().map(|file| file.as_slice().len() as u64).sum(),
            parameters: catalogue.tensors().iter().map(|tensor| tensor.elements() as u64).sum(),
        };
        let end_tokens = end_tokens(&tokenizer);
        Ok(GgufModel {
            catalogue,
            tensors,
            decoder,
            chat_template: text("tokenizer.chat_template")?,
            end_tokens,
            tokenizer: TokenizerSource::Gguf(Box::new(tokenizer)),
            facts,
        })
    }
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

/// The element type that most bytes of the model are stored in.
fn majority(catalogue: &Catalogue) -> String {
    let mut totals: Vec<(&str, usize)> = Vec::new();
    for tensor in catalogue.tensors() {
        let name = match &tensor.element_type {
            Ok(element_type) => ElementType::name(*element_type),
            Err(name) => name,
        };
        match totals.iter_mut().find(|(known, _)| *known == name) {
            Some((_, bytes)) => *bytes += tensor.end - tensor.start,
            None => totals.push((name, tensor.end - tensor.start)),
        }
    }
    totals
        .iter()
        .max_by_key(|(_, bytes)| *bytes)
        .map_or_else(|| "none".to_owned(), |(name, _)| (*name).to_owned())
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
