//! What is compressed: a GGUF file, one in parts, or a Hugging Face folder, seen as the GGUF file that it would be.

use std::path::{Path, PathBuf};

use engine::llm::tokenizer::to_gguf;
use formats::error::FormatError;
use formats::gguf::{Gguf, read, split};
use formats::model::{Decoder, ModelFiles};
use formats::storage::Bytes;
use formats::to_gguf::{GgufTensor, gguf_header, gguf_tensors};

use crate::dropping::Kept;
use crate::error::CompressError;

/// A model in memory-mapped files: a GGUF one, the parts of one that is split, or a Hugging Face folder.
pub struct Source {
    paths: Vec<PathBuf>,
    /// Of a folder, the header of the GGUF file that it would be.
    files: Vec<Bytes>,
    /// The folder's.
    folder: Option<ModelFiles>,
}

impl Source {
    /// # Errors
    /// When a file can't be read, is no `.gguf` file, or the folder's model can't be said in one.
    pub fn open(path: &Path) -> Result<Source, CompressError> {
        if path.is_dir() {
            let model = ModelFiles::open(path)?;
            let tokenizer = to_gguf(model.tokenizer(), model.decoder().vocabulary)?;
            let files = vec![Bytes::Memory(gguf_header(&model, &tokenizer)?)];
            return Ok(Source { paths: vec![path.to_owned()], files, folder: Some(model) });
        }
        let paths = split::part_paths(path)?;
        let files = paths.iter().map(|path| Bytes::map(path)).collect::<Result<Vec<Bytes>, _>>()?;
        Ok(Source { paths, files, folder: None })
    }

    /// # Errors
    /// When `to` is a file that is read.
    pub fn check_place(&self, to: &Path) -> Result<(), CompressError> {
        match self.paths.iter().any(|path| is_same_file(path, to)) {
            true => Err(CompressError::SameFile { path: to.to_owned() }),
            false => Ok(()),
        }
    }

    /// # Errors
    /// When layers of this model can't be left out, whichever they are.
    pub fn check_dropping(&self) -> Result<(), CompressError> {
        let parts = self.parts()?;
        parts.first().map_or(Ok(()), |first| Kept::new(first, &[0], || self.decoder()).map(|_| ()))
    }

    /// Of the files that are read.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.folder {
            Some(model) => model.facts().file_bytes,
            None => self.files.iter().map(|file| file.as_slice().len() as u64).sum(),
        }
    }

    /// In the order in which they are written.
    pub(crate) fn tensors<'s>(&'s self, parts: &[Gguf<'s>]) -> Result<Vec<GgufTensor<'s>>, FormatError> {
        if let Some(model) = &self.folder {
            return gguf_tensors(model);
        }
        let mut tensors = Vec::new();
        for (part, file) in parts.iter().zip(&self.files) {
            let mut entries: Vec<_> = part.tensors().iter().collect();
            entries.sort_by_key(|tensor| tensor.bytes.start);
            tensors.extend(entries.into_iter().map(|tensor| {
                let bytes = &file.as_slice()[tensor.bytes.clone()];
                GgufTensor::kept(tensor.name, tensor.element_type, tensor.shape(), bytes)
            }));
        }
        Ok(tensors)
    }

    /// What the model is, as the engine reads it.
    pub(crate) fn decoder(&self) -> Result<Decoder, FormatError> {
        Ok(ModelFiles::open(&self.paths[0])?.decoder().clone())
    }

    /// Those that stay, called as in the new file.
    pub(crate) fn kept<'s>(
        &'s self,
        parts: &[Gguf<'s>],
        kept: &Kept,
        by_layer: bool,
    ) -> Result<Vec<GgufTensor<'s>>, FormatError> {
        let mut tensors = self.tensors(parts)?;
        tensors.retain_mut(|tensor| kept.name(&tensor.name).map(|name| tensor.name = name).is_some());
        if by_layer {
            tensors.sort_by_key(|tensor| layer_of(&tensor.name));
        }
        Ok(tensors)
    }

    pub(crate) fn parts(&self) -> Result<Vec<Gguf<'_>>, FormatError> {
        let mut parts = Vec::with_capacity(self.files.len());
        for (file, path) in self.files.iter().zip(&self.paths) {
            parts.push(read(file.as_slice()).map_err(|error| error.in_file(path))?);
        }
        split::check_parts(&parts)?;
        Ok(parts)
    }
}

/// The number in a layer's tensor's name; others come first.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether both are there and are one, whatever they are called.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
