//! Files that are there whole or not at all: a temporary name, the file and its folder synced, one rename.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use crate::error::{Result, StoreError};

/// Folders looked at in one folder, against a models folder that is something else.
const ENTRIES_MAX: usize = 100_000;

/// Whether a path from outside stays below the folder that it is joined to.
pub fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(|c: char| c.is_control() || "\\:".contains(c))
    };
    path.split('/').all(plain)
}

/// Writes a file by way of another, so that it is there whole or not at all.
///
/// # Errors
/// The disk.
pub fn write_durably(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = readable_temporary(folder)?;
        file.write_all(contents)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(StoreError::io("writing", path))
}

/// A temporary file that others may read as far as the user's mask lets them; by default only its maker could, and
/// a server often runs as somebody else.
pub(crate) fn readable_temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Makes what was renamed, made or deleted in a folder outlive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("syncing", folder))
}

pub(crate) fn sync_file(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("syncing", path))
}

pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(StoreError::io("making", folder))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|cause| StoreError::Io {
        what: format!("moving {} to {}", from.display(), to.display()),
        cause,
    })
}

/// A folder and all in it, or nothing where there is none.
pub(crate) fn delete(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io("deleting", folder)(error)),
        _ => Ok(()),
    }
}

/// A file of at most `bytes_max`; `None` where there is none.
///
/// # Errors
/// It is longer, or no file: a pipe would be waited for.
pub fn read_within(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>> {
    let opened = std::fs::metadata(path).and_then(|facts| match facts.is_file() {
        true => File::open(path),
        false => Err(std::io::Error::other("it is no file")),
    });
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(StoreError::io("reading", path)(error)),
    };
    let mut contents = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut contents).map_err(StoreError::io("reading", path))?;
    if contents.len() as u64 > bytes_max {
        let why = format!("more than {bytes_max} bytes");
        return Err(StoreError::Damaged { place: path.display().to_string(), why });
    }
    Ok(Some(contents))
}

/// Names of the folders in a folder, hidden ones aside; none where it doesn't exist.
pub(crate) fn folders_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(StoreError::io("reading the folder", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries.take(ENTRIES_MAX) {
        let entry = entry.map_err(StoreError::io("reading the folder", folder))?;
        let is_folder = entry.path().is_dir();
        match entry.file_name().into_string() {
            Ok(name) if is_folder && !name.starts_with('.') => names.push(name),
            _ => {}
        }
    }
    Ok(names)
}

#[test]
fn what_leads_out_of_the_folder_is_no_plain_path() {
    for path in ["..", "a/..", "/a", "a//b", "", "a\\b", "a\0", "c:x", "./a"] {
        assert!(!is_plain_path(path), "{path:?}");
    }
    assert!(is_plain_path("a/b.gguf"));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let error = read_within(&pipe, 10).unwrap_err().to_string();
    assert!(error.contains("no file"), "{error}");
    assert_eq!(read_within(&folder.path().join("none"), 10).unwrap(), None);
}
