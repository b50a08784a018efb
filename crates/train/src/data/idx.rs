//! IDX files, in which MNIST is published: a header of sizes, then values, big-endian; also compressed with gzip.
//!
//! Source: the format's description beside the MNIST files.

use std::io::Read;
use std::path::Path;

use super::arrays::ArrayFile;
use crate::error::{Result, TrainError};

/// Opens the array of the file.
///
/// # Errors
/// When it isn't IDX.
pub(super) fn open(path: &Path) -> Result<ArrayFile<'static>> {
    let file = path.display().to_string();
    let failed = |error: std::io::Error| TrainError::file(path, "read", &error);
    let opened = std::io::BufReader::new(crate::files::open(path).map_err(failed)?);
    match path.extension() {
        Some(ending) if ending == "gz" => parse(&file, flate2::read::MultiGzDecoder::new(opened)),
        _ => parse(&file, opened),
    }
}

fn parse(file: &str, mut from: impl Read + 'static) -> Result<ArrayFile<'static>> {
    let cut = |_| TrainError::data(file, "it ends before its header says");
    let mut magic = [0u8; 4];
    from.read_exact(&mut magic).map_err(cut)?;
    let [0, 0, kind, rank] = magic else {
        return Err(TrainError::data(file, "it isn't an IDX file, which begins with two zeros"));
    };
    let (width, value): (usize, fn(&[u8]) -> f32) = match kind {
        0x08 => (1, |x| f32::from(x[0])),
        0x09 => (1, |x| f32::from(x[0] as i8)),
        0x0b => (2, |x| f32::from(i16::from_be_bytes([x[0], x[1]]))),
        0x0c => (4, |x| i32::from_be_bytes([x[0], x[1], x[2], x[3]]) as f32),
        0x0d => (4, |x| f32::from_be_bytes([x[0], x[1], x[2], x[3]])),
        0x0e => (8, |x| f64::from_be_bytes([x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]]) as f32),
        _ => {
            let problem = format!("its values are of type {kind:#04x}, which IDX has not");
            return Err(TrainError::data(file, problem));
        }
    };
    let mut shape = vec![];
    for _ in 0..rank {
        let mut size = [0u8; 4];
        from.read_exact(&mut size).map_err(cut)?;
        shape.push(u32::from_be_bytes(size) as usize);
    }
    ArrayFile::new(file, shape, from, width, value)
}
