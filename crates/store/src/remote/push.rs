//! `push`: a version of this machine into a remote. What is there already isn't sent again, so one that was
//! interrupted goes on where it stood.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use formats::storage::Bytes;

use super::catalogue::{MANIFEST_BYTES_MAX, version_key};
use super::local::Local;
use super::packed::{Chunk, Packed, SCHEMA, chunk_key, difference_key};
use super::workers::each;
use super::{Progress, Remote};
use crate::codec;
use crate::cut::{Cuts, Piece, cut};
use crate::error::{Result, StoreError};
use crate::hash;
use crate::manifest::File;
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
    /// What pieces may be told as differences from.
    bases: Bases<'a>,
    again: bool,
    progress: Progress<'a>,
}

enum Bases<'a> {
    /// Chunks of another version's tensors, with the file of each.
    Tensors(BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Chunk>>>),
    /// The version is there, and its chunks are sent as they were: others may need them in that form.
    Same(BTreeMap<&'a str, &'a Chunk>),
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
            Some((number, packed)) if !again => {
                remote.keep(&version_key(name, *number))?;
                (*number, packed.clone(), 0)
            }
            _ => {
                let parent = self.parent_in(version, &there, same)?;
                let similar = parent.or_else(|| there.last());
                let bases = Bases::of(similar.map(|(_, packed)| packed), same.map(|(_, packed)| packed));
                let push = Push { remote, local: Local::find(self, &there)?, bases, again, progress };
                let (files, sent) = push.send(version, same.or(similar).map(|(_, packed)| packed))?;
                hold.check()?;
                let mut manifest = version.manifest.clone();
                manifest.parent = parent.map(|(number, _)| format!("{name}@{number}"));
                let packed = Packed { schema: SCHEMA, manifest, files };
                packed.check().map_err(|why| refused(version, &why))?;
                let number = remote.enter(version, same.map(|(number, _)| *number), packed.clone())?;
                if let Err(error) = hold.check() {
                    // Its chunks may be gone.
                    remote.delete(&version_key(name, number))?;
                    return Err(error);
                }
                (number, packed, sent)
            }
        };
        self.point(remote, version, tag, number)?;
        remote.write_index()?;
        Ok(Pushed { number, was_there: same.is_some(), bytes, stored: packed.stored_bytes(), sent })
    }

    fn point(&self, remote: &Remote, version: &Version, tag: Option<&ModelName>, number: u64) -> Result<()> {
        if let Some(tag) = tag {
            return remote.tag(tag, number);
        }
        let latest = ModelName::parse(&format!("{}:{DEFAULT_TAG}", version.name))?;
        if remote.tagged(&latest)?.is_none() { remote.tag(&latest, number) } else { Ok(()) }
    }

    /// The version of the remote that `version` was made of, where it says so and the remote has that.
    fn parent_in<'a>(
        &self,
        version: &Version,
        there: &'a [(u64, Packed)],
        itself: Option<&(u64, Packed)>,
    ) -> Result<Option<&'a (u64, Packed)>> {
        let told = version.manifest.parent.as_deref().and_then(|parent| Reference::parse(parent).ok());
        let Some(told) = told else { return Ok(None) };
        let Some(parent) = self.find(&told)? else { return Ok(None) };
        let is_parent = |(number, packed): &&(u64, Packed)| {
            packed.manifest.has_files_of(&parent.manifest) && itself.is_none_or(|(own, _)| own != number)
        };
        Ok(there.iter().find(is_parent))
    }
}

