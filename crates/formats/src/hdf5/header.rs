//! Object headers: their messages, and what those of a data set say.

use super::bytes::{Bytes, Cursor, UNDEFINED};
use super::{DIMENSIONS_MAX, chunks, limit, malformed, unsupported};
use crate::error::FormatError;

/// Blocks that a header is continued in.
const BLOCKS_MAX: usize = 256;
const MESSAGES_MAX: usize = 16_384;
const FILTERS_MAX: usize = 8;

/// A message of an object header.
pub(super) struct Message<'a> {
    pub kind: u16,
    flags: u8,
    pub data: &'a [u8],
}

// Kinds of messages (IV.A.2).
const DATASPACE: u16 = 0x1;
pub(super) const LINK_INFO: u16 = 0x2;
const DATATYPE: u16 = 0x3;
pub(super) const LINK: u16 = 0x6;
const LAYOUT: u16 = 0x8;
const FILTERS: u16 = 0xb;
const CONTINUATION: u16 = 0x10;
pub(super) const SYMBOL_TABLE: u16 = 0x11;

impl<'a> Message<'a> {
    pub fn cursor(&self, what: &'static str) -> Cursor<'a> {
        Cursor { rest: self.data, what }
    }
}

/// The messages of the object whose header is at `address`.
pub(super) fn messages<'a>(file: &Bytes<'a>, address: u64) -> Result<Vec<Message<'a>>, FormatError> {
    let mut cursor = file.cursor(address, "an object header")?;
    let second = cursor.rest.starts_with(b"OHDR");
    let mut flags = 0;
    let size = if second {
        cursor.expect(b"OHDR")?;
        version(cursor.u8()?, &[2], "an object header")?;
        flags = cursor.u8()?;
        cursor.take(if flags & 0x20 != 0 { 16 } else { 0 })?;
        cursor.take(if flags & 0x10 != 0 { 4 } else { 0 })?;
        cursor.number(1 << (flags & 3))?
    } else {
        version(cursor.u8()?, &[1], "an object header")?;
        // reserved, the number of messages, how often it is linked to
        cursor.take(7)?;
        let size = u64::from(cursor.u32()?);
        cursor.take(4)?;
        size
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut blocks = vec![Cursor { rest: cursor.take(size)?, what: "an object header" }];
    let mut messages = vec![];
    let mut read = 0;
    while let Some(mut block) = blocks.pop() {
        read += 1;
        limit("the number of blocks of an object header", read, BLOCKS_MAX as u64)?;
        while block.rest.len() >= if second { 4 } else { 8 } {
            let message = message(&mut block, second, flags)?;
            if message.kind == CONTINUATION {
                let mut at = message.cursor("a continuation");
                let (address, size) = (at.u64()?, at.u64()?);
                let mut next =
                    Cursor { rest: file.at(address, size, "a continuation")?, what: "a continuation" };
                if second {
                    next.expect(b"OCHK")?;
                    // less the checksum at its end
                    let size = next.rest.len().saturating_sub(4);
                    next.rest = &next.rest[..size];
                }
                blocks.push(next);
            }
            messages.push(message);
            limit("the number of messages of an object header", messages.len() as u64, MESSAGES_MAX as u64)?;
        }
    }
    Ok(messages)
}

fn message<'a>(block: &mut Cursor<'a>, second: bool, header: u8) -> Result<Message<'a>, FormatError> {
    let kind = if second { u16::from(block.u8()?) } else { block.u16()? };
    let size = block.u16()?;
    let flags = block.u8()?;
    block.take(match (second, header & 4 != 0) {
        (false, _) => 3,
        (true, true) => 2,
        (true, false) => 0,
    })?;
    Ok(Message { kind, flags, data: block.take(size.into())? })
}

pub(super) fn version(found: u8, known: &[u8], what: &str) -> Result<(), FormatError> {
    if known.contains(&found) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(u8::to_string).collect();
    Err(unsupported(format!("the version of {what}"), found.to_string(), &known.join(", ")))
}

