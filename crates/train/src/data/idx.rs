//! IDX files, in which MNIST is published: a header of sizes, then values, big-endian; also compressed with gzip.
//!
//! Source: the format's description beside the MNIST files.

use std::io::Read;
use std::path::Path;

use super::checked_len;
use crate::error::{Result, TrainError};
use crate::model::Array;

/// Reads the array of the file.
///
/// # Errors
/// When it isn't IDX, or has fewer or more values than its header says.
pub(super) fn read(path: &Path) -> Result<Array> {
    let file = path.display().to_string();
    let failed = |error: std::io::Error| TrainError::file(path, "read", &error);
    let opened = std::io::BufReader::new(crate::files::open(path).map_err(failed)?);
    match path.extension() {
        Some(ending) if ending == "gz" => parse(&file, flate2::read::MultiGzDecoder::new(opened)),
        _ => parse(&file, opened),
    }
}

fn parse(file: &str, mut from: impl Read) -> Result<Array> {
    let cut = |_| TrainError::data(file, "it ends before its header says");
    let mut magic = [0u8; 4];
    from.read_exact(&mut magic).map_err(cut)?;
    let [0, 0, kind, rank] = magic else {
        return Err(TrainError::data(file, "it isn't an IDX file, which begins with two zeros"));
    };
    let width = match kind {
        0x08 | 0x09 => 1,
        0x0b => 2,
        0x0c | 0x0d => 4,
        0x0e => 8,
        _ => {
            return Err(TrainError::data(
                file,
                format!("its values are of type {kind:#04x}, which IDX has not"),
            ));
        }
    };
    let mut shape = vec![];
    for _ in 0..rank {
        let mut size = [0u8; 4];
        from.read_exact(&mut size).map_err(cut)?;
        shape.push(u32::from_be_bytes(size) as usize);
    }
    if shape.is_empty() {
        return Err(TrainError::data(file, "it has no dimensions"));
    }
    let len = checked_len(file, &shape)?;
    let mut bytes = vec![];
    from.take((len * width) as u64 + 1).read_to_end(&mut bytes).map_err(cut)?;
    if bytes.len() != len * width {
        let found = if bytes.len() < len * width { "fewer" } else { "more" };
        return Err(TrainError::data(
            file,
            format!("it has {found} values than the {len} of its shape {shape:?}"),
        ));
    }
    let values = match kind {
        0x08 => bytes.iter().map(|&x| x as f32).collect(),
        0x09 => bytes.iter().map(|&x| x as i8 as f32).collect(),
        0x0b => bytes.as_chunks().0.iter().map(|x| i16::from_be_bytes(*x) as f32).collect(),
        0x0c => bytes.as_chunks().0.iter().map(|x| i32::from_be_bytes(*x) as f32).collect(),
        0x0d => bytes.as_chunks().0.iter().map(|x| f32::from_be_bytes(*x)).collect(),
        _ => bytes.as_chunks().0.iter().map(|x| f64::from_be_bytes(*x) as f32).collect(),
    };
    Array::new(shape, values)
}
