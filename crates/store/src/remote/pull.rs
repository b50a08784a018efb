//! `pull` from a remote: a version's files, put together from chunks of the remote and from what is here, and published
//! as the next version of its name. One that was interrupted goes on where it stood.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::local::{Local, same_as};
use super::packed::{Chunk, PARTIAL, Packed};
use super::workers::each;
use super::{Progress, Remote};
use crate::durable::{make_folder, rename};
use crate::error::{Result, StoreError};
use crate::hash;
use crate::manifest::{Manifest, SCHEMA};
use crate::name::{ModelName, Reference};
use crate::versions::{Store, Version};

/// Written to the disk at once: at the end there is little left to wait for.
const SYNCED_BYTES: u64 = 64 << 20;

/// A chunk and its place in a file.
struct Wanted<'a> {
    index: usize,
    chunk: &'a Chunk,
    offset: u64,
}

impl Remote {
    /// The number and the bytes of what a person means.
    ///
    /// # Errors
    /// There is no such version.
    pub fn look(&self, reference: &Reference) -> Result<(u64, Manifest)> {
        let number = self.number_of(reference)?;
        Ok((number, self.packed(reference.name(), number)?.manifest))
    }
}

impl Store {
    /// Brings version `number` of `name` in `remote` here, under `model`.
    ///
    /// # Errors
    /// A chunk is missing or isn't what it was; the disk; the remote can't be reached. What came stays for the next try.
    pub fn pull(
        &self,
        remote: &Remote,
        (name, number): (&str, u64),
        model: &ModelName,
        progress: Progress<'_>,
    ) -> Result<Version> {
        let packed = remote.packed(name, number)?;
        let there = remote.newest(name)?;
        let local = Local::find(self, &there)?;
        let staging = self.stage(model)?;
        for file in &packed.manifest.files {
            let path = staging.folder.join(&file.path);
            if is_whole(&path, &file.sha256) {
                progress(file.bytes);
                continue;
            }
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            let partial = staging.folder.join(format!("{}{PARTIAL}", file.path));
            let chunks = packed.files.get(&file.path).map_or(&[][..], Vec::as_slice);
            let filled = fill(remote, &local, &partial, chunks, progress);
            let came = filled.map_err(|error| removed_meanwhile(remote, name, number, error))?;
            if came != file.sha256 {
                let why = format!(
                    "{} was published with sha256 {}, its chunks have {came}",
                    file.path, file.sha256
                );
                return Err(StoreError::RemoteDamaged { place: format!("{remote}: {name}@{number}"), why });
            }
            rename(&partial, &path)?;
        }
        let names: Vec<&str> = packed.manifest.files.iter().map(|file| file.path.as_str()).collect();
        staging.keep_only(&names)?;
        let source = format!("{remote}: {name}@{number}");
        let manifest = self.manifest_of(&packed, &there, model, &source)?;
        self.publish(&staging.folder, model, manifest)
    }

    fn manifest_of(
        &self,
        packed: &Packed,
        there: &[(u64, Packed)],
        model: &ModelName,
        source: &str,
    ) -> Result<Manifest> {
        let mut manifest = packed.manifest.clone();
        for file in &mut manifest.files {
            file.verified = true;
            file.origin = source.to_owned();
        }
        // Numbers are each store's own.
        let told = manifest.parent.take().and_then(|parent| Reference::parse(&parent).ok());
        if let Some(Reference::Number { number, .. }) = told
            && let Some((_, parent)) = there.iter().find(|(known, _)| *known == number)
        {
            manifest.parent = same_as(self, parent)?.map(|version| version.id());
        }
        manifest.job = None;
        manifest.schema = SCHEMA;
        manifest.model = model.to_string();
        source.clone_into(&mut manifest.source);
        Ok(manifest)
    }
}

/// Whoever pulls may often only read, and leaves no mark that keeps others from deleting.
fn removed_meanwhile(remote: &Remote, name: &str, number: u64, error: StoreError) -> StoreError {
    let is_missing = matches!(error, StoreError::RemoteDamaged { .. });
    match remote.packed_if_any(name, number) {
        Ok(None) if is_missing => {
            StoreError::Refused(format!("{name}@{number} was removed from {remote} while it was pulled"))
        }
        _ => error,
    }
}

