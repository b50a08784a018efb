//! A reader of JSON (RFC 8259) that hands out one value after the other, without building any.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use crate::json_depth::JSON_DEPTH_MAX;

/// Characters of what stood in a place where something else was expected.
const FOUND_CHARS_MAX: usize = 20;

/// What isn't as it must be, and at which byte of the body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at byte {at} of the body")]
pub struct JsonError {
    pub problem: String,
    pub at: usize,
}

/// A place in a body.
#[derive(Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// An error about what comes next.
    pub fn expected(&self, what: &str) -> JsonError {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let rest = String::from_utf8_lossy(&rest[..rest.len().min(4 * FOUND_CHARS_MAX)]);
        let found: String = rest.chars().take(FOUND_CHARS_MAX).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
        self.error(format!("expected {what}, received {found}"))
    }

    pub fn error(&self, problem: String) -> JsonError {
        JsonError { problem, at: self.at }
    }

    /// The next byte that is no space, which stays the next.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte @ (b' ' | b'\n' | b'\r' | b'\t')) = self.bytes.get(self.at) {
            debug_assert!(byte.is_ascii_whitespace());
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    /// Steps over `byte` where it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub fn demand(&mut self, byte: u8, what: &str) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(self.expected(what)) }
    }

    /// Nothing but space may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("the end")) }
    }

    /// Calls `each` at every value of an object, with its key; `each` must read the value.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut each: impl FnMut(&mut Reader<'a>, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.demand(b'{', "an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.peek();
            let key = self.string()?;
            self.demand(b':', "a colon")?;
            each(self, &key)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.demand(b',', "a comma or the end of the object")?;
        }
    }

    /// Calls `each` at every item of an array; `each` must read it.
    pub fn array<E: From<JsonError>>(
        &mut self,
        mut each: impl FnMut(&mut Reader<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.demand(b'[', "an array")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            if self.take(b']') {
                return Ok(());
            }
            self.demand(b',', "a comma or the end of the array")?;
        }
    }

    pub fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a string"));
        }
        let begin = self.at;
        self.skip_string()?;
        let quoted = &self.bytes[begin..self.at];
        let inner = &quoted[1..quoted.len() - 1];
        if !inner.contains(&b'\\') && inner.iter().all(|byte| *byte >= 0x20) {
            let text = std::str::from_utf8(inner);
            return text
                .map(Cow::Borrowed)
                .map_err(|_| JsonError { problem: "a string is not UTF-8".into(), at: begin });
        }
        serde_json::from_slice(quoted)
            .map(Cow::Owned)
            .map_err(|error| JsonError { problem: format!("a string is not JSON: {error}"), at: begin })
    }

    /// The next value as something small, by serde.
    pub fn small<T: DeserializeOwned>(&mut self, what: &str) -> Result<T, JsonError> {
        self.peek();
        let before = self.clone();
        let value = self.value()?;
        serde_json::from_slice(value).map_err(|_| before.expected(what))
    }

    /// The bytes of the next value, stepped over: brackets and strings are matched, what is between them isn't looked at.
    pub fn value(&mut self) -> Result<&'a [u8], JsonError> {
        let first = self.peek().ok_or_else(|| self.expected("a value"))?;
        let begin = self.at;
        match first {
            b'"' => self.skip_string()?,
            b'[' | b'{' => self.skip_nested()?,
            _ => {
                self.at +=
                    self.bytes[begin..].iter().take_while(|byte| !b",]} \n\r\t".contains(byte)).count();
                if self.at == begin {
                    return Err(self.expected("a value"));
                }
            }
        }
        Ok(&self.bytes[begin..self.at])
    }

    fn skip_nested(&mut self) -> Result<(), JsonError> {
        let mut open: [u8; JSON_DEPTH_MAX] = [0; JSON_DEPTH_MAX];
        let mut depth = 0;
        loop {
            match self.bytes.get(self.at) {
                None => return Err(self.expected("the end of an array or object")),
                Some(b'"') => {
                    self.skip_string()?;
                    continue;
                }
                Some(byte @ (b'[' | b'{')) => {
                    let place = open.get_mut(depth).ok_or_else(|| self.too_deep())?;
                    *place = byte + 2; // ']' and '}' stand two after their openings in ASCII
                    depth += 1;
                }
                Some(byte @ (b']' | b'}')) => {
                    depth -= 1;
                    if open[depth] != *byte {
                        return Err(self.expected("the end of an array or object"));
                    }
                    if depth == 0 {
                        self.at += 1;
                        return Ok(());
                    }
                }
                Some(_) => {}
            }
            self.at += 1;
        }
    }

    pub fn too_deep(&self) -> JsonError {
        self.error(format!("the body nests more than {JSON_DEPTH_MAX} levels of arrays and objects"))
    }

    fn skip_string(&mut self) -> Result<(), JsonError> {
        let begin = self.at;
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
        self.at = begin;
        Err(self.expected("a string with an end"))
    }

    /// The characters of a number or a word, stepped over.
    pub(super) fn token(&mut self) -> &'a [u8] {
        self.peek();
        let rest = &self.bytes[self.at..];
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    pub(super) fn back(&mut self, bytes: usize) {
        self.at -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_handed_out_as_they_come() {
        let mut reader =
            Reader::new(br#" {"a" : [1, [2]], "b\u0041": "x\"y", "c": {"d": true}, "e": -1.5} "#);
        let mut seen = Vec::new();
        let read = reader.object(|reader, key| {
            seen.push((key.to_owned(), String::from_utf8(reader.value()?.to_vec()).unwrap()));
            Ok::<(), JsonError>(())
        });
        read.unwrap();
        reader.end().unwrap();
        let expected = [("a", "[1, [2]]"), ("bA", r#""x\"y""#), ("c", r#"{"d": true}"#), ("e", "-1.5")];
        assert_eq!(seen, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let check = |json: &str, expected: &str| {
            let mut reader = Reader::new(json.as_bytes());
            let outcome = reader.object(|reader, _| reader.value().map(|_| ())).and_then(|()| reader.end());
            assert_eq!(
                outcome.map_or_else(|error| error.to_string(), |()| "ok".to_owned()),
                expected,
                "{json}"
            );
        };
        check("{}", "ok");
        check("", "expected an object, received the end, at byte 0 of the body");
        check("[1]", "expected an object, received \"[1]\", at byte 0 of the body");
        check(
            "{\"a\":1",
            "expected a comma or the end of the object, received the end, at byte 6 of the body",
        );
        check("{\"a\":[1}", "expected the end of an array or object, received \"}\", at byte 7 of the body");
        check("{\"a\":1}x", "expected the end, received \"x\", at byte 7 of the body");
        check("{\"a:1}", "expected a string with an end, received \"\\\"a:1}\", at byte 1 of the body");
        check("{\"a\":}", "expected a value, received \"}\", at byte 5 of the body");
        let deep = format!("{{\"a\":{}", "[".repeat(100));
        check(&deep, "the body nests more than 32 levels of arrays and objects, at byte 37 of the body");
    }
}
