//! JSON as callers may send it: few enough values that they fit in memory many times over, and no key twice, of which
//! parsers keep one in silence.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Values of all kinds. A number of one digit takes 2 bytes of a body, and 72 once it is parsed.
pub const VALUES_MAX: usize = 1 << 20;
/// Arrays and objects, whose own memory comes to some hundred bytes each.
pub const CONTAINERS_MAX: usize = 1 << 15;
/// Characters of a key that an error shows.
const KEY_CHARS_MAX: usize = 60;

/// Why a text was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Syntax(String),
    /// More than [`VALUES_MAX`].
    TooManyValues,
    /// More than [`CONTAINERS_MAX`].
    TooManyContainers,
    DuplicateKey(String),
}

/// What was parsed for one request so far: its body, and texts in it that are JSON themselves.
#[derive(Debug, Default)]
pub struct Counts {
    values: usize,
    containers: usize,
}

/// Parses until the end or until it is too much beside what `counts` has. Recurses: the depth is limited before.
pub fn parse(json: &[u8], counts: &mut Counts) -> Result<Value, Refused> {
    let state = RefCell::new(State { counts, refused: None });
    let mut parser = serde_json::Deserializer::from_slice(json);
    let parsed = Parse(&state).deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    parsed.map_err(|error| {
        let refused = state.borrow_mut().refused.take();
        refused.unwrap_or_else(|| Refused::Syntax(error.to_string()))
    })
}

struct State<'a> {
    counts: &'a mut Counts,
    /// Why the parser was stopped, which its own errors can't carry.
    refused: Option<Refused>,
}

#[derive(Clone, Copy)]
struct Parse<'a, 'b>(&'a RefCell<State<'b>>);

impl Parse<'_, '_> {
    fn refuse<E: Error>(self, refused: Refused) -> E {
        self.0.borrow_mut().refused = Some(refused);
        E::custom("refused")
    }

    fn count_value<E: Error>(self) -> Result<(), E> {
        self.0.borrow_mut().counts.values += 1;
        let values = self.0.borrow().counts.values;
        if values > VALUES_MAX { Err(self.refuse(Refused::TooManyValues)) } else { Ok(()) }
    }

    fn count_container<E: Error>(self) -> Result<(), E> {
        self.0.borrow_mut().counts.containers += 1;
        let containers = self.0.borrow().counts.containers;
        if containers > CONTAINERS_MAX { Err(self.refuse(Refused::TooManyContainers)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Parse<'_, '_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count_value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Parse<'_, '_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.count_container()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        self.count_container()?;
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(self.refuse(Refused::DuplicateKey(key.chars().take(KEY_CHARS_MAX).collect())));
            }
            let value = fields.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sorts of texts that the library's own tests and RFC 8259 show; what passes must be what the library makes of it.
    #[test]
    fn plain_json_is_what_the_library_makes_of_it() {
        let image = r#"{"Image": {"Width": 800, "Title": "View from 15th Floor", "Animated": false,
            "IDs": [116, 943, 234, 38793], "Latitude": 37.7668, "Longitude": -122.3959, "n": null, "e": [], "o": {}}}"#;
        for json in [
            image,
            "1e400",
            "18446744073709551615",
            "-9223372036854775808",
            "18446744073709551616",
            "\"\\u00e9\\n\"",
            "[1,]",
            "{\"a\" 1}",
            "",
            "1 2",
            "nul",
            "\"\\ud800\"",
            "-0",
            "1.5e-3",
            "[1]x",
        ] {
            let library: Result<Value, _> = serde_json::from_str(json);
            let library = library.map_err(|error| Refused::Syntax(error.to_string()));
            assert_eq!(parse(json.as_bytes(), &mut Counts::default()), library, "{json}");
        }
    }

    #[test]
    fn keys_stand_once_in_their_object() {
        let check = |json: &str, expected: Option<&str>| {
            let duplicate = expected.map(|key| Refused::DuplicateKey(key.to_owned()));
            assert_eq!(parse(json.as_bytes(), &mut Counts::default()).err(), duplicate, "{json}");
        };
        check(r#"{"a":1,"b":{"a":2},"c":[{"a":3}]}"#, None);
        check(r#"{"a":1,"a":1}"#, Some("a"));
        check(r#"{"a":1,"\u0061":2}"#, Some("a"));
        check(r#"[{"b":{"c":1,"d":2,"c":[[]]}}]"#, Some("c"));
    }

    #[test]
    fn values_and_containers_are_counted_while_they_are_parsed() {
        let list = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        let check = |json: String, expected: Option<Refused>| {
            assert_eq!(parse(json.as_bytes(), &mut Counts::default()).err(), expected)
        };
        check(list("1", VALUES_MAX - 1), None);
        check(list("1", VALUES_MAX), Some(Refused::TooManyValues));
        check(list("{}", CONTAINERS_MAX - 1), None);
        check(list("{}", CONTAINERS_MAX), Some(Refused::TooManyContainers));
        check(list("[]", CONTAINERS_MAX), Some(Refused::TooManyContainers));
        // Long before the end, which isn't JSON.
        check(format!("[{}", "{\"\":0},".repeat(CONTAINERS_MAX)), Some(Refused::TooManyContainers));
    }
}
