//! `push`: a version of this machine into a remote. What is there already isn't sent again, so one that was
//! interrupted goes on where it stood.

use std::collections::{BTreeMap, BTreeSet};

use formats::storage::Bytes;

use super::catalogue::version_key;
use super::local::Local;
use super::packed::{Chunk, Packed, SCHEMA, chunk_key, difference_key};
use super::workers::each;
use super::{Progress, Remote};
use crate::codec;
use crate::cut::{Cuts, Piece, cut};
use crate::error::{Result, StoreError};
use crate::hash;
use crate::name::{DEFAULT_TAG, ModelName, Reference};
use crate::versions::{Store, Version};

/// Versions of the same name that are looked at for what they share, newest first.
pub(super) const VERSIONS_MAX: usize = 64;

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The version's number in the remote.
    pub number: u64,
    /// Whether it was there already.
    pub was_there: bool,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that all its chunks take in the remote.
    pub stored: u64,
    /// Bytes of those that were not there before.
    pub sent: u64,
}

/// A push that is under way.
struct Push<'a> {
    remote: &'a Remote,
    local: Local,
    /// The parent's chunks of each tensor.
    parent: BTreeMap<&'a str, Vec<&'a Chunk>>,
    again: bool,
    progress: Progress<'a>,
}

/// A file of the version, and what it is cut into.
struct Cut {
    path: String,
    bytes: Bytes,
    pieces: Vec<Piece>,
}

impl Store {
    /// Puts `version` into `remote`, where `tag` is to mean it; of no tag, `latest` where nothing has that. It gets the
    /// number that it has here, or where another has that, the next. With `again`, chunks are sent that are there too,
    /// which mends damaged ones.
    ///
    /// # Errors
    /// A file isn't what was published; the remote can't be reached. No half version is there then.
    pub fn push(
        &self,
        version: &Version,
        remote: &Remote,
        tag: Option<&ModelName>,
        again: bool,
        progress: Progress<'_>,
    ) -> Result<Pushed> {
        let hold = remote.hold(false)?;
        let name = &version.name;
        let there = remote.newest(name)?;
        let same = there.iter().find(|(_, packed)| packed.manifest.has_files_of(&version.manifest));
        let bytes = version.manifest.bytes();
        let (number, packed, sent) = match same {
            Some((number, packed)) if !again => (*number, packed.clone(), 0),
            _ => {
                let parent = self.parent_in(version, &there)?;
                let local = Local::find(self, &there)?;
                let by_tensor = parent.map(|(_, packed)| chunks_by_tensor(packed)).unwrap_or_default();
                let push = Push { remote, local, parent: by_tensor, again, progress };
                let (files, sent) = push.send(version)?;
                hold.check()?;
                let mut manifest = version.manifest.clone();
                manifest.parent = parent.map(|(number, _)| format!("{name}@{number}"));
                let packed = Packed { schema: SCHEMA, manifest, files };
                let number = same.map(|(number, _)| *number);
                (remote.enter(name, version.number, number, packed.clone())?, packed, sent)
            }
        };
        self.point(remote, version, tag, number)?;
        Ok(Pushed { number, was_there: same.is_some(), bytes, stored: packed.stored_bytes(), sent })
    }

    fn point(&self, remote: &Remote, version: &Version, tag: Option<&ModelName>, number: u64) -> Result<()> {
        if let Some(tag) = tag {
            return remote.tag(tag, number);
        }
        let latest = ModelName::parse(&format!("{}:{DEFAULT_TAG}", version.name))?;
        if remote.tagged(&latest)?.is_none() { remote.tag(&latest, number) } else { Ok(()) }
    }

