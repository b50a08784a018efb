//! Opens a published model, a GGUF file or a Hugging Face folder, and checks at once all that serving it needs.

mod gguf;
mod hugging_face;

use std::path::{Path, PathBuf};

use crate::decoder::{Tensors, find};
use crate::error::FormatError;
use crate::gguf::{read, split};
use crate::hugging_face::Folder;
use crate::model::{Decoder, Facts, Role, Tensor};
use crate::storage::{Bytes, Catalogue, part};
use crate::tokenizer::TokenizerSource;

/// A model's files, mapped, and what they say.
#[derive(Debug)]
pub struct ModelFiles {
    files: Vec<Bytes>,
    contents: Contents,
}

/// What a model's files say, all checked.
#[derive(Debug)]
struct Contents {
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
        let io = |cause| FormatError::Io { operation: "open", path: path.to_owned(), cause };
        if std::fs::metadata(path).map_err(io)?.is_dir() {
            let name = path.canonicalize().map_err(io)?;
            let name = name.file_name().unwrap_or_default().to_string_lossy();
            return ModelFiles::from_folder(Folder::open(path)?, &name).map_err(|error| error.in_file(path));
        }
        let paths = split::part_paths(path)?;
        let files = paths.iter().map(|path| Bytes::map(path)).collect::<Result<Vec<Bytes>, _>>()?;
        ModelFiles::from_gguf(files, &paths, &split::model_name(path))
    }

    /// The same from the bytes of a GGUF file, or of all its parts in order, named `name`.
    ///
    /// # Errors
    /// As for [`ModelFiles::open`].
    pub fn from_gguf_bytes(parts: Vec<Vec<u8>>, name: &str) -> Result<ModelFiles, FormatError> {
        let paths: Vec<PathBuf> = parts.iter().map(|_| PathBuf::from(name)).collect();
        ModelFiles::from_gguf(parts.into_iter().map(Bytes::Memory).collect(), &paths, name)
    }

    /// The same from a folder that was read already; `name` is what the model is called.
    ///
    /// # Errors
    /// As for [`ModelFiles::open`].
    pub fn from_folder(mut folder: Folder, name: &str) -> Result<ModelFiles, FormatError> {
        let (paths, files) = std::mem::take(&mut folder.weights).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        let contents = hugging_face::read(folder, &files, &paths, name)?;
        Ok(ModelFiles { files, contents })
    }

    fn from_gguf(files: Vec<Bytes>, paths: &[PathBuf], name: &str) -> Result<ModelFiles, FormatError> {
        let mut parts = Vec::with_capacity(files.len());
        for (file, path) in files.iter().zip(paths) {
            parts.push(read(file.as_slice()).map_err(|error| error.in_file(path))?);
        }
        let contents = gguf::read(&parts, &files, name).map_err(|error| match paths.first() {
            Some(path) => error.in_file(path),
            None => error,
        })?;
        Ok(ModelFiles { files, contents })
    }

    pub fn decoder(&self) -> &Decoder {
        &self.contents.decoder
    }

    /// The tensor of `role`, in a layer where the role is in one; `None` where this model does without it.
    ///
    /// # Errors
    /// None, in fact, for roles and layers that the decoder has: opening has checked them all.
    ///
    /// # Panics
    /// When the decoder has no such layer or expert.
    pub fn tensor(&self, role: Role, layer: Option<usize>) -> Result<Option<Tensor<'_>>, FormatError> {
        let Contents { catalogue, tensors, decoder, .. } = &self.contents;
        assert!(layer.is_none_or(|layer| layer < decoder.layers.len()), "layer {layer:?} does not exist");
        if let Role::ExpertGate(expert) | Role::ExpertUp(expert) | Role::ExpertDown(expert) = role {
            let count = decoder.experts.map_or(0, |experts| experts.count);
            assert!(expert < count, "expert {expert} of {count} does not exist");
        }
        match find(catalogue, tensors, decoder, role, layer.unwrap_or(0))? {
            Some((stored, first, shape)) => part(&self.files, stored, first, shape).map(Some),
            None => Ok(None),
        }
    }

    /// Where everything lies, and how it is called there.
    pub(crate) fn stored(&self) -> (&Catalogue, &Tensors, &[Bytes]) {
        (&self.contents.catalogue, &self.contents.tensors, &self.files)
    }

    pub fn tokenizer(&self) -> &TokenizerSource {
        &self.contents.tokenizer
    }

    /// The same, to be dropped before the model is: nothing is left of it here.
    pub fn take_tokenizer(&mut self) -> TokenizerSource {
        std::mem::replace(&mut self.contents.tokenizer, TokenizerSource::Gguf(Box::default()))
    }

    /// The Jinja source by which a conversation becomes a prompt.
    pub fn chat_template(&self) -> Option<&str> {
        self.contents.chat_template.as_deref()
    }

    /// Tokens that end an answer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.contents.end_tokens
    }

    /// The bytes of every file with weights, in order: for GGUF, of all there is.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(Bytes::as_slice)
    }

    /// Gives the memory back that holds what was read; what is needed again comes from the files again.
    pub fn forget(&self) {
        self.files.iter().for_each(Bytes::forget);
    }

    pub fn facts(&self) -> &Facts {
        &self.contents.facts
    }
}
