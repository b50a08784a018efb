//! `.partial/` in the models folder: what is gathered for a version that isn't in sight yet, and what is being deleted.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::durable::{delete, folders_in, make_folder};
use crate::error::{Result, StoreError};
use crate::name::ModelName;

/// The folder of what isn't in sight. There, `NAME@TAG` is being gathered, and with these ends stand:
const PARTIAL: &str = ".partial";
/// the lock of whoever gathers it;
const LOCK: &str = "@lock";
/// a version that is being deleted.
const REMOVED: &str = "@removed";

/// Somebody who looks whether a lock is held holds it less long.
const LOOKED_AT_MAX: Duration = Duration::from_millis(50);

/// A model that is being pulled: a folder of its own, and a lock so that nobody else pulls it at the same time.
pub struct Staging {
    pub folder: PathBuf,
    /// Its file stays: were it removed, two pulls could each hold a lock on a file of that name.
    _lock: File,
}

impl Staging {
    /// Deletes all files but these, which are told relative to the folder: what an interrupted run left of something else
    /// is no part of the version.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_only<S: AsRef<str>>(&self, names: &[S]) -> Result<()> {
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            let entries =
                std::fs::read_dir(&folder).map_err(StoreError::io("reading the folder", &folder))?;
            for entry in entries {
                let path = entry.map_err(StoreError::io("reading the folder", &folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !names.iter().any(|name| self.folder.join(name.as_ref()) == path) {
                    std::fs::remove_file(&path).map_err(StoreError::io("deleting", &path))?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    /// An empty folder is nothing to go on with; one that isn't can't be removed like this.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// The folder to gather a model's files in; what an interrupted pull left there is still there.
///
/// # Errors
/// The folder can't be made, or another pull of the same model is at it.
pub fn stage(models: &Path, model: &ModelName) -> Result<Staging> {
    make_folder(&models.join(PARTIAL)).map_err(|error| match error {
        StoreError::Io { what, cause } => StoreError::Io {
            what: format!("{what} (name another models folder by --models or TUREEN_MODELS)"),
            cause,
        },
        other => other,
    })?;
    let lock_path = under_way(models, model, LOCK);
    let lock = File::create(&lock_path).map_err(StoreError::io("making", &lock_path))?;
    let mut taken = lock.try_lock();
    if matches!(taken, Err(TryLockError::WouldBlock)) {
        // It may be held for as long as it takes to see that nobody holds it.
        std::thread::sleep(LOOKED_AT_MAX);
        taken = lock.try_lock();
    }
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Busy { model: model.to_string() }),
        Err(TryLockError::Error(error)) => return Err(StoreError::io("locking", &lock_path)(error)),
    }
    let folder = under_way(models, model, "");
    make_folder(&folder)?;
    Ok(Staging { folder, _lock: lock })
}

/// What is being gathered, or what was left of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    pub bytes: u64,
    /// By a process that is at it.
    pub is_under_way: bool,
}

/// Models that are being gathered, and those of which an interrupted pull left something.
pub fn unfinished(models: &Path) -> Result<BTreeMap<ModelName, Unfinished>> {
    let partial = models.join(PARTIAL);
    let mut found = BTreeMap::new();
    for folder in folders_in(&partial)? {
        let Some((name, tag)) = folder.split_once('@') else { continue };
        let Ok(model) = ModelName::parse(&format!("{name}:{tag}")) else { continue };
        let entries = std::fs::read_dir(partial.join(&folder)).into_iter().flatten();
        let bytes: u64 = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
        if bytes > 0 {
            let is_under_way = is_held(&under_way(models, &model, LOCK));
            found.insert(model, Unfinished { bytes, is_under_way });
        }
    }
    Ok(found)
}

/// Whether somebody holds the lock.
fn is_held(lock: &Path) -> bool {
    let taken = File::open(lock).map(|file| file.try_lock_shared());
    matches!(taken, Ok(Err(TryLockError::WouldBlock)))
}

/// Where a version goes that is to be deleted: out of sight by one rename.
pub fn removed(models: &Path, name: &str, number: u64) -> PathBuf {
    models.join(PARTIAL).join(format!("{name}@{number}{REMOVED}"))
}

/// Deletes what killed processes had begun to.
pub fn sweep(models: &Path) -> Result<()> {
    let partial = models.join(PARTIAL);
    let begun = folders_in(&partial)?;
    begun.iter().filter(|name| name.ends_with(REMOVED)).try_for_each(|name| delete(&partial.join(name)))
}

/// Where something of `model` stands that isn't in sight. Names hold no `@`, so nothing else is called that.
fn under_way(models: &Path, model: &ModelName, what: &str) -> PathBuf {
    models.join(PARTIAL).join(format!("{}@{}{what}", model.name(), model.tag()))
}
