//! Lossless coding of weights: bytes fall into planes by what they are (`layout.rs`, `planes.rs`), and each plane is
//! kept as it is, or coded where that is smaller (`rans.rs`). The format is written down in `docs/chunks.md`.
//!
//! A frame says all that its decoder needs, its version first, and holds a hash of what comes out of it. Bytes of a
//! frame are taken to be hostile: nothing is allocated beyond what the caller says it expects.

mod layout;
mod planes;
mod rans;

use std::borrow::Cow;
use std::io::{Read, Write};

use xxhash_rust::xxh3::xxh3_64;

pub use layout::Layout;
use rans::Counts;

/// The version is part of it.
const MAGIC: [u8; 4] = *b"tnc\x01";
/// Magic, layout, what kind of frame, lead, length and hash of what is coded, hash of the base.
const HEADER_BYTES: usize = 4 + 1 + 1 + 2 + 8 + 8 + 8;
/// How a plane is kept, and its bytes in the frame.
const PLANE_HEADER_BYTES: usize = 1 + 4;
/// Most bytes that are coded in one frame.
pub const RAW_BYTES_MAX: usize = 64 << 20;

/// A plane is coded only where that makes it at least so much smaller: decoding costs time.
const WORTH: f64 = 0.97;
/// What deflate is tried on before all is given to it.
const SAMPLE_BYTES: usize = 64 << 10;

const RAW: u8 = 0;
const CONSTANT: u8 = 1;
const RANS: u8 = 2;
const DEFLATE: u8 = 3;

/// Why a frame isn't decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("it doesn't begin as coded chunks do")]
    NotCoded,
    #[error("it is of version {0} of the coding, and this tureen reads version 1: use a newer tureen")]
    Newer(u8),
    #[error("it is cut short or changed: {0}")]
    Broken(&'static str),
    #[error("{came} bytes are in it, and at most {expected} are expected")]
    TooLarge { expected: u64, came: u64 },
    #[error("it is a difference from a chunk that was not given, or from another one")]
    OtherBase,
    #[error("what comes out of it isn't what was put in: it was changed")]
    OtherContent,
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub layout: Layout,
    /// Whether it is a difference from another chunk.
    pub has_base: bool,
    /// Bytes before the first whole record.
    pub lead: usize,
    pub raw_bytes: u64,
    raw_hash: u64,
    base_hash: u64,
}

/// Codes `raw`, whose first whole record begins at `lead`. Where `base`, of the same length, helps, the frame is a
/// difference from it, which [`header`] tells.
///
/// The frame is never more than some hundred bytes longer than `raw`.
///
/// # Panics
/// More than [`RAW_BYTES_MAX`] bytes; a base of another length; a lead of a record or more.
pub fn encode(raw: &[u8], layout: Layout, lead: usize, base: Option<&[u8]>) -> Vec<u8> {
    assert!(raw.len() <= RAW_BYTES_MAX && base.is_none_or(|base| base.len() == raw.len()));
    assert!(lead < layout.stride());
    let inner = records(raw.len(), layout, lead);
    let mut planes = counted(planes::split(&raw[inner.clone()], layout, None));
    let mut base = base;
    if let Some(parent) = base {
        let differences = counted(planes::split(&raw[inner.clone()], layout, Some(&parent[inner.clone()])));
        if estimate(&differences) < estimate(&planes) {
            planes = differences;
        } else {
            base = None;
        }
    }
    let mut frame = Vec::with_capacity(HEADER_BYTES + raw.len() / 2);
    frame.extend(MAGIC);
    frame.extend([layout.number(), u8::from(base.is_some())]);
    frame.extend((lead as u16).to_le_bytes());
    frame.extend((raw.len() as u64).to_le_bytes());
    frame.extend(xxh3_64(raw).to_le_bytes());
    frame.extend(base.map_or(0, xxh3_64).to_le_bytes());
    for (plane, counts) in &planes {
        put_plane(plane, counts, layout == Layout::Bytes && base.is_none(), &mut frame);
    }
    frame.extend(&raw[..inner.start]);
    frame.extend(&raw[inner.end..]);
    frame
}

