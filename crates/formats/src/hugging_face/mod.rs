//! The layout of a Hugging Face model folder: which files there are, what each says, and where the weights lie.

mod index;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::FormatError;
use crate::storage::Bytes;
use crate::tokenizer::TokenizerSource;

/// Bytes that a configuration file may have.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Bytes that `tokenizer_config.json` may have.
pub const TOKENIZER_CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Bytes that `tokenizer.json` or the index of the weights may have.
pub const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Bytes of `README.md` that are searched for the licence.
const README_BYTES_MAX: u64 = 64 << 10;

/// A model folder's files, read or mapped, none interpreted yet but the chat template.
#[derive(Debug)]
pub struct Folder {
    pub config: Value,
    pub generation_config: Option<Value>,
    pub tokenizer: TokenizerSource,
    pub chat_template: Option<String>,
    pub licence: Option<String>,
    /// Paths and contents of the safetensors files.
    pub weights: Vec<(PathBuf, Bytes)>,
    /// Names of tensors with the index of the file that each must be in; empty for unsharded models.
    pub expected: Vec<(String, usize)>,
}

impl Folder {
    /// # Errors
    /// When a file that is needed is missing, cannot be read, or is not JSON where it must be.
    pub fn open(folder: &Path) -> Result<Folder, FormatError> {
        let config = required(
            folder,
            "config.json",
            "it describes the model (a GGUF model is opened by its file's name)",
        )?;
        let tokenizer_json = read_limited(&folder.join("tokenizer.json"), TOKENIZER_BYTES_MAX)?;
        let tokenizer_json = tokenizer_json.ok_or_else(|| FormatError::Missing {
            what: folder.join("tokenizer.json").display().to_string(),
            needed_for:
                "text is encoded by it; tokenizer.model alone is not read: save the tokeniser with the \
                         transformers library"
                    .to_owned(),
        })?;
        let tokenizer_config = json(folder, "tokenizer_config.json", TOKENIZER_CONFIG_BYTES_MAX)?;
        let chat_template = read_chat_template(folder, tokenizer_config.as_ref())?;
        let (weights, expected) = open_weights(folder)?;
        Ok(Folder {
            config,
            generation_config: json(folder, "generation_config.json", CONFIG_BYTES_MAX)?,
            tokenizer: TokenizerSource::TokenizerJson { json: tokenizer_json, config: tokenizer_config },
            chat_template,
            licence: read_licence(folder)?,
            weights,
            expected,
        })
    }

    /// Tokens that end an answer, as the library's `generate` takes them: from `generation_config.json`, or else
    /// from `config.json`.
    ///
    /// # Errors
    /// When one is no token's id.
    pub fn end_tokens(&self, vocabulary: usize) -> Result<Vec<u32>, FormatError> {
        let places = [
            self.generation_config.as_ref().and_then(|config| config.get("eos_token_id")),
            self.config.get("eos_token_id"),
            self.config.get("text_config").and_then(|config| config.get("eos_token_id")),
        ];
        let Some(found) = places.into_iter().flatten().find(|value| !value.is_null()) else {
            return Ok(Vec::new());
        };
        let ids = match found {
            Value::Array(ids) => ids.as_slice(),
            one => std::slice::from_ref(one),
        };
        let id = |value: &Value| {
            let id =
                value.as_u64().filter(|id| *id < vocabulary as u64).and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| FormatError::Invalid {
                what: "eos_token_id".to_owned(),
                found: value.to_string().chars().take(40).collect(),
                expected: format!("the id of one of {vocabulary} tokens"),
            })
        };
        ids.iter().map(id).collect()
    }
}

/// Parses JSON, called `name` in messages.
///
/// # Errors
/// When it is longer than [`CONFIG_BYTES_MAX`] or no JSON.
pub fn parse_config(bytes: &[u8], name: &str) -> Result<Value, FormatError> {
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(too_large(name, bytes.len() as u64, CONFIG_BYTES_MAX));
    }
    parse(bytes, name)
}

fn parse(bytes: &[u8], name: &str) -> Result<Value, FormatError> {
    serde_json::from_slice(bytes)
        .map_err(|error| FormatError::Malformed { format: "JSON", problem: format!("{name}: {error}") })
}

fn too_large(name: &str, found: u64, limit: u64) -> FormatError {
    FormatError::TooLarge { format: "model folder", what: format!("the size of {name}"), found, limit }
}

