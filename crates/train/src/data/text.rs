//! Plain text for language models: windows of bytes, each with the bytes that follow.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Column, Columns, Places, VALUES_MAX, Values};
use crate::error::{Result, TrainError};
use crate::model::Array;

/// Files of a folder.
const FILES_MAX: usize = 1 << 20;

/// Windows of `length` bytes of the file at `path`, or of each file of a folder in the order of their names; a window
/// begins `stride` bytes after the one before. The target of a window are its bytes moved on by one.
///
/// # Errors
/// When nothing can be read, or no file is longer than a window.
pub fn read(path: &Path, length: usize, stride: usize) -> Result<Columns> {
    let place = path.display().to_string();
    if length == 0 || stride == 0 {
        return Err(TrainError::data(place, "windows have 1 byte or more, and stride is 1 or more"));
    }
    let (mut x, mut y, mut places) = (vec![], vec![], vec![]);
    for file in files(path)? {
        let bytes = crate::files::read(&file).map_err(|error| TrainError::file(&file, "read", &error))?;
        let count = bytes.len().checked_sub(length + 1).map_or(0, |rest| rest / stride + 1);
        if count.saturating_mul(length).saturating_add(x.len()) > VALUES_MAX {
            let problem = format!("there are more than {VALUES_MAX} bytes in windows: raise stride");
            return Err(TrainError::data(file.display().to_string(), problem));
        }
        for start in (0..count).map(|window| window * stride) {
            x.extend(bytes[start..start + length].iter().map(|&byte| f32::from(byte)));
            y.extend(bytes[start + 1..][..length].iter().map(|&byte| f32::from(byte)));
            places.push(file.clone());
        }
    }
    let samples = places.len();
    if samples == 0 {
        let problem = format!("no text there is longer than {length} bytes, the length of the model's input");
        return Err(TrainError::data(place, problem));
    }
    let column = |values| Column { shape: vec![length], values: Values::Numbers(values) };
    Ok(Columns {
        x: vec![column(x)],
        y: vec![column(y)],
        weights: None,
        samples,
        places: Places::Files(places),
    })
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| TrainError::file(path, "read", &error);
    let mut files = vec![];
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.is_file() {
            files.push(file);
        }
        if files.len() > FILES_MAX {
            return Err(TrainError::data(
                path.display().to_string(),
                format!("it has more than {FILES_MAX} files"),
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// The byte after each window alone, for a model that tells one.
pub fn last_only(y: &Array) -> Result<Array> {
    let length = y.sample_len().max(1);
    Array::new([y.samples()], y.values.chunks(length).filter_map(|window| window.last()).copied().collect())
}
