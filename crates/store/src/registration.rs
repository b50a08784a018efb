//! Brings the database in step with the folders, which are the truth: versions that it doesn't know of are entered (those
//! that a killed process had just moved into place, those of a database that was lost, and models that were pulled
//! before there were versions), and those whose folder is gone are forgotten.

use std::collections::BTreeSet;
use std::path::Path;

use crate::database::{Connection, Database};
use crate::durable::{folders_in, rename, sync_folder};
use crate::error::Result;
use crate::manifest::{self, FILE_NAME};
use crate::name::ModelName;
use crate::staging;
use crate::versions::{Entry, enter, forget, place, point, tagged};

/// How the folders differ from the database.
#[derive(Default)]
struct Difference {
    /// In numbered folders, in order.
    unknown: Vec<(String, u64)>,
    /// In folders `NAME/TAG`, as they were before there were versions.
    unnumbered: Vec<ModelName>,
    missing: Vec<(String, u64)>,
}

/// # Errors
/// The disk; the database.
pub fn run(models: &Path, database: &Database) -> Result<()> {
    if database.is_read_only {
        return Ok(());
    }
    // What can't be deleted now, or is being deleted by another process, is no reason to stop.
    let _ = staging::sweep(models);
    if difference(models, &mut database.lock())?.is_none() {
        return Ok(());
    }
    database.transaction(|transaction| {
        // Another process may have done it, or published, between the look and the lock.
        let Some(found) = difference(models, transaction)? else { return Ok(()) };
        for (name, number) in &found.missing {
            forget(transaction, name, *number)?;
        }
        for (name, number) in &found.unknown {
            register(models, transaction, name, *number, None)?;
        }
        for model in &found.unnumbered {
            let next =
                transaction.number("SELECT next FROM models WHERE name = $1", &[model.name().into()])?;
            let number = next.unwrap_or(1);
            let folder = models.join(model.name());
            rename(&folder.join(model.tag()), &place(models, model.name(), number))?;
            sync_folder(&folder)?;
            register(models, transaction, model.name(), number, Some(model))?;
        }
        Ok(())
    })
}

/// `None` where there is nothing to do.
fn difference(models: &Path, connection: &mut Connection<'_>) -> Result<Option<Difference>> {
    let mut known = BTreeSet::new();
    for row in connection.rows("SELECT model, number FROM versions", &[])? {
        known.insert((row.text(0)?, row.number(1)?));
    }
    let mut found = Difference::default();
    for name in folders_in(models)? {
        for folder in folders_in(&models.join(&name))? {
            if !models.join(&name).join(&folder).join(FILE_NAME).is_file() {
                continue;
            }
            if let Some(number) = folder.strip_prefix('@').and_then(|number| number.parse().ok()) {
                if !known.remove(&(name.clone(), number)) {
                    found.unknown.push((name.clone(), number));
                }
            } else if let Ok(model) = ModelName::parse(&format!("{name}:{folder}")) {
                found.unnumbered.push(model);
            }
        }
    }
    found.missing.extend(known);
    found.unknown.sort();
    found.unnumbered.sort();
    let is_same = found.unknown.is_empty() && found.unnumbered.is_empty() && found.missing.is_empty();
    Ok((!is_same).then_some(found))
}

/// Enters a version. Its tag, if that isn't known, is the one that its manifest was published under; a tag that points
/// at a later version stays there.
fn register(
    models: &Path,
    transaction: &mut Connection<'_>,
    name: &str,
    number: u64,
    tag: Option<&ModelName>,
) -> Result<()> {
    let folder = place(models, name, number);
    let read = manifest::read(&folder);
    // One that can't be read is entered too, so that it is seen, and can be removed.
    let text = std::fs::read(folder.join(FILE_NAME)).unwrap_or_default();
    let manifest = read.ok().flatten().map(|(manifest, _)| manifest);
    let job = manifest.as_ref().and_then(|manifest| manifest.job.as_deref());
    enter(transaction, &Entry { name, number, manifest: &text, job })?;
    let said = manifest.as_ref().and_then(|manifest| ModelName::parse(&manifest.model).ok());
    let tag = tag.or(said.as_ref()).filter(|tag| tag.name() == name);
    match tag {
        Some(tag) if tagged(transaction, tag)?.is_none_or(|other| other < number) => {
            point(transaction, tag, number)
        }
        _ => Ok(()),
    }
}
