//! The models folder: `NAME/TAG/` holds a model's files and its manifest. What is under way stands in `.partial/`,
//! and comes into sight by one rename, so that nobody ever sees half a model.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::manifest::{FILE_NAME, Manifest, SCHEMA};
use super::name::ModelName;
use crate::nearest::nearest;

/// Largest manifest read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Folders looked at in one folder, against a models folder that is something else.
const ENTRIES_MAX: usize = 10_000;

/// The folder of what isn't in sight. There, `NAME@TAG` is being gathered, and with these ends stand:
const PARTIAL: &str = ".partial";
/// the lock of whoever is at the model;
const LOCK: &str = "@lock";
/// the model that is being replaced;
const OLD: &str = "@old";
/// the model that is being deleted.
const REMOVED: &str = "@removed";

/// The models folder; it needs not exist before something is pulled.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A model that is being pulled: a folder of its own, and a lock so that nobody else pulls it at the same time.
pub struct Staging {
    pub folder: PathBuf,
    /// Its file stays: were it removed, two pulls could each hold a lock on a file of that name.
    _lock: File,
}

impl Store {
    pub fn new(folder: &Path) -> Store {
        Store { folder: folder.to_path_buf() }
    }

    pub fn folder_of(&self, model: &ModelName) -> PathBuf {
        self.folder.join(model.name()).join(model.tag())
    }

    /// The manifest of a model, or `None` where there is no such model.
    pub fn get(&self, model: &ModelName) -> anyhow::Result<Option<Manifest>> {
        read_manifest(&self.folder_of(model))
    }

