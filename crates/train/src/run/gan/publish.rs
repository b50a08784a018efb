//! What a finished run of a GAN leaves: the generator as ONNX, weights of both, the last grid, the definition, the report.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::publish::Published;
use super::super::report;
use super::checkpoint::Progress;
use super::fitting::grid_file;
use super::session::Session;
use crate::error::{Result, TrainError};
use crate::gan::LABEL;
use crate::model::Model;

/// Grids in a report: evenly spread over the epochs, the first and the last among them.
const GRIDS_MAX: usize = 12;

/// Writes the files of a finished run to `folder`; their paths.
pub(super) fn publish(
    session: &mut Session,
    progress: &Progress,
    metrics: &BTreeMap<String, f64>,
    definition: &Path,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    let mut served = session.definition.published(session.gan.threads())?;
    let generator = session.gan.generator();
    for (path, _, values) in generator.weights() {
        served.set_weight(path, values)?;
    }
    let mut files = Published::new(folder, definition);
    files.model(&served)?;
    files.weights("discriminator.safetensors", session.gan.discriminator())?;
    let text = files.definition()?;
    files.classes(session.names.iter().map(|names| (LABEL.to_owned(), names)).collect())?;
    if let Some(png) = read_grid(folder, progress.epoch)? {
        files.write("samples.png", &png)?;
    }
    files.history();
    let page = page(session, progress, metrics, folder, [&files.name(), &text])?;
    files.write(report::FILE_NAME, page.as_bytes())?;
    Ok(files.paths)
}

/// The grid after `epoch` epochs; none where samples are no pictures, or somebody has removed it.
fn read_grid(folder: &Path, epoch: usize) -> Result<Option<Vec<u8>>> {
    let path = grid_file(folder, epoch);
    match std::fs::read(&path) {
        Ok(png) => Ok(Some(png)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::file(&path, "read", &error)),
    }
}

fn page(
    session: &Session,
    progress: &Progress,
    metrics: &BTreeMap<String, f64>,
    folder: &Path,
    [name, definition]: [&str; 2],
) -> Result<String> {
    let mut page = report::opening(name);
    let [of_generator, of_discriminator] = session.gan.iterations();
    let parameters = session.gan.models().map(Model::parameters);
    let _ = writeln!(
        page,
        "<p>A generator with {} parameters and a discriminator with {}; {} samples; {} epochs, {of_discriminator} steps \
         of the discriminator and {of_generator} of the generator.</p>",
        parameters[0],
        parameters[1],
        session.x.samples(),
        progress.history.len()
    );
    if session.classes.is_some() {
        let count = session.definition.gan.figure.samples.min(session.x.samples());
        let _ = writeln!(
            page,
            "<p>frechet_distance is that of {count} generated samples to as many of the data: of features of a classifier \
             that was trained on the same data. Less is better. It compares runs on this data and nothing else.{}</p>",
            if metrics.contains_key("test_frechet_distance") {
                " test_frechet_distance is that of real samples which nothing was trained with."
            } else {
                ""
            }
        );
    }
    page += &report::figures(metrics.iter().map(|(name, value)| (name.as_str(), report::shown(*value))));
    page += &grids(folder, progress.history.len(), &report_figures(progress))?;
    page += &report::curves(&progress.history);
    let (seed, data) = (session.definition.fit.seed, session.identity.data);
    let [generator, discriminator] = session.gan.models();
    let models = [("Generator", generator), ("Discriminator", discriminator)];
    page += &report::closing(&models, definition, &report::environment(generator, seed, data));
    Ok(page)
}

/// The figure of each epoch, where there is one.
fn report_figures(progress: &Progress) -> Vec<Option<f64>> {
    let figure = |figures: &Vec<(String, f64)>| {
        figures.iter().find(|(name, _)| name == "frechet_distance").map(|(_, value)| *value)
    };
    progress.history.iter().map(figure).collect()
}

fn grids(folder: &Path, epochs: usize, figures: &[Option<f64>]) -> Result<String> {
    let shown = epochs.min(GRIDS_MAX);
    let mut page = String::new();
    for number in 0..shown {
        let epoch = 1 + number * (epochs - 1) / (shown - 1).max(1);
        let Some(png) = read_grid(folder, epoch)? else { continue };
        let figure = figures.get(epoch - 1).copied().flatten();
        let figure = figure.map_or(String::new(), |figure| format!(", distance {}", report::shown(figure)));
        let _ = writeln!(
            page,
            "<figure><figcaption>Epoch {epoch}{figure}</figcaption><img alt=\"samples after epoch {epoch}\" \
             src=\"data:image/png;base64,{}\"></figure>",
            STANDARD.encode(&png)
        );
    }
    if page.is_empty() {
        return Ok(page);
    }
    Ok(format!("<h2>Samples of the same noise</h2>\n<div class=\"curves\">\n{page}</div>\n"))
}