fn is_whole(path: &Path, sha256: &str) -> bool {
    path.is_file() && hash::of_file(path, |_| {}).is_ok_and(|(_, came)| came == sha256)
}

/// Chunks that are in the file, for whoever reads it from its beginning.
#[derive(Default)]
struct Front {
    /// By index, and whether no more will come.
    written: Mutex<(BTreeSet<usize>, bool)>,
    news: Condvar,
}

impl Front {
    fn tell(&self, change: impl FnOnce(&mut (BTreeSet<usize>, bool))) {
        change(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_all();
    }

    /// Waits for a chunk; `false` where it won't come.
    fn wait(&self, index: usize) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open =
            |(written, is_over): &mut (BTreeSet<usize>, bool)| !written.contains(&index) && !*is_over;
        let written = self.news.wait_while(written, is_open).unwrap_or_else(PoisonError::into_inner);
        written.0.contains(&index)
    }
}

/// Writes what is missing of a file, and says the whole's SHA-256.
fn fill(
    remote: &Remote,
    local: &Local,
    path: &Path,
    chunks: &[Chunk],
    progress: Progress<'_>,
) -> Result<String> {
    let was_begun = path.exists();
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let file = file.map_err(StoreError::io("making", path))?;
    let bytes = chunks.iter().map(|chunk| chunk.bytes).sum();
    file.set_len(bytes).map_err(StoreError::io("making room for", path))?;
    let mut offset = 0;
    let wanted = chunks.iter().enumerate().map(|(index, chunk)| {
        let wanted = Wanted { index, chunk, offset };
        offset += chunk.bytes;
        wanted
    });
    let wanted: Vec<Wanted<'_>> = wanted.collect();
    let front = Front::default();
    std::thread::scope(|scope| {
        let hashing = scope.spawn(|| hash_behind(&file, &wanted, &front));
        let filled = each(remote.threads(), &wanted, |Wanted { index, chunk, offset }| {
            if !(was_begun && is_there(&file, chunk, *offset)) {
                let raw = match local.chunk(&chunk.sha256) {
                    Some(raw) => raw,
                    None => match chunk.base.as_ref().and_then(|base| local.chunk(base)) {
                        Some(base) => {
                            remote.decoded(&chunk.key(), &chunk.sha256, chunk.bytes, Some(&base))?
                        }
                        None => remote.chunk(chunk)?,
                    },
                };
                file.write_all_at(&raw, *offset).map_err(StoreError::io("writing", path))?;
            }
            front.tell(|(written, _)| {
                written.insert(*index);
            });
            progress(chunk.bytes);
            Ok(())
        });
        front.tell(|(_, is_over)| *is_over = true);
        let sha256 = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        filled?;
        file.sync_all().map_err(StoreError::io("syncing", path))?;
        sha256.map_err(StoreError::io("reading", path))
    })
}

/// Reads the file behind those who write it, since one thread alone can hash it; and lets the disk begin early.
fn hash_behind(file: &File, wanted: &[Wanted<'_>], front: &Front) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let (mut raw, mut unsynced) = (Vec::new(), 0);
    for Wanted { index, chunk, offset } in wanted {
        if !front.wait(*index) {
            break;
        }
        raw.resize(usize::try_from(chunk.bytes).unwrap_or(0), 0);
        file.read_exact_at(&mut raw, *offset)?;
        hasher.update(&raw);
        unsynced += chunk.bytes;
        if unsynced >= SYNCED_BYTES {
            unsynced = 0;
            file.sync_data()?;
        }
    }
    Ok(hash::hex(&hasher.finalize()))
}

fn is_there(file: &File, chunk: &Chunk, offset: u64) -> bool {
    let mut raw = vec![0; usize::try_from(chunk.bytes).unwrap_or(0)];
    file.read_exact_at(&mut raw, offset).is_ok() && hash::of_bytes(&raw) == chunk.sha256
}
