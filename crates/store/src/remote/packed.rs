//! A version in a remote: its manifest, and the chunks that its files are made of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codec::RAW_BYTES_MAX;
use crate::durable::is_plain_path;
use crate::manifest::Manifest;

/// The newest form.
pub const SCHEMA: u32 = 1;

/// What stands in `models/NAME/@NUMBER.json` of a remote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packed {
    pub schema: u32,
    /// `version` is the number in the remote, and `parent` one there.
    pub manifest: Manifest,
    /// Chunks of each of the manifest's files, by path.
    pub files: BTreeMap<String, Vec<Chunk>>,
}

/// A part of a file, kept as a frame of `docs/chunks.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Of the file's bytes, in hexadecimal.
    pub sha256: String,
    pub bytes: u64,
    /// Bytes of its frame.
    pub stored: u64,
    /// The chunk that it is kept as the difference from. That one is never a difference itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The tensor that it is a part of; the parts stand in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
}

impl Chunk {
    /// Where it is kept in a remote.
    pub fn key(&self) -> String {
        match &self.base {
            None => chunk_key(&self.sha256),
            Some(base) => difference_key(&self.sha256, base),
        }
    }
}

/// Where a chunk is kept that is no difference.
pub fn chunk_key(sha256: &str) -> String {
    format!("chunks/{}/{sha256}", sha256.get(..2).unwrap_or_default())
}

pub fn difference_key(sha256: &str, base: &str) -> String {
    format!("differences/{}/{sha256}-{base}", sha256.get(..2).unwrap_or_default())
}

impl Packed {
    /// Reads one, and checks all that is relied on.
    pub fn read(text: &[u8]) -> Result<Packed, String> {
        let packed: Packed = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if packed.schema > SCHEMA {
            return Err(format!("it has form {}, and this tureen reads form {SCHEMA}", packed.schema));
        }
        let paths: BTreeSet<&str> = packed.manifest.files.iter().map(|file| &*file.path).collect();
        if paths.len() != packed.manifest.files.len() || packed.files.len() != paths.len() {
            return Err("its files and their chunks don't fit".to_owned());
        }
        for file in &packed.manifest.files {
            let chunks = packed.files.get(&file.path).filter(|_| is_plain_path(&file.path));
            let chunks = chunks.ok_or_else(|| format!("the file {:?}", file.path))?;
            let sound = chunks.iter().all(|chunk| {
                let names = [Some(&chunk.sha256), chunk.base.as_ref()];
                names.into_iter().flatten().all(|name| is_sha256(name))
                    && (1..=RAW_BYTES_MAX as u64).contains(&chunk.bytes)
            });
            let sum = chunks.iter().try_fold(0u64, |sum, chunk| sum.checked_add(chunk.bytes));
            if !sound || sum != Some(file.bytes) {
                return Err(format!("the chunks of {}", file.path));
            }
        }
        Ok(packed)
    }

    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.files.values().flatten()
    }

    /// Bytes of all its frames, those counted once that it has twice.
    pub fn stored_bytes(&self) -> u64 {
        let frames: BTreeMap<String, u64> = self.chunks().map(|chunk| (chunk.key(), chunk.stored)).collect();
        frames.values().sum()
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
