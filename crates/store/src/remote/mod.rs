//! Places that keep versions for many machines, as chunks: a folder on any file system, or a bucket. What a remote is
//! made of is written down in `docs/chunks.md`.
//!
//! Chunks are written first and a version's manifest last, by one step, so a reader sees a whole version or none.
//! Whoever pushes says so meanwhile, and `gc` works only while nobody does.

mod catalogue;
mod collect;
mod folder;
mod http;
mod index;
mod local;
mod objects;
pub mod oci;
mod packed;
mod pull;
mod push;
mod web;
mod workers;

use std::fmt;
use std::fs::File;
use std::path::Path;

pub use catalogue::Kept;
pub use collect::Collected;
pub(crate) use packed::{Chunk, Packed, SCHEMA};
pub use push::Pushed;
pub(crate) use push::{chunks_by_tensor, cuts_of};
pub(crate) use workers::each;

use crate::codec::{self, RAW_BYTES_MAX};
use crate::error::{Result, StoreError};
use crate::hash;
use folder::Folder;
use objects::{Mark, Objects};
use web::Web;

/// Most bytes of a frame: a chunk as it is, and what stands around it.
const FRAME_BYTES_MAX: u64 = RAW_BYTES_MAX as u64 + 4096;

/// A place that versions are pushed to and pulled from.
#[derive(Debug)]
pub struct Remote(Place);

#[derive(Debug)]
enum Place {
    Folder(Folder),
    Objects(Objects),
    /// Where nothing can be changed.
    Web(Web),
}

/// In a network, each waits for answers most of the time.
const THREADS_FOR_OBJECTS: usize = 16;

/// What is kept at one place.
#[derive(Clone, Debug)]
struct Object {
    key: String,
    bytes: u64,
    /// Seconds since 1970, by the clock of the place.
    modified_s: i64,
}

/// While it lives, `gc` and pushes keep out of each other's way.
enum Hold {
    Locked(#[allow(dead_code)] File), // held, and never looked at
    Marked(Mark),
}

impl Hold {
    /// Before what was written comes into sight.
    fn check(&self) -> Result<()> {
        match self {
            Hold::Locked(_) => Ok(()),
            Hold::Marked(mark) => mark.check(),
        }
    }
}

/// Told how many bytes more are done, by several threads.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Folder(folder) => folder.place.display().fmt(f),
            Place::Objects(objects) => objects.fmt(f),
            Place::Web(web) => f.write_str(&web.url),
        }
    }
}

impl Remote {
    /// What a person means by `text`: a folder, a bucket by its URL, or a server of files. None is asked yet, and the folder needs not
    /// exist before something is pushed there.
    ///
    /// # Errors
    /// It is a URL of a kind that is not known, or what the environment says of it isn't enough.
    pub fn open(text: &str) -> Result<Remote> {
        if let Some(objects) = Objects::open(text)? {
            return Ok(Remote(Place::Objects(objects)));
        }
        if let Some(web) = Web::open(text)? {
            return Ok(Remote(Place::Web(web)));
        }
        if text.is_empty() || text.contains("://") {
            return Err(StoreError::Refused(format!(
                "{text:?} is no remote: a folder is, s3://BUCKET/PATH, gs://BUCKET/PATH and az://CONTAINER/PATH, and to \
                 read https://HOST/PATH"
            )));
        }
        let place = std::path::absolute(text).map_err(StoreError::io("looking for", Path::new(text)))?;
        Ok(Remote(Place::Folder(Folder::new(&place))))
    }

    fn put(&self, key: &str, contents: &[u8]) -> Result<()> {
        self.write(key, contents, false).map(|_| ())
    }

    /// Where nothing is yet; says whether that was so.
    fn put_new(&self, key: &str, contents: &[u8]) -> Result<bool> {
        self.write(key, contents, true)
    }

    fn write(&self, key: &str, contents: &[u8], is_new: bool) -> Result<bool> {
        match &self.0 {
            Place::Folder(folder) => folder.put(key, contents, is_new),
            Place::Objects(objects) => objects.put(key, contents, is_new),
            Place::Web(web) => Err(web.read_only()),
        }
    }

    /// Makes sure that what was written is found after a power cut, where that isn't so at once.
    fn settle(&self) -> Result<()> {
        match &self.0 {
            Place::Folder(folder) => folder.settle(),
            Place::Objects(_) | Place::Web(_) => Ok(()),
        }
    }

    fn get(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        match &self.0 {
            Place::Folder(folder) => folder.get(key, bytes_max),
            Place::Objects(objects) => objects.get(key, bytes_max),
            Place::Web(web) => web.get(key, bytes_max),
        }
    }

    /// The size of what is there already and will be relied on.
    fn keep(&self, key: &str) -> Result<Option<u64>> {
        match &self.0 {
            Place::Folder(folder) => folder.keep(key),
            Place::Objects(objects) => objects.size(key),
            Place::Web(web) => Err(web.read_only()),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        match &self.0 {
            Place::Folder(folder) => folder.list(prefix),
            Place::Objects(objects) => objects.list(prefix),
            Place::Web(web) => web.list(prefix),
        }
    }

    fn delete(&self, key: &str) -> Result<()> {
        match &self.0 {
            Place::Folder(folder) => folder.delete(key),
            Place::Objects(objects) => objects.delete(key),
            Place::Web(web) => Err(web.read_only()),
        }
    }

    /// For pushing, beside others who push; or alone, for `gc`.
    fn hold(&self, is_alone: bool) -> Result<Hold> {
        match &self.0 {
            Place::Folder(folder) => folder.hold(is_alone),
            Place::Objects(objects) => objects.hold(is_alone),
            Place::Web(web) => Err(web.read_only()),
        }
    }

    /// How many do work at once.
    fn threads(&self) -> usize {
        match &self.0 {
            // Some wait for the disk meanwhile.
            Place::Folder(_) => 2 * std::thread::available_parallelism().map_or(1, usize::from),
            Place::Objects(_) | Place::Web(_) => THREADS_FOR_OBJECTS,
        }
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

/// `lasts` says how long that of a killed process is in the way.
fn busy(place: &str, is_alone: bool, lasts: &str) -> StoreError {
    let who = if is_alone {
        "something is being pushed to it or deleted"
    } else {
        "versions or unused chunks are being deleted"
    };
    StoreError::Refused(format!("{place} is in use: {who}; wait for that and try again{lasts}"))
}
