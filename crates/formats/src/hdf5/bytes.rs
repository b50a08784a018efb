//! Numbers at untrusted addresses; every one is checked before use.

use super::malformed;
use crate::error::FormatError;

/// An address that says that there is nothing.
pub(super) const UNDEFINED: u64 = u64::MAX;

/// The whole of a file.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// `count` bytes at `address`.
    pub fn at(&self, address: u64, count: u64, what: &str) -> Result<&'a [u8], FormatError> {
        let end = address.checked_add(count).filter(|&end| end <= self.len());
        let Some(end) = end else {
            return Err(malformed(format!(
                "{what} has {count} bytes at {address}, and the file ends at {}",
                self.len()
            )));
        };
        Ok(&self.0[address as usize..end as usize])
    }

    /// Reads on from `address`.
    pub fn cursor(&self, address: u64, what: &'static str) -> Result<Cursor<'a>, FormatError> {
        let rest = self.len().saturating_sub(address);
        Ok(Cursor { rest: self.at(address, rest, what)?, what })
    }
}

/// Reads little-endian numbers one after the other.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    pub rest: &'a [u8],
    /// What is read, for errors.
    pub what: &'static str,
}

impl<'a> Cursor<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(malformed(format!("{} ends early", self.what)));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A number of `width` bytes, at most 8.
    pub fn number(&mut self, width: usize) -> Result<u64, FormatError> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(self.number(2)? as u16)
    }

    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(self.number(4)? as u32)
    }

    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.number(8)
    }

    /// That `expected` follows.
    pub fn expect(&mut self, expected: &[u8]) -> Result<(), FormatError> {
        let found = self.take(expected.len())?;
        if found == expected {
            return Ok(());
        }
        Err(malformed(format!(
            "{} begins with {:?}, not {:?}",
            self.what,
            String::from_utf8_lossy(found),
            String::from_utf8_lossy(expected)
        )))
    }
}
