//! The loop: epochs of steps, figures, checkpoints, and when to stop.

use std::ops::ControlFlow;
use std::path::Path;

use super::checkpoint::{self, Best, Figures, Progress};
use super::event::Event;
use super::logs::Logs;
use super::pace::Pace;
use super::samples::{Batch, Samples};
use super::session::Session;
use crate::error::{Result, TrainError};
use crate::model::{Model, Sums};

/// Steps between copies of the weights in memory, from which steps are taken again to find where numbers went bad.
const GUARD_STEPS: usize = 64;

/// Weights, slots and step before some batch of an epoch.
#[derive(Default)]
struct Guard {
    variables: Vec<f32>,
    iterations: u64,
    batch: usize,
}

pub(super) type On<'a> = &'a mut dyn FnMut(&Event) -> ControlFlow<()>;

/// A fit that goes on.
pub(super) struct Fitting<'a> {
    pub session: &'a mut Session,
    pub progress: Progress,
    folder: &'a Path,
    logs: Logs,
    pace: Pace,
    steps: usize,
}

impl<'a> Fitting<'a> {
    pub fn new(session: &'a mut Session, progress: Progress, folder: &'a Path) -> Result<Fitting<'a>> {
        let logs = Logs::new(folder, progress.history.len())?;
        let steps = session.training.count().div_ceil(session.definition.fit.batch_size);
        let fit = &session.definition.fit;
        let pace = Pace::new(fit.checkpoint_steps, fit.checkpoint_seconds);
        let mut fitting = Fitting { session, progress, folder, logs, pace, steps };
        if fitting.progress.sums.samples == 0 {
            fitting.progress.sums = fitting.session.model.no_sums();
        }
        let fit = &fitting.session.definition.fit;
        if let Some(stopping) = &fit.early_stopping {
            fitting.check_monitor(&stopping.monitor, "[fit.early_stopping]")?;
        }
        if let Some(plateau) = &fit.reduce_lr_on_plateau {
            let place = "[fit.reduce_lr_on_plateau]";
            fitting.check_monitor(&plateau.monitor, place)?;
            if fitting.session.model.learning_rate().is_none() {
                let problem =
                    "the optimizer's learning_rate is a schedule; give a number, or leave one of them out";
                return Err(TrainError::Definition { place: place.to_owned(), problem: problem.to_owned() });
            }
        }
        Ok(fitting)
    }

    /// Whether the figure that `place` looks at is one that there will be.
    fn check_monitor(&self, monitor: &str, place: &str) -> Result<()> {
        let mut names = self.session.model.figure_names("");
        if self.session.validation.is_some() {
            names.extend(self.session.model.figure_names("val_"));
        }
        if names.iter().any(|name| name == monitor) {
            return Ok(());
        }
        let mut problem = format!("monitor is {monitor}; there are: {}", names.join(", "));
        if monitor.starts_with("val_") && self.session.validation.is_none() {
            problem += " (there is no validation: set validation_split, or [data.validation])";
        }
        Err(TrainError::Definition { place: place.to_owned(), problem })
    }

    /// Trains to the end, or until `on` asks to stop; whether it did.
    pub fn run(&mut self, on: On<'_>) -> Result<bool> {
        let fit = &self.session.definition.fit;
        let (epochs, batch) = (fit.epochs, fit.batch_size);
        let weighted = self.session.training.is_weighted();
        self.session.model.prepare(batch.min(self.session.training.count()), weighted)?;
        let started = Event::Started {
            parameters: self.session.model.parameters(),
            samples: self.session.training.count(),
            steps_per_epoch: self.steps,
            epochs,
            step: self.session.model.iterations(),
            memory_bytes: self.session.model.memory_bytes(),
        };
        let mut stop = on(&started).is_break();
        while !stop && !self.progress.done && self.progress.epoch < epochs {
            stop = self.epoch(on)?;
        }
        if let (false, true, Some(stopping)) =
            (stop, self.progress.done, &self.session.definition.fit.early_stopping)
        {
            stop = on(&Event::EarlyStopped {
                epoch: self.progress.epoch,
                monitor: stopping.monitor.clone(),
                best: self.progress.best.as_ref().map(|best| best.figure),
                kept_epoch: self.progress.kept_epoch(stopping.restore_best_weights),
            })
            .is_break();
        }
        self.checkpoint(on)?;
        Ok(stop)
    }

    /// The rest of the current epoch; whether it was stopped.
    fn epoch(&mut self, on: On<'_>) -> Result<bool> {
        let fit = &self.session.definition.fit;
        let size = fit.batch_size;
        let (samples, epoch) = (self.session.training.count(), self.progress.epoch);
        let order = self.session.model.order(samples, epoch, fit.shuffle, self.progress.before);
        let first = self.progress.batch;
        self.pace.begin_epoch();
        let mut guard = Guard::default();
        let ahead = self.session.training.ahead(&order, size, first);
        for (number, batch) in order.chunks(size).enumerate().skip(first) {
            if (number - first).is_multiple_of(GUARD_STEPS) {
                guard.variables.clear();
                guard.variables.extend_from_slice(self.session.model.variables());
                guard.iterations = self.session.model.iterations();
                guard.batch = number;
            }
            let Session { model, training, .. } = &mut *self.session;
            let read = ahead.next(training, batch)?;
            let loss = trained_on(model, &read, &mut self.progress.sums)?;
            if !loss.is_finite() {
                return Err(self.not_finite(loss, &guard, &order, number));
            }
            self.progress.batch = number + 1;
            let rate = self.pace.stepped(batch.len());
            let mut stop = rate.is_some_and(|rate| on(&self.step_event(rate)).is_break());
            if self.pace.is_checkpoint_due(self.session.model.iterations()) {
                stop |= self.checkpoint(on)?;
            }
            if stop {
                return Ok(true);
            }
        }
        self.end_epoch(on)
    }

    fn end_epoch(&mut self, on: On<'_>) -> Result<bool> {
        let Session { model, validation, definition, .. } = &mut *self.session;
        let mut figures = model.figures(&self.progress.sums, "");
        if let Some(samples) = validation {
            let sums = samples.evaluated(model, definition.fit.batch_size)?;
            figures.extend(model.figures(&sums, "val_"));
        }
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.progress.before = model.iterations();
        self.progress.sums = model.no_sums();
        self.judge(&figures);
        let lowered = self.lower_rate(&figures);
        self.progress.history.push(figures.clone());
        self.logs.epoch(&self.progress.history)?;
        let event = Event::Epoch { epoch: self.progress.epoch, metrics: figures.into_iter().collect() };
        let stop = on(&event).is_break();
        Ok(lowered.is_some_and(|event| on(&event).is_break()) || stop)
    }

    /// Lowers the learning rate, where figures ask for it.
    fn lower_rate(&mut self, figures: &Figures) -> Option<Event> {
        let Session { model, definition, .. } = &mut *self.session;
        let settings = definition.fit.reduce_lr_on_plateau.as_ref()?;
        let (_, figure) = figures.iter().find(|(name, _)| *name == settings.monitor)?;
        let learning_rate = self.progress.plateau.judge(settings, *figure, model.learning_rate()?)?;
        model.set_learning_rate(learning_rate);
        let (epoch, monitor) = (self.progress.epoch, settings.monitor.clone());
        Some(Event::LearningRate { epoch, monitor, learning_rate })
    }

    /// Remembers the weights of the best epoch, and says when none was better for long.
    fn judge(&mut self, figures: &Figures) {
        let Some(stopping) = &self.session.definition.fit.early_stopping else { return };
        let Some((_, figure)) = figures.iter().find(|(name, _)| *name == stopping.monitor) else { return };
        let more_is_better = stopping.mode.is_more(&stopping.monitor);
        let gain = |best: f64| if more_is_better { figure - best } else { best - figure };
        let is_better = match &self.progress.best {
            Some(best) => gain(best.figure) > stopping.min_delta,
            None => figure.is_finite(),
        };
        if is_better {
            let weights = self.session.model.weights().flat_map(|(_, _, values)| values).copied().collect();
            self.progress.best = Some(Best { epoch: self.progress.epoch, figure: *figure, weights });
            self.progress.waited = 0;
        } else {
            self.progress.waited += 1;
            self.progress.done = self.progress.waited >= stopping.patience.max(1);
        }
    }

    fn step_event(&self, samples_per_second: f64) -> Event {
        let figures = self.session.model.figures(&self.progress.sums, "");
        let loss = figures.first().map_or(0.0, |(_, loss)| *loss);
        Event::Step {
            epoch: self.progress.epoch + 1,
            step: self.progress.batch,
            steps: self.steps,
            loss,
            metrics: figures.into_iter().skip(1).collect(),
            samples_per_second,
        }
    }

    fn checkpoint(&mut self, on: On<'_>) -> Result<bool> {
        checkpoint::save(self.folder, &self.session.identity, &self.session.model, &self.progress)?;
        self.pace.checkpointed();
        Ok(on(&Event::Checkpoint { step: self.session.model.iterations() }).is_break())
    }

    /// The error for a loss that is no number, with where it came from: the steps since the last copy of the weights are
    /// taken again, which gives the same bits, up to the one that went wrong.
    fn not_finite(&mut self, loss: f32, guard: &Guard, order: &[usize], number: usize) -> TrainError {
        let size = self.session.definition.fit.batch_size;
        let Session { model, training, .. } = &mut *self.session;
        let step = model.iterations();
        model.set_variables(&guard.variables);
        model.set_iterations(guard.iterations);
        let mut sums = model.no_sums();
        let batches: Vec<&[usize]> = order.chunks(size).collect();
        for batch in &batches[guard.batch..number] {
            let again = training.batch(batch).and_then(|batch| trained_on(model, &batch, &mut sums));
            if let Err(error) = again {
                return error;
            }
        }
        let bad = training.batch(batches[number]);
        match bad.and_then(|batch| model.first_not_finite(&batch.samples.x, &batch.which)) {
            Ok(first) => TrainError::NotFinite { loss, step, first },
            Err(error) => error,
        }
    }
}

fn trained_on(model: &mut Model, batch: &Batch<'_>, sums: &mut Sums) -> Result<f32> {
    let Samples { x, y, weights } = &*batch.samples;
    model.train_step(x, y, weights.as_deref(), &batch.which, sums)
}
