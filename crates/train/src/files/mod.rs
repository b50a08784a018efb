//! Models in files of other programs; and how any file is opened.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub mod keras;
pub mod onnx;

/// Opens a file to read. A pipe, a device or a folder is refused: the first may keep one waiting for ever, and the second
/// may have no end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file, but a folder, a pipe or a device"));
    }
    File::open(path)
}

/// All of a file, as [`open`] opens it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
