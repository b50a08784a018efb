//! Archives of files as other programs pack them: only plain files come out, below the folder, and no more than an
//! archive of its size can have.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use super::Result;
use super::artefact::Form;
use super::pull::is_free;
use super::refused;
use crate::durable::{is_plain_path, make_folder};
use crate::error::StoreError;
use crate::hash::hex;
use crate::manifest;

/// Files in one archive.
const FILES_MAX: usize = 20_000;
/// Times its size that a compressed archive may unpack to: weights hardly shrink, texts by ten.
const RATIO_MAX: u64 = 20;
const READ_BYTES: usize = 1 << 20;

/// The files that were in it.
pub fn unpack(path: &Path, form: Form, folder: &Path, what: &str) -> Result<Vec<manifest::File>> {
    let archive = File::open(path).map_err(StoreError::io("reading", path))?;
    let size = archive.metadata().map_err(StoreError::io("reading", path))?.len();
    let archive = BufReader::new(archive);
    match form {
        Form::TarGzip => files(GzDecoder::new(archive).take(size.saturating_mul(RATIO_MAX)), folder, what),
        _ => files(archive, folder, what),
    }
}

fn files(archive: impl Read, folder: &Path, what: &str) -> Result<Vec<manifest::File>> {
    let bad = |why: String| refused(what.to_owned(), format!("an archive in it: {why}"));
    let read = |error: std::io::Error| bad(error.to_string());
    let (mut found, mut names) = (Vec::new(), BTreeSet::new());
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return Err(bad(format!("{shown:?} is no plain file")));
        }
        if !is_plain_path(&name) || !is_free(&name) || !names.insert(name.clone()) {
            return Err(bad(format!("{shown:?} is no name that a file may have, or is there twice")));
        }
        if names.len() > FILES_MAX {
            return Err(bad(format!("more than {FILES_MAX} files")));
        }
        let path = folder.join(&name);
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        let (bytes, sha256) = write(&mut entry, &path, &read)?;
        if bytes != entry.size() {
            return Err(bad(format!("{shown:?} is cut short, or the archive unpacks to too much")));
        }
        found.push(manifest::File { path: name, bytes, sha256, ..manifest::File::default() });
    }
    Ok(found)
}

fn write(
    entry: &mut impl Read,
    path: &Path,
    failed: &dyn Fn(std::io::Error) -> StoreError,
) -> Result<(u64, String)> {
    let mut file = File::create(path).map_err(StoreError::io("making", path))?;
    let (mut hasher, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; READ_BYTES]);
    loop {
        let count = entry.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            return Ok((bytes, hex(&hasher.finalize())));
        }
        hasher.update(&chunk[..count]);
        file.write_all(&chunk[..count]).map_err(StoreError::io("writing", path))?;
        bytes += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tar` the program reads: a name, a kind, and contents.
    fn archive(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, kind, contents) in entries {
            let mut header = [0u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..108].copy_from_slice(b"0000644\0");
            header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
            header[156] = *kind;
            header[257..265].copy_from_slice(b"ustar\x0000");
            header[148..156].copy_from_slice(b"        ");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend(header);
            bytes.extend(*contents);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend([0; 1024]);
        bytes
    }

    fn unpacked(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let found = files(bytes, folder.path(), "pulling").map_err(|error| error.to_string())?;
        for file in &found {
            assert_eq!(std::fs::metadata(folder.path().join(&file.path)).unwrap().len(), file.bytes);
        }
        Ok(found.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn plain_files_come_out_and_nothing_else() {
        let whole = archive(&[("a/", b'5', b""), ("./a/b", b'0', b"12"), ("c", b'0', b"")]);
        assert_eq!(unpacked(&whole).unwrap(), ["a/b", "c"]);
        for entry in [
            ("../a", b'0'),
            ("/a", b'0'),
            ("a", b'2'),
            ("a", b'1'),
            ("manifest.json", b'0'),
            ("x.partial", b'0'),
        ] {
            assert!(unpacked(&archive(&[(entry.0, entry.1, b"")])).is_err(), "{entry:?}");
        }
        assert!(unpacked(&archive(&[("a", b'0', b"1"), ("a", b'0', b"2")])).is_err());
        assert!(unpacked(&whole[..1100]).is_err(), "cut short");
    }
}
