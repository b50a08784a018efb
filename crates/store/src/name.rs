//! Names of models: `smollm2:135m`. They become folders, so nothing that leads out of the models folder is a name.

use std::fmt;

use crate::error::{Result, StoreError};

/// Bytes of a name or a tag.
const PART_BYTES_MAX: usize = 100;
/// The tag of a name that was given without one, and isn't shown.
pub const DEFAULT_TAG: &str = "latest";

/// A model's name and tag, both checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelName {
    name: String,
    tag: String,
}

impl ModelName {
    /// Reads `NAME` or `NAME:TAG`. Capitals become small letters: some file systems don't tell them apart.
    ///
    /// # Errors
    /// Anything but letters, digits, `.`, `-` and `_`, beginning with a letter or digit.
    pub fn parse(text: &str) -> Result<ModelName> {
        let lower = text.to_ascii_lowercase();
        let (name, tag) = lower.split_once(':').unwrap_or((&lower, DEFAULT_TAG));
        if !is_part(name) || !is_part(tag) {
            return Err(StoreError::BadName { text: text.to_string(), bytes_max: PART_BYTES_MAX });
        }
        Ok(ModelName { name: name.to_string(), tag: tag.to_string() })
    }

    /// The same model under another tag.
    ///
    /// # Errors
    /// As for [`ModelName::parse`].
    pub fn with_tag(&self, tag: &str) -> Result<ModelName> {
        ModelName::parse(&format!("{}:{tag}", self.name))
    }

    /// A name made of `text`, whatever it holds: what may not stand in a name becomes `-`.
    pub fn from_any(text: &str) -> Result<ModelName> {
        let allowed =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
        let spelled: String = text.chars().map(allowed).take(PART_BYTES_MAX).collect();
        ModelName::parse(spelled.trim_start_matches(['.', '-', '_']))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.tag != DEFAULT_TAG {
            write!(f, ":{}", self.tag)?;
        }
        Ok(())
    }
}

fn is_part(part: &str) -> bool {
    part.len() <= PART_BYTES_MAX
        && part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// What a person calls a version: by a tag, which may come to mean another, or by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Tag(ModelName),
    Number { name: String, number: u64 },
}

impl Reference {
    /// Reads `NAME`, `NAME:TAG` or `NAME@NUMBER`.
    ///
    /// # Errors
    /// As for [`ModelName::parse`].
    pub fn parse(text: &str) -> Result<Reference> {
        let Some((name, number)) = text.split_once('@') else {
            return ModelName::parse(text).map(Reference::Tag);
        };
        let name = name.to_ascii_lowercase();
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        match number.parse() {
            Ok(number) if digits && is_part(&name) => Ok(Reference::Number { name, number }),
            _ => Err(StoreError::BadName { text: text.to_string(), bytes_max: PART_BYTES_MAX }),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Reference::Tag(model) => model.name(),
            Reference::Number { name, .. } => name,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(model) => model.fmt(f),
            Reference::Number { name, number } => write!(f, "{name}@{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        let check = |text: &str, shown: &str| assert_eq!(ModelName::parse(text).unwrap().to_string(), shown);
        check("smollm2", "smollm2");
        check("smollm2:latest", "smollm2");
        check("SmolLM2:135M", "smollm2:135m");
        check("llama3.2:1b-q4_k_m", "llama3.2:1b-q4_k_m");
    }

    #[test]
    fn what_leads_out_of_the_folder_is_no_name() {
        let long = "a".repeat(101);
        for text in [
            "", "..", ".", "a:..", "../a", "a/b", "/a", "a:", ":a", "a:b:c", "a\0", "a b", ".partial", "ä",
            &long,
        ] {
            assert!(ModelName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_version_is_called_by_tag_or_number() {
        let check = |text: &str, shown: &str| assert_eq!(Reference::parse(text).unwrap().to_string(), shown);
        check("Digits@3", "digits@3");
        check("digits", "digits");
        check("digits:best", "digits:best");
        for text in ["digits@", "digits@x", "digits@+1", "a:b@1", "@1", "../a@1", "a@1@2"] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_name_becomes_a_name() {
        let check =
            |text: &str, shown: &str| assert_eq!(ModelName::from_any(text).unwrap().to_string(), shown);
        check("SmolLM2 135M (Q4)", "smollm2-135m--q4-");
        check("..hidden", "hidden");
        assert!(ModelName::from_any("...").is_err());
    }
}