/// The layout that suits bytes of which nothing is known, and where its first record begins: weights lie in files of
/// many formats. A part of the bytes is looked at.
pub fn guess(raw: &[u8]) -> (Layout, usize) {
    // From the middle, since a header may stand in front; at a multiple of 4 so that the lead is that of the whole.
    let start = (raw.len().saturating_sub(SAMPLE_BYTES) / 2).next_multiple_of(4).min(raw.len());
    let sample = &raw[start..(start + SAMPLE_BYTES).min(raw.len())];
    let bytes_of = |layout: Layout, lead: usize| {
        let inner = records(sample.len(), layout, lead);
        estimate(&counted(planes::split(&sample[inner], layout, None)))
    };
    let candidates = [(Layout::Words32, 0), (Layout::Words32, 1), (Layout::Words32, 2), (Layout::Words32, 3)];
    let candidates = candidates.into_iter().chain([(Layout::Words16, 0), (Layout::Words16, 1)]);
    let best =
        candidates.map(|(layout, lead)| (bytes_of(layout, lead), layout, lead)).min_by_key(|best| best.0);
    // Texts have some order too, in which deflate finds more.
    let worth = (bytes_of(Layout::Bytes, 0) as f64 * WORTH) as usize;
    match best {
        Some((bytes, layout, lead)) if bytes < worth && lead < raw.len() => (layout, lead),
        _ => (Layout::Bytes, 0),
    }
}

/// What a frame is, of which the first bytes are enough.
///
/// # Errors
/// It is none, or one of a later version.
pub fn header(frame: &[u8]) -> Result<Header, CodecError> {
    let header = frame.first_chunk::<HEADER_BYTES>().ok_or(CodecError::NotCoded)?;
    if header[..3] != MAGIC[..3] {
        return Err(CodecError::NotCoded);
    }
    if header[3] != MAGIC[3] {
        return Err(CodecError::Newer(header[3]));
    }
    let layout = Layout::from_number(header[4]).ok_or(CodecError::Broken("an unknown layout"))?;
    let has_base = match header[5] {
        0 => false,
        1 => true,
        _ => return Err(CodecError::Broken("an unknown kind of frame")),
    };
    let number = |at: usize| {
        let bytes = header[at..].first_chunk();
        u64::from_le_bytes(bytes.copied().unwrap_or_default())
    };
    let lead = usize::from(header[6]) | usize::from(header[7]) << 8;
    if lead >= layout.stride() {
        return Err(CodecError::Broken("a lead longer than a record"));
    }
    let (raw_bytes, raw_hash, base_hash) = (number(8), number(16), number(24));
    Ok(Header { layout, has_base, lead, raw_bytes, raw_hash, base_hash })
}

/// What was coded, of `raw_bytes_max` bytes at most. `base` is asked for where [`header`] says so.
///
/// # Errors
/// The frame is not what [`encode`] wrote, or too large, or a difference from something else.
pub fn decode(frame: &[u8], base: Option<&[u8]>, raw_bytes_max: usize) -> Result<Vec<u8>, CodecError> {
    let header = header(frame)?;
    let raw_bytes_max = raw_bytes_max.min(RAW_BYTES_MAX);
    let raw_bytes = usize::try_from(header.raw_bytes).unwrap_or(usize::MAX);
    if raw_bytes > raw_bytes_max {
        return Err(CodecError::TooLarge { expected: raw_bytes_max as u64, came: header.raw_bytes });
    }
    let base = base.filter(|_| header.has_base);
    if header.has_base && base.is_none_or(|base| base.len() != raw_bytes || xxh3_64(base) != header.base_hash)
    {
        return Err(CodecError::OtherBase);
    }
    let inner = records(raw_bytes, header.layout, header.lead);
    let count = inner.len() / header.layout.stride();
    let mut rest = &frame[HEADER_BYTES..];
    let mut planes = Vec::new();
    for field in header.layout.fields() {
        let (_, width) = field.place();
        for _ in 0..field.planes() {
            planes.push(take_plane(&mut rest, count * width / field.planes())?);
        }
    }
    if rest.len() != raw_bytes - inner.len() {
        return Err(CodecError::Broken("bytes that belong to nothing"));
    }
    let mut raw = vec![0; raw_bytes];
    let (before, after) = rest.split_at(inner.start);
    raw[..inner.start].copy_from_slice(before);
    raw[inner.end..].copy_from_slice(after);
    let base = base.map(|base| &base[inner.clone()]);
    planes::merge(&planes, header.layout, base, &mut raw[inner]);
    if xxh3_64(&raw) != header.raw_hash {
        return Err(CodecError::OtherContent);
    }
    Ok(raw)
}

