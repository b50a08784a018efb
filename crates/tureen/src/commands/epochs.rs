//! How a fit is shown, as people know it from Keras: a bar with rate and time left on a terminal, and a line an epoch.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::table::size;
use crate::recipes::train::Event;
use crate::terminal::say;

/// What is shown of a fit, on standard error.
#[derive(Default)]
pub struct Epochs {
    bar: Option<ProgressBar>,
    epochs: usize,
    steps: usize,
    /// When the current epoch began.
    began: Option<Instant>,
}

impl Epochs {
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Started { parameters, samples, steps_per_epoch, epochs, step, memory_bytes } => {
                (self.epochs, self.steps) = (*epochs, *steps_per_epoch);
                self.began = Some(Instant::now());
                let from = if *step > 0 { format!(", going on after step {step}") } else { String::new() };
                let memory = size(*memory_bytes);
                self.say(&format!(
                    "{parameters} parameters, {samples} samples, {steps_per_epoch} steps an epoch, {epochs} epochs, \
                     {memory} of memory beside the samples{from}"
                ));
                if std::io::stderr().is_terminal() {
                    self.bar = Some(bar(*steps_per_epoch as u64));
                }
            }
            Event::Step { epoch, step, loss, metrics, samples_per_second, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_prefix(format!("Epoch {epoch}/{}", self.epochs));
                    bar.set_position(*step as u64);
                    let metrics = figures(metrics);
                    bar.set_message(format!("{samples_per_second:.0} samples/s - loss: {loss:.4}{metrics}"));
                }
            }
            Event::Epoch { epoch, metrics } => {
                let seconds =
                    self.began.replace(Instant::now()).map_or(0.0, |began| began.elapsed().as_secs_f64());
                let steps = self.steps;
                let (epochs, metrics) = (self.epochs, figures(metrics));
                let step = duration(seconds / steps.max(1) as f64);
                self.say(&format!(
                    "Epoch {epoch}/{epochs} - {steps} steps, {}, {step} a step{metrics}",
                    duration(seconds)
                ));
                if let Some(bar) = &self.bar {
                    bar.set_position(0);
                    bar.reset();
                }
            }
            Event::LearningRate { epoch, monitor, learning_rate } => self.say(&format!(
                "After epoch {epoch} the learning rate is {learning_rate}: {monitor} no longer got better"
            )),
            Event::EarlyStopped { epoch, monitor, best, kept_epoch } => {
                let best = best.map_or("any figure".to_owned(), |best| format!("{best:.4}"));
                self.say(&format!(
                    "Stopped after epoch {epoch}: {monitor} no longer got better than {best}; \
                     the weights of epoch {kept_epoch} are kept"
                ));
            }
            Event::Checkpoint { .. } => {}
            Event::Finished { .. } => self.end(),
        }
    }

    /// Leaves the line free.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }
}

/// A table of pairs is no line; files and reports have it.
fn figures(metrics: &BTreeMap<String, f64>) -> String {
    let fit = metrics.iter().filter(|(name, _)| !name.contains("confusion_matrix_"));
    fit.map(|(name, value)| format!(" - {name}: {value:.4}")).collect()
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0}us", s * 1e6),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1}s"),
        s => format!("{:.0}m{:02.0}s", (s / 60.0).floor(), s % 60.0),
    }
}

fn bar(steps: u64) -> ProgressBar {
    // The template is a constant; were it wrong, the plain style shows the same numbers.
    let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}, {eta} left, {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style).with_prefix("Epoch")
}
