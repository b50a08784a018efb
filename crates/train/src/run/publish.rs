//! What a finished run leaves to be used: the model as ONNX, its weights, the definition, the report.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::checkpoint::Progress;
use super::session::Session;
use super::{logs, report};
use crate::error::{Result, TrainError};
use crate::files::onnx;
use crate::files::write_whole;
use crate::model::Model;

/// Writes the files of a finished run to `folder`; their paths.
pub(super) fn publish(
    session: &mut Session,
    progress: &Progress,
    metrics: &BTreeMap<String, f64>,
    definition: &Path,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    let mut files = Published::new(folder, definition);
    files.model(&session.model)?;
    let text = files.definition()?;
    let names = session.outputs.iter().zip(&session.classes);
    files.classes(names.filter_map(|(name, classes)| Some((name.clone(), classes.as_ref()?))).collect())?;
    files.history();
    let page = report::report(session, progress, metrics, &files.name(), &text)?;
    files.write(report::FILE_NAME, page.as_bytes())?;
    Ok(files.paths)
}

/// Writes the model as ONNX, and its weights, to `folder`: `model.onnx` and `model.safetensors`.
///
/// # Errors
/// When a file can't be written, or what the model computes depends on the size of a batch.
pub fn model_files(model: &Model, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Published::new(folder, folder);
    files.model(model)?;
    Ok(files.paths)
}

/// The files of a run that has ended, one by one.
pub(super) struct Published<'a> {
    folder: &'a Path,
    definition: &'a Path,
    pub paths: Vec<PathBuf>,
}

impl<'a> Published<'a> {
    pub fn new(folder: &'a Path, definition: &'a Path) -> Published<'a> {
        Published { folder, definition, paths: vec![] }
    }

    /// What the run is called: the definition's file, without its ending.
    pub fn name(&self) -> String {
        self.definition.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        write_whole(&path, |file| file.write_all(bytes))?;
        self.paths.push(path);
        Ok(())
    }

    /// The model as ONNX, and its weights.
    pub fn model(&mut self, model: &Model) -> Result<()> {
        self.write("model.onnx", &onnx::write(model)?)?;
        self.weights("model.safetensors", model)
    }

    pub fn weights(&mut self, name: &str, model: &Model) -> Result<()> {
        let tensors: Vec<(String, Vec<usize>, &[f32])> =
            model.weights().map(|(path, shape, values)| (path.to_owned(), shape.to_vec(), values)).collect();
        let metadata = BTreeMap::from([("format".to_owned(), "tureen".to_owned())]);
        let path = self.folder.join(name);
        write_whole(&path, |file| formats::safetensors::write(file, &tensors, &metadata))?;
        self.paths.push(path);
        Ok(())
    }

    /// A copy of the definition; its text.
    pub fn definition(&mut self) -> Result<String> {
        let text = std::fs::read_to_string(self.definition)
            .map_err(|error| TrainError::file(self.definition, "read", &error))?;
        let path = self.folder.join("definition.toml");
        match same_file(&path, self.definition) {
            // A definition may lie in its run's folder.
            true => self.paths.push(path),
            false => self.write("definition.toml", text.as_bytes())?,
        }
        Ok(text)
    }

    /// Names of classes by what they are of, where there are any.
    pub fn classes(&mut self, named: BTreeMap<String, &Vec<String>>) -> Result<()> {
        if named.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&named)
            .map_err(|error| TrainError::data("classes.json", error.to_string()))?;
        self.write("classes.json", (text + "\n").as_bytes())
    }

    /// The figures of the epochs, which are there if an epoch has ended.
    pub fn history(&mut self) {
        let path = self.folder.join(logs::HISTORY);
        if path.exists() {
            self.paths.push(path);
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