    /// The version of the remote that `version` was made of, or else the newest of its name.
    fn parent_in<'a>(
        &self,
        version: &Version,
        there: &'a [(u64, Packed)],
    ) -> Result<Option<&'a (u64, Packed)>> {
        let told = version.manifest.parent.as_deref().and_then(|parent| Reference::parse(parent).ok());
        let Some(told) = told else { return Ok(there.last()) };
        let Some(parent) = self.find(&told)? else { return Ok(there.last()) };
        let same = there.iter().find(|(_, packed)| packed.manifest.has_files_of(&parent.manifest));
        Ok(same.or(there.last()))
    }
}

impl Remote {
    /// The newest versions of a name, in order. One that isn't sound shares nothing.
    pub(super) fn newest(&self, name: &str) -> Result<Vec<(u64, Packed)>> {
        let entries = self.entries(&format!("models/{name}"))?;
        let numbers = entries.iter().filter(|entry| !entry.is_gone).map(|entry| entry.number);
        let numbers: Vec<u64> = numbers.rev().take(VERSIONS_MAX).collect();
        let packed = numbers.into_iter().rev().map(|number| (number, self.packed(name, number)));
        Ok(packed.filter_map(|(number, packed)| Some((number, packed.ok()?))).collect())
    }

    /// Brings a version into sight whose chunks are all there, under its old number where it has one.
    fn enter(&self, name: &str, wanted: u64, number: Option<u64>, mut packed: Packed) -> Result<u64> {
        self.settle()?;
        let taken: BTreeSet<u64> =
            self.entries(&format!("models/{name}"))?.iter().map(|entry| entry.number).collect();
        let is_free = wanted > 0 && !taken.contains(&wanted);
        let next = taken.last().map_or(1, |last| last + 1);
        let mut chosen = number.unwrap_or(if is_free { wanted } else { next });
        loop {
            packed.manifest.version = chosen;
            let text = serde_json::to_vec(&packed)
                .map_err(|error| StoreError::Refused(format!("writing the manifest: {error}")))?;
            let key = version_key(name, chosen);
            let done = match number {
                Some(_) => self.put(&key, &text).map(|()| true)?,
                // Somebody else may be giving the same number.
                None => self.put_new(&key, &text)?,
            };
            if done {
                self.settle()?;
                return Ok(chosen);
            }
            chosen = next.max(chosen + 1);
        }
    }
}

fn chunks_by_tensor(packed: &Packed) -> BTreeMap<&str, Vec<&Chunk>> {
    let mut found: BTreeMap<&str, Vec<&Chunk>> = BTreeMap::new();
    for chunk in packed.chunks() {
        if let Some(tensor) = &chunk.tensor {
            found.entry(tensor).or_default().push(chunk);
        }
    }
    found
}

