//! SHA-256 of files, as manifests have it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Result, StoreError};

const CHUNK_BYTES: usize = 1 << 20;

/// Hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Length and SHA-256 of a file; `seen` is told the bytes of each chunk.
///
/// # Errors
/// The file can't be read.
pub fn of_file(path: &Path, mut seen: impl FnMut(usize)) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(StoreError::io("reading", path))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut chunk).map_err(StoreError::io("reading", path))?;
        if count == 0 {
            return Ok((bytes, hex(&hasher.finalize())));
        }
        hasher.update(&chunk[..count]);
        bytes += count as u64;
        seen(count);
    }
}
