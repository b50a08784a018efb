//! What versions a remote has: `models/NAME/@NUMBER.json`, one that was removed leaving `@NUMBER.gone` so that its number
//! is never given again, and `tags/NAME/TAG`, a file with a number.

use super::packed::{Packed, Unsound};
use super::{Object, Remote};
use crate::compare::Contents;
use crate::error::{Result, StoreError};
use crate::hash;
use crate::manifest::Manifest;
use crate::name::{ModelName, Reference};

pub(super) const MANIFEST_BYTES_MAX: u64 = 256 << 20;
const TAG_BYTES_MAX: u64 = 100;

/// A version in a remote, as lists show it.
#[derive(Clone, Debug)]
pub struct Kept {
    pub name: String,
    pub number: u64,
    pub tags: Vec<String>,
    pub manifest: Manifest,
    /// Bytes of its chunks in the remote; other versions may have some of them too.
    pub stored: u64,
}

impl Kept {
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.number)
    }
}

/// What a file in `models/` stands for.
pub(super) struct Entry {
    pub name: String,
    pub number: u64,
    pub is_gone: bool,
    pub bytes: u64,
}

/// A tag, and the number that it means or why that isn't known.
type Tag = (ModelName, Result<u64>);

impl Remote {
    /// Every version, by name and number; one that can't be read is an error of its own, and so is a tag.
    ///
    /// # Errors
    /// The remote can't be reached.
    pub fn versions(&self) -> Result<Vec<(String, Result<Kept>)>> {
        let tags = self.tags("tags")?;
        let mut found = Vec::new();
        for Entry { name, number, .. } in self.entries("models")?.into_iter().filter(|entry| !entry.is_gone) {
            let kept = self.packed(&name, number).map(|packed| Kept {
                tags: tags_of(&tags, &name, number),
                stored: packed.stored_bytes(),
                manifest: packed.manifest,
                name: name.clone(),
                number,
            });
            found.push((format!("{name}@{number}"), kept));
        }
        let damaged = tags.into_iter().filter_map(|(model, number)| Some((model, number.err()?)));
        found.extend(damaged.map(|(model, error)| (format!("{}:{}", model.name(), model.tag()), Err(error))));
        Ok(found)
    }

