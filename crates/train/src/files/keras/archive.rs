//! `.keras` archives: a zip of metadata, configuration and weights.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{JSON_BYTES_MAX, Training, failed, plan, weights, write};
use crate::error::{Result, TrainError};
use crate::model::{Model, SEED};

/// Version of Keras whose form is written.
const KERAS_VERSION: &str = "3.15.1";
/// Bytes of an archive's weights, as `keras.saving` doesn't split before 5 GB.
const WEIGHTS_BYTES_MAX: u64 = 8 << 30;
const ENTRIES_MAX: usize = 4096;

/// The model in the `.keras` archive at `path`, with its weights. What its optimiser carries is what [`training`] reads.
///
/// # Errors
/// When the file isn't such an archive, or its model has what isn't supported, as for [`super::from_json`].
pub fn load(path: &Path) -> Result<Model> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    load_with(path, SEED, threads)
}

/// As [`load`], with the seed of random numbers and the number of threads.
///
/// # Errors
/// As for [`load`].
pub fn load_with(path: &Path, seed: u64, threads: usize) -> Result<Model> {
    let file = super::super::read(path).map_err(|error| in_file(path, "read", &error))?;
    read(&file, seed, threads).map_err(|error| named(error, path))
}

/// The optimiser of the archive at `path` that `model` was loaded from, to go on with by [`Training::resume`]; nothing if
/// it was saved without one.
///
/// # Errors
/// When the optimiser isn't supported, or doesn't go with the model.
pub fn training(model: &Model, path: &Path) -> Result<Option<Training>> {
    let file = super::super::read(path).map_err(|error| in_file(path, "read", &error))?;
    let of_file = || {
        let Parts { config, weights } = Parts::of(&file)?;
        super::training::read(model, &config, &weights, &plan::wired(&config)?.layers)
    };
    of_file().map_err(|error| named(error, path))
}

fn named(error: TrainError, path: &Path) -> TrainError {
    match error {
        TrainError::File { problem, .. } => TrainError::File { file: path.display().to_string(), problem },
        other => other,
    }
}

/// Writes a `.keras` archive of the model and its weights, which Keras 3 loads. It is there whole or not at all. A model
/// that is compiled is written with its losses and its optimiser, which goes on in Keras, unless its schedule is one that
/// Keras doesn't have (`OneCycle`).
///
/// # Errors
/// When it can't be written.
pub fn save(model: &Model, path: &Path) -> Result<()> {
    let bytes = to_bytes(model)?;
    super::super::write_whole(path, |file| file.write_all(&bytes))
}

fn in_file(path: &Path, operation: &str, error: &std::io::Error) -> TrainError {
    TrainError::File {
        file: path.display().to_string(),
        problem: format!("it can't be {operation}: {error}"),
    }
}

/// As [`load`], from an archive in memory.
///
/// # Errors
/// As for [`load`].
pub fn from_bytes(archive: &[u8]) -> Result<Model> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    read(archive, SEED, threads)
}

fn read(archive: &[u8], seed: u64, threads: usize) -> Result<Model> {
    let Parts { config, weights } = Parts::of(archive)?;
    let plan::Wired { inputs, outputs, layers } = plan::wired(&config)?;
    let mut model = Model::with(inputs, outputs, seed, threads)?;
    weights::read(&mut model, &weights, &layers)?;
    Ok(model)
}

struct Parts {
    config: Value,
    weights: Vec<u8>,
}

impl Parts {
    fn of(archive: &[u8]) -> Result<Parts> {
        let mut zip = ZipArchive::new(Cursor::new(archive))
            .map_err(|error| failed(format!("it is no .keras archive: {error}")))?;
        if zip.len() > ENTRIES_MAX {
            return Err(failed(format!("it has {} entries; at most {ENTRIES_MAX} are read", zip.len())));
        }
        let config = entry(&mut zip, "config.json", JSON_BYTES_MAX as u64)?;
        let config =
            serde_json::from_slice(&config).map_err(|error| failed(format!("config.json: {error}")))?;
        // A file whose values are deflated or repeated is larger in memory.
        let allowed = (archive.len() as u64).saturating_mul(1100).min(WEIGHTS_BYTES_MAX);
        Ok(Parts { config, weights: entry(&mut zip, "model.weights.h5", allowed)? })
    }
}

fn entry(zip: &mut ZipArchive<Cursor<&[u8]>>, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let problem = |error: String| failed(format!("{name}: {error}"));
    let entry = zip.by_name(name).map_err(|error| problem(error.to_string()))?;
    let mut bytes = vec![];
    entry.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| problem(error.to_string()))?;
    if bytes.len() as u64 > bytes_max {
        return Err(problem(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// The bytes of [`save`].
///
/// # Errors
/// When weights can't be written, or a layer's can't be kept there.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>> {
    let metadata = serde_json::json!({ "keras_version": KERAS_VERSION, "date_saved": "1980-01-01@00:00:00" });
    let mut config = write::described(model);
    if let (Some(config), Some(compiled)) = (config.as_object_mut(), super::training::compile_config(model)) {
        config.insert("compile_config".to_owned(), compiled);
    }
    let entries = [
        ("metadata.json", metadata.to_string().into_bytes()),
        ("config.json", config.to_string().into_bytes()),
        ("model.weights.h5", weights::write(model)?),
    ];
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    // As Keras has it: numbers are hardly smaller deflated. Without times, so that a model always gives the same bytes.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    let problem = |error: String| failed(error);
    for (name, bytes) in entries {
        zip.start_file(name, options).map_err(|error| problem(error.to_string()))?;
        zip.write_all(&bytes).map_err(|error| problem(error.to_string()))?;
    }
    let archive = zip.finish().map_err(|error| problem(error.to_string()))?;
    Ok(archive.into_inner())
}
