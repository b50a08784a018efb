//! Compressing: a model's file and a mix become a smaller file, and a report of what that cost.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use compress::report::Report;
use compress::rewrite::{Source, rewrite};
use compress::{Importance, Mix, measure};
use kernels::compute::Compute;

/// What is to be done.
pub struct Request<'a> {
    /// As a person calls it.
    pub name: &'a str,
    /// A .gguf file.
    pub model: &'a Path,
    pub mix: &'static Mix,
    /// A text on which to find out which columns matter.
    pub calibration: Option<&'a Path>,
    /// A text that both models read, and the most of its tokens.
    pub measure: Option<(&'a Path, usize)>,
}

/// What it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Counts windows of the text.
    Calibrating,
    /// Counts bytes of the model that is read.
    Writing,
    /// Counts windows of the text.
    Measuring,
}

/// The files that came of it.
pub struct Made {
    pub report: Report,
    /// The model, `report.json` and `report.html`, by names that begin with the model's.
    pub files: Vec<PathBuf>,
}

/// Writes the smaller model to `out`, and its report beside it. `on` is told how many of how many are done, and may ask to
/// stop.
///
/// # Errors
/// When a file can't be read or written, the model can't be run though a text is to be read, or `on` asked to stop.
/// Nothing that isn't whole is left.
pub fn run(
    compute: &Arc<Compute>,
    request: &Request<'_>,
    out: &Path,
    on: &mut dyn FnMut(Stage, u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<Made> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("reading the text {}", path.display()))
    };
    // Read first: a text that isn't there is said before there is work.
    let calibration = request.calibration.map(read).transpose()?;
    let measured = request.measure.map(|(path, tokens_max)| Ok((read(path)?, tokens_max)));
    let measured = measured.transpose().map_err(|error: anyhow::Error| error)?;
    let source = Source::open(request.model)?;
    let importance = match &calibration {
        Some(text) => Some(Importance::measure(request.model, compute, text, &mut |done, all| {
            on(Stage::Calibrating, done as u64, all as u64)
        })?),
        None => None,
    };
    let began = Instant::now();
    let rewritten = rewrite(compute, &source, request.mix, importance.as_ref(), out, &mut |progress| {
        on(Stage::Writing, progress.done, progress.all)
    })?;
    let mut report = Report::new(request.name, request.mix.name, rewritten, began.elapsed().as_secs_f64());
    report.calibration_tokens = importance.map(|importance| importance.tokens);
    if let Some((text, tokens_max)) = &measured {
        let progress = &mut |done, all| on(Stage::Measuring, done as u64, all as u64);
        report.comparison = Some(measure::compare(request.model, out, compute, text, *tokens_max, progress)?);
    }
    let [json, html] = ["report.json", "report.html"].map(|ending| out.with_extension(ending));
    store::write_durably(&json, report.json()?.as_bytes())?;
    store::write_durably(&html, report.html().as_bytes())?;
    Ok(Made { report, files: vec![out.to_owned(), json, html] })
}
