//! A remote that is a folder: a disk beside the machine, or a file system that many share. What is written there is
//! whole or not there, as everywhere in the store.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Hold, Object};
use crate::durable::{make_folder, read_within, readable_temporary, sync_folder};
use crate::error::{Result, StoreError};

/// Who changes something holds a lock on it; the system lets go of it when the process ends, however that ends.
const LOCK: &str = "lock";

#[derive(Debug)]
pub struct Folder {
    pub place: PathBuf,
    /// Folders in which something was written since the last [`Folder::settle`].
    touched: Mutex<BTreeSet<PathBuf>>,
}

impl Folder {
    pub fn new(place: &Path) -> Folder {
        Folder { place: place.to_path_buf(), touched: Mutex::default() }
    }

    /// Writes a file; with `is_new`, only where there is none, and says whether it did.
    pub fn put(&self, key: &str, contents: &[u8], is_new: bool) -> Result<bool> {
        let path = self.place.join(key);
        let folder = path.parent().unwrap_or(&self.place);
        if !folder.is_dir() {
            make_folder(folder)?;
        }
        let write = || {
            let mut file = readable_temporary(folder)?;
            file.write_all(contents)?;
            file.as_file().sync_all()?;
            let done = if is_new { file.persist_noclobber(&path) } else { file.persist(&path) };
            match done {
                Err(error) if is_new && error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
                other => other.map(|_| true).map_err(|error| error.error),
            }
        };
        let done = write().map_err(StoreError::io("writing", &path))?;
        self.touch(&path);
        Ok(done)
    }

    /// The size of a file that is there already and is relied on: whoever wrote it may be about to sync its folders.
    pub fn keep(&self, key: &str) -> Result<Option<u64>> {
        let size = self.size(key)?;
        if size.is_some() {
            self.touch(&self.place.join(key));
        }
        Ok(size)
    }

    /// All folders above a file: another process may have made any of them.
    fn touch(&self, path: &Path) {
        let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.place));
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        for folder in above {
            // Where one is known, those above it are.
            if !touched.insert(folder.to_path_buf()) {
                break;
            }
        }
    }

    /// Makes what was written outlive a power cut. The files themselves do already; this is about their names.
    pub fn settle(&self) -> Result<()> {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        touched.iter().try_for_each(|folder| sync_folder(folder))
    }

    pub fn get(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        read_within(&self.place.join(key), bytes_max).map_err(|error| match error {
            StoreError::Damaged { place, why } => StoreError::RemoteDamaged { place, why },
            other => other,
        })
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        let path = self.place.join(key);
        match std::fs::metadata(&path) {
            Ok(facts) => Ok(Some(facts.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("looking at", &path)(error)),
        }
    }

    /// Every file below `prefix`, those too that a killed process was writing.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut found = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let path = self.place.join(&folder);
            let entries = match std::fs::read_dir(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(StoreError::io("reading the folder", &path))?,
            };
            for entry in entries {
                let entry = entry.map_err(StoreError::io("reading the folder", &path))?;
                // What isn't UTF-8 is none of ours.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let key = format!("{folder}/{name}");
                // Of what a link leads to: whoever keeps a part on another disk keeps it.
                match std::fs::metadata(entry.path()) {
                    Ok(facts) if facts.is_dir() => folders.push(key),
                    Ok(facts) => {
                        let modified_s = std::os::unix::fs::MetadataExt::mtime(&facts);
                        found.push(Object { key, bytes: facts.len(), modified_s });
                    }
                    // It went meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(StoreError::io("looking at", &entry.path())(error)),
                }
            }
        }
        Ok(found)
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        let path = self.place.join(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(StoreError::io("deleting", &path)(error))
            }
            _ => {
                self.touch(&path);
                Ok(())
            }
        }
    }

    /// A shared lock, or the only one.
    pub fn hold(&self, is_alone: bool) -> Result<Hold> {
        let missing: Vec<&Path> = self.place.ancestors().take_while(|folder| !folder.is_dir()).collect();
        make_folder(&self.place)?;
        missing.iter().filter_map(|folder| folder.parent()).try_for_each(sync_folder)?;
        let path = self.place.join(LOCK);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(StoreError::io("making", &path))?;
        let taken = if is_alone { file.try_lock() } else { file.try_lock_shared() };
        match taken {
            Ok(()) => Ok(Hold::Locked(file)),
            Err(TryLockError::WouldBlock) => {
                Err(super::busy(&self.place.display().to_string(), is_alone, ""))
            }
            Err(TryLockError::Error(error)) => Err(StoreError::io("locking", &path)(error)),
        }
    }
}

#[test]
fn what_others_wrote_is_synced_with_all_folders_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("remote");
    Folder::new(&place).put("chunks/ab/c", b"by another process", false).unwrap();
    let here = Folder::new(&place);
    assert_eq!(here.keep("chunks/ab/none").unwrap(), None);
    assert!(here.touched.lock().unwrap().is_empty());
    assert_eq!(here.keep("chunks/ab/c").unwrap(), Some(18));
    let all = ["", "chunks", "chunks/ab"].map(|key| place.join(key).components().collect::<PathBuf>());
    assert_eq!(*here.touched.lock().unwrap(), BTreeSet::from(all.clone()));
    here.settle().unwrap();
    here.put("chunks/ab/d", b"", false).unwrap();
    assert_eq!(*here.touched.lock().unwrap(), BTreeSet::from(all), "though no folder was made");
}
