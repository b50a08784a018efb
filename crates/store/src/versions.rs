//! The models folder: `NAME/@NUMBER/` holds a version's files and its manifest, last written. A version comes into
//! sight by one rename and never changes; tags, in the database, point at one each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::database::{Cells, Connection, Database, DatabaseUrl};
use crate::durable::{delete, is_plain_path, make_folder, rename, sync_file, sync_folder, write_durably};
use crate::error::{Result, StoreError};
use crate::manifest::{self, FILE_NAME, Manifest};
use crate::name::{DEFAULT_TAG, ModelName, Reference};
use crate::staging::{self, Staging, Unfinished};
use crate::{hash, registration};

/// The folder of what is no model: the database, uploads and jobs.
pub(crate) const OWN: &str = ".store";
/// For a database that answered before and doesn't now: it is being started anew.
const RETURN_MAX: Duration = Duration::from_secs(60);

/// Everything that is kept. Clones share it. The folder needs not exist before something is put there.
#[derive(Clone)]
pub struct Store {
    folder: PathBuf,
    /// Where the database is; `None` where it is a file in the folder.
    url: Option<DatabaseUrl>,
    database: Arc<Mutex<Option<Arc<Database>>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.folder).finish()
    }
}

/// One version that is here.
#[derive(Clone, Debug)]
pub struct Version {
    pub name: String,
    pub number: u64,
    /// In order, `latest` first.
    pub tags: Vec<String>,
    pub folder: PathBuf,
    pub manifest: Manifest,
}

impl Version {
    /// As `list` shows it: by its first tag, or by its number.
    pub fn label(&self) -> String {
        label(&self.name, self.number, &self.tags)
    }

    /// `NAME@NUMBER`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.number)
    }

    /// The file or folder to load.
    ///
    /// # Errors
    /// The manifest names something else than one of its files.
    pub fn entry(&self) -> Result<PathBuf> {
        self.manifest.entry_in(&self.folder)
    }
}

/// A file of a version that isn't what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: String,
    pub why: String,
}

impl Store {
    pub fn new(folder: &Path) -> Store {
        Store::with_database(folder, None)
    }

