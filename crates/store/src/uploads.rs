//! Files that callers upload for their jobs: contents in `.store/files/ID`, what is known of them in the database.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::unix_seconds;
use crate::database::Cells;
use crate::durable::{make_folder, sync_folder};
use crate::error::{Result, StoreError};
use crate::hash::hex;
use crate::id::new_id;
use crate::versions::{OWN, Store};

/// Bytes of a file's name.
pub const NAME_BYTES_MAX: usize = 200;
/// Files that may be kept at once.
const FILES_MAX: u64 = 100_000;

/// A file that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub id: String,
    /// As its sender called it; nothing on the disk is called that.
    pub name: String,
    pub purpose: String,
    pub bytes: u64,
    pub sha256: String,
    /// Seconds since 1970.
    pub created: u64,
}

impl Upload {
    fn read(row: &Cells) -> Result<Upload> {
        Ok(Upload {
            id: row.text(0)?,
            name: row.text(1)?,
            purpose: row.text(2)?,
            bytes: row.number(3)?,
            sha256: row.text(4)?,
            created: row.number(5)?,
        })
    }

    /// As OpenAI has it.
    pub fn json(&self) -> Value {
        json!({
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        })
    }
}

/// A file that is being received; dropping it leaves nothing.
pub struct Receiving {
    file: tempfile::NamedTempFile,
    hasher: Sha256,
    bytes: u64,
    bytes_max: u64,
}

impl Receiving {
    /// # Errors
    /// More than may be; the disk.
    pub fn write(&mut self, chunk: &[u8]) -> Result<()> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(StoreError::TooLarge { bytes_max: self.bytes_max });
        }
        self.hasher.update(chunk);
        self.file.write_all(chunk).map_err(StoreError::io("writing", self.file.path()))
    }
}

impl Store {
    fn uploads_folder(&self) -> PathBuf {
        self.folder().join(OWN).join("files")
    }

    /// The contents of a file. The id is one that the database knows.
    pub fn upload_path(&self, id: &str) -> PathBuf {
        self.uploads_folder().join(id)
    }

    /// Begins to receive a file of at most `bytes_max`, or fewer where all files together would have more than
    /// `all_bytes_max`.
    ///
    /// # Errors
    /// Too many files; the disk; the database.
    pub fn receive(&self, bytes_max: u64, all_bytes_max: u64) -> Result<Receiving> {
        let database = self.database()?;
        let here = database.lock().number("SELECT CAST(sum(bytes) AS BIGINT) FROM files", &[])?.unwrap_or(0);
        let count = database.lock().number("SELECT count(*) FROM files", &[])?.unwrap_or(0);
        if count >= FILES_MAX {
            return Err(StoreError::Refused(format!("{FILES_MAX} files are here, which is the limit")));
        }
        let folder = self.uploads_folder();
        make_folder(&folder)?;
        let file =
            tempfile::NamedTempFile::new_in(&folder).map_err(StoreError::io("making a file in", &folder))?;
        let bytes_max = bytes_max.min(all_bytes_max.saturating_sub(here));
        Ok(Receiving { file, hasher: Sha256::new(), bytes: 0, bytes_max })
    }

    /// Keeps what was received.
    ///
    /// # Errors
    /// The disk; the database.
    pub fn keep(&self, received: Receiving, name: &str, purpose: &str) -> Result<Upload> {
        let Receiving { file, hasher, bytes, .. } = received;
        let id = new_id("file");
        let path = self.upload_path(&id);
        file.as_file().sync_all().map_err(StoreError::io("writing", &path))?;
        file.persist(&path).map_err(|error| StoreError::io("writing", &path)(error.error))?;
        sync_folder(&self.uploads_folder())?;
        let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_BYTES_MAX).collect();
        let (sha256, created) = (hex(&hasher.finalize()), unix_seconds());
        let upload = Upload { id, name, purpose: purpose.to_owned(), bytes, sha256, created };
        self.database()?.lock().write(
            "INSERT INTO files (id, name, purpose, bytes, sha256, created) VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                (&upload.id).into(),
                (&upload.name).into(),
                purpose.into(),
                bytes.into(),
                (&upload.sha256).into(),
                created.into(),
            ],
        )?;
        Ok(upload)
    }

    /// # Errors
    /// The database.
    pub fn upload(&self, id: &str) -> Result<Option<Upload>> {
        let Some(database) = self.database_if_any()? else { return Ok(None) };
        let sql = "SELECT id, name, purpose, bytes, sha256, created FROM files WHERE id = $1";
        database.lock().rows(sql, &[id.into()])?.first().map(Upload::read).transpose()
    }

    /// All files, newest first.
    ///
    /// # Errors
    /// The database.
    pub fn uploads(&self) -> Result<Vec<Upload>> {
        let Some(database) = self.database_if_any()? else { return Ok(Vec::new()) };
        let sql =
            "SELECT id, name, purpose, bytes, sha256, created FROM files ORDER BY created DESC, rowid DESC";
        database.lock().rows(sql, &[])?.iter().map(Upload::read).collect()
    }

    /// Deletes a file; jobs that were given it keep it. Whether there was one.
    ///
    /// # Errors
    /// The disk; the database.
    pub fn delete_upload(&self, id: &str) -> Result<bool> {
        let Some(database) = self.database_if_any()? else { return Ok(false) };
        let path = self.upload_path(id);
        let gone = database.lock().write("DELETE FROM files WHERE id = $1", &[id.into()])? > 0;
        if gone {
            remove(&path)?;
        }
        Ok(gone)
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("deleting", path)(error))
        }
        _ => Ok(()),
    }
}