/// A type of numbers, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// With its bytes: 1, 2, 4 or 8.
    Signed(usize),
    Unsigned(usize),
    /// IEEE, of 2, 4 or 8 bytes.
    Float(usize),
}

impl Number {
    pub fn bytes(self) -> usize {
        match self {
            Number::Signed(bytes) | Number::Unsigned(bytes) | Number::Float(bytes) => bytes,
        }
    }

    /// Of as many bytes as it has.
    pub(super) fn value(self, bytes: &[u8]) -> f64 {
        let bits = bytes.iter().rev().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
        match self {
            Number::Unsigned(_) => bits as f64,
            Number::Signed(width) => {
                let above = 64 - 8 * width as u32;
                ((bits << above) as i64 >> above) as f64
            }
            Number::Float(2) => half(bits as u16),
            Number::Float(4) => f32::from_bits(bits as u32).into(),
            Number::Float(_) => f64::from_bits(bits),
        }
    }
}

/// IEEE 754's binary16.
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let size = match bits >> 10 & 0x1f {
        0 => fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(exponent) - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// How a data set's bytes are stored.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    Contiguous {
        address: u64,
        bytes: u64,
    },
    Compact(Vec<u8>),
    Chunked(chunks::Chunked),
    /// Stored in a way that isn't read; which.
    Other(String),
}

impl Layout {
    /// The data set's bytes.
    pub fn data(
        &self,
        file: &Bytes<'_>,
        shape: &[usize],
        element: usize,
        bytes: usize,
    ) -> Result<Vec<u8>, FormatError> {
        let stored = match self {
            Layout::Contiguous { address: UNDEFINED, .. } => return Err(malformed("a data set has no data")),
            Layout::Contiguous { address, bytes } => file.at(*address, *bytes, "a data set")?,
            Layout::Compact(data) => data,
            Layout::Chunked(chunked) => return chunked.data(file, shape, element, bytes),
            Layout::Other(how) => {
                let supported = "compact, contiguous, chunks under a version 1 B-tree";
                return Err(unsupported("the layout of a data set", how.clone(), supported));
            }
        };
        let whole = stored.get(..bytes).ok_or_else(|| {
            malformed(format!("a data set has {} bytes, and its shape says {bytes}", stored.len()))
        })?;
        Ok(whole.to_vec())
    }
}

/// Shape, type of numbers if it is one, and layout.
pub(super) type Described = (Vec<usize>, Option<Number>, Layout);