    /// Every model, by name. A manifest that can't be read is an error of its own, beside the others.
    pub fn list(&self) -> anyhow::Result<Vec<(ModelName, anyhow::Result<Manifest>)>> {
        let mut found = Vec::new();
        for name in folders_in(&self.folder)? {
            for tag in folders_in(&self.folder.join(&name))? {
                let Ok(model) = ModelName::parse(&format!("{name}:{tag}")) else { continue };
                match self.get(&model) {
                    Ok(Some(manifest)) => found.push((model, Ok(manifest))),
                    Ok(None) => {}
                    Err(error) => found.push((model, Err(error))),
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// A model that must be there.
    ///
    /// # Errors
    /// There is none: the nearest name.
    pub fn require(&self, text: &str) -> anyhow::Result<(ModelName, Manifest)> {
        let model = ModelName::parse(text)?;
        if let Some(manifest) = self.get(&model)? {
            return Ok((model, manifest));
        }
        let names: Vec<String> = self.list()?.iter().map(|(name, _)| name.to_string()).collect();
        let wanted = model.to_string();
        let same_name =
            || names.iter().map(String::as_str).find(|name| name.split(':').next() == Some(model.name()));
        match nearest(&wanted, names.iter().map(String::as_str)).or_else(same_name) {
            Some(close) => bail!("there is no model {wanted} here; did you mean {close}?"),
            None if names.is_empty() => bail!("there is no model {wanted} here, nor any other"),
            None => bail!("there is no model {wanted} here; `tureen list` shows what is"),
        }
    }

    /// The file or folder to load of a model that is here.
    pub fn entry(&self, model: &ModelName, manifest: &Manifest) -> anyhow::Result<PathBuf> {
        let folder = self.folder_of(model);
        if manifest.entry == "." {
            return Ok(folder);
        }
        let known = manifest.files.iter().any(|file| file.path == manifest.entry);
        if !known || !is_plain_path(&manifest.entry) {
            bail!("the manifest of {model} is damaged (entry {:?}); pull it again", manifest.entry);
        }
        Ok(folder.join(&manifest.entry))
    }

    /// Takes a model out of sight, then deletes it and what an interrupted pull of it left; its empty folder goes too.
    ///
    /// # Errors
    /// A pull is at it now; the disk.
    pub fn remove(&self, model: &ModelName) -> anyhow::Result<()> {
        let staging = self.stage(model)?;
        let (folder, removed) = (self.folder_of(model), self.under_way(model, REMOVED));
        if folder.exists() {
            std::fs::rename(&folder, &removed).with_context(|| format!("removing {}", folder.display()))?;
            // Other tags may live there, and then it stays.
            let _ = std::fs::remove_dir(self.folder.join(model.name()));
        }
        delete(&removed)?;
        delete(&staging.folder)
    }

    /// The folder to gather a model's files in; what an interrupted pull left there is still there.
    ///
    /// # Errors
    /// The folder can't be made, or another pull of the same model is at it.
    pub fn stage(&self, model: &ModelName) -> anyhow::Result<Staging> {
        let partial = self.folder.join(PARTIAL);
        std::fs::create_dir_all(&partial).with_context(|| {
            format!("making {}; name another models folder by --models or TUREEN_MODELS", partial.display())
        })?;
        let lock_path = self.under_way(model, LOCK);
        let lock = File::create(&lock_path).with_context(|| format!("making {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("{model} is being pulled by another process; wait for that, or end it")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", lock_path.display()));
            }
        }
        self.settle(model)?;
        let folder = self.under_way(model, "");
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Staging { folder, _lock: lock })
    }

    /// Ends what a process that was killed had begun: a model half replaced comes back, one half removed goes.
    fn settle(&self, model: &ModelName) -> anyhow::Result<()> {
        let (old, place) = (self.under_way(model, OLD), self.folder_of(model));
        if old.exists() && !place.exists() {
            std::fs::create_dir_all(self.folder.join(model.name()))
                .with_context(|| format!("making the folder of {model}"))?;
            std::fs::rename(&old, &place).with_context(|| format!("bringing back {}", place.display()))?;
        }
        delete(&old)?;
        delete(&self.under_way(model, REMOVED))
    }

    /// Models of which an interrupted pull or removal left something, with its bytes.
    pub fn unfinished(&self) -> anyhow::Result<BTreeMap<ModelName, u64>> {
        let partial = self.folder.join(PARTIAL);
        let mut found = BTreeMap::new();
        for folder in folders_in(&partial)? {
            let mut parts = folder.split('@');
            let (Some(name), Some(tag)) = (parts.next(), parts.next()) else { continue };
            let Ok(model) = ModelName::parse(&format!("{name}:{tag}")) else { continue };
            let entries = std::fs::read_dir(partial.join(&folder)).into_iter().flatten().take(ENTRIES_MAX);
            let bytes: u64 = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
            if bytes > 0 {
                *found.entry(model).or_default() += bytes;
            }
        }
        Ok(found)
    }

    /// Writes the manifest and brings the staged model into sight, in place of one of the same name.
    pub fn publish(&self, staging: Staging, model: &ModelName, manifest: &Manifest) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(manifest)?;
        write_durably(&staging.folder.join(FILE_NAME), &text)?;
        sync_folder(&staging.folder)?;
        let (place, old) = (self.folder_of(model), self.under_way(model, OLD));
        let parent = self.folder.join(model.name());
        std::fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
        if place.exists() {
            std::fs::rename(&place, &old).with_context(|| format!("replacing {}", place.display()))?;
        }
        if let Err(error) = std::fs::rename(&staging.folder, &place) {
            self.settle(model)?;
            return Err(error).with_context(|| format!("moving into {}", place.display()));
        }
        sync_folder(&parent)?;
        delete(&old)
    }

    /// Where something of `model` stands that isn't in sight. Names hold no `@`, so nothing else is called that.
    fn under_way(&self, model: &ModelName, what: &str) -> PathBuf {
        self.folder.join(PARTIAL).join(format!("{}@{}{what}", model.name(), model.tag()))
    }
}

