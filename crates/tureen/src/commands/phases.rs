//! How a compression is shown: a bar a phase on a terminal, a line now and then in a log.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use compress::{Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use crate::models::progress::LINE_INTERVAL;
use crate::terminal::say;

/// What is shown of one, on standard error.
#[derive(Default)]
pub struct Phases {
    shown: Option<Shown>,
}

struct Shown {
    phase: Phase,
    /// On a terminal.
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Instant,
}

impl Phases {
    pub fn show(&mut self, progress: &Progress) {
        if !matches!(&self.shown, Some(now) if now.phase == progress.phase) {
            self.end();
        }
        let shown = self.shown.get_or_insert_with(|| {
            let bar = std::io::stderr().is_terminal().then(|| bar(progress.phase, progress.all));
            let now = Instant::now();
            Shown { phase: progress.phase, bar, began: now, last_line: now }
        });
        match &shown.bar {
            Some(bar) => {
                bar.set_position(progress.done);
                if let Some(loss) = progress.loss {
                    bar.set_message(format!("{}, loss {loss:.5}", what(progress.phase)));
                }
            }
            None if shown.last_line.elapsed() >= LINE_INTERVAL => {
                shown.last_line = Instant::now();
                say(line(progress) + &left(progress, shown.began.elapsed()));
            }
            None => {}
        }
    }

    /// Leaves the line free.
    pub fn end(&mut self) {
        if let Some(bar) = self.shown.take().and_then(|shown| shown.bar) {
            bar.finish_and_clear();
        }
    }
}

/// Where something is done already: `, 1:30 left`.
fn left(progress: &Progress, took: Duration) -> String {
    let rest = progress.all.saturating_sub(progress.done);
    let seconds = match progress.done {
        0 => return String::new(),
        done => took.as_secs().saturating_mul(rest) / done,
    };
    format!(", {}:{:02} left", seconds / 60, seconds % 60)
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

#[test]
fn a_line_says_how_long_it_will_take() {
    let check = |done, all, seconds, expected: &str| {
        let progress = Progress::new(Phase::Choosing, done, all);
        assert_eq!(left(&progress, Duration::from_secs(seconds)), expected);
    };
    check(0, 19, 10, "");
    check(5, 20, 30, ", 1:30 left");
    check(19, 19, 100, ", 0:00 left");
}
