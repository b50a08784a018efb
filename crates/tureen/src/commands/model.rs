//! What MODEL means on the command line: a file, a folder, or the name of a model that was pulled.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use formats::model::ModelFiles;

use super::Context;
use crate::models::manifest::{Facts, Manifest};
use crate::models::sources::stem;

/// A model to load.
pub struct Model {
    /// What it is called where it is served.
    pub name: String,
    /// A .gguf file or a folder.
    pub path: PathBuf,
    /// Of one that was pulled.
    pub manifest: Option<Manifest>,
}

/// # Errors
/// Neither a path nor a name of a model that is here; the nearest is named.
pub fn find(context: &Context, text: &str) -> anyhow::Result<Model> {
    let path = Path::new(text);
    let looks_like_a_path = text.contains(['/', '\\']) || text.ends_with(".gguf");
    if looks_like_a_path || path.is_file() || path.join("config.json").is_file() {
        let path = path.canonicalize().with_context(|| format!("there is no model at {text}"))?;
        let file =
            path.file_name().map_or_else(|| text.to_string(), |name| name.to_string_lossy().into_owned());
        return Ok(Model { name: stem(&file), path, manifest: None });
    }
    let (name, manifest) = context.store.require(text)?;
    let path = context.store.entry(&name, &manifest)?;
    Ok(Model { name: name.to_string(), path, manifest: Some(manifest) })
}

/// Opens a model's files.
pub fn open(path: &Path) -> anyhow::Result<ModelFiles> {
    Ok(ModelFiles::open(path)?)
}

/// What the manifest keeps of a model's own words.
pub fn read_facts(path: &Path) -> anyhow::Result<Facts> {
    let files = open(path)?;
    let (decoder, facts) = (files.decoder(), files.facts());
    Ok(Facts {
        family: decoder.family.clone(),
        parameters: facts.parameters,
        quantisation: facts.quantisation.clone(),
        licence: facts.licence.clone(),
    })
}
