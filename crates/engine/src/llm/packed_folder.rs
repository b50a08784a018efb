//! The folder of packed weights: files that are being written to it, and room for them. Whatever else lies in it is left
//! alone.
//!
//! Whoever writes holds a lock on its `.partial` file, which has the length that it may grow to; so others see what room
//! it takes, and that it is not left over from a process that was killed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::packed::PackedError;
use super::settings::{Bytes, PackedFolder};

/// A file that nobody has locked is left over once it is as old as this: one that was made just now is not locked yet.
const UNLOCKED_MAX: Duration = Duration::from_secs(60);

/// A file that is written while its model is packed, and deleted where that comes to nothing.
pub(super) struct PartialFile {
    pub file: File,
    pub path: PathBuf,
}

impl PartialFile {
    /// One of at most `bytes`, for which room is made.
    pub fn new(folder: &PackedFolder, bytes: u64) -> Result<PartialFile, PackedError> {
        let failed = |path: &Path, cause| PackedError::File { path: path.to_owned(), cause };
        std::fs::create_dir_all(&folder.path).map_err(|cause| failed(&folder.path, cause))?;
        make_room(folder, bytes, None)?;
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let path = folder.path.join(format!("{}-{}.partial", std::process::id(), begun.as_nanos()));
        let file = File::create_new(&path).map_err(|cause| failed(&path, cause))?;
        let partial = PartialFile { file, path };
        let ready = partial.file.lock().and_then(|()| partial.file.set_len(bytes));
        ready.map_err(|cause| failed(&partial.path, cause))?;
        Ok(partial)
    }

    pub fn write(&mut self, parts: &[&[u8]]) -> Result<(), PackedError> {
        let written = parts.iter().try_for_each(|part| self.file.write_all(part));
        written.map_err(|cause| PackedError::File { path: self.path.clone(), cause })
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // Where it was renamed, nothing of that name is left.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Deletes what was left over, and what was not used for longest until `bytes` more fit, beside what others are writing
/// and without `replaced`. Whoever has mapped a file keeps it.
pub(super) fn make_room(
    folder: &PackedFolder,
    bytes: u64,
    replaced: Option<&PartialFile>,
) -> Result<(), PackedError> {
    let most = folder.bytes_max;
    if bytes > most {
        return Err(PackedError::TooLarge { needed: Bytes(bytes), most: Bytes(most) });
    }
    let failed = |cause| PackedError::File { path: folder.path.clone(), cause };
    let (mut all, mut kept) = (bytes, Vec::new());
    for entry in std::fs::read_dir(&folder.path).map_err(failed)?.flatten() {
        let (path, Ok(about)) = (entry.path(), entry.metadata()) else { continue };
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let is_ours = is_partial(name) || is_kept(name);
        if !is_ours || !about.is_file() || replaced.is_some_and(|file| file.path == path) {
            continue;
        }
        let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if is_partial(name) && is_left_over(&path, used) {
            let _ = std::fs::remove_file(&path);
            continue;
        }
        all = all.saturating_add(about.len());
        if is_kept(name) {
            kept.push((used, about.len(), path));
        }
    }
    kept.sort_unstable();
    for (_, bytes, path) in kept {
        if all <= most {
            break;
        }
        match std::fs::remove_file(&path) {
            // Another process makes room too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|cause| PackedError::File { path, cause })?,
        }
        all -= bytes;
    }
    Ok(())
}

/// Whether nobody writes it any more. Where there are no locks it is taken to be written.
fn is_left_over(path: &Path, written: SystemTime) -> bool {
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    age > UNLOCKED_MAX && File::options().write(true).open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Whether it is the name of a kept file: `HEX16-ISA-HEX16`.
fn is_kept(name: &str) -> bool {
    let is_hash = |part: &str| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = name.split_once('-').zip(name.rsplit_once('-'));
    parts.is_some_and(|((first, _), (_, last))| is_hash(first) && is_hash(last) && name.len() > 2 * 16 + 2)
}

/// Whether it is the name of one that is being written: `PROCESS-NANOSECONDS.partial`.
fn is_partial(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name.strip_suffix(".partial").and_then(|numbers| numbers.split_once('-'));
    numbers.is_some_and(|(process, begun)| is_number(process) && is_number(begun))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a fixture that can't be made fails the test

    use super::*;

    #[test]
    fn only_names_that_are_given_here_are_ours() {
        let hash = "0123456789abcdef";
        let check = |name: &str, expected: [bool; 2]| {
            assert_eq!([is_kept(name), is_partial(name)], expected, "{name}");
        };
        check(&format!("{hash}-avx512-bf16-{hash}"), [true, false]);
        check(&format!("{hash}-avx2-{hash}"), [true, false]);
        check("123-456.partial", [false, true]);
        for other in
            ["", "notes.txt", "mine.partial", "1-.partial", "1.partial", hash, &format!("{hash}-{hash}")]
        {
            check(other, [false, false]);
        }
        check(&format!("{hash}-avx2-{hash}.bak"), [false, false]);
    }

    #[test]
    fn what_is_written_counts_and_what_was_left_over_goes() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = PackedFolder { path: temporary.path().to_owned(), bytes_max: 1000 };
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let write = |name: &str, bytes: usize| {
            let path = folder.path.join(name);
            std::fs::write(&path, vec![0; bytes]).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
            path
        };
        let kept = write("0123456789abcdef-avx2-0123456789abcdef", 500);
        let [left_over, others] = [write("7-7.partial", 900), write("model.gguf", 5000)];
        let partial = PartialFile::new(&folder, 400).unwrap();
        assert_eq!([&kept, &left_over, &others].map(|path| path.exists()), [true, false, true]);
        partial.file.set_modified(hour_ago).unwrap();
        // 500 are kept and 400 are being written, so that 200 don't fit beside both.
        make_room(&folder, 200, None).unwrap();
        assert_eq!([&kept, &partial.path, &others].map(|path| path.exists()), [false, true, true]);
        make_room(&folder, 1000, Some(&partial)).unwrap();
        assert!(make_room(&folder, 1001, None).is_err_and(|error| error.to_string().contains("packed_max")));
        let path = partial.path.clone();
        drop(partial);
        assert!(!path.exists());
    }
}
