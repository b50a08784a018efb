//! Reads little-endian numbers and strings from untrusted bytes; every length is checked before use.

use super::malformed;
use crate::error::FormatError;

/// Bytes that one string may have; the longest published ones are whole `tokenizer.json` files.
pub const STRING_BYTES_MAX: u64 = 1 << 28;

/// A position in untrusted bytes.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, position: 0 }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The bytes from `start`, an earlier position, to here.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.position]
    }

    /// The next `count` bytes; `what` is named where fewer remain.
    pub fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], FormatError> {
        if count > self.remaining() {
            return Err(malformed(format!(
                "the file ends within {what}: {count} bytes are needed at offset {}, {} remain",
                self.position,
                self.remaining()
            )));
        }
        let start = self.position;
        self.position += count;
        Ok(self.since(start))
    }

    fn number<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N, what)?);
        Ok(number)
    }

    pub fn u8(&mut self, what: &str) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.number(what)?))
    }

    pub fn u16(&mut self, what: &str) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.number(what)?))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.number(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.number(what)?))
    }

    /// A count of entries that take at least `entry_bytes_min` bytes each: at most `limit`, and no more than the
    /// remaining bytes can hold, so that memory may be reserved for it.
    pub fn count(&mut self, what: &str, limit: u64, entry_bytes_min: usize) -> Result<usize, FormatError> {
        let count = self.u64(what)?;
        if count > limit {
            return Err(FormatError::TooLarge { format: "GGUF", what: what.to_owned(), found: count, limit });
        }
        let room = (self.remaining() / entry_bytes_min) as u64;
        if count > room {
            return Err(malformed(format!(
                "{what} is {count}, and the {} bytes that remain can hold {room} at most",
                self.remaining()
            )));
        }
        Ok(count as usize)
    }

    /// A length and that many bytes of UTF-8.
    pub fn string(&mut self, what: &str) -> Result<&'a str, FormatError> {
        let start = self.position;
        let length = self.count(what, STRING_BYTES_MAX, 1)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes)
            .map_err(|error| malformed(format!("{what} at offset {start} is not UTF-8: {error}")))
    }
}
