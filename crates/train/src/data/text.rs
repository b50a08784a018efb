//! Plain text for language models: windows of bytes, each with the bytes that follow.

use std::fs;
use std::path::{Path, PathBuf};

use super::{BLOCK_VALUES, Column, Columns, Each, Places, Values};
use crate::error::{Result, TrainError};
use crate::model::Array;

/// Files of a folder.
const FILES_MAX: usize = 1 << 20;

/// Windows of `length` bytes of the file at `path`, or of each file of a folder in the order of their names; a window
/// begins `stride` bytes after the one before. The target of a window are its bytes moved on by one.
///
/// # Errors
/// When nothing can be read, or no file is longer than a window.
pub(super) fn read(path: &Path, length: usize, stride: usize, each: Each<'_>) -> Result<()> {
    let place = path.display().to_string();
    if length == 0 || stride == 0 {
        return Err(TrainError::data(place, "windows have 1 byte or more, and stride is 1 or more"));
    }
    let most = (BLOCK_VALUES / length).max(1);
    let mut is_empty = true;
    for file in files(path)? {
        let bytes = crate::files::read(&file).map_err(|error| TrainError::file(&file, "read", &error))?;
        let count = bytes.len().checked_sub(length + 1).map_or(0, |rest| rest / stride + 1);
        for first in (0..count).step_by(most) {
            let starts: Vec<usize> =
                (first..(first + most).min(count)).map(|window| window * stride).collect();
            let column = |moved_on: usize| {
                let window =
                    |&start: &usize| bytes[start + moved_on..][..length].iter().map(|&byte| f32::from(byte));
                Column {
                    shape: vec![length],
                    values: Values::Numbers(starts.iter().flat_map(window).collect()),
                }
            };
            is_empty = false;
            each(Columns {
                x: vec![column(0)],
                y: vec![column(1)],
                weights: None,
                samples: starts.len(),
                places: Places::Files(vec![file.clone(); starts.len()]),
            })?;
        }
    }
    if is_empty {
        let problem = format!("no text there is longer than {length} bytes, the length of the model's input");
        return Err(TrainError::data(place, problem));
    }
    Ok(())
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