impl Drop for Staging {
    /// An empty folder is nothing to go on with; one that isn't can't be removed like this.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// A folder and all in it, or nothing where there is none.
fn delete(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("deleting {}", folder.display()))
        }
        _ => Ok(()),
    }
}

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
pub fn write_durably(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let context = || format!("writing {}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = readable_temporary(folder).with_context(context)?;
    std::io::Write::write_all(&mut file, contents).with_context(context)?;
    file.as_file().sync_all().with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}

/// A temporary file that others may read as far as the user's mask lets them; by default only its maker could, and
/// a server often runs as somebody else.
fn readable_temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    let opened = File::open(folder).with_context(|| format!("opening {}", folder.display()))?;
    opened.sync_all().with_context(|| format!("writing {}", folder.display()))
}

fn read_manifest(folder: &Path) -> anyhow::Result<Option<Manifest>> {
    let path = folder.join(FILE_NAME);
    let place = path.display();
    let facts = match std::fs::metadata(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.with_context(|| format!("reading {place}"))?,
    };
    if facts.len() > MANIFEST_BYTES_MAX {
        bail!(
            "{place} has {} bytes, {MANIFEST_BYTES_MAX} at most are read; pull the model again",
            facts.len()
        );
    }
    let text = std::fs::read(&path).with_context(|| format!("reading {place}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{place} is damaged; pull the model again"))?;
    if manifest.schema != SCHEMA {
        bail!(
            "{place} has form {}, and this tureen reads form {SCHEMA}: use a newer tureen",
            manifest.schema
        );
    }
    Ok(Some(manifest))
}

