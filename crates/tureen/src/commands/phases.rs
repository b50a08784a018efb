//! How a compression is shown: a bar a phase, on a terminal only.

use std::time::Duration;

use compress::{Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// What is shown of one, on standard error.
#[derive(Default)]
pub struct Phases {
    shown: Option<(Phase, ProgressBar)>,
}

impl Phases {
    pub fn show(&mut self, progress: &Progress) {
        if !matches!(&self.shown, Some((now, _)) if *now == progress.phase) {
            self.end();
        }
        let (_, bar) = self.shown.get_or_insert_with(|| (progress.phase, bar(progress.phase, progress.all)));
        bar.set_position(progress.done);
        if let Some(loss) = progress.loss {
            bar.set_message(format!("{}, loss {loss:.5}", what(progress.phase)));
        }
    }

    /// Leaves the line free.
    pub fn end(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

/// For a list: `quantising, 12 of 290`.
pub fn line(progress: &Progress) -> String {
    let Progress { phase, done, all, .. } = progress;
    match phase {
        Phase::Quantising => format!("{}, {}%", what(*phase), 100 * done / (*all).max(1)),
        _ => format!("{}, {done} of {all}", what(*phase)),
    }
}

fn what(phase: Phase) -> &'static str {
    match phase {
        Phase::Calibrating => "finding what matters",
        Phase::Quantising => "quantising",
        Phase::Choosing => "trying",
        Phase::Coding => "coding weights",
        Phase::Training => "training",
        Phase::Measuring => "measuring",
    }
}

fn bar(phase: Phase, all: u64) -> ProgressBar {
    let counts = match phase {
        Phase::Quantising => "{binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}",
        Phase::Calibrating => "{pos} of {len} windows, {per_sec}",
        Phase::Training => "{pos} of {len} epochs",
        Phase::Choosing | Phase::Coding | Phase::Measuring => "{pos} of {len}",
    };
    // The template is made of constants; were it wrong, the plain style shows the same numbers.
    let style = ProgressStyle::with_template(&format!("{{msg}} {{wide_bar}} {counts}, {{eta}} left"));
    let bar = ProgressBar::new(all).with_message(what(phase));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
