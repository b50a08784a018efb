//! A run: from a definition file to a trained model in a folder, with checkpoints that it goes on from.

mod checkpoint;
mod event;
mod fitting;
mod gan;
mod logs;
mod pace;
mod plateau;
mod prepared;
mod publish;
mod report;
mod samples;
mod session;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

pub use event::{Event, Outcome};
pub use prepared::Prepared;
pub use publish::model_files;
pub use samples::Samples;

use crate::definition::{Defined, Definition};
use crate::error::{Result, TrainError};
use checkpoint::Progress;
use fitting::Fitting;
use session::Session;

/// Held while a run writes to a folder.
const LOCK: &str = "lock";

/// Trains what the file `definition` says, in `folder`, which is made if it isn't there. A folder with a checkpoint of the
/// same definition is gone on with, bit for bit. `on` is told what happens; where it breaks, a checkpoint is written and
/// the run ends.
///
/// # Errors
/// When the definition or the data isn't right, the folder can't be written or is used by another run, or training went
/// to NaN or infinity.
pub fn run(
    definition: &Path,
    folder: &Path,
    on: &mut dyn FnMut(&Event) -> ControlFlow<()>,
) -> Result<Outcome> {
    let read = Defined::read(definition)?;
    let base = definition.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(|error| TrainError::file(folder, "made", &error))?;
    let _lock = lock(folder)?;
    match read {
        Defined::Model(read) => fit(*read, definition, base, folder, on),
        Defined::Gan(read) => gan::run(*read, definition, base, folder, on),
    }
}

/// A fit of one model.
fn fit(
    read: Definition,
    definition: &Path,
    base: &Path,
    folder: &Path,
    on: &mut dyn FnMut(&Event) -> ControlFlow<()>,
) -> Result<Outcome> {
    let mut session = Session::new(read, base, folder)?;
    let identity = session.identity.clone();
    let progress = checkpoint::load(folder, &identity, &mut session.model)?.unwrap_or_else(Progress::default);
    let mut fitting = Fitting::new(&mut session, progress, folder)?;
    let stopped = fitting.run(on)?;
    let progress = fitting.progress;
    if stopped {
        let metrics = progress.history.last().cloned().unwrap_or_default().into_iter().collect();
        return Ok(Outcome { stopped, metrics, files: vec![] });
    }
    let metrics = finish(&mut session, &progress)?;
    let files = publish::publish(&mut session, &progress, &metrics, definition, folder)?;
    // Nothing is left that could be stopped.
    let _ = on(&Event::Finished { metrics: metrics.clone() });
    Ok(Outcome { stopped, metrics, files })
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(|error| TrainError::file(&path, "written", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(TrainError::Order(format!("{} is used by another run", folder.display())))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(TrainError::file(&path, "locked", &error)),
    }
}

/// Takes the weights that are published, and their figures.
fn finish(session: &mut Session, progress: &Progress) -> Result<BTreeMap<String, f64>> {
    let restores =
        session.definition.fit.early_stopping.as_ref().is_some_and(|stop| stop.restore_best_weights);
    let epoch = progress.kept_epoch(restores);
    if let Some(best) = progress.best.as_ref().filter(|_| restores) {
        let paths: Vec<(String, usize)> =
            session.model.weights().map(|(path, _, values)| (path.to_owned(), values.len())).collect();
        let mut at = 0;
        for (path, len) in paths {
            session.model.set_weight(&path, &best.weights[at..at + len])?;
            at += len;
        }
    } else {
        session.model.finish();
    }
    let figures = progress.history.get(epoch.saturating_sub(1));
    let mut metrics: BTreeMap<String, f64> = figures.cloned().unwrap_or_default().into_iter().collect();
    if let Some(test) = &session.test {
        let sums = test.evaluated(&mut session.model, session.definition.fit.batch_size)?;
        metrics.extend(session.model.figures(&sums, "test_"));
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests;
