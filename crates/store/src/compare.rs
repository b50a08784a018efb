//! What two versions have in common: files, tensors, and the chunks that a remote would keep once.

use std::collections::{BTreeMap, BTreeSet};

use formats::storage::Bytes;
use serde::Serialize;

use crate::cut::cut;
use crate::error::{Result, StoreError};
use crate::hash;
use crate::manifest::Manifest;
use crate::remote::{Chunk, Packed, SCHEMA, chunks_by_tensor, cuts_of, each};
use crate::versions::{Store, Version};

/// A version with the hashes of its parts, from here or from a remote.
pub struct Contents(pub(crate) Packed);

/// A file or a tensor that one of two versions has otherwise than the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub name: String,
    /// Bytes in the first version, where it is there.
    pub before: Option<u64>,
    pub after: Option<u64>,
    /// Bytes of the second in chunks that this file or tensor doesn't have in the first.
    pub new: u64,
}

/// From a first version to a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differences {
    pub files: Vec<Change>,
    pub files_same: usize,
    /// Of 64 KiB or more; smaller ones are told with their file only.
    pub tensors: Vec<Change>,
    pub tensors_same: usize,
    /// Of the second version.
    pub chunks: usize,
    pub bytes: u64,
    /// Those that the first has too, wherever they are in it.
    pub chunks_shared: usize,
    pub bytes_shared: u64,
}

impl Contents {
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// What is otherwise in `other`.
    pub fn differences(&self, other: &Contents) -> Differences {
        let (files, files_same) = changes(&files(&self.0), &files(&other.0));
        let (tensors, tensors_same) = changes(&tensors(&self.0), &tensors(&other.0));
        let known: BTreeSet<&str> = self.0.chunks().map(|chunk| &*chunk.sha256).collect();
        let all: BTreeMap<&str, u64> = other.0.chunks().map(|chunk| (&*chunk.sha256, chunk.bytes)).collect();
        let shared = all.iter().filter(|(sha256, _)| known.contains(**sha256));
        Differences {
            files,
            files_same,
            tensors,
            tensors_same,
            chunks: all.len(),
            bytes: all.values().sum(),
            chunks_shared: shared.clone().count(),
            bytes_shared: shared.map(|(_, bytes)| bytes).sum(),
        }
    }
}

type Parts<'a> = BTreeMap<&'a str, Vec<&'a Chunk>>;

fn files(packed: &Packed) -> Parts<'_> {
    packed.files.iter().map(|(path, chunks)| (&**path, chunks.iter().collect())).collect()
}

/// By name alone: a file that was renamed has the same tensors.
fn tensors(packed: &Packed) -> Parts<'_> {
    let by_file = chunks_by_tensor(packed).into_iter();
    by_file.map(|(name, files)| (name, files.into_values().flatten().collect())).collect()
}

/// What differs, and how many are the same.
fn changes(before: &Parts<'_>, after: &Parts<'_>) -> (Vec<Change>, usize) {
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let bytes = |chunks: &Vec<&Chunk>| chunks.iter().map(|chunk| chunk.bytes).sum();
    let hashes = |chunks: Option<&Vec<&Chunk>>| -> Vec<String> {
        chunks.into_iter().flatten().map(|chunk| chunk.sha256.clone()).collect()
    };
    let (mut found, mut same) = (Vec::new(), 0);
    for name in names {
        let [old, new] = [before.get(name), after.get(name)];
        if old.is_some() && new.is_some() && hashes(old) == hashes(new) {
            same += 1;
            continue;
        }
        let known: BTreeSet<String> = hashes(old).into_iter().collect();
        let is_new = |chunk: &&&Chunk| !known.contains(&chunk.sha256);
        found.push(Change {
            name: name.to_owned(),
            before: old.map(bytes),
            after: new.map(bytes),
            new: new.into_iter().flatten().filter(is_new).map(|chunk| chunk.bytes).sum(),
        });
    }
    (found, same)
}

impl Store {
    /// The parts of a version that is here. Where it is to be compared with `like`, it is cut as that is: where a file is
    /// cut changes nothing of what it is.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn contents(&self, version: &Version, like: Option<&Contents>) -> Result<Contents> {
        let like = like.map(|like| chunks_by_tensor(&like.0)).unwrap_or_default();
        let mut files = BTreeMap::new();
        for file in &version.manifest.files {
            let path = version.folder.join(&file.path);
            let chunks = if std::fs::metadata(&path).map_err(StoreError::io("reading", &path))?.len() == 0 {
                Vec::new()
            } else {
                let damaged = |error: formats::error::FormatError| StoreError::Damaged {
                    place: path.display().to_string(),
                    why: error.to_string(),
                };
                let bytes = Bytes::map(&path).map_err(damaged)?;
                let pieces = cut(&file.path, bytes.as_slice(), &cuts_of(&like, &file.path));
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                each(threads, &pieces, |piece| {
                    let raw = &bytes.as_slice()[piece.range.clone()];
                    let tensor = piece.tensor.as_ref().map(|(name, _)| name.clone());
                    let (sha256, bytes) = (hash::of_bytes(raw), raw.len() as u64);
                    Ok(Chunk { sha256, bytes, stored: 0, base: None, tensor })
                })?
            };
            files.insert(file.path.clone(), chunks);
        }
        Ok(Contents(Packed { schema: SCHEMA, manifest: version.manifest.clone(), files }))
    }
}