    /// Those below `prefix`.
    ///
    /// # Errors
    /// The remote can't be reached. A tag that holds nonsense is an error of its own.
    pub(super) fn tags(&self, prefix: &str) -> Result<Vec<Tag>> {
        let mut found = Vec::new();
        for Object { key, .. } in self.list(prefix)? {
            let mut parts = key.split('/').skip(1);
            let (Some(name), Some(tag), None) = (parts.next(), parts.next(), parts.next()) else { continue };
            let Ok(model) = ModelName::parse(&format!("{name}:{tag}")) else { continue };
            match self.tagged(&model) {
                // It went meanwhile.
                Ok(None) => {}
                Ok(Some(number)) => found.push((model, Ok(number))),
                Err(error @ StoreError::EntryDamaged { .. }) => found.push((model, Err(error))),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Files below `prefix` that are versions, or were.
    pub(super) fn entries(&self, prefix: &str) -> Result<Vec<Entry>> {
        let entry = |object: Object| {
            let mut parts = object.key.split('/').skip(1);
            let (name, file) = (parts.next()?, parts.next()?);
            let (number, end) = file.strip_prefix('@')?.split_once('.')?;
            // The rest is what a killed process was writing.
            let is_gone = match end {
                "json" => false,
                "gone" => true,
                _ => return None,
            };
            ModelName::parse(name).ok()?;
            // As it is written here: `@007` would be another name for the same.
            let number = number.parse().ok().filter(|read: &u64| *read > 0 && read.to_string() == number)?;
            Some(Entry { name: name.to_owned(), number, is_gone, bytes: object.bytes })
        };
        let mut found: Vec<Entry> = self.list(prefix)?.into_iter().filter_map(entry).collect();
        found.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        Ok(found)
    }

    /// # Errors
    /// There is none, or it isn't sound.
    pub(super) fn packed(&self, name: &str, number: u64) -> Result<Packed> {
        self.packed_if_any(name, number)?.ok_or_else(|| self.missing(&format!("{name}@{number}")))
    }

    /// # Errors
    /// It isn't sound.
    pub(super) fn packed_if_any(&self, name: &str, number: u64) -> Result<Option<Packed>> {
        let key = version_key(name, number);
        let id = format!("{name}@{number}");
        let Some(text) = self.get_entry(&key, MANIFEST_BYTES_MAX, &id)? else { return Ok(None) };
        match Packed::read(&text) {
            Ok(packed) => Ok(Some(packed)),
            Err(Unsound::Newer { found, known }) => {
                let place = format!("{self}/{key}");
                Err(StoreError::Newer { place, found: found.into(), known: known.into() })
            }
            Err(Unsound::Damaged(why)) => Err(self.entry_damaged(&key, why, id)),
        }
    }

    /// The number that a tag means.
    pub(super) fn tagged(&self, model: &ModelName) -> Result<Option<u64>> {
        let key = tag_key(model);
        let id = format!("{}:{}", model.name(), model.tag());
        let Some(text) = self.get_entry(&key, TAG_BYTES_MAX, &id)? else { return Ok(None) };
        let number = read_tag(&text).map(Some);
        number.ok_or_else(|| self.entry_damaged(&key, "it holds no number".to_owned(), id))
    }

    pub(super) fn tag(&self, model: &ModelName, number: u64) -> Result<()> {
        self.put(&tag_key(model), tag_text(number).as_bytes())?;
        self.settle()
    }

    /// The number of the version that is meant, whether or not that can be read.
    ///
    /// # Errors
    /// There is none: what there is of that name.
    pub fn number_of(&self, reference: &Reference) -> Result<u64> {
        let name = reference.name();
        let number = match reference {
            Reference::Number { number, .. } => Some(*number),
            Reference::Tag(model) => self.tagged(model)?,
        };
        let entries = self.entries(&format!("models/{name}"))?;
        let numbers: Vec<u64> = entries.iter().filter(|e| !e.is_gone).map(|e| e.number).collect();
        match number.filter(|number| numbers.contains(number)) {
            Some(number) => Ok(number),
            None if numbers.is_empty() => Err(self.missing(&reference.to_string())),
            None => {
                let ids: Vec<String> = numbers.iter().map(|number| format!("{name}@{number}")).collect();
                Err(self.missing(&format!("{reference}, only {}", ids.join(", "))))
            }
        }
    }

    /// A version with the hashes of its parts.
    ///
    /// # Errors
    /// There is none, or it isn't sound.
    pub fn contents(&self, reference: &Reference) -> Result<(u64, Contents)> {
        let number = self.number_of(reference)?;
        Ok((number, Contents(self.packed(reference.name(), number)?)))
    }

    /// Tags that mean a version.
    ///
    /// # Errors
    /// The remote can't be reached.
    pub fn tags_of(&self, name: &str, number: u64) -> Result<Vec<String>> {
        Ok(tags_of(&self.tags(&format!("tags/{name}"))?, name, number))
    }

    /// Takes a tag away, and its version where no other tag means that; or the version of a number with all its tags.
    /// The number of the version that went, if one did. Its chunks go by [`Remote::collect`].
    ///
    /// # Errors
    /// There is none; something is being pushed; the remote can't be reached.
    pub fn remove(&self, reference: &Reference) -> Result<Option<u64>> {
        // Alone: a push may be giving a tag to the version that it found.
        let hold = self.hold(true)?;
        let name = reference.name();
        let number = match reference {
            Reference::Number { .. } => self.number_of(reference)?,
            Reference::Tag(model) => {
                let number = match self.tagged(model) {
                    // What it meant isn't known, so nothing goes with it.
                    Err(StoreError::EntryDamaged { .. }) => None,
                    _ => Some(self.number_of(reference)?),
                };
                let Some(number) = number else { return self.remove_tag(model).map(|()| None) };
                if self.tags_of(name, number)?.len() > 1 {
                    return self.remove_tag(model).map(|()| None);
                }
                number
            }
        };
        for tag in self.tags_of(name, number)? {
            self.delete(&tag_key(&ModelName::parse(&format!("{name}:{tag}"))?))?;
        }
        self.put(&format!("models/{name}/@{number}.gone"), b"")?;
        self.settle()?;
        hold.check()?;
        self.delete(&version_key(name, number))?;
        self.write_index()?;
        Ok(Some(number))
    }

    fn remove_tag(&self, model: &ModelName) -> Result<()> {
        self.delete(&tag_key(model))?;
        self.write_index()
    }

    /// One that is far too long is damaged as any other.
    fn get_entry(&self, key: &str, bytes_max: u64, id: &str) -> Result<Option<Vec<u8>>> {
        self.get(key, bytes_max).map_err(|error| match error {
            StoreError::RemoteDamaged { why, .. } => self.entry_damaged(key, why, id.to_owned()),
            other => other,
        })
    }

    fn entry_damaged(&self, key: &str, why: String, id: String) -> StoreError {
        StoreError::EntryDamaged { place: format!("{self}/{key}"), why, id, remote: self.to_string() }
    }

    fn missing(&self, what: &str) -> StoreError {
        StoreError::Refused(format!("{self} has no {what}"))
    }
}

pub(super) fn version_key(name: &str, number: u64) -> String {
    format!("models/{name}/@{number}.json")
}

pub(super) fn tag_key(model: &ModelName) -> String {
    format!("tags/{}/{}", model.name(), model.tag())
}

fn tags_of(tags: &[Tag], name: &str, number: u64) -> Vec<String> {
    let means = |(model, tagged): &&Tag| model.name() == name && tagged.as_ref().is_ok_and(|n| *n == number);
    tags.iter().filter(means).map(|(model, _)| model.tag().to_owned()).collect()
}

/// The number and the beginning of its hash: a flipped bit would make another number of it.
fn tag_text(number: u64) -> String {
    let digits = number.to_string();
    let check = &hash::of_bytes(digits.as_bytes())[..16];
    format!("{digits} {check}")
}

/// Digits alone are what a person wrote, or an older tureen.
fn read_tag(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let number = text.split(' ').next()?.parse().ok()?;
    (text == tag_text(number) || text == number.to_string()).then_some(number)
}

#[test]
fn a_flipped_bit_makes_no_other_tag() {
    for number in [1, 42, u64::MAX] {
        let text = tag_text(number);
        assert_eq!((read_tag(text.as_bytes()), read_tag(b"7\n")), (Some(number), Some(7)));
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = read_tag(&flipped);
            assert!(read.is_none_or(|read| read == number), "{number}, bit {bit}: {read:?}");
        }
    }
    assert_eq!(read_tag(b"007"), None);
}
