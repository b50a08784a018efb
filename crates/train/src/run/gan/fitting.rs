//! The loop: epochs of steps of both, and after each epoch a grid of samples and their figure.

use std::path::Path;

use super::super::event::Event;
use super::super::fitting::On;
use super::super::logs::Logs;
use super::super::pace::Pace;
use super::checkpoint::{self, Classifier, Progress};
use super::grid::{self, Grid};
use super::measure::Measure;
use super::session::Session;
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::gan::normals;

/// The folder of the grids.
const SAMPLES: &str = "samples";
/// The stream of noise of the grids.
const STREAM: u32 = 0x611d;
/// Rows and columns of a grid that isn't said.
const GRID: [usize; 2] = [8, 10];
/// Columns of a grid of classes that isn't said.
const COLUMNS_MAX: usize = 16;

/// A fit that goes on.
pub(super) struct Fitting<'a> {
    session: &'a mut Session,
    pub progress: Progress,
    pub measure: Option<Measure>,
    /// Of an earlier run, until it is taken.
    classifier: Option<Classifier>,
    folder: &'a Path,
    logs: Logs,
    pace: Pace,
    steps: usize,
}

/// The file of the grid after `epoch` epochs.
pub(super) fn grid_file(folder: &Path, epoch: usize) -> std::path::PathBuf {
    folder.join(SAMPLES).join(format!("epoch-{epoch:04}.png"))
}

impl<'a> Fitting<'a> {
    pub fn new(
        session: &'a mut Session,
        progress: Progress,
        classifier: Option<Classifier>,
        folder: &'a Path,
    ) -> Result<Fitting<'a>> {
        let logs = Logs::new(folder, progress.history.len())?;
        let samples = folder.join(SAMPLES);
        std::fs::create_dir_all(&samples).map_err(|error| TrainError::file(&samples, "made", &error))?;
        let steps = session.x.samples().div_ceil(session.definition.fit.batch_size);
        session.gan.prepare(session.definition.fit.batch_size.min(session.x.samples()))?;
        let fit = &session.definition.fit;
        let pace = Pace::new(fit.checkpoint_steps, fit.checkpoint_seconds);
        Ok(Fitting { session, progress, measure: None, classifier, folder, logs, pace, steps })
    }

    /// Trains to the end, or until `on` asks to stop; whether it did.
    pub fn run(&mut self, on: On<'_>) -> Result<bool> {
        let epochs = self.session.definition.fit.epochs;
        let started = Event::Started {
            parameters: self.session.gan.models().iter().map(|model| model.parameters()).sum(),
            samples: self.session.x.samples(),
            steps_per_epoch: self.steps,
            epochs,
            step: self.session.gan.iterations()[1],
            memory_bytes: self.session.gan.memory_bytes(),
        };
        let mut stop = on(&started).is_break();
        self.measure = Measure::new(self.session, self.classifier.take())?;
        while !stop && self.progress.epoch < epochs {
            stop = self.epoch(on)?;
        }
        self.checkpoint(on)?;
        Ok(stop)
    }

    /// The rest of the current epoch; whether it was stopped.
    fn epoch(&mut self, on: On<'_>) -> Result<bool> {
        let fit = &self.session.definition.fit;
        let size = fit.batch_size;
        let samples = self.session.x.samples();
        let order = self.session.gan.order(samples, self.progress.epoch, fit.shuffle, self.progress.before);
        let first = self.progress.batch;
        self.pace.begin_epoch();
        for (number, batch) in order.chunks(size).enumerate().skip(first) {
            let Session { gan, x, labels, .. } = &mut *self.session;
            gan.step(x, labels.as_ref(), batch, &mut self.progress.totals)?;
            self.progress.batch = number + 1;
            let rate = self.pace.stepped(batch.len());
            let mut stop = rate.is_some_and(|rate| on(&self.step_event(rate)).is_break());
            if self.pace.is_checkpoint_due(self.session.gan.iterations()[1]) {
                stop |= self.checkpoint(on)?;
            }
            if stop {
                return Ok(true);
            }
        }
        self.end_epoch(on)
    }

    fn end_epoch(&mut self, on: On<'_>) -> Result<bool> {
        let gan = &mut self.session.gan;
        let mut figures = self.progress.totals.figures(gan.has_penalty());
        if let Some(measure) = &mut self.measure {
            figures.push(("frechet_distance".to_owned(), measure.of(gan)?));
        }
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.progress.before = gan.iterations()[1];
        self.progress.totals = Default::default();
        self.progress.history.push(figures.clone());
        self.grid()?;
        self.logs.epoch(&self.progress.history)?;
        let event = Event::Epoch { epoch: self.progress.epoch, metrics: figures.into_iter().collect() };
        Ok(on(&event).is_break())
    }

    /// Writes samples of the same noise as in every epoch, where they are pictures.
    fn grid(&mut self) -> Result<()> {
        let Session { gan, definition, class_count, bounds, .. } = &mut *self.session;
        if grid::picture(gan.sample_shape()).is_none() {
            return Ok(());
        }
        let is_conditional = gan.label_len().is_some();
        let [rows, columns] = definition.gan.grid.unwrap_or(match is_conditional {
            true => [GRID[0], (*class_count).clamp(1, COLUMNS_MAX)],
            false => GRID,
        });
        let (count, class_count) = (rows * columns, (*class_count).max(1));
        let noise = normals(definition.fit.seed, STREAM, count * gan.noise_len());
        let classes: Vec<usize> = (0..count).map(|number| number % columns % class_count).collect();
        let made = gan.made_of(&noise, is_conditional.then_some(&classes[..]))?;
        let Grid { png, size } = grid::grid(&made, columns, *bounds)?;
        let path = grid_file(self.folder, self.progress.epoch);
        write_whole(&path, |file| std::io::Write::write_all(file, &png))?;
        self.logs.picture(self.progress.epoch, &png, size)
    }

    fn step_event(&self, samples_per_second: f64) -> Event {
        let figures = self.progress.totals.figures(self.session.gan.has_penalty());
        let loss = figures.last().map_or(f64::NAN, |(_, loss)| *loss);
        Event::Step {
            epoch: self.progress.epoch + 1,
            step: self.progress.batch,
            steps: self.steps,
            loss,
            metrics: figures.into_iter().filter(|(name, _)| name != "generator_loss").collect(),
            samples_per_second,
        }
    }

    fn checkpoint(&mut self, on: On<'_>) -> Result<bool> {
        let Session { gan, identity, .. } = &*self.session;
        checkpoint::save(self.folder, identity, gan, self.measure.as_ref(), &self.progress)?;
        self.pace.checkpointed();
        Ok(on(&Event::Checkpoint { step: gan.iterations()[1] }).is_break())
    }
}
