//! What a finished run leaves to be used: the model as ONNX, its weights, the definition, the report.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::checkpoint::Progress;
use super::files::write_whole;
use super::session::Session;
use super::{logs, report};
use crate::error::{Result, TrainError};
use crate::files::onnx;
use crate::model::Model;

/// Writes the files of a finished run to `folder`; their paths.
pub(super) fn publish(
    session: &mut Session,
    progress: &Progress,
    metrics: &BTreeMap<String, f64>,
    definition: &Path,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    files.extend(model_files(&session.model, folder)?);
    let text = definition_file(definition, folder, &mut files)?;
    if session.classes.iter().any(Option::is_some) {
        let path = folder.join("classes.json");
        let names = session.outputs.iter().zip(&session.classes);
        let named = names.filter_map(|(name, classes)| Some((name.clone(), classes.as_ref()?))).collect();
        classes_file(&named, &path)?;
        files.push(path);
    }
    let path = folder.join(logs::HISTORY);
    if path.exists() {
        files.push(path);
    }
    let name = definition.file_stem().unwrap_or_default().to_string_lossy();
    let page = report::report(session, progress, metrics, &name, &text)?;
    let path = folder.join(report::FILE_NAME);
    write_whole(&path, |file| file.write_all(page.as_bytes()))?;
    files.push(path);
    Ok(files)
}

/// Writes the model as ONNX, and its weights, to `folder`: `model.onnx` and `model.safetensors`.
///
/// # Errors
/// When a file can't be written, or what the model computes depends on the size of a batch.
pub fn model_files(model: &Model, folder: &Path) -> Result<[PathBuf; 2]> {
    let served = folder.join("model.onnx");
    let bytes = onnx::write(model)?;
    write_whole(&served, |file| file.write_all(&bytes))?;
    let weights = folder.join("model.safetensors");
    weights_file(model, &weights)?;
    Ok([served, weights])
}

/// Names of classes, by what they are of.
pub(super) fn classes_file(named: &BTreeMap<String, &Vec<String>>, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(named)
        .map_err(|error| TrainError::data("classes.json", error.to_string()))?;
    write_whole(path, |file| writeln!(file, "{text}"))
}

pub(super) fn weights_file(model: &Model, path: &Path) -> Result<()> {
    let tensors: Vec<(String, Vec<usize>, &[f32])> =
        model.weights().map(|(path, shape, values)| (path.to_owned(), shape.to_vec(), values)).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "tureen".to_owned())]);
    write_whole(path, |file| formats::safetensors::write(file, &tensors, &metadata))
}

/// Copies the definition; its text.
pub(super) fn definition_file(definition: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<String> {
    let text =
        std::fs::read_to_string(definition).map_err(|error| TrainError::file(definition, "read", &error))?;
    let path = folder.join("definition.toml");
    // A definition may lie in its run's folder.
    if !same_file(&path, definition) {
        write_whole(&path, |file| file.write_all(text.as_bytes()))?;
    }
    files.push(path);
    Ok(text)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
