//! A model that is on this machine already: a file or a folder, taken into the models folder by a hard link where the
//! file system allows it, else by a copy.

use std::path::Path;

use anyhow::{Context, bail};

use formats::onnx::is_onnx;

use super::hub::{folder_files, split_parts};
use super::{Files, Plan, is_model_file, stem};

/// Entries of a folder.
const ENTRIES_MAX: usize = 100_000;

pub fn plan(path: &Path) -> anyhow::Result<Plan> {
    let path = path.canonicalize().with_context(|| format!("reading {}", path.display()))?;
    let place = path.display();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        bail!("{place} has no name to call the model by")
    };
    if path.is_dir() {
        let names = names_in(&path)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Some(names) = folder_files(&names) else {
            bail!("{place} is no model: config.json and model*.safetensors are expected in it");
        };
        return Ok(Plan {
            name: name.to_string(),
            entry: ".".to_string(),
            files: Files::Local { folder: path.clone(), names },
        });
    }
    if !is_model_file(name) {
        bail!("{place} is neither a .gguf or .onnx file nor a folder with config.json and safetensors");
    }
    let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut names = split_parts(name).unwrap_or_else(|| vec![name.to_string()]);
    if is_onnx(&path) {
        names.extend(formats::onnx::read(&path)?.external_files);
    }
    if let Some(missing) = names.iter().find(|name| !folder.join(name).is_file()) {
        bail!("{place} is a part of what it needs, and {missing} is not beside it");
    }
    Ok(Plan { name: stem(name), entry: names[0].clone(), files: Files::Local { folder, names } })
}

fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    let context = || format!("reading {}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(context)?.take(ENTRIES_MAX) {
        let entry = entry.with_context(context)?;
        // Hugging Face's cache keeps links to its files, hence `is_file` and not the entry's own kind.
        if let Ok(name) = entry.file_name().into_string()
            && entry.path().is_file()
        {
            names.push(name);
        }
    }
    Ok(names)
}
