//! NumPy's .npy files and .npz archives: numbers and booleans. Objects, which are pickles, are refused.
//!
//! Source: the format's description, numpy.lib.format.

use std::io::Read;
use std::path::Path;

use super::arrays::{ArrayFile, ArrayFiles};
use super::{Each, Wanted};
use crate::definition::nearest;
use crate::error::{Result, TrainError};

/// Bytes of a header.
const HEADER_BYTES_MAX: usize = 1 << 16;

/// Opens the array of a .npy file.
///
/// # Errors
/// When it isn't one, or has values of a type that isn't read.
pub(super) fn open(path: &Path) -> Result<ArrayFile<'static>> {
    let opened = crate::files::open(path).map_err(|error| TrainError::file(path, "read", &error))?;
    parse(&path.display().to_string(), std::io::BufReader::new(opened))
}

/// Reads the wanted arrays of a .npz archive.
///
/// # Errors
/// As [`open`], and when an array isn't there.
pub(super) fn read_archive(path: &Path, wanted: &Wanted, streamed: bool, each: Each<'_>) -> Result<()> {
    let file = path.display().to_string();
    let broken = |error: zip::result::ZipError| TrainError::data(&file, error.to_string());
    let opened = || {
        let opened = crate::files::open(path).map_err(|error| TrainError::file(path, "read", &error))?;
        zip::ZipArchive::new(std::io::BufReader::new(opened)).map_err(broken)
    };
    let mut names = vec![];
    for name in opened()?.file_names() {
        names.push(name.map_err(broken)?.trim_end_matches(".npy").to_owned());
    }
    let Some(x) = &wanted.x else {
        return Err(TrainError::data("[data]", format!("it needs `x`; {file} has: {}", names.join(", "))));
    };
    let weights: Vec<Vec<String>> = wanted.weights.iter().map(|name| vec![name.clone()]).collect();
    let chosen: Vec<&Vec<String>> = x.iter().chain(&wanted.y).chain(&weights).collect();
    // Each array is read beside the others, so each has the archive opened for itself.
    let mut archives = chosen.iter().map(|_| opened()).collect::<Result<Vec<_>>>()?;
    let mut arrays = vec![];
    for (given, archive) in chosen.into_iter().zip(&mut archives) {
        let [name] = &given[..] else {
            return Err(TrainError::data("[data]", format!("x and y are an array each; received {given:?}")));
        };
        if !names.contains(name) {
            let tip = nearest(name, names.iter().map(String::as_str));
            let problem = format!("there is no array {name}{tip}; there are: {}", names.join(", "));
            return Err(TrainError::data(&file, problem));
        }
        let entry = archive.by_name(&format!("{name}.npy")).map_err(broken)?;
        arrays.push(parse(&format!("{file}: {name}"), entry)?);
    }
    let weights = arrays.pop_if(|_| wanted.weights.is_some());
    let y = arrays.split_off(x.len());
    ArrayFiles { x: arrays, y, weights }.read(&file, streamed, each)
}

fn parse<'a>(file: &str, mut from: impl Read + 'a) -> Result<ArrayFile<'a>> {
    let cut = |_| TrainError::data(file, "it ends before its header says");
    let mut start = [0u8; 8];
    from.read_exact(&mut start).map_err(cut)?;
    if start[..6] != *b"\x93NUMPY" {
        return Err(TrainError::data(file, "it isn't a .npy file, which begins with \\x93NUMPY"));
    }
    let mut length = [0u8; 4];
    let width = if start[6] == 1 { 2 } else { 4 };
    from.read_exact(&mut length[..width]).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(TrainError::data(
            file,
            format!("its header has {length} bytes, {HEADER_BYTES_MAX} at most"),
        ));
    }
    let mut header = vec![0u8; length];
    from.read_exact(&mut header).map_err(cut)?;
    let header = String::from_utf8_lossy(&header);
    let descr =
        between(&header, "'descr':", ',').map(|text| text.trim().trim_matches('\'')).unwrap_or_default();
    let fortran = between(&header, "'fortran_order':", ',').is_some_and(|text| text.trim() == "True");
    let sizes = between(&header, "'shape':", ')').map(|text| text.trim().trim_start_matches('('));
    let sizes: Option<Vec<usize>> = sizes.and_then(|text| {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().ok()).collect()
    });
    let Some(shape) = sizes else {
        return Err(TrainError::data(file, "its header has no shape"));
    };
    let element = Element::new(descr).ok_or_else(|| {
        let problem = format!("its values are of type {descr:?}; floats, integers and booleans are read");
        TrainError::data(file, problem)
    })?;
    let array = ArrayFile::new(file, shape, from, element.width, move |bytes| element.value(bytes))?;
    if fortran { array.reordered(rows_first) } else { Ok(array) }
}

fn between<'a>(text: &'a str, start: &str, end: char) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(part, _)| part)
}

/// How a value is written.
struct Element {
    kind: u8,
    width: usize,
    big_endian: bool,
}

impl Element {
    fn new(descr: &str) -> Option<Element> {
        let &[order, kind, ref width @ ..] = descr.as_bytes() else { return None };
        let width = std::str::from_utf8(width).ok()?.parse().ok()?;
        let known = matches!((kind, width), (b'f', 2 | 4 | 8) | (b'i' | b'u', 1 | 2 | 4 | 8) | (b'b', 1));
        let element = Element { kind, width, big_endian: order == b'>' };
        (known && matches!(order, b'<' | b'>' | b'|' | b'=')).then_some(element)
    }

    fn value(&self, bytes: &[u8]) -> f32 {
        let mut padded = [0u8; 8];
        for (to, from) in (0..bytes.len()).enumerate() {
            padded[to] = bytes[if self.big_endian { bytes.len() - 1 - from } else { from }];
        }
        let bits = u64::from_le_bytes(padded);
        let unused = 64 - 8 * self.width as u32;
        match (self.kind, self.width) {
            (b'f', 2) => half::f16::from_bits(bits as u16).to_f32(),
            (b'f', 4) => f32::from_bits(bits as u32),
            (b'f', _) => f64::from_bits(bits) as f32,
            (b'i', _) => ((bits << unused) as i64 >> unused) as f32,
            _ => bits as f32,
        }
    }
}

/// Values in rows out of values in columns (Fortran's order).
fn rows_first(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut rows = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        rows.push(values[index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    rows
}
