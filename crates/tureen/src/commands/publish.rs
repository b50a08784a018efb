//! What a command made becomes a version in the store.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use store::manifest::{self, Manifest, SCHEMA};
use store::{ModelName, hash};

use super::model::read_facts;

/// The manifest of a version of `name` with these files, the first of which is the one to load. `origin` says where they
/// come from.
pub fn manifest(name: &ModelName, origin: &str, paths: &[PathBuf]) -> anyhow::Result<Manifest> {
    let [model, ..] = paths else { bail!("no file was made") };
    let mut files = Vec::new();
    for path in paths {
        let (bytes, sha256) = hash::of_file(path, |_| {})?;
        let path = path.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
        let origin = origin.to_owned();
        files.push(manifest::File { path: path.to_owned(), bytes, sha256, verified: false, origin });
    }
    Ok(Manifest {
        schema: SCHEMA,
        model: name.to_string(),
        source: origin.to_owned(),
        created: store::now(),
        entry: files[0].path.clone(),
        files,
        // A family that can't be run here is kept all the same.
        facts: read_facts(model).ok(),
        ..Manifest::default()
    })
}
