//! A run of a GAN: from its definition to a generator in a folder, with a grid of samples and a figure after each epoch.

mod checkpoint;
mod fitting;
mod grid;
mod measure;
mod publish;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use super::event::{Event, Outcome};
use super::fitting::On;
use crate::definition::GanDefinition;
use crate::error::Result;
use fitting::Fitting;
use session::Session;

/// As [`super::run`], of a folder that is locked.
pub(super) fn run(
    read: GanDefinition,
    definition: &Path,
    base: &Path,
    folder: &Path,
    on: On<'_>,
) -> Result<Outcome> {
    let mut session = Session::new(read, base)?;
    let (progress, classifier) = checkpoint::load(folder, &session.identity, &mut session.gan)?;
    let mut fitting = Fitting::new(&mut session, progress, classifier, folder)?;
    let stopped = fitting.run(on)?;
    let Fitting { progress, mut measure, .. } = fitting;
    let last = progress.history.last().cloned().unwrap_or_default();
    let mut metrics: BTreeMap<String, f64> = last.into_iter().collect();
    if stopped {
        return Ok(Outcome { stopped, metrics, files: vec![] });
    }
    if let (Some(measure), Some((x, classes))) = (&mut measure, &session.test) {
        let (accuracy, distance) = measure.of_test(x, classes)?;
        metrics.insert("test_classifier_accuracy".to_owned(), accuracy);
        metrics.insert("test_frechet_distance".to_owned(), distance);
    }
    let files = publish::publish(&mut session, &progress, &metrics, definition, folder)?;
    // Nothing is left that could be stopped.
    let _ = on(&Event::Finished { metrics: metrics.clone() });
    Ok(Outcome { stopped, metrics, files })
}
