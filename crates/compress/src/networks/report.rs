//! What a compression did and what it cost: JSON for programs, and a page that needs nothing else for people.

use std::fmt::Write;

use serde::Serialize;

use super::changes::Change;
use super::error::{NetworkError, Result};
use super::measure::{Answers, Figures, Samples, Task, greatest};

/// Samples that are shown side by side, and values of each.
const WORST_MAX: usize = 12;
const WORST_VALUES_MAX: usize = 16;

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8884 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem } .wide { overflow-x: auto }
table { border-collapse: collapse } td, th { padding: .2rem .6rem; border-bottom: 1px solid var(--line) }
td { text-align: right; font-variant-numeric: tabular-nums } th { text-align: left; font-weight: normal }";

/// A sample whose answer changed most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worst {
    /// Its number among the samples, from 0.
    pub sample: usize,
    /// What is right, where it is known: a class, or values.
    pub right: Vec<f32>,
    pub before: Vec<f32>,
    pub after: Vec<f32>,
    /// Whether another class is the greatest now.
    pub is_another: bool,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub name: String,
    pub method: String,
    /// What was chosen on the way.
    pub notes: Vec<String>,
    /// Samples that answers were compared on,
    pub samples: usize,
    /// and the part of the data that they are, as names of its figures begin: `test_`, `val_`, or nothing for what the network
    /// was trained on.
    pub part: &'static str,
    pub before: Figures,
    pub after: Figures,
    pub tensors: Vec<Change>,
    pub worst: Vec<Worst>,
}

/// The samples whose answers differ most, those with another class first.
pub(super) fn worst(samples: &Samples, before: &Answers, after: &Answers) -> Vec<Worst> {
    if before.width != after.width || before.width == 0 {
        return vec![];
    }
    let is_classes = samples.truth.as_ref().is_some_and(|truth| truth.task == Task::Classes);
    let is_another = |at: usize| is_classes && greatest(before.row(at)) != greatest(after.row(at));
    let difference = |at: usize| {
        let pairs = before.row(at).iter().zip(after.row(at));
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let mut order: Vec<(bool, f64, usize)> =
        (0..samples.count()).map(|at| (is_another(at), difference(at), at)).collect();
    order.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
    let of = |row: &[f32]| row.iter().copied().take(WORST_VALUES_MAX).collect();
    let worst = order.into_iter().take(WORST_MAX).filter(|(_, difference, _)| *difference > 0.0);
    worst
        .map(|(is_another, _, sample)| {
            let right = samples.truth.as_ref().map_or(vec![], |truth| {
                let len = truth.target.sample_len();
                let target = &truth.target.values[sample * len..(sample + 1) * len];
                if is_classes && len > 1 { vec![greatest(target) as f32] } else { of(target) }
            });
            Worst { sample, right, before: of(before.row(sample)), after: of(after.row(sample)), is_another }
        })
        .collect()
}

impl Report {
    pub(super) fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map_err(|error| NetworkError::model("report.json", error.to_string()))
    }

    pub(super) fn html(&self) -> String {
        let title = escaped(&format!("{}, compressed", self.name));
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n\
             <p>{}</p>\n",
            escaped(&self.method)
        );
        page += &self.figures();
        if !self.notes.is_empty() {
            let items: String = self.notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
            let _ = writeln!(page, "<h2>What was chosen</h2><ul>{items}</ul>");
        }
        if !self.tensors.is_empty() {
            page += &self.tensors();
        }
        if !self.worst.is_empty() {
            page += &self.worst();
        }
        page
    }

    fn figures(&self) -> String {
        let (before, after) = (&self.before, &self.after);
        let times = |a: f64, b: f64| if a > 0.0 { format!("{:.1}%", 100.0 * b / a) } else { String::new() };
        let mut rows = String::new();
        let mut row = |name: &str, a: Option<f64>, b: Option<f64>, digits: usize, compares: bool| {
            if a.is_none() && b.is_none() {
                return;
            }
            let shown = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.digits$}"));
            let share = a.zip(b).filter(|_| compares).map_or(String::new(), |(a, b)| times(a, b));
            let _ = write!(
                rows,
                "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{share}</td></tr>",
                shown(a),
                shown(b)
            );
        };
        let of = |value: u64| Some(value as f64);
        row("Bytes of the file", of(before.bytes), of(after.bytes), 0, true);
        row("Numbers in the file", of(before.parameters), of(after.parameters), 0, true);
        let [a, b] = [before, after].map(|figures| figures.memory_bytes.map(|bytes| bytes as f64));
        row("Memory, in bytes", a, b, 0, true);
        let [a, b] = [before, after].map(|figures| Some(figures.single_seconds * 1e6).filter(|us| *us > 0.0));
        row("One sample alone, in microseconds", a, b, 1, true);
        let [a, b] =
            [before, after].map(|figures| Some(figures.samples_per_second).filter(|rate| *rate > 0.0));
        row("Samples a second, 64 at a time", a, b, 0, true);
        row("Accuracy", before.accuracy, after.accuracy, 4, false);
        row("Mean squared error", before.mean_squared_error, after.mean_squared_error, 6, true);
        row("Samples with the original's answer", None, after.agreement, 4, false);
        row("Relative difference of answers", None, after.relative_error, 5, false);
        format!(
            "<table><tr><th></th><td>before</td><td>after</td><td>share</td></tr>{rows}</table>\n<p>Measured on {} samples \
             {}on this machine.</p>\n",
            self.samples,
            match self.part {
                "test_" => "for testing ",
                "val_" => "for validation ",
                _ if self.samples > 0 => "that it was trained on ",
                _ => "",
            }
        )
    }

    fn tensors(&self) -> String {
        let row = |change: &Change| {
            format!(
                "<tr><th>{}</th><td>{:?}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.5}</td><td>{:.5}</td><td>{:.1}%</td></tr>",
                escaped(&change.tensor),
                change.shape,
                escaped(&change.became),
                change.bytes_before,
                change.bytes_after,
                change.relative_error,
                change.greatest_error,
                100.0 * change.zeros,
            )
        };
        format!(
            "<h2>Weights</h2><div class=\"wide\"><table><tr><th>tensor</th><td>shape</td><td>became</td><td>bytes before</td>\
             <td>after</td><td>relative error</td><td>greatest error</td><td>zeros</td></tr>{}</table></div>\n",
            self.tensors.iter().map(row).collect::<String>()
        )
    }

    fn worst(&self) -> String {
        let values =
            |values: &[f32]| values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(" ");
        let row = |worst: &Worst| {
            let mark = if worst.is_another { " (another class)" } else { "" };
            format!(
                "<tr><th>{}{mark}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
                worst.sample,
                values(&worst.right),
                values(&worst.before),
                values(&worst.after)
            )
        };
        format!(
            "<h2>Answers that changed most</h2><div class=\"wide\"><table><tr><th>sample</th><td>right</td><td>before</td>\
             <td>after</td></tr>{}</table></div>\n",
            self.worst.iter().map(row).collect::<String>()
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
