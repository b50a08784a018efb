//! What versions a remote has: `models/NAME/@NUMBER.json`, one that was removed leaving `@NUMBER.gone` so that its number
//! is never given again, and `tags/NAME/TAG`, a file with a number.

use super::packed::Packed;
use super::{Object, Remote};
use crate::error::{Result, StoreError};
use crate::manifest::Manifest;
use crate::name::{ModelName, Reference};

const MANIFEST_BYTES_MAX: u64 = 256 << 20;
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
}

impl Remote {
    /// Every version, by name and number; one that can't be read is an error of its own.
    ///
    /// # Errors
    /// The remote can't be reached.
    pub fn versions(&self) -> Result<Vec<(String, Result<Kept>)>> {
        let mut tags = Vec::new();
        for Object { key, .. } in self.list("tags")? {
            let mut parts = key.split('/').skip(1);
            let (Some(name), Some(tag)) = (parts.next(), parts.next()) else { continue };
            if let Ok(model) = ModelName::parse(&format!("{name}:{tag}"))
                && let Some(number) = self.tagged(&model)?
            {
                tags.push((model, number));
            }
        }
        let mut found = Vec::new();
        for Entry { name, number, .. } in self.entries("models")?.into_iter().filter(|entry| !entry.is_gone) {
            let kept = self.packed(&name, number).map(|packed| Kept {
                tags: tags
                    .iter()
                    .filter(|(model, tagged)| model.name() == name && *tagged == number)
                    .map(|(model, _)| model.tag().to_owned())
                    .collect(),
                stored: packed.stored_bytes(),
                manifest: packed.manifest,
                name: name.clone(),
                number,
            });
            found.push((format!("{name}@{number}"), kept));
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
            Some(Entry { name: name.to_owned(), number: number.parse().ok()?, is_gone })
        };
        let mut found: Vec<Entry> = self.list(prefix)?.into_iter().filter_map(entry).collect();
        found.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        Ok(found)
    }

    /// # Errors
    /// There is none, or it isn't sound.
    pub(super) fn packed(&self, name: &str, number: u64) -> Result<Packed> {
        let key = version_key(name, number);
        let text = self.get(&key, MANIFEST_BYTES_MAX)?;
        let text = text.ok_or_else(|| self.missing(&format!("{name}@{number}")))?;
        Packed::read(&text).map_err(|why| self.damaged(&key, why))
    }

    /// The number that a tag means.
    pub(super) fn tagged(&self, model: &ModelName) -> Result<Option<u64>> {
        let key = tag_key(model);
        let Some(text) = self.get(&key, TAG_BYTES_MAX)? else { return Ok(None) };
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        number.map(Some).ok_or_else(|| self.damaged(&key, "it holds no number".to_owned()))
    }

    pub(super) fn tag(&self, model: &ModelName, number: u64) -> Result<()> {
        self.put(&tag_key(model), number.to_string().as_bytes())?;
        self.settle()
    }

    /// The version that is meant.
    ///
    /// # Errors
    /// There is none: what there is of that name.
    pub(super) fn resolve(&self, reference: &Reference) -> Result<(u64, Packed)> {
        let name = reference.name();
        let number = match reference {
            Reference::Number { number, .. } => Some(*number),
            Reference::Tag(model) => self.tagged(model)?,
        };
        let numbers: Vec<u64> = self
            .entries(&format!("models/{name}"))?
            .iter()
            .filter(|e| !e.is_gone)
            .map(|e| e.number)
            .collect();
        match number.filter(|number| numbers.contains(number)) {
            Some(number) => Ok((number, self.packed(name, number)?)),
            None if numbers.is_empty() => Err(self.missing(&reference.to_string())),
            None => {
                let ids: Vec<String> = numbers.iter().map(|number| format!("{name}@{number}")).collect();
                Err(self.missing(&format!("{reference}, only {}", ids.join(", "))))
            }
        }
    }

    /// Takes a version away, with its tags; its chunks go by [`Remote::collect`].
    ///
    /// # Errors
    /// There is none; the remote can't be reached.
    pub fn remove(&self, name: &str, number: u64) -> Result<()> {
        let hold = self.hold(false)?;
        if self.size(&version_key(name, number))?.is_none() {
            return Err(self.missing(&format!("{name}@{number}")));
        }
        for Object { key, .. } in self.list(&format!("tags/{name}"))? {
            let tag = key.rsplit('/').next().unwrap_or_default();
            if let Ok(model) = ModelName::parse(&format!("{name}:{tag}"))
                && self.tagged(&model)? == Some(number)
            {
                self.delete(&key)?;
            }
        }
        self.put(&format!("models/{name}/@{number}.gone"), b"")?;
        self.settle()?;
        hold.check()?;
        self.delete(&version_key(name, number))?;
        self.settle()
    }

    fn missing(&self, what: &str) -> StoreError {
        StoreError::Refused(format!("{self} has no {what}"))
    }
}

pub(super) fn version_key(name: &str, number: u64) -> String {
    format!("models/{name}/@{number}.json")
}

fn tag_key(model: &ModelName) -> String {
    format!("tags/{}/{}", model.name(), model.tag())
}
