//! Short names for models and where each can be had, in order: `catalogue.toml`, which is part of the program.

use std::sync::LazyLock;

use serde::Deserialize;

use store::ModelName;

/// A short name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    pub about: String,
    /// Tried in order.
    pub sources: Vec<Listed>,
}

/// One place of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// As after `tureen pull`.
    pub from: String,
    /// Of the model's file, where it is one and we know it.
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<Entry>,
}

/// Every short name, in the file's order.
pub fn entries() -> &'static [Entry] {
    // A test reads the file, so that the program never ships with one that can't be read.
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        toml::from_str::<File>(include_str!("../../catalogue.toml"))
            .map(|file| file.model)
            .unwrap_or_default()
    });
    &ENTRIES
}

pub fn find(name: &ModelName) -> Option<&'static Entry> {
    entries().iter().find(|entry| ModelName::parse(&entry.name).is_ok_and(|known| known == *name))
}

#[cfg(test)]
mod tests {
    use super::super::sources::Source;
    use super::*;

    #[test]
    fn every_entry_can_be_read() {
        let file: File = toml::from_str(include_str!("../../catalogue.toml")).unwrap();
        let mut names: Vec<&str> = file.model.iter().map(|entry| entry.name.as_str()).collect();
        for entry in &file.model {
            assert_eq!(ModelName::parse(&entry.name).unwrap().to_string(), entry.name);
            assert!(!entry.sources.is_empty() && !entry.about.is_empty(), "{}", entry.name);
            for source in &entry.sources {
                let parsed = Source::parse(&source.from).unwrap();
                assert!(!matches!(parsed, Source::Catalogue(_) | Source::Path(_)), "{}", source.from);
                assert!(source.sha256.as_ref().is_none_or(|sha256| sha256.len() == 64));
            }
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name stands twice");
    }
}
