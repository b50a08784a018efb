//! A version in a remote: its manifest, and the chunks that its files are made of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::FRAME_BYTES_MAX;
use crate::codec::RAW_BYTES_MAX;
use crate::durable::is_plain_path;
use crate::hash;
use crate::manifest::{self, Manifest};

/// The newest form. Form 1 ends without a hash.
pub const SCHEMA: u32 = 2;
/// The end of a name that a file has while it is pulled.
pub const PARTIAL: &str = ".partial";
/// Before the hash of all that stands before this.
const SEAL: &[u8] = b",\"sha256\":\"";
const SEAL_BYTES: usize = SEAL.len() + 64 + 2;

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

/// Why a version isn't read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsound {
    /// Form that it has, and the newest that is read here.
    Newer {
        found: u32,
        known: u32,
    },
    Damaged(String),
}

/// All that is looked at of a form that isn't known.
#[derive(Deserialize)]
struct Form {
    schema: u32,
}

impl Packed {
    /// As JSON, whose last member is the hash of what stands before it: a flipped bit in a number is seen too.
    pub fn write(&self) -> Result<Vec<u8>, String> {
        let mut text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        text.pop();
        let sha256 = hash::of_bytes(&text);
        text.extend(SEAL);
        text.extend(sha256.as_bytes());
        text.extend(b"\"}");
        Ok(text)
    }

    /// Reads one, and checks all that is relied on.
    pub fn read(text: &[u8]) -> Result<Packed, Unsound> {
        let packed: Packed = match serde_json::from_slice(text) {
            Ok(packed) => packed,
            Err(error) => {
                let form = serde_json::from_slice::<Form>(text).map_or(0, |form| form.schema);
                newer(form, SCHEMA)?;
                return Err(Unsound::Damaged(error.to_string()));
            }
        };
        newer(packed.schema, SCHEMA)?;
        newer(packed.manifest.schema, manifest::SCHEMA)?;
        if packed.schema != 1 && !is_sealed(text) {
            return Err(Unsound::Damaged("it isn't what was written, by the hash at its end".to_owned()));
        }
        packed.check().map_err(Unsound::Damaged)?;
        Ok(packed)
    }

    /// Whether files and chunks fit, and can be put into a folder.
    pub fn check(&self) -> Result<(), String> {
        let paths: BTreeSet<&str> = self.manifest.files.iter().map(|file| &*file.path).collect();
        if paths.len() != self.manifest.files.len() || self.files.len() != paths.len() {
            return Err("its files and their chunks don't fit".to_owned());
        }
        for file in &self.manifest.files {
            // Two that would be written in the same place.
            let is_taken =
                file.path == manifest::FILE_NAME || paths.contains(&*format!("{}{PARTIAL}", file.path));
            let is_free = is_plain_path(&file.path) && !is_taken;
            let chunks = self.files.get(&file.path).filter(|_| is_free);
            let chunks = chunks.ok_or_else(|| format!("the file {:?}", file.path))?;
            let sound = chunks.iter().all(|chunk| {
                let names = [Some(&chunk.sha256), chunk.base.as_ref()];
                names.into_iter().flatten().all(|name| is_sha256(name))
                    && (1..=RAW_BYTES_MAX as u64).contains(&chunk.bytes)
                    && chunk.stored <= FRAME_BYTES_MAX
            });
            let sum = chunks.iter().try_fold(0u64, |sum, chunk| sum.checked_add(chunk.bytes));
            if !sound || sum != Some(file.bytes) {
                return Err(format!("the chunks of {}", file.path));
            }
        }
        Ok(())
    }

    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.files.values().flatten()
    }

    /// Bytes of all its frames, those counted once that it has twice.
    pub fn stored_bytes(&self) -> u64 {
        let frames: BTreeMap<String, u64> = self.chunks().map(|chunk| (chunk.key(), chunk.stored)).collect();
        // No sum of frames comes near the end: each is at most 64 MiB.
        frames.values().fold(0, |sum, stored| sum.saturating_add(*stored))
    }
}

fn newer(found: u32, known: u32) -> Result<(), Unsound> {
    if found > known { Err(Unsound::Newer { found, known }) } else { Ok(()) }
}

fn is_sealed(text: &[u8]) -> bool {
    let Some(length) = text.len().checked_sub(SEAL_BYTES) else { return false };
    let (before, seal) = text.split_at(length);
    let sha256 = seal.strip_prefix(SEAL).and_then(|seal| seal.strip_suffix(b"\"}"));
    sha256 == Some(hash::of_bytes(before).as_bytes())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::File;

    fn packed(paths: &[&str]) -> Packed {
        let chunk = Chunk { sha256: "ab".repeat(32), bytes: 3, stored: 40, base: None, tensor: None };
        let file = |path: &&str| File { path: (*path).to_owned(), bytes: 3, ..File::default() };
        let manifest = Manifest {
            schema: manifest::SCHEMA,
            files: paths.iter().map(file).collect(),
            metrics: BTreeMap::from([("loss".to_owned(), 0.5)]),
            ..Manifest::default()
        };
        let files = paths.iter().map(|path| ((*path).to_owned(), vec![chunk.clone()])).collect();
        Packed { schema: SCHEMA, manifest, files }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let text = packed(&["a"]).write().unwrap();
        assert_eq!(Packed::read(&text), Ok(packed(&["a"])));
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Packed::read(&flipped).is_err(), "bit {bit}");
        }
        let old = Packed { schema: 1, ..packed(&["a"]) };
        assert_eq!(Packed::read(&serde_json::to_vec(&old).unwrap()), Ok(old), "the first form has no hash");
    }

    #[test]
    fn a_newer_form_is_no_damage() {
        let newer = |schema, manifest_schema| {
            let mut packed = Packed { schema, ..packed(&["a"]) };
            packed.manifest.schema = manifest_schema;
            Packed::read(&packed.write().unwrap()).unwrap_err()
        };
        assert_eq!(newer(3, 2), Unsound::Newer { found: 3, known: SCHEMA });
        assert_eq!(newer(2, 9), Unsound::Newer { found: 9, known: manifest::SCHEMA });
        let other = Packed::read(br#"{"schema": 7, "all": "else"}"#);
        assert_eq!(other, Err(Unsound::Newer { found: 7, known: SCHEMA }));
    }

    #[test]
    fn files_that_would_stand_in_each_others_place_are_refused() {
        for paths in [&["manifest.json"][..], &["a", "a.partial"], &["../a"]] {
            assert!(packed(paths).check().is_err(), "{paths:?}");
        }
        assert_eq!(packed(&["a.partial", "b/manifest.json"]).check(), Ok(()));
        let mut large = packed(&["a"]);
        large.files.get_mut("a").unwrap()[0].stored = u64::MAX;
        assert!(large.check().is_err(), "sums of frames have an end");
    }
}