/// The whole records among `bytes` that begin with `lead` others.
fn records(bytes: usize, layout: Layout, lead: usize) -> std::ops::Range<usize> {
    let start = lead.min(bytes);
    let count = (bytes - start) / layout.stride();
    start..start + count * layout.stride()
}

fn counted(planes: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Counts)> {
    planes
        .into_iter()
        .map(|plane| (Counts::of(&plane), plane))
        .map(|(counts, plane)| (plane, counts))
        .collect()
}

/// Bytes that planes will take, or nearly so.
fn estimate(planes: &[(Vec<u8>, Counts)]) -> usize {
    planes.iter().map(|(plane, counts)| counts.coded_bytes().min(plane.len())).sum()
}

/// Appends a plane as it is smallest.
fn put_plane(plane: &[u8], counts: &Counts, is_text: bool, frame: &mut Vec<u8>) {
    let start = frame.len();
    frame.extend([0; PLANE_HEADER_BYTES]);
    let worth = (plane.len() as f64 * WORTH) as usize;
    let mut kind = RAW;
    if let Some(only) = counts.only() {
        frame.push(only);
        kind = CONSTANT;
    } else if is_text
        && counts.coded_bytes() < worth
        && let Some(deflated) = deflate(plane, worth.min(counts.coded_bytes()))
    {
        frame.extend(deflated);
        kind = DEFLATE;
    } else if counts.coded_bytes() < worth {
        rans::encode(plane, counts, frame);
        kind = RANS;
    }
    // Rounded frequencies may cost what was to be saved.
    if kind != RAW && frame.len() - start - PLANE_HEADER_BYTES > plane.len() {
        frame.truncate(start + PLANE_HEADER_BYTES);
        kind = RAW;
    }
    if kind == RAW {
        frame.extend(plane);
    }
    let bytes = (frame.len() - start - PLANE_HEADER_BYTES) as u32;
    frame[start] = kind;
    frame[start + 1..start + PLANE_HEADER_BYTES].copy_from_slice(&bytes.to_le_bytes());
}

fn take_plane<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<Cow<'a, [u8]>, CodecError> {
    let cut_short = CodecError::Broken("a plane cut short");
    let ([kind, length @ ..], after) = rest.split_first_chunk::<PLANE_HEADER_BYTES>().ok_or(cut_short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (coded, after) = after.split_at_checked(length).ok_or(cut_short)?;
    *rest = after;
    match *kind {
        RAW if coded.len() == bytes => Ok(Cow::Borrowed(coded)),
        CONSTANT if let [only] = coded => Ok(Cow::Owned(vec![*only; bytes])),
        RANS => {
            let mut plane = vec![0; bytes];
            rans::decode(coded, &mut plane)?;
            Ok(Cow::Owned(plane))
        }
        DEFLATE => {
            let mut plane = Vec::with_capacity(bytes);
            // One more than is expected would show that there are more.
            let decoder = flate2::read::DeflateDecoder::new(coded).take(bytes as u64 + 1);
            let read = { decoder }.read_to_end(&mut plane);
            match read {
                Ok(count) if count == bytes => Ok(Cow::Owned(plane)),
                _ => Err(CodecError::Broken("deflated bytes")),
            }
        }
        _ => Err(CodecError::Broken("a plane of unknown kind or wrong length")),
    }
}

/// Deflated bytes where they are fewer than `bytes_max`.
fn deflate(plane: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let deflated = |bytes: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        // Writing to memory doesn't fail.
        encoder.write_all(bytes).and_then(|()| encoder.finish()).ok()
    };
    let sample = &plane[..plane.len().min(SAMPLE_BYTES)];
    let sampled = deflated(sample)?.len() as f64;
    if sampled > sample.len() as f64 * WORTH {
        return None;
    }
    deflated(plane).filter(|deflated| deflated.len() < bytes_max)
}

#[cfg(test)]
mod tests;
