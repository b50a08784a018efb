//! Chunks that lie in files of this machine already: what a version that is here shares with one that is not is copied,
//! and not fetched.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::packed::Packed;
use crate::error::Result;
use crate::hash;
use crate::versions::{Store, Version};

/// Where a chunk's bytes lie.
struct Place {
    file: PathBuf,
    offset: u64,
    bytes: u64,
}

pub struct Local {
    places: BTreeMap<String, Place>,
}

impl Local {
    /// Looks for the files of the remote's versions `there` among those that are here.
    pub fn find(store: &Store, there: &[(u64, Packed)]) -> Result<Local> {
        let versions: Vec<Version> =
            store.list()?.into_iter().filter_map(|(_, version)| version.ok()).collect();
        let mut files = BTreeMap::new();
        for version in &versions {
            for file in &version.manifest.files {
                files.entry(&*file.sha256).or_insert_with(|| version.folder.join(&file.path));
            }
        }
        let mut places = BTreeMap::new();
        for (_, packed) in there {
            for file in &packed.manifest.files {
                let Some(path) = files.get(&*file.sha256) else { continue };
                let mut offset = 0;
                for chunk in packed.files.get(&file.path).into_iter().flatten() {
                    let place = Place { file: path.clone(), offset, bytes: chunk.bytes };
                    places.entry(chunk.sha256.clone()).or_insert(place);
                    offset += chunk.bytes;
                }
            }
        }
        Ok(Local { places })
    }

    /// A chunk's bytes, where they are here and are what they were.
    pub fn chunk(&self, sha256: &str) -> Option<Vec<u8>> {
        let place = self.places.get(sha256)?;
        let mut raw = vec![0; usize::try_from(place.bytes).ok()?];
        File::open(&place.file).and_then(|file| file.read_exact_at(&mut raw, place.offset)).ok()?;
        (hash::of_bytes(&raw) == sha256).then_some(raw)
    }
}

/// The version here that has the same files as one of a remote.
pub fn same_as(store: &Store, packed: &Packed) -> Result<Option<Version>> {
    let versions = store.list()?.into_iter().filter_map(|(_, version)| version.ok());
    Ok({ versions }.find(|version| version.manifest.has_files_of(&packed.manifest)))
}