/// Names of the folders in a folder, hidden ones aside; none where it doesn't exist.
fn folders_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    let context = || format!("reading the models folder {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(context)?,
    };
    let mut names = Vec::new();
    for entry in entries.take(ENTRIES_MAX) {
        let entry = entry.with_context(context)?;
        let is_folder = entry.path().is_dir();
        match entry.file_name().into_string() {
            Ok(name) if is_folder && !name.starts_with('.') => names.push(name),
            _ => {}
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(model: &str) -> Manifest {
        Manifest {
            schema: SCHEMA,
            model: model.to_string(),
            source: "here".to_string(),
            pulled: "2026-01-01T00:00:00Z".to_string(),
            entry: "a.gguf".to_string(),
            files: vec![super::super::manifest::File {
                path: "a.gguf".to_string(),
                bytes: 1,
                sha256: String::new(),
                verified: false,
                origin: String::new(),
            }],
            facts: None,
        }
    }

    fn put(store: &Store, text: &str, contents: &str) {
        let model = ModelName::parse(text).unwrap();
        let staging = store.stage(&model).unwrap();
        std::fs::write(staging.folder.join("a.gguf"), contents).unwrap();
        store.publish(staging, &model, &manifest(text)).unwrap();
    }

    fn names(store: &Store) -> Vec<String> {
        store.list().unwrap().iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn a_model_is_seen_when_it_is_whole_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("models"));
        assert!(names(&store).is_empty());
        let model = ModelName::parse("a:b").unwrap();
        let staging = store.stage(&model).unwrap();
        std::fs::write(staging.folder.join("a.gguf"), "x").unwrap();
        assert!(names(&store).is_empty() && store.get(&model).unwrap().is_none());
        store.publish(staging, &model, &manifest("a:b")).unwrap();
        assert_eq!(names(&store), ["a:b"]);
        let entry = store.entry(&model, &store.get(&model).unwrap().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(entry).unwrap(), "x");
        assert!(folders_in(&folder.path().join("models/.partial")).unwrap().is_empty());
    }

    #[test]
    fn what_an_interrupted_pull_left_is_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let model = ModelName::parse("a:b").unwrap();
        drop(store.stage(&model).unwrap());
        assert!(store.unfinished().unwrap().is_empty(), "nothing came");
        let staging = store.stage(&model).unwrap();
        std::fs::write(staging.folder.join("a.gguf.partial"), "12345").unwrap();
        assert!(store.remove(&model).is_err(), "it is being pulled");
        drop(staging);
        assert_eq!(store.unfinished().unwrap(), [(model.clone(), 5)].into());
        store.remove(&model).unwrap();
        assert!(store.unfinished().unwrap().is_empty());
    }

    #[test]
    fn a_model_that_can_t_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        put(&store, "a", "1");
        let model = ModelName::parse("a").unwrap();
        let staging = store.stage(&model).unwrap();
        // The folder itself can't be moved into a folder below it.
        let broken = folder.path().join("a");
        let lock = File::create(folder.path().join("lock")).unwrap();
        let error = store.publish(Staging { folder: broken, _lock: lock }, &model, &manifest("a"));
        assert!(format!("{:#}", error.unwrap_err()).starts_with("moving into"));
        drop(staging);
        let entry = store.entry(&model, &store.get(&model).unwrap().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(entry).unwrap(), "1");
    }

    #[test]
    fn what_a_killed_process_had_begun_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let model = ModelName::parse("a").unwrap();
        let place = folder.path().join("a/latest");
        let aside = |end: &str| folder.path().join(format!(".partial/a@latest{end}"));
        put(&store, "a", "1");
        std::fs::rename(&place, aside("@old")).unwrap();
        drop(store.stage(&model).unwrap());
        assert!(place.join("a.gguf").exists(), "half replaced, it comes back");
        std::fs::rename(&place, aside("@removed")).unwrap();
        assert_eq!(store.unfinished().unwrap().len(), 1);
        drop(store.stage(&model).unwrap());
        assert!(!place.exists() && !aside("@removed").exists(), "half removed, it goes");
        put(&store, "a", "2");
        std::fs::create_dir(aside("@old")).unwrap();
        drop(store.stage(&model).unwrap());
        assert!(place.exists() && !aside("@old").exists(), "replaced, the old one goes");
    }

    #[test]
    fn a_second_pull_replaces_the_first_and_tags_live_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        put(&store, "a", "1");
        put(&store, "a:x", "2");
        put(&store, "a", "3");
        assert_eq!(names(&store), ["a", "a:x"]);
        let read = |text: &str| {
            let (model, manifest) = store.require(text).unwrap();
            std::fs::read_to_string(store.entry(&model, &manifest).unwrap()).unwrap()
        };
        assert_eq!((read("a"), read("a:x")), ("3".to_string(), "2".to_string()));
        store.remove(&ModelName::parse("a").unwrap()).unwrap();
        assert_eq!(names(&store), ["a:x"]);
    }

    #[test]
    fn one_pull_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let model = ModelName::parse("a").unwrap();
        let staging = store.stage(&model).unwrap();
        let error = store.stage(&model).err().unwrap().to_string();
        assert_eq!(error, "a is being pulled by another process; wait for that, or end it");
        drop(staging);
        store.stage(&model).unwrap();
    }

    #[test]
    fn an_unknown_model_is_answered_with_the_nearest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let check = |text: &str, expected: &str| {
            assert_eq!(store.require(text).unwrap_err().to_string(), expected);
        };
        check("a", "there is no model a here, nor any other");
        put(&store, "smollm2:135m", "");
        check("smollm2:135", "there is no model smollm2:135 here; did you mean smollm2:135m?");
        check("smollm2", "there is no model smollm2 here; did you mean smollm2:135m?");
        check("other", "there is no model other here; `tureen list` shows what is");
    }

    #[test]
    fn a_damaged_manifest_hides_no_other_model() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        put(&store, "a", "");
        put(&store, "b", "");
        std::fs::write(folder.path().join("a/latest/manifest.json"), "{").unwrap();
        let list = store.list().unwrap();
        assert!(list[0].1.is_err() && list[1].1.is_ok());
        let mut outside = manifest("b");
        outside.entry = "../../secret".to_string();
        assert!(store.entry(&ModelName::parse("b").unwrap(), &outside).is_err());
    }
}