impl Remote {
    /// The newest versions of a name, in order, as many as fit in memory. One that isn't sound shares nothing.
    pub(super) fn newest(&self, name: &str) -> Result<Vec<(u64, Packed)>> {
        let entries = self.entries(&format!("models/{name}"))?;
        let (mut found, mut bytes) = (Vec::new(), 0u64);
        for entry in entries.iter().rev().filter(|entry| !entry.is_gone).take(VERSIONS_MAX) {
            bytes = bytes.saturating_add(entry.bytes);
            if bytes > MANIFEST_BYTES_MAX {
                break;
            }
            match self.packed_if_any(name, entry.number) {
                Ok(packed) => found.extend(packed.map(|packed| (entry.number, packed))),
                Err(StoreError::EntryDamaged { .. } | StoreError::Newer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        found.reverse();
        Ok(found)
    }

    /// Brings a version into sight whose chunks are all there, under its old number where it has one.
    fn enter(&self, version: &Version, number: Option<u64>, mut packed: Packed) -> Result<u64> {
        self.settle()?;
        let (name, wanted) = (&version.name, version.number);
        let taken: BTreeSet<u64> =
            self.entries(&format!("models/{name}"))?.iter().map(|entry| entry.number).collect();
        let after = |number: u64| number.checked_add(1).ok_or_else(|| refused(version, "no number is left"));
        let next = taken.last().map_or(Ok(1), |last| after(*last));
        let is_free = wanted > 0 && !taken.contains(&wanted);
        let mut chosen = match number {
            Some(number) => number,
            None if is_free => wanted,
            None => next.as_ref().copied().map_err(|_| refused(version, "no number is left"))?,
        };
        loop {
            packed.manifest.version = chosen;
            let text = packed.write().map_err(|why| refused(version, &why))?;
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
            chosen = after(chosen)?;
        }
    }
}

pub(crate) fn cuts_of(tensors: &BTreeMap<&str, BTreeMap<&str, Vec<&Chunk>>>, path: &str) -> Cuts {
    let lengths = |chunks: &Vec<&Chunk>| chunks.iter().map(|chunk| chunk.bytes as usize).collect();
    let cut = |(name, files): (&&str, &BTreeMap<_, _>)| {
        Some(((*name).to_owned(), in_file(files, path).map(lengths)?))
    };
    tensors.iter().filter_map(cut).collect()
}

/// The files of a version, of the lengths that were published.
fn open(version: &Version) -> Result<Vec<Bytes>> {
    let open = |file: &File| {
        let path = version.folder.join(&file.path);
        let is_empty = std::fs::metadata(&path).is_ok_and(|facts| facts.len() == 0);
        let bytes = if is_empty { Ok(Bytes::Memory(Vec::new())) } else { Bytes::map(&path) };
        let damaged = |why: String| StoreError::Damaged { place: path.display().to_string(), why };
        let bytes = bytes.map_err(|error| damaged(error.to_string()))?;
        let came = bytes.as_slice().len() as u64;
        if came != file.bytes {
            return Err(damaged(format!("{} bytes were published, {came} are here", file.bytes)));
        }
        Ok(bytes)
    };
    version.manifest.files.iter().map(open).collect()
}

/// Nothing comes into sight under a hash that isn't its own.
fn check_hashes(version: &Version, opened: &[Bytes]) -> Result<()> {
    for (file, bytes) in version.manifest.files.iter().zip(opened) {
        let came = hash::of_bytes(bytes.as_slice());
        if came != file.sha256 {
            let place = version.folder.join(&file.path).display().to_string();
            return Err(StoreError::Damaged { place, why: format!("sha256 was {}, is {came}", file.sha256) });
        }
    }
    Ok(())
}

fn refused(version: &Version, why: &str) -> StoreError {
    StoreError::Refused(format!("{} can't be pushed: {why}", version.id()))
}

/// Chunks of each tensor, file by file.
pub(crate) fn chunks_by_tensor(packed: &Packed) -> BTreeMap<&str, BTreeMap<&str, Vec<&Chunk>>> {
    let mut found: BTreeMap<&str, BTreeMap<&str, Vec<&Chunk>>> = BTreeMap::new();
    for (path, chunks) in &packed.files {
        for chunk in chunks {
            if let Some(tensor) = &chunk.tensor {
                found.entry(tensor).or_default().entry(path).or_default().push(chunk);
            }
        }
    }
    found
}

/// Those of the file of the same name, or else of the only file that has such a tensor.
fn in_file<'a, T>(files: &'a BTreeMap<&str, T>, path: &str) -> Option<&'a T> {
    files.get(path).or_else(|| files.values().next().filter(|_| files.len() == 1))
}

impl<'a> Bases<'a> {
    fn of(similar: Option<&'a Packed>, same: Option<&'a Packed>) -> Bases<'a> {
        match same {
            Some(packed) => Bases::Same(packed.chunks().map(|chunk| (&*chunk.sha256, chunk)).collect()),
            None => Bases::Tensors(similar.map(chunks_by_tensor).unwrap_or_default()),
        }
    }

