//! What a Hugging Face folder's files say together.

use std::path::PathBuf;

use super::Contents;
use crate::decoder::{Configured, check, describe_config};
use crate::error::FormatError;
use crate::hugging_face::Folder;
use crate::model::Facts;
use crate::safetensors;
use crate::storage::{Bytes, Catalogue, StoredTensor};

/// Reads `folder`, whose weights are `files` at `paths`; `name` is what the model is called.
///
/// # Errors
/// When the files do not belong together, or describe no model that is supported.
pub(super) fn read(
    folder: Folder,
    files: &[Bytes],
    paths: &[PathBuf],
    name: &str,
) -> Result<Contents, FormatError> {
    let catalogue = catalogue(files, paths)?;
    for (name, file) in &folder.expected {
        if catalogue.get(name).is_none_or(|tensor| tensor.file != *file) {
            let path = paths.get(*file).map(|path| path.display().to_string()).unwrap_or_default();
            return Err(FormatError::Missing {
                what: format!("tensor {name}"),
                needed_for: format!("the index of weights says that it is in {path}"),
            });
        }
    }
    let Configured { decoder, tensors } = describe_config(&folder.config, &catalogue)?;
    check(&catalogue, &tensors, &decoder)?;
    let end_tokens = folder.end_tokens(decoder.vocabulary)?;
    let facts = Facts {
        name: name.to_owned(),
        licence: folder.licence,
        quantisation: catalogue.majority_type(),
        file_bytes: files.iter().map(|file| file.as_slice().len() as u64).sum(),
        parameters: catalogue.parameters(),
        kv_element: None,
    };
    let (tokenizer, chat_template) = (folder.tokenizer, folder.chat_template);
    Ok(Contents { catalogue, tensors, decoder, tokenizer, chat_template, end_tokens, facts })
}

fn catalogue(files: &[Bytes], paths: &[PathBuf]) -> Result<Catalogue, FormatError> {
    let mut stored = Vec::new();
    for (index, (file, path)) in files.iter().zip(paths).enumerate() {
        let entries = safetensors::read(file.as_slice()).map_err(|error| error.in_file(path))?;
        stored.extend(entries.into_iter().map(|entry| StoredTensor {
            name: entry.name.into_owned(),
            file: index,
            start: entry.bytes.start,
            end: entry.bytes.end,
            element_type: entry.element_type,
            shape: entry.shape,
        }));
    }
    Catalogue::new(stored)
}
