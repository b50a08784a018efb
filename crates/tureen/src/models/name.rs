//! Names of models: `smollm2:135m`. They become folders, so nothing that leads out of the models folder is a name.

use std::fmt;

use anyhow::bail;

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
    pub fn parse(text: &str) -> anyhow::Result<ModelName> {
        let lower = text.to_ascii_lowercase();
        let (name, tag) = lower.split_once(':').unwrap_or((&lower, DEFAULT_TAG));
        for part in [name, tag] {
            let fits = part.len() <= PART_BYTES_MAX
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            if !fits {
                bail!(
                    "{text:?} is no name for a model: NAME or NAME:TAG is, of letters, digits, `.`, `-` and `_`, \
                     {PART_BYTES_MAX} at most, beginning with a letter or digit"
                );
            }
        }
        Ok(ModelName { name: name.to_string(), tag: tag.to_string() })
    }

    /// A name made of `text`, whatever it holds: what may not stand in a name becomes `-`.
    pub fn from_any(text: &str) -> anyhow::Result<ModelName> {
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
    fn a_file_name_becomes_a_name() {
        let check =
            |text: &str, shown: &str| assert_eq!(ModelName::from_any(text).unwrap().to_string(), shown);
        check("SmolLM2 135M (Q4)", "smollm2-135m--q4-");
        check("..hidden", "hidden");
        assert!(ModelName::from_any("...").is_err());
    }
}