    /// A folder whose database is at `url`, in PostgreSQL; of `None`, a file in the folder. One folder, one database.
    pub fn with_database(folder: &Path, url: Option<DatabaseUrl>) -> Store {
        Store { folder: folder.to_path_buf(), url, database: Arc::default() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the database is, unless it is a file in the folder.
    pub fn database_url(&self) -> Option<&DatabaseUrl> {
        self.url.as_ref()
    }

    /// The database, opened the first time; versions that it doesn't know of yet are entered then.
    pub(crate) fn database(&self) -> Result<Arc<Database>> {
        let mut opened = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = opened.as_ref().filter(|database| database.is_alive()) {
            return Ok(database.clone());
        }
        let own = self.folder.join(OWN);
        let patience = if opened.is_some() { RETURN_MAX } else { Duration::ZERO };
        let database = Arc::new(match &self.url {
            None => Database::open(&own.join("store.db"))?,
            Some(url) => Database::connect(url, &own, patience)?,
        });
        // Whatever was under way when the last connection ended may be half done, too.
        registration::run(&self.folder, &database)?;
        *opened = Some(database.clone());
        Ok(database)
    }

    /// For looking: nothing is made where nothing was put yet.
    pub(crate) fn database_if_any(&self) -> Result<Option<Arc<Database>>> {
        if self.folder.is_dir() { self.database().map(Some) } else { Ok(None) }
    }

    /// The version that is meant, or `None` where there is none.
    ///
    /// # Errors
    /// Its manifest can't be read; the database.
    pub fn find(&self, reference: &Reference) -> Result<Option<Version>> {
        let Some(database) = self.database_if_any()? else { return Ok(None) };
        let name = reference.name();
        let number = match reference {
            Reference::Number { number, .. } => Some(*number),
            Reference::Tag(model) => tagged(&mut database.lock(), model)?,
        };
        let Some(number) = number else { return Ok(None) };
        let tags = tags_of(&mut database.lock(), name, number)?;
        self.read(name, number, tags)
    }

    /// Every version, by name and number. One whose manifest can't be read is an error of its own, beside the others.
    ///
    /// # Errors
    /// The database.
    pub fn list(&self) -> Result<Vec<(String, Result<Version>)>> {
        let Some(database) = self.database_if_any()? else { return Ok(Vec::new()) };
        let rows = database.lock().rows("SELECT model, number FROM versions ORDER BY model, number", &[])?;
        let mut all_tags: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
        for row in database.lock().rows("SELECT model, number, tag FROM tags", &[])? {
            all_tags.entry((row.text(0)?, row.number(1)?)).or_default().push(row.text(2)?);
        }
        let mut found = Vec::new();
        for row in rows {
            let (name, number) = (row.text(0)?, row.number(1)?);
            let mut tags = all_tags.remove(&(name.clone(), number)).unwrap_or_default();
            sort_tags(&mut tags);
            let label = label(&name, number, &tags);
            if let Some(version) = self.read(&name, number, tags).transpose() {
                found.push((label, version));
            }
        }
        Ok(found)
    }

    fn read(&self, name: &str, number: u64, tags: Vec<String>) -> Result<Option<Version>> {
        let folder = place(&self.folder, name, number);
        let Some((mut manifest, _)) = manifest::read(&folder)? else { return Ok(None) };
        manifest.version = number;
        Ok(Some(Version { name: name.to_owned(), number, tags, folder, manifest }))
    }

    /// The folder to gather a model's files in; what an interrupted pull left there is still there.
    ///
    /// # Errors
    /// The folder can't be made, or another pull of the same model is at it.
    pub fn stage(&self, model: &ModelName) -> Result<Staging> {
        staging::stage(&self.folder, model)
    }

    /// The same, empty: for what is made anew.
    ///
    /// # Errors
    /// As for [`Store::stage`].
    pub fn stage_anew(&self, model: &ModelName) -> Result<Staging> {
        let staging = self.stage(model)?;
        staging.keep_only::<&str>(&[])?;
        Ok(staging)
    }

    /// Models of which an interrupted pull left something, with its bytes.
    ///
    /// # Errors
    /// The disk.
    pub fn unfinished(&self) -> Result<BTreeMap<ModelName, Unfinished>> {
        staging::unfinished(&self.folder)
    }

    /// Brings the files in `staged`, a folder on the models folder's disk, into sight as the next version of `model`,
    /// and lets its tag point there. Where the tag's version has the same files from the same source already, its files
    /// are put in their places instead: that mends one that was damaged.
    ///
    /// # Errors
    /// The disk; the database. Nothing is in sight then.
    pub fn publish(&self, staged: &Path, model: &ModelName, mut manifest: Manifest) -> Result<Version> {
        for file in &manifest.files {
            if !is_plain_path(&file.path) || file.path == FILE_NAME {
                let why = format!("file {:?}", file.path);
                return Err(StoreError::Damaged { place: staged.display().to_string(), why });
            }
            sync_file(&staged.join(&file.path))?;
        }
        let database = self.database()?;
        let number = database.transaction(|transaction| {
            if let Some(number) = self.same_as_tagged(transaction, model, &manifest)? {
                let folder = place(&self.folder, model.name(), number);
                for file in &manifest.files {
                    rename(&staged.join(&file.path), &folder.join(&file.path))?;
                }
                sync_folder(&folder)?;
                return Ok(number);
            }
            let number = self.next_number(transaction, model.name())?;
            manifest.version = number;
            let text = serde_json::to_vec_pretty(&manifest)
                .map_err(|error| StoreError::Refused(format!("writing the manifest: {error}")))?;
            write_durably(&staged.join(FILE_NAME), &text)?;
            sync_folder(staged)?;
            let parent = self.folder.join(model.name());
            make_folder(&parent)?;
            rename(staged, &place(&self.folder, model.name(), number))?;
            sync_folder(&parent)?;
            sync_folder(&self.folder)?;
            let version = Entry { name: model.name(), number, manifest: &text, job: manifest.job.as_deref() };
            enter(transaction, &version)?;
            point(transaction, model, number)?;
            Ok(number)
        })?;
        delete(staged)?;
        let found = self.find(&Reference::Number { name: model.name().to_owned(), number })?;
        found.ok_or_else(|| StoreError::Missing { what: format!("version {}@{number}", model.name()) })
    }

    fn same_as_tagged(
        &self,
        transaction: &mut Connection<'_>,
        model: &ModelName,
        manifest: &Manifest,
    ) -> Result<Option<u64>> {
        let Some(number) = tagged(transaction, model)? else { return Ok(None) };
        // A manifest that can't be read is no reason not to publish another.
        let Ok(Some((here, _))) = manifest::read(&place(&self.folder, model.name(), number)) else {
            return Ok(None);
        };
        let is_same = here.source == manifest.source && here.has_files_of(manifest);
        Ok((is_same && manifest.job.is_none()).then_some(number))
    }

    /// A number that no version of this name ever had.
    fn next_number(&self, transaction: &mut Connection<'_>, name: &str) -> Result<u64> {
        let next = transaction.number("SELECT next FROM models WHERE name = $1", &[name.into()])?;
        let mut number = next.unwrap_or(1);
        while place(&self.folder, name, number).exists() {
            number += 1;
        }
        Ok(number)
    }

    /// Takes a tag away, and deletes its version where no other tag points there; or deletes the version of a number
    /// with all its tags. Where it was the latest, the newest that is left becomes that. What an interrupted pull left of
    /// the tag goes too.
    ///
    /// # Errors
    /// A pull is at it now; the disk; the database.
    pub fn remove(&self, reference: &Reference) -> Result<()> {
        let name = reference.name();
        let staging = match reference {
            Reference::Tag(model) => Some(self.stage(model)?),
            Reference::Number { .. } => None,
        };
        let database = self.database()?;
        let gone = database.transaction(|transaction| {
            let number = match reference {
                Reference::Number { number, .. } => Some(*number),
                Reference::Tag(model) => {
                    let number = tagged(transaction, model)?;
                    let named = [model.name().into(), model.tag().into()];
                    transaction.write("DELETE FROM tags WHERE model = $1 AND tag = $2", &named)?;
                    match number {
                        Some(number) if tags_of(transaction, name, number)?.is_empty() => Some(number),
                        _ => None,
                    }
                }
            };
            let Some(number) = number else { return Ok(None) };
            let was_latest = match reference {
                Reference::Tag(model) => model.tag() == DEFAULT_TAG,
                Reference::Number { .. } => {
                    tags_of(transaction, name, number)?.iter().any(|tag| tag == DEFAULT_TAG)
                }
            };
            let gone = self.take_away(transaction, name, number)?;
            // The name alone goes on meaning the newest.
            let newest = "SELECT number FROM versions WHERE model = $1 ORDER BY number DESC LIMIT 1";
            if was_latest && let Some(newest) = transaction.number(newest, &[name.into()])? {
                point(transaction, &ModelName::parse(name)?, newest)?;
            }
            Ok(Some(gone))
        })?;
        if let Some(gone) = gone {
            delete(&gone)?;
        }
        staging.map_or(Ok(()), |staging| delete(&staging.folder))
    }

    /// Out of sight, to be deleted from where it is then.
    fn take_away(&self, transaction: &mut Connection<'_>, name: &str, number: u64) -> Result<PathBuf> {
        let (folder, removed) =
            (place(&self.folder, name, number), staging::removed(&self.folder, name, number));
        if let Some(parent) = removed.parent() {
            make_folder(parent)?;
        }
        if folder.exists() {
            delete(&removed)?;
            rename(&folder, &removed)?;
            // Other versions may live there, and then it stays.
            let _ = std::fs::remove_dir(self.folder.join(name));
            sync_folder(&self.folder)?;
        }
        forget(transaction, name, number)?;
        Ok(removed)
    }

    /// Lets a tag point at a version, wherever it pointed before.
    ///
    /// # Errors
    /// There is no such version; the database.
    pub fn tag(&self, version: &Version, tag: &str) -> Result<ModelName> {
        let model = ModelName::parse(&format!("{}:{tag}", version.name))?;
        self.database()?.transaction(|transaction| point(transaction, &model, version.number))?;
        Ok(model)
    }

    /// The version that a job published, if it did.
    ///
    /// # Errors
    /// The database.
    pub fn version_of_job(&self, job: &str) -> Result<Option<Version>> {
        let rows = self
            .database()?
            .lock()
            .rows("SELECT model, number FROM versions WHERE job = $1", &[job.into()])?;
        let Some(row) = rows.first() else { return Ok(None) };
        self.find(&Reference::Number { name: row.text(0)?, number: row.number(1)? })
    }

    /// Reads every file of a version again, and says which isn't what was published.
    ///
    /// # Errors
    /// The database. A file that can't be read is damage.
    pub fn verify(&self, version: &Version, mut seen: impl FnMut(usize)) -> Result<Vec<Damage>> {
        let mut found = Vec::new();
        let sql = "SELECT manifest_sha256 FROM versions WHERE model = $1 AND number = $2";
        let known = self.database()?.lock().rows(sql, &[(&version.name).into(), version.number.into()])?;
        let known = known.first().map(|row| row.text(0)).transpose()?;
        let damage = |path: &str, why: String| Damage { path: path.to_owned(), why };
        match hash::of_file(&version.folder.join(FILE_NAME), &mut seen) {
            Ok((_, sha256)) if known.as_deref() == Some(&sha256) => {}
            Ok((_, sha256)) => {
                found.push(damage(
                    FILE_NAME,
                    format!("sha256 was {}, is {sha256}", known.unwrap_or_default()),
                ));
            }
            Err(error) => found.push(damage(FILE_NAME, error.to_string())),
        }
        for file in &version.manifest.files {
            let why = match hash::of_file(&version.folder.join(&file.path), &mut seen) {
                Ok((bytes, _)) if bytes != file.bytes => {
                    format!("{} bytes were published, {bytes} are here", file.bytes)
                }
                Ok((_, sha256)) if sha256 != file.sha256 => {
                    format!("sha256 was {}, is {sha256}", file.sha256)
                }
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            found.push(damage(&file.path, why));
        }
        Ok(found)
    }
}

/// What the database keeps of a version.
pub(crate) struct Entry<'a> {
    pub name: &'a str,
    pub number: u64,
    /// The manifest's bytes.
    pub manifest: &'a [u8],
    pub job: Option<&'a str>,
}

pub(crate) fn enter(transaction: &mut Connection<'_>, entry: &Entry<'_>) -> Result<()> {
    let Entry { name, number, manifest, job } = *entry;
    let sha256 = hash::of_bytes(manifest);
    transaction.write(
        "INSERT INTO versions (model, number, job, manifest_sha256) VALUES ($1, $2, $3, $4)",
        &[name.into(), number.into(), job.into(), (&sha256).into()],
    )?;
    transaction.write(
        "INSERT INTO models (name, next) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET next = CASE WHEN models.next > excluded.next THEN models.next ELSE excluded.next END",
        &[name.into(), (number + 1).into()],
    )?;
    Ok(())
}

/// The database's part of deleting a version; tags go with it.
pub(crate) fn forget(transaction: &mut Connection<'_>, name: &str, number: u64) -> Result<()> {
    let version = [name.into(), number.into()];
    transaction.write("DELETE FROM versions WHERE model = $1 AND number = $2", &version).map(|_| ())
}

pub(crate) fn point(transaction: &mut Connection<'_>, model: &ModelName, number: u64) -> Result<()> {
    transaction.write(
        "INSERT INTO tags (model, tag, number) VALUES ($1, $2, $3) \
         ON CONFLICT (model, tag) DO UPDATE SET number = excluded.number",
        &[model.name().into(), model.tag().into(), number.into()],
    )?;
    Ok(())
}

/// The number that a tag points at.
pub(crate) fn tagged(connection: &mut Connection<'_>, model: &ModelName) -> Result<Option<u64>> {
    let sql = "SELECT number FROM tags WHERE model = $1 AND tag = $2";
    connection.number(sql, &[model.name().into(), model.tag().into()])
}

fn tags_of(connection: &mut Connection<'_>, name: &str, number: u64) -> Result<Vec<String>> {
    let sql = "SELECT tag FROM tags WHERE model = $1 AND number = $2";
    let rows = connection.rows(sql, &[name.into(), number.into()])?;
    let mut tags = rows.iter().map(|row: &Cells| row.text(0)).collect::<Result<Vec<String>>>()?;
    sort_tags(&mut tags);
    Ok(tags)
}

fn sort_tags(tags: &mut [String]) {
    tags.sort_by_key(|tag| (tag != DEFAULT_TAG, tag.clone()));
}

fn label(name: &str, number: u64, tags: &[String]) -> String {
    match tags.first() {
        Some(tag) if tag == DEFAULT_TAG => name.to_owned(),
        Some(tag) => format!("{name}:{tag}"),
        None => format!("{name}@{number}"),
    }
}

pub(crate) fn place(models: &Path, name: &str, number: u64) -> PathBuf {
    models.join(name).join(format!("@{number}"))
}