    /// The chunk that has this place in the parent; where that is a difference itself, what it is a difference from,
    /// so that reading one never takes more than two.
    fn of_piece(&self, path: &str, piece: &Piece, chunk: &Chunk) -> Option<&'a str> {
        let base = match self {
            Bases::Same(chunks) => chunks.get(&*chunk.sha256)?.base.as_deref()?,
            Bases::Tensors(tensors) => {
                let (name, index) = piece.tensor.as_ref()?;
                let parent = in_file(tensors.get(name.as_str())?, path)?.get(*index)?;
                let parent = Some(*parent).filter(|parent| parent.bytes == chunk.bytes)?;
                parent.base.as_deref().unwrap_or(&parent.sha256)
            }
        };
        (base != chunk.sha256).then_some(base)
    }
}

impl Push<'_> {
    /// Sends what isn't there; the chunks of each file, and the bytes that were sent. Tensors are cut as in `like`.
    fn send(&self, version: &Version, like: Option<&Packed>) -> Result<(BTreeMap<String, Vec<Chunk>>, u64)> {
        let like = like.map(chunks_by_tensor).unwrap_or_default();
        let opened = open(version)?;
        let is_wrong = AtomicBool::new(false);
        let (files, done) = std::thread::scope(|scope| {
            // Meanwhile, since one file can be hashed by one thread alone. Nothing is in sight before that is done.
            let hashes = scope.spawn(|| {
                check_hashes(version, &opened).inspect_err(|_| is_wrong.store(true, Ordering::Relaxed))
            });
            let cut_file = |(file, bytes): (&File, &Bytes)| {
                let pieces = cut(&file.path, bytes.as_slice(), &cuts_of(&like, &file.path));
                (file.path.clone(), pieces)
            };
            let files: Vec<(String, Vec<Piece>)> =
                version.manifest.files.iter().zip(&opened).map(cut_file).collect();
            let pieces: Vec<(&str, &[u8], &Piece)> = files
                .iter()
                .zip(&opened)
                .flat_map(|((path, pieces), bytes)| {
                    pieces.iter().map(move |piece| (&**path, bytes.as_slice(), piece))
                })
                .collect();
            let done = each(self.remote.threads(), &pieces, |(path, bytes, piece)| {
                if is_wrong.load(Ordering::Relaxed) {
                    return Err(refused(version, "a file isn't what was published"));
                }
                let raw = &bytes[piece.range.clone()];
                let done = self.send_piece(raw, path, piece)?;
                (self.progress)(raw.len() as u64);
                Ok(done)
            });
            hashes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, StoreError>((files, done?))
        })?;
        let sent = done.iter().filter(|(_, is_new)| *is_new).map(|(chunk, _)| chunk.stored).sum();
        let mut chunks = done.into_iter().map(|(chunk, _)| chunk);
        let files = files
            .iter()
            .map(|(path, pieces)| (path.clone(), chunks.by_ref().take(pieces.len()).collect()))
            .collect();
        Ok((files, sent))
    }

    /// The chunk, and whether it wasn't there before.
    fn send_piece(&self, raw: &[u8], path: &str, piece: &Piece) -> Result<(Chunk, bool)> {
        let sha256 = hash::of_bytes(raw);
        let tensor = piece.tensor.as_ref().map(|(name, _)| name.clone());
        let mut chunk = Chunk { sha256, bytes: raw.len() as u64, stored: 0, base: None, tensor };
        if let Some(stored) = self.there(&chunk_key(&chunk.sha256))? {
            chunk.stored = stored;
            return Ok((chunk, false));
        }
        let base = self.bases.of_piece(path, piece, &chunk);
        if let Some(base) = base
            && let Some(stored) = self.there(&difference_key(&chunk.sha256, base))?
        {
            chunk.stored = stored;
            chunk.base = Some(base.to_owned());
            return Ok((chunk, false));
        }
        let base_raw = base.map(|base| self.base(base, chunk.bytes)).transpose()?.flatten();
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

    /// A base's bytes, where they are sound and as many: whoever pushes to mend it can't ask for more.
    fn base(&self, sha256: &str, bytes: u64) -> Result<Option<Vec<u8>>> {
        let raw = match self.local.chunk(sha256) {
            Some(raw) => Ok(raw),
            None => self.remote.plain_chunk(sha256, bytes),
        };
        match raw {
            Ok(raw) => Ok(Some(raw).filter(|raw| raw.len() as u64 == bytes)),
            Err(StoreError::RemoteDamaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn there(&self, key: &str) -> Result<Option<u64>> {
        if self.again { Ok(None) } else { self.remote.keep(key) }
    }
}
