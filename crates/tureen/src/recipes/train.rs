//! Training: a definition file and its data become a model in a folder.

use std::ops::ControlFlow;
use std::path::Path;

use train::definition::Defined;
pub use train::run::{Event, Outcome};

/// Whether a definition is one, as far as its text tells: its data and its layers' shapes are looked at by who trains.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check(definition: &toml::Table) -> Result<(), String> {
    let text = toml::to_string(definition).map_err(|error| error.to_string())?;
    Defined::parse(&text).map(|_| ()).map_err(|error| error.to_string())
}

/// Trains what the file `definition` says, in `folder`, which is made if it isn't there; paths of data are relative to
/// the file. A folder with a checkpoint of the same definition is gone on with, bit for bit. `on` is told what happens,
/// and may ask to stop: then a checkpoint is written first.
///
/// # Errors
/// When the definition or its data isn't right, the folder can't be written or another run uses it, or training went to
/// NaN or infinity. What was kept by the last checkpoint stays.
pub fn run(
    definition: &Path,
    folder: &Path,
    on: &mut dyn FnMut(&Event) -> ControlFlow<()>,
) -> anyhow::Result<Outcome> {
    Ok(train::run::run(definition, folder, on)?)
}
