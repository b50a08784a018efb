//! `index/names`: the versions and tags of a remote by name, for whoever can read its files but not list them.

use super::catalogue::Entry;
use super::{Object, Place, Remote, catalogue};
use crate::error::{Result, StoreError};
use crate::hash;

pub const INDEX: &str = "index/names";
/// In the last line, before the hash of those before it.
const SEAL: &str = "sha256 ";

impl Remote {
    /// Writes what there is, and again until nothing was changed meanwhile: of two who do so at once, the later sees what
    /// the other brought.
    pub(super) fn write_index(&self) -> Result<()> {
        loop {
            let text = self.index_text()?;
            if self.get(INDEX, text.len() as u64 * 2 + 4096).ok().flatten().as_deref()
                == Some(text.as_bytes())
            {
                return self.settle();
            }
            self.put(INDEX, text.as_bytes())?;
        }
    }

    fn index_text(&self) -> Result<String> {
        let versions = self.entries("models")?.into_iter().filter(|entry| !entry.is_gone);
        let version = |Entry { name, number, bytes, .. }| (catalogue::version_key(&name, number), bytes);
        let tags = self.tags("tags")?.into_iter().map(|(model, _)| (catalogue::tag_key(&model), 0));
        let mut lines: Vec<(String, u64)> = versions.map(version).chain(tags).collect();
        lines.sort();
        let text: String = lines.iter().map(|(key, bytes)| format!("{bytes} {key}\n")).collect();
        Ok(format!("{text}{SEAL}{}\n", hash::of_bytes(text.as_bytes())))
    }

    /// What is wrong with the index, where there is one. One that a killed process didn't write again is not damaged.
    pub(super) fn index_damage(&self) -> Result<Option<String>> {
        if matches!(self.0, Place::Web(_)) {
            return self.list("models").map(|_| None);
        }
        let is_whole = match self.get(INDEX, u64::from(u32::MAX)) {
            Ok(text) => text.is_none_or(|text| read(&text).is_some()),
            Err(StoreError::RemoteDamaged { .. }) => false,
            Err(error) => return Err(error),
        };
        Ok((!is_whole).then(|| format!("{self}/{INDEX} isn't what was written; tureen gc writes it again")))
    }
}

/// The files that an index names; `None` where it isn't what was written.
pub fn read(text: &[u8]) -> Option<Vec<Object>> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (lines, seal) = text.rsplit_once('\n').map_or(("", text), |(lines, seal)| (lines, seal));
    let lines = if lines.is_empty() { String::new() } else { format!("{lines}\n") };
    if seal.strip_prefix(SEAL)? != hash::of_bytes(lines.as_bytes()) {
        return None;
    }
    let object = |line: &str| {
        let (bytes, key) = line.split_once(' ')?;
        Some(Object { key: key.to_owned(), bytes: bytes.parse().ok()?, modified_s: 0 })
    };
    lines.lines().map(object).collect()
}
