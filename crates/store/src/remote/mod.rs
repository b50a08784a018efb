//! Places that keep versions for many machines, as chunks: a folder on any file system. What a remote is made of is
//! written down in `docs/chunks.md`.
//!
//! Chunks are written first and a version's manifest last, by one step, so a reader sees a whole version or none.
//! Whoever pushes says so meanwhile, and `gc` works only while nobody does.

mod catalogue;
mod collect;
mod folder;
mod local;
mod packed;
mod pull;
mod push;
mod workers;

use std::fmt;
use std::fs::File;
use std::path::Path;

pub use catalogue::Kept;
pub use collect::Collected;
pub use push::Pushed;

use crate::codec::{self, RAW_BYTES_MAX};
use crate::error::{Result, StoreError};
use crate::hash;
use folder::Folder;
use packed::Chunk;

/// Most bytes of a frame: a chunk as it is, and what stands around it.
const FRAME_BYTES_MAX: u64 = RAW_BYTES_MAX as u64 + 4096;

/// A place that versions are pushed to and pulled from.
#[derive(Debug)]
pub struct Remote {
    folder: Folder,
}

/// What is kept at one place.
#[derive(Clone, Debug)]
struct Object {
    key: String,
    bytes: u64,
}

/// While it lives, `gc` and pushes keep out of each other's way.
enum Hold {
    Locked(#[allow(dead_code)] File), // held, and never looked at
}

/// Told how many bytes more are done, by several threads.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.folder.place.display().fmt(f)
    }
}

impl Remote {
    /// What a person means by `text`: a folder, which needs not exist before something is pushed there.
    ///
    /// # Errors
    /// It is a URL of a kind that is not known.
    pub fn open(text: &str) -> Result<Remote> {
        match text.split_once("://") {
            Some((scheme, _)) => Err(StoreError::Refused(format!(
                "{text}: remotes of the kind {scheme}:// are not supported; a remote is a folder"
            ))),
            None if text.is_empty() => Err(StoreError::Refused("the remote has no name".to_owned())),
            None => {
                let place =
                    std::path::absolute(text).map_err(StoreError::io("looking for", Path::new(text)))?;
                Ok(Remote { folder: Folder::new(&place) })
            }
        }
    }

    fn put(&self, key: &str, contents: &[u8]) -> Result<()> {
        self.folder.put(key, contents, false).map(|_| ())
    }

    /// Where nothing is yet; says whether that was so.
    fn put_new(&self, key: &str, contents: &[u8]) -> Result<bool> {
        self.folder.put(key, contents, true)
    }

    fn settle(&self) -> Result<()> {
        self.folder.settle()
    }

    fn get(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        self.folder.get(key, bytes_max)
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        self.folder.size(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        self.folder.list(prefix)
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.folder.delete(key)
    }

    fn hold(&self, is_alone: bool) -> Result<Hold> {
        self.folder.hold(is_alone)
    }

    /// How many do work at once.
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(2, usize::from)
    }

    /// What was cut: the chunk's bytes, which are those that its name says.
    fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>> {
        let base = match &chunk.base {
            None => None,
            Some(sha256) => Some(self.plain_chunk(sha256, chunk.bytes)?),
        };
        self.decoded(&chunk.key(), &chunk.sha256, chunk.bytes, base.as_deref())
    }

    /// A chunk that is no difference.
    fn plain_chunk(&self, sha256: &str, bytes: u64) -> Result<Vec<u8>> {
        self.decoded(&packed::chunk_key(sha256), sha256, bytes, None)
    }

    fn decoded(&self, key: &str, sha256: &str, bytes: u64, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let Some(frame) = self.get(key, FRAME_BYTES_MAX)? else {
            return Err(self.damaged(key, "it is missing".to_owned()));
        };
        let raw = codec::decode(&frame, base, usize::try_from(bytes).unwrap_or(usize::MAX));
        let raw = raw.map_err(|error| self.damaged(key, error.to_string()))?;
        let came = hash::of_bytes(&raw);
        if raw.len() as u64 != bytes || came != sha256 {
            return Err(self.damaged(key, format!("{} bytes with sha256 {came} are in it", raw.len())));
        }
        Ok(raw)
    }

    fn damaged(&self, key: &str, why: String) -> StoreError {
        StoreError::RemoteDamaged { place: format!("{self}/{key}"), why }
    }
}

fn busy(place: &str, is_alone: bool) -> StoreError {
    let who =
        if is_alone { "something is being pushed to it" } else { "its unused chunks are being deleted" };
    StoreError::Refused(format!("{place} is in use: {who}; wait for that and try again"))
}
