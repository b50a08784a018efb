//! Takes a JSON object apart field by field, so that every field is either understood, known to be ignorable, or
//! refused by name. `null` is the same as absent.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::shorten::shorten;

/// The fields of one object that nobody has taken yet.
pub struct Fields {
    map: Map<String, Value>,
    /// Where the object stands in the body: empty, or as `messages[2].`.
    at: String,
}

impl Fields {
    /// The body's own.
    pub fn new(map: Map<String, Value>) -> Fields {
        Fields { map, at: String::new() }
    }

    /// Those of `value`, which stands at `path` and must be an object.
    pub fn of(value: Value, path: &str) -> Result<Fields, ApiError> {
        match value {
            Value::Object(map) => Ok(Fields { map, at: format!("{path}.") }),
            other => Err(wrong(path, "an object", &other)),
        }
    }

    /// The path of a field, for errors.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.swap_remove(name).filter(|value| !value.is_null())
    }

    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", &other)),
        }
    }

    pub fn required_string(&mut self, name: &str) -> Result<String, ApiError> {
        self.string(name)?.ok_or_else(|| ApiError::missing(&self.path(name)))
    }

    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(&self.path(name), "true or false", &other)),
        }
    }

    pub fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(wrong(&self.path(name), "an array", &other)),
        }
    }

    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number as f32)),
            None => {
                let expected = format!("a number from {} to {}", range.start(), range.end());
                Err(wrong(&self.path(name), &expected, &value))
            }
        }
    }

    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_i64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let expected = match range.end() {
                    &i64::MAX => format!("an integer of {} or more", range.start()),
                    end => format!("an integer from {} to {end}", range.start()),
                };
                Err(wrong(&self.path(name), &expected, &value))
            }
        }
    }

    /// An integer from `min` that counts something.
    pub fn count(&mut self, name: &str, min: i64, max: i64) -> Result<Option<usize>, ApiError> {
        Ok(self.integer(name, min..=max)?.map(|number| number.max(0) as usize))
    }

    /// Drops fields that make no difference here.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.map.swap_remove(*name);
        }
    }

    /// Refuses a field that would change the meaning, unless its value `is_neutral`.
    pub fn refuse(&mut self, name: &str, is_neutral: impl Fn(&Value) -> bool) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !is_neutral(&value) => Err(ApiError::unsupported(&self.path(name))),
            _ => Ok(()),
        }
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(ApiError::unknown(&shorten(&self.path(name)))),
            None => Ok(()),
        }
    }
}

/// The error for a value that isn't what it should be.
pub fn wrong(path: &str, expected: &str, received: &Value) -> ApiError {
    let received = match received {
        Value::Array(values) => format!("an array of {}", values.len()),
        Value::Object(map) => format!("an object of {} fields", map.len()),
        plain => shorten(&plain.to_string()),
    };
    ApiError::invalid(path, format!("`{path}` must be {expected}; received {received}"))
}