impl Push<'_> {
    /// Sends what isn't there; the chunks of each file, and the bytes that were sent.
    fn send(&self, version: &Version) -> Result<(BTreeMap<String, Vec<Chunk>>, u64)> {
        let lengths = |chunks: &Vec<&Chunk>| chunks.iter().map(|chunk| chunk.bytes as usize).collect();
        let cuts: Cuts =
            self.parent.iter().map(|(name, chunks)| ((*name).to_owned(), lengths(chunks))).collect();
        let mut files = Vec::new();
        for file in &version.manifest.files {
            let path = version.folder.join(&file.path);
            let is_empty = std::fs::metadata(&path).is_ok_and(|facts| facts.len() == 0);
            let bytes = if is_empty { Ok(Bytes::Memory(Vec::new())) } else { Bytes::map(&path) };
            let damaged = |why: String| StoreError::Damaged { place: path.display().to_string(), why };
            let bytes = bytes.map_err(|error| damaged(error.to_string()))?;
            let came = bytes.as_slice().len() as u64;
            if came != file.bytes {
                return Err(damaged(format!("{} bytes were published, {came} are here", file.bytes)));
            }
            let pieces = cut(&file.path, bytes.as_slice(), &cuts);
            files.push(Cut { path: file.path.clone(), bytes, pieces });
        }
        self.check_hashes(version, &files)?;
        let pieces: Vec<(&Cut, &Piece)> =
            files.iter().flat_map(|cut| cut.pieces.iter().map(move |piece| (cut, piece))).collect();
        let done = each(self.remote.threads(), &pieces, |(cut, piece)| {
            let raw = &cut.bytes.as_slice()[piece.range.clone()];
            let done = self.send_piece(raw, piece)?;
            (self.progress)(raw.len() as u64);
            Ok(done)
        })?;
        let sent = done.iter().filter(|(_, is_new)| *is_new).map(|(chunk, _)| chunk.stored).sum();
        let mut chunks = done.into_iter().map(|(chunk, _)| chunk);
        let files = files
            .iter()
            .map(|cut| (cut.path.clone(), chunks.by_ref().take(cut.pieces.len()).collect()))
            .collect();
        Ok((files, sent))
    }

    /// Nothing is sent under a hash that isn't its own.
    fn check_hashes(&self, version: &Version, files: &[Cut]) -> Result<()> {
        let pairs: Vec<_> = version.manifest.files.iter().zip(files).collect();
        each(self.remote.threads(), &pairs, |(file, cut)| {
            let came = hash::of_bytes(cut.bytes.as_slice());
            if came == file.sha256 {
                return Ok(());
            }
            let place = version.folder.join(&file.path).display().to_string();
            Err(StoreError::Damaged { place, why: format!("sha256 was {}, is {came}", file.sha256) })
        })?;
        Ok(())
    }

    /// The chunk, and whether it wasn't there before.
    fn send_piece(&self, raw: &[u8], piece: &Piece) -> Result<(Chunk, bool)> {
        let sha256 = hash::of_bytes(raw);
        let tensor = piece.tensor.as_ref().map(|(name, _)| name.clone());
        let mut chunk = Chunk { sha256, bytes: raw.len() as u64, stored: 0, base: None, tensor };
        if let Some(stored) = self.there(&chunk_key(&chunk.sha256))? {
            chunk.stored = stored;
            return Ok((chunk, false));
        }
        let base = self.base_of(piece, raw.len() as u64).filter(|base| *base != chunk.sha256);
        if let Some(base) = base
            && let Some(stored) = self.there(&difference_key(&chunk.sha256, base))?
        {
            chunk.stored = stored;
            chunk.base = Some(base.to_owned());
            return Ok((chunk, false));
        }
        let base_raw = match base {
            None => None,
            Some(base) => match self.local.chunk(base) {
                Some(raw) => Some(raw),
                None => Some(self.remote.plain_chunk(base, chunk.bytes)?),
            },
        };
        let (layout, lead) = piece.layout.map_or_else(|| codec::guess(raw), |layout| (layout, 0));
        let frame = codec::encode(raw, layout, lead, base_raw.as_deref());
        let back = codec::decode(&frame, base_raw.as_deref(), raw.len());
        // Never seen; but what nobody can read must not be all that there is.
        if back.as_deref() != Ok(raw) {
            let what = &chunk.sha256;
            return Err(StoreError::Refused(format!(
                "coding the chunk {what} went wrong: report this, please"
            )));
        }
        if codec::header(&frame).is_ok_and(|header| header.has_base) {
            chunk.base = base.map(str::to_owned);
        }
        chunk.stored = frame.len() as u64;
        self.remote.put(&chunk.key(), &frame)?;
        Ok((chunk, true))
    }

    fn there(&self, key: &str) -> Result<Option<u64>> {
        if self.again { Ok(None) } else { self.remote.size(key) }
    }

    /// The chunk that has this place in the parent; where that is a difference itself, what it is a difference from,
    /// so that reading one never takes more than two.
    fn base_of(&self, piece: &Piece, bytes: u64) -> Option<&str> {
        let (name, index) = piece.tensor.as_ref()?;
        let chunk = self.parent.get(name.as_str())?.get(*index).filter(|chunk| chunk.bytes == bytes)?;
        Some(chunk.base.as_deref().unwrap_or(&chunk.sha256))
    }
}