fn required(folder: &Path, name: &str, needed_for: &str) -> Result<Value, FormatError> {
    json(folder, name, CONFIG_BYTES_MAX)?.ok_or_else(|| FormatError::Missing {
        what: folder.join(name).display().to_string(),
        needed_for: needed_for.to_owned(),
    })
}

/// A JSON file of the folder, if it is there.
fn json(folder: &Path, name: &str, limit: u64) -> Result<Option<Value>, FormatError> {
    let path = folder.join(name);
    match read_limited(&path, limit)? {
        Some(bytes) => parse(&bytes, name).map(Some).map_err(|error| error.in_file(&path)),
        None => Ok(None),
    }
}

/// A whole file, or `None` where there is none.
fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FormatError> {
    let io = |cause| FormatError::Io { operation: "read", path: path.to_owned(), cause };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let length = file.metadata().map_err(io)?.len();
    if length > limit {
        return Err(too_large(&path.display().to_string(), length, limit));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(limit).read_to_end(&mut bytes).map_err(io)?;
    Ok(Some(bytes))
}

/// The template's own file, or else the one in the tokeniser's configuration.
fn read_chat_template(
    folder: &Path,
    tokenizer_config: Option<&Value>,
) -> Result<Option<String>, FormatError> {
    let path = folder.join("chat_template.jinja");
    if let Some(bytes) = read_limited(&path, CONFIG_BYTES_MAX)? {
        let text = String::from_utf8(bytes).map_err(|error| {
            FormatError::Malformed { format: "chat template", problem: error.to_string() }.in_file(&path)
        })?;
        return Ok(Some(text));
    }
    let own = json(folder, "chat_template.json", CONFIG_BYTES_MAX)?;
    let place = own.as_ref().or(tokenizer_config).and_then(|config| config.get("chat_template"));
    match place {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        // Several, by name.
        Some(Value::Array(named)) => {
            let default =
                named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
            Ok(default.and_then(|entry| entry.get("template")).and_then(Value::as_str).map(str::to_owned))
        }
        Some(_) => Err(FormatError::Invalid {
            what: "chat_template".to_owned(),
            found: "neither a text nor a list".to_owned(),
            expected: "a template's source, or a list of names and templates".to_owned(),
        }),
    }
}

/// The entry `license` in the head of `README.md`, where model cards have it.
fn read_licence(folder: &Path) -> Result<Option<String>, FormatError> {
    let path = folder.join("README.md");
    let Ok(file) = File::open(&path) else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(README_BYTES_MAX).read_to_end(&mut bytes).map_err(|cause| FormatError::Io {
        operation: "read",
        path,
        cause,
    })?;
    Ok(licence_of(&String::from_utf8_lossy(&bytes)))
}

fn licence_of(readme: &str) -> Option<String> {
    let mut lines = readme.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let entry =
        lines.take_while(|line| line.trim_end() != "---").find_map(|line| line.strip_prefix("license:"))?;
    let licence = entry.trim().trim_matches(['"', '\'']);
    if licence.is_empty() { None } else { Some(licence.to_owned()) }
}

/// Files of weights with their paths, and tensors with the index of the file that each must be in.
type Weights = (Vec<(PathBuf, Bytes)>, Vec<(String, usize)>);

fn open_weights(folder: &Path) -> Result<Weights, FormatError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok((vec![(single.clone(), Bytes::map(&single)?)], Vec::new()));
    }
    let path = folder.join("model.safetensors.index.json");
    let Some(bytes) = read_limited(&path, TOKENIZER_BYTES_MAX)? else {
        let needed_for = if folder.join("pytorch_model.bin").exists() {
            "pytorch_model.bin holds code that reading it would run; save the model as safetensors"
        } else {
            "the weights are in it, or in the files that model.safetensors.index.json names"
        };
        return Err(FormatError::Missing {
            what: single.display().to_string(),
            needed_for: needed_for.to_owned(),
        });
    };
    let index::Index { files, tensors } = index::read(&bytes).map_err(|error| error.in_file(&path))?;
    let mut weights = Vec::with_capacity(files.len());
    for name in files {
        let path = folder.join(name);
        let bytes = Bytes::map(&path)?;
        weights.push((path, bytes));
    }
    Ok((weights, tensors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_is_in_the_readmes_head() {
        let check =
            |readme: &str, expected: Option<&str>| assert_eq!(licence_of(readme).as_deref(), expected);
        check("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model", Some("apache-2.0"));
        check("---\nlicense: \"mit\"\r\n---\n", Some("mit"));
        check("---\nlanguage: en\n---\nlicense: mit", None);
        check("# Model\nlicense: mit", None);
        check("", None);
    }
}
