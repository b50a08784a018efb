//! `model.safetensors.index.json`: which of a sharded model's files holds which tensor.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

use crate::error::FormatError;

/// Files that one model may be sharded into.
pub const SHARDS_MAX: usize = 1024;

/// Names of files in the folder, and tensors with the index of the file that holds each.
#[derive(Debug, PartialEq)]
pub struct Index {
    pub files: Vec<String>,
    pub tensors: Vec<(String, usize)>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    weight_map: HashMap<Cow<'a, str>, Cow<'a, str>>,
}

/// # Errors
/// When it is no such JSON, or names a file that is not directly in the folder.
pub fn read(bytes: &[u8]) -> Result<Index, FormatError> {
    let Wire { weight_map } = serde_json::from_slice(bytes)
        .map_err(|error| FormatError::Malformed { format: "index of weights", problem: error.to_string() })?;
    let mut files: Vec<String> = weight_map.values().map(|file| file.to_string()).collect();
    files.sort_unstable();
    files.dedup();
    if files.len() > SHARDS_MAX {
        return Err(FormatError::TooLarge {
            format: "index of weights",
            what: "the number of files".to_owned(),
            found: files.len() as u64,
            limit: SHARDS_MAX as u64,
        });
    }
    if let Some(outside) = files.iter().find(|file| !is_plain(file)) {
        return Err(FormatError::Invalid {
            what: "a file's name in the index of weights".to_owned(),
            found: format!("{:?}", outside.chars().take(80).collect::<String>()),
            expected: "the name of a .safetensors file in the same folder".to_owned(),
        });
    }
    let place = |file: &str| files.binary_search_by_key(&file, String::as_str).unwrap_or(0);
    let tensors = weight_map.iter().map(|(name, file)| (name.to_string(), place(file))).collect();
    Ok(Index { files, tensors })
}

/// Whether `file` is a safetensors file's name and no path.
fn is_plain(file: &str) -> bool {
    file.ends_with(".safetensors") && !file.starts_with('.') && !file.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_have_files() {
        let read =
            read(br#"{"metadata":{},"weight_map":{"x":"b.safetensors","y":"a.safetensors"}}"#).unwrap();
        assert_eq!(read.files, ["a.safetensors", "b.safetensors"]);
        let mut tensors = read.tensors;
        tensors.sort();
        assert_eq!(tensors, [("x".to_owned(), 1), ("y".to_owned(), 0)]);
    }

    #[test]
    fn files_outside_the_folder_are_refused() {
        for name in [
            "../a.safetensors",
            "/a.safetensors",
            "a/b.safetensors",
            "..\\\\a.safetensors",
            "a.bin",
            "C:a.safetensors",
        ] {
            let json = format!(r#"{{"weight_map":{{"x":"{name}"}}}}"#);
            let error = read(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("same folder"), "{name}: {error}");
        }
    }
}
