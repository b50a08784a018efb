//! `pull` from a remote: a version's files, put together from chunks of the remote and from what is here, and published
//! as the next version of its name. One that was interrupted goes on where it stood.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::local::{Local, same_as};
use super::packed::{Chunk, Packed};
use super::workers::each;
use super::{Progress, Remote};
use crate::durable::{make_folder, rename};
use crate::error::{Result, StoreError};
use crate::hash;
use crate::manifest::{Manifest, SCHEMA};
use crate::name::{ModelName, Reference};
use crate::versions::{Store, Version};

/// The end of a file's name that isn't whole.
const PARTIAL: &str = ".partial";

/// A chunk and its place in a file.
struct Wanted<'a> {
    chunk: &'a Chunk,
    offset: u64,
}

impl Remote {
    /// The number and the bytes of what a person means.
    ///
    /// # Errors
    /// There is no such version.
    pub fn look(&self, reference: &Reference) -> Result<(u64, Manifest)> {
        let (number, packed) = self.resolve(reference)?;
        Ok((number, packed.manifest))
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
            fill(remote, &local, &partial, chunks, progress)?;
            let (_, came) = hash::of_file(&partial, |_| {})?;
            if came != file.sha256 {
                let why = format!(
                    "{} was published with sha256 {}, its chunks have {came}",
                    file.path, file.sha256
                );
                return Err(StoreError::RemoteDamaged { place: format!("{remote}: {name}@{number}"), why });
            }
            rename(&partial, &path)?;
        }
        clear_others(&staging.folder, &packed.manifest)?;
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

fn is_whole(path: &Path, sha256: &str) -> bool {
    path.is_file() && hash::of_file(path, |_| {}).is_ok_and(|(_, came)| came == sha256)
}

/// What an interrupted pull from elsewhere left is no part of the version.
fn clear_others(staged: &Path, manifest: &Manifest) -> Result<()> {
    let mut folders = vec![staged.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(StoreError::io("reading the folder", &folder))?;
        for entry in entries {
            let path = entry.map_err(StoreError::io("reading the folder", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !manifest.files.iter().any(|file| staged.join(&file.path) == path) {
                std::fs::remove_file(&path).map_err(StoreError::io("deleting", &path))?;
            }
        }
    }
    Ok(())
}

/// Writes what is missing of a file.
fn fill(remote: &Remote, local: &Local, path: &Path, chunks: &[Chunk], progress: Progress<'_>) -> Result<()> {
    let was_begun = path.exists();
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let file = file.map_err(StoreError::io("making", path))?;
    let bytes = chunks.iter().map(|chunk| chunk.bytes).sum();
    file.set_len(bytes).map_err(StoreError::io("making room for", path))?;
    let mut offset = 0;
    let wanted = chunks.iter().map(|chunk| {
        let wanted = Wanted { chunk, offset };
        offset += chunk.bytes;
        wanted
    });
    let wanted: Vec<Wanted<'_>> = wanted.collect();
    each(remote.threads(), &wanted, |Wanted { chunk, offset }| {
        if !(was_begun && is_there(&file, chunk, *offset)) {
            let raw = match local.chunk(&chunk.sha256) {
                Some(raw) => raw,
                None => match chunk.base.as_ref().and_then(|base| local.chunk(base)) {
                    Some(base) => remote.decoded(&chunk.key(), &chunk.sha256, chunk.bytes, Some(&base))?,
                    None => remote.chunk(chunk)?,
                },
            };
            file.write_all_at(&raw, *offset).map_err(StoreError::io("writing", path))?;
        }
        progress(chunk.bytes);
        Ok(())
    })?;
    file.sync_all().map_err(StoreError::io("syncing", path))
}

fn is_there(file: &File, chunk: &Chunk, offset: u64) -> bool {
    let mut raw = vec![0; usize::try_from(chunk.bytes).unwrap_or(0)];
    file.read_exact_at(&mut raw, offset).is_ok() && hash::of_bytes(&raw) == chunk.sha256
}
