//! Typed reading of a JSON object, with errors that name the key. A key that is `null` counts as missing.

use serde_json::{Map, Value};

use crate::error::FormatError;

/// Numbers that one list may have.
const LIST_MAX: usize = 1 << 16;

/// An object of `config.json`, and what to call it in messages.
#[derive(Clone, Copy)]
pub(super) struct Section<'c> {
    object: &'c Map<String, Value>,
    name: &'c str,
}

impl<'c> Section<'c> {
    pub fn new(object: &'c Map<String, Value>, name: &'c str) -> Section<'c> {
        Section { object, name }
    }

    /// Whether the key is there at all, `null` included.
    pub fn mentions(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    pub fn get(&self, key: &str) -> Option<&'c Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'c Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.invalid(key, describe(value), expected))
    }

    pub fn size(&self, key: &str) -> Result<Option<usize>, FormatError> {
        self.typed(key, "a whole number that is not negative", |value| usize::try_from(value.as_u64()?).ok())
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>, FormatError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub fn text(&self, key: &str) -> Result<Option<&'c str>, FormatError> {
        self.typed(key, "a text", Value::as_str)
    }

    pub fn list(&self, key: &str) -> Result<Option<&'c [Value]>, FormatError> {
        self.typed(key, "a list of at most 65536 entries", |value| {
            value.as_array().map(Vec::as_slice).filter(|list| list.len() <= LIST_MAX)
        })
    }

    pub fn object(&self, key: &str) -> Result<Option<&'c Map<String, Value>>, FormatError> {
        self.typed(key, "an object", Value::as_object)
    }

    pub fn required_size(&self, key: &str) -> Result<usize, FormatError> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    pub fn required_float(&self, key: &str) -> Result<f64, FormatError> {
        self.float(key)?.ok_or_else(|| self.missing(key))
    }

    pub fn required_floats(&self, key: &str) -> Result<Vec<f32>, FormatError> {
        let list = self.list(key)?.ok_or_else(|| self.missing(key))?;
        let numbers: Option<Vec<f32>> = list.iter().map(|value| value.as_f64().map(|x| x as f32)).collect();
        numbers.ok_or_else(|| self.invalid(key, "a list with something else".to_owned(), "a list of numbers"))
    }

    /// # Errors
    /// When the key is there with any value but `null`, `false`, 0 or an empty list.
    pub fn refuse(&self, key: &str) -> Result<(), FormatError> {
        let neutral = |value: &Value| {
            value == &Value::Bool(false)
                || value.as_f64() == Some(0.0)
                || value.as_array().is_some_and(|list| list.is_empty())
        };
        match self.get(key) {
            Some(value) if !neutral(value) => Err(self.unsupported(key, describe(value), "leaving it out")),
            _ => Ok(()),
        }
    }

    pub fn unsupported(&self, key: &str, found: String, supported: &str) -> FormatError {
        FormatError::Unsupported {
            what: format!("{key} in {}", self.name),
            found,
            supported: supported.to_owned(),
        }
    }

    pub fn invalid(&self, key: &str, found: String, expected: &str) -> FormatError {
        FormatError::Invalid { what: format!("{key} in {}", self.name), found, expected: expected.to_owned() }
    }

    fn missing(&self, key: &str) -> FormatError {
        FormatError::Missing {
            what: format!("{key} in {}", self.name),
            needed_for: "the model cannot be described without it".to_owned(),
        }
    }
}

/// For messages: short, whatever the file holds.
fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(object) => format!("an object of {} entries", object.len()),
        plain => plain.to_string(),
    }
}
