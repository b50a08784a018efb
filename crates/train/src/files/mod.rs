//! Models in files of other programs; and how any file is opened, and written whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

pub mod keras;
pub mod onnx;

use crate::error::{Result, TrainError};

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

/// Writes the file at `path` under another name, and gives it its own when everything is on the disk.
///
/// # Errors
/// What `write` says, and the disk. What was at `path` is still there then.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = (|| {
        let mut file = BufWriter::new(File::create(&partial)?);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        std::fs::rename(&partial, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    })();
    written.map_err(|error: io::Error| {
        // What is half written takes room that may be what was missing.
        let _ = std::fs::remove_file(&partial);
        TrainError::file(path, "written", &error)
    })
}
