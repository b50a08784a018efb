//! `gc` and `verify` of a remote: what no version needs goes, and everything is read again.

use std::collections::{BTreeMap, BTreeSet};

use super::index::INDEX;
use super::packed::{Chunk, chunk_key};
use super::workers::each;
use super::{Object, Progress, Remote};
use crate::error::Result;
use crate::name::ModelName;
use crate::versions::Damage;

/// What was deleted, and what stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub deleted: u64,
    pub deleted_bytes: u64,
    pub kept: u64,
    pub kept_bytes: u64,
}

/// Whether a push made a file of this name: other people's folders may be called `chunks` too.
fn is_ours(key: &str) -> bool {
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = key.split('/').collect();
    if let &["index", name] = &parts[..] {
        return name.starts_with(".tmp");
    }
    let &[top, first, name] = &parts[..] else { return false };
    if matches!(top, "models" | "tags") {
        return name.starts_with(".tmp") && ModelName::parse(first).is_ok();
    }
    let is_chunk = name.split('-').all(|sha256| is_hex(sha256, 64));
    is_hex(first, 2) && (is_chunk || name.starts_with(".tmp"))
}

/// A chunk, and a version that needs it.
type Needed = (Chunk, String);

impl Remote {
    /// Deletes every chunk that no version needs, what killed pushes left included. With `is_trial`, only says so.
    ///
    /// # Errors
    /// Something is being pushed; a version can't be read, so that nobody knows what it needs; the remote.
    pub fn collect(&self, is_trial: bool) -> Result<Collected> {
        let hold = self.hold(true)?;
        let mut needed = BTreeSet::new();
        for entry in self.entries("models")?.iter().filter(|entry| !entry.is_gone) {
            for chunk in self.packed(&entry.name, entry.number)?.chunks() {
                needed.insert(chunk.key());
                needed.extend(chunk.base.as_deref().map(chunk_key));
            }
        }
        let mut collected = Collected::default();
        for prefix in ["chunks", "differences", "models", "tags", "index"] {
            for Object { key, bytes, .. } in self.list(prefix)?.into_iter().filter(|file| is_ours(&file.key))
            {
                if needed.contains(&key) {
                    collected.kept += 1;
                    collected.kept_bytes += bytes;
                    continue;
                }
                collected.deleted += 1;
                collected.deleted_bytes += bytes;
                if !is_trial {
                    hold.check()?;
                    self.delete(&key)?;
                }
            }
        }
        if !is_trial {
            self.write_index()?;
        }
        Ok(collected)
    }

    /// Bytes that [`Remote::verify`] will read, once they are decoded.
    ///
    /// # Errors
    /// The remote can't be reached.
    pub fn bytes_of(&self, named: &[(String, u64)]) -> Result<u64> {
        let (chunks, _) = self.needed(named)?;
        Ok(chunks.iter().map(|(chunk, _)| chunk.bytes).sum())
    }

    /// Reads every chunk of the versions named, or of all, and says which isn't what it was: `path` of the damage is
    /// the version, and `why` names the file.
    ///
    /// # Errors
    /// The remote can't be reached.
    pub fn verify(&self, named: &[(String, u64)], progress: Progress<'_>) -> Result<Vec<Damage>> {
        let (chunks, mut damages) = self.needed(named)?;
        let found = each(self.threads(), &chunks, |(chunk, of)| {
            let read = self.chunk(chunk);
            progress(chunk.bytes);
            Ok(read.err().map(|error| Damage { path: of.clone(), why: error.to_string() }))
        })?;
        damages.extend(found.into_iter().flatten());
        if named.is_empty() {
            damages.extend(self.damaged_tags()?);
            let index = self.index_damage()?;
            damages.extend(index.map(|why| Damage { path: INDEX.to_owned(), why }));
        }
        Ok(damages)
    }

    fn damaged_tags(&self) -> Result<Vec<Damage>> {
        let entries = self.entries("models")?;
        let is_there = |model: &ModelName, number: u64| {
            entries.iter().any(|e| e.name == model.name() && e.number == number && !e.is_gone)
        };
        let damage = |(model, number): (ModelName, Result<u64>)| {
            let why = match number {
                Ok(number) if is_there(&model, number) => return None,
                Ok(number) => format!("it means {}@{number}, which isn't there", model.name()),
                Err(error) => error.to_string(),
            };
            Some(Damage { path: format!("{}:{}", model.name(), model.tag()), why })
        };
        Ok(self.tags("tags")?.into_iter().filter_map(damage).collect())
    }

    /// The chunks of versions, each once with one that needs it, and the versions that can't be read.
    fn needed(&self, named: &[(String, u64)]) -> Result<(Vec<Needed>, Vec<Damage>)> {
        let mut versions = named.to_vec();
        if named.is_empty() {
            let all = self.entries("models")?.into_iter().filter(|entry| !entry.is_gone);
            versions.extend(all.map(|entry| (entry.name, entry.number)));
        }
        let mut damages = Vec::new();
        let mut chunks = BTreeMap::new();
        for (name, number) in versions {
            let of = format!("{name}@{number}");
            match self.packed(&name, number) {
                Err(error) => damages.push(Damage { path: of, why: error.to_string() }),
                Ok(packed) => {
                    chunks.extend(packed.chunks().map(|chunk| (chunk.key(), (chunk.clone(), of.clone()))));
                }
            }
        }
        Ok((chunks.into_values().collect(), damages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_a_push_made_is_collected() {
        let sha256 = "ab".repeat(32);
        for ours in
            [chunk_key(&sha256), format!("differences/ab/{sha256}-{sha256}"), "chunks/ab/.tmpX1".to_owned()]
                .into_iter()
                .chain(["models/a/.tmpX1", "tags/a/.tmpX1", "index/.tmpX1"].map(str::to_owned))
        {
            assert!(is_ours(&ours), "{ours}");
        }
        for other in [
            "index/names",
            "models/a/@1.json",
            "tags/a/b",
            "models/a/b/.tmp1",
            "chunks/0001.txt",
            "chunks/ab/page-1.json",
            "chunks/docs/a/b",
            "chunks/zz/.tmp1",
            "chunks/ab/",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
