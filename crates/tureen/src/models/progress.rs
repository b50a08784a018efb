//! How far a transfer is, for whoever watches: a bar with rate and time left on a terminal, a line now and then in a
//! log.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

use crate::terminal::{plain, say};

/// Between two lines of a log.
pub const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// One file's progress, on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    bytes: u64,
    /// Bytes that were there already, which say nothing about the rate.
    bytes_before: u64,
    total: Option<u64>,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// `bytes_before` of `total` are there already.
    pub fn start(name: &str, bytes_before: u64, total: Option<u64>) -> Progress {
        let now = Instant::now();
        let name = &plain(name);
        let bar = std::io::stderr().is_terminal().then(|| bar(name, bytes_before, total));
        let progress = Progress {
            bar,
            name: name.to_string(),
            bytes: bytes_before,
            bytes_before,
            total,
            started: now,
            last_line: now,
        };
        if bytes_before > 0 {
            progress.say(&format!("{name}: going on at {}", BinaryBytes(bytes_before)));
        }
        progress
    }

    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        match &self.bar {
            Some(bar) => bar.set_position(self.bytes),
            None if self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                say(self.line());
            }
            None => {}
        }
    }

    /// Ends the display with one line that stays.
    pub fn finish(self) {
        let line = format!("{}: {}, {}/s", self.name, BinaryBytes(self.bytes), BinaryBytes(self.rate()));
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                say(line);
            }
            None => say(line),
        }
    }

    /// A line that doesn't disturb the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    /// Bytes a second since the start.
    fn rate(&self) -> u64 {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        ((self.bytes - self.bytes_before) as f64 / seconds) as u64
    }

    fn line(&self) -> String {
        let (name, done, rate) = (&self.name, BinaryBytes(self.bytes), self.rate());
        match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let percent = self.bytes * 100 / total;
                let left = total.saturating_sub(self.bytes).checked_div(rate).unwrap_or(0);
                let all = BinaryBytes(total);
                let rate = BinaryBytes(rate);
                format!("{name}: {percent}% ({done} of {all}), {rate}/s, {}:{:02} left", left / 60, left % 60)
            }
            None => format!("{name}: {done}, {}/s", BinaryBytes(rate)),
        }
    }
}

/// Progress that several threads tell of.
pub struct Shared(Mutex<Progress>);

impl Shared {
    pub fn start(name: &str, total: u64) -> Shared {
        Shared(Mutex::new(Progress::start(name, 0, Some(total))))
    }

    pub fn add(&self, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(bytes as usize);
    }

    pub fn finish(self) {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    }
}

impl Drop for Progress {
    /// An interrupted bar leaves the line free for the error.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, bytes_before: u64, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{msg} {spinner} {binary_bytes}, {binary_bytes_per_sec}"),
    };
    // The template is a constant; were it wrong, the plain style shows the same numbers.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bar.with_style(style).with_message(name.to_string()).with_position(bytes_before);
    bar.reset_eta();
    bar
}