/// What the messages say of a data set, if they are of one.
pub(super) fn dataset(messages: &[Message<'_>]) -> Result<Option<Described>, FormatError> {
    let find = |kind: u16| messages.iter().find(|message| message.kind == kind);
    let (Some(space), Some(kind), Some(layout)) = (find(DATASPACE), find(DATATYPE), find(LAYOUT)) else {
        return Ok(None);
    };
    // A shared message is elsewhere.
    let shared = |message: &Message<'_>| message.flags & 2 != 0;
    let number = if shared(kind) { None } else { number(kind.cursor("a data type"))? };
    if shared(space) || shared(layout) {
        return Err(unsupported("a shape or layout", "shared with others", "one of its own"));
    }
    let filters = find(FILTERS).map(|filters| pipeline(filters.cursor("filters"))).transpose()?;
    let layout = self::layout(layout.cursor("a layout"), filters.unwrap_or(Ok(vec![])))?;
    Ok(Some((shape(space.cursor("a shape"))?, number, layout)))
}

fn shape(mut cursor: Cursor<'_>) -> Result<Vec<usize>, FormatError> {
    let version = cursor.u8()?;
    self::version(version, &[1, 2], "a shape")?;
    let rank = usize::from(cursor.u8()?);
    limit("the number of dimensions", rank as u64, DIMENSIONS_MAX as u64)?;
    // flags, then what is reserved; or the kind, of which 2 is empty
    cursor.take(1)?;
    let rest = cursor.take(if version == 1 { 5 } else { 1 })?;
    if version == 2 && rest[0] == 2 {
        return Ok(vec![0]);
    }
    (0..rank).map(|_| Ok(usize::try_from(cursor.u64()?).unwrap_or(usize::MAX))).collect()
}

fn number(mut cursor: Cursor<'_>) -> Result<Option<Number>, FormatError> {
    let class = cursor.u8()? & 0xf;
    let bits = cursor.number(3)?;
    let size = cursor.u32()? as usize;
    let big_endian = bits & 1 != 0;
    Ok(match (class, size) {
        _ if big_endian => None,
        (0, 1 | 2 | 4 | 8) => {
            // All bits count, from the first on.
            let whole = cursor.u16()? == 0 && usize::from(cursor.u16()?) == 8 * size;
            let number = if bits & 8 != 0 { Number::Signed(size) } else { Number::Unsigned(size) };
            whole.then_some(number)
        }
        (1, 2 | 4 | 8) => {
            // offset, precision, exponent's and fraction's places and sizes, bias
            let (exponent, fraction, bias) = match size {
                2 => (5, 10, 15),
                4 => (8, 23, 127),
                _ => (11, 52, 1023),
            };
            let ieee = cursor.u16()? == 0
                && usize::from(cursor.u16()?) == 8 * size
                && cursor.take(4)? == [fraction, exponent, 0, fraction]
                && cursor.u32()? == bias;
            ieee.then_some(Number::Float(size))
        }
        _ => None,
    })
}

/// A filter that isn't known is an error only for who reads the data.
fn pipeline(mut cursor: Cursor<'_>) -> Result<Result<Vec<chunks::Filter>, String>, FormatError> {
    let version = cursor.u8()?;
    self::version(version, &[1, 2], "filters")?;
    let count = usize::from(cursor.u8()?);
    limit("the number of filters", count as u64, FILTERS_MAX as u64)?;
    cursor.take(if version == 1 { 6 } else { 0 })?;
    let mut filters = vec![];
    for _ in 0..count {
        let id = cursor.u16()?;
        let name = if version == 1 || id >= 256 { usize::from(cursor.u16()?) } else { 0 };
        cursor.take(2)?;
        let values = usize::from(cursor.u16()?);
        cursor.take(if version == 1 { name.next_multiple_of(8) } else { name })?;
        cursor.take(4 * values + if version == 1 && values % 2 == 1 { 4 } else { 0 })?;
        match id {
            1 => filters.push(chunks::Filter::Deflate),
            2 => filters.push(chunks::Filter::Shuffle),
            other => return Ok(Err(format!("the filter number {other}"))),
        }
    }
    Ok(Ok(filters))
}

fn layout(
    mut cursor: Cursor<'_>,
    filters: Result<Vec<chunks::Filter>, String>,
) -> Result<Layout, FormatError> {
    let version = cursor.u8()?;
    if version != 3 && version != 4 {
        return Ok(Layout::Other(format!("of version {version}")));
    }
    Ok(match (cursor.u8()?, version) {
        (0, _) => {
            let size = usize::from(cursor.u16()?);
            Layout::Compact(cursor.take(size)?.to_vec())
        }
        (1, _) => Layout::Contiguous { address: cursor.u64()?, bytes: cursor.u64()? },
        (2, 3) => {
            // The last size is that of an element.
            let rank = usize::from(cursor.u8()?);
            limit("the number of dimensions of a chunk", rank as u64, 1 + DIMENSIONS_MAX as u64)?;
            let address = cursor.u64()?;
            let sizes = (0..rank).map(|_| Ok(cursor.u32()? as usize)).collect::<Result<_, FormatError>>()?;
            match filters {
                Ok(filters) => Layout::Chunked(chunks::Chunked { address, sizes, filters }),
                Err(filter) => Layout::Other(filter),
            }
        }
        (class, _) => Layout::Other(format!("number {class} of version {version}")),
    })
}
