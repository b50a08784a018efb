//! The report of a run: one HTML file that needs nothing else, with curves, confusions, the definition and the machine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use formats::calendar::DateTime;

use super::checkpoint::{Figures, Progress};
use super::samples::Source;
use super::session::Session;
use crate::data::{classes_of, greatest};
use crate::error::Result;
use crate::model::Model;

pub(super) const FILE_NAME: &str = "report.html";
/// Samples on the disk whose confusions are shown: the first.
const CONFUSED_MAX: usize = 10_000;
/// Classes that a table of confusions has room for.
const CLASSES_MAX: usize = 60;
/// A curve's width and height, and the room around it.
const SIZE: [f64; 2] = [520.0, 240.0];
const MARGIN: [f64; 2] = [68.0, 24.0];

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8884; --train: #2a6fdb; --val: #e07b00; --hit: 42,111,219; --miss: 210,60,40 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .6rem; text-align: right; font-variant-numeric: tabular-nums }
.figures td, .figures th { border-bottom: 1px solid var(--line) } .figures th { text-align: left; font-weight: normal }
.curves { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 } figcaption { font-weight: 600 }
svg text { font-size: 11px; fill: currentColor } svg { max-width: 100%; height: auto }
.confusions { overflow-x: auto } .confusions td { min-width: 2.2rem; border: 1px solid var(--line) }
.wide { overflow-x: auto } pre { border: 1px solid var(--line); padding: .8rem; overflow-x: auto; line-height: 1.3 }";

/// The report's text.
pub(super) fn report(
    session: &mut Session,
    progress: &Progress,
    metrics: &BTreeMap<String, f64>,
    name: &str,
    definition: &str,
) -> Result<String> {
    let mut page = opening(name);
    let steps = session.model.iterations();
    let _ = writeln!(
        page,
        "<p>{} parameters, {} samples to train with, {} to validate with; {} epochs, {steps} steps.</p>",
        session.model.parameters(),
        session.training.count(),
        session.validation.as_ref().map_or(0, Source::count),
        progress.history.len(),
    );
    if let Some(best) = &progress.best {
        let _ = writeln!(page, "<p>Best epoch: {}, with {}.</p>", best.epoch, shown(best.figure));
    }
    page += &figures(metrics.iter().map(|(name, value)| (name.as_str(), shown(*value))));
    page += &curves(&progress.history);
    page += &confusions(session)?;
    let (fit, model) = (&session.definition.fit, &session.model);
    page += &closing(&[("Model", model)], definition, &environment(model, fit.seed, session.identity.data));
    Ok(page)
}

/// A page's beginning.
pub(super) fn opening(name: &str) -> String {
    let title = escaped(name);
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n"
    )
}

/// A table of names and values.
pub(super) fn figures<'a>(rows: impl Iterator<Item = (&'a str, String)>) -> String {
    let row = |(name, value): (&str, String)| {
        format!("<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(&value))
    };
    format!("<table class=\"figures\">{}</table>\n", rows.map(row).collect::<String>())
}

/// A curve for each figure.
pub(super) fn curves(history: &[Figures]) -> String {
    let mut page = "<h2>Curves</h2>\n<div class=\"curves\">\n".to_owned();
    let mut names: Vec<&str> = vec![];
    for (name, _) in history.iter().flatten().filter(|(name, _)| !name.starts_with("val_")) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.iter().for_each(|name| page += &curve(name, history));
    page + "</div>\n"
}

/// What was run, and where: a page's end.
pub(super) fn closing(
    models: &[(&str, &Model)],
    definition: &str,
    environment: &[(&'static str, String)],
) -> String {
    let mut page = String::new();
    for (name, model) in models {
        let _ = write!(page, "<h2>{name}</h2>\n<pre>{}</pre>\n", escaped(&model.summary()));
    }
    let _ = write!(page, "<h2>Definition</h2>\n<pre>{}</pre>\n<h2>Environment</h2>\n", escaped(definition));
    page += &figures(environment.iter().map(|(name, value)| (*name, value.clone())));
    page + "</html>\n"
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.3e}"),
        _ => format!("{value:.4}"),
    }
}

/// Round numbers from `low` to `high`, some five of them, and how they are written.
fn ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|&step| step >= rough);
    let step = step.unwrap_or(rough);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let is_plain = decimals <= 5 && low.abs().max(high.abs()) < 1e6;
    let written = |value: f64| match is_plain {
        true => format!("{value:.decimals$}"),
        false => format!("{value:.2e}"),
    };
    let first = (low / step).ceil();
    (0..8)
        .map(|number| (first + number as f64) * step)
        .filter(|&value| value <= high + step * 1e-6)
        .map(|value| (value, written(value)))
        .collect()
}

/// A figure over the epochs, of training and of validation.
fn curve(name: &str, history: &[Figures]) -> String {
    let of = |name: &str| -> Vec<f64> {
        let value =
            |figures: &Figures| figures.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        history.iter().filter_map(value).collect()
    };
    let lines = [("train", of(name)), ("val", of(&format!("val_{name}")))];
    let finite = || lines.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite());
    let (low, high) =
        finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let [width, height] = SIZE;
    let [left, bottom] = MARGIN;
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" \
         aria-label=\"{} by epoch\">",
        escaped(name),
        escaped(name)
    );
    let x = |epoch: usize| left + (width - left - 12.0) * epoch as f64 / (history.len().max(2) - 1) as f64;
    let span = if high > low { high - low } else { 1.0 };
    let y = |value: f64| 12.0 + (height - bottom - 20.0) * (1.0 - (value - low) / span);
    if low.is_finite() {
        for (value, label) in ticks(low, low + span) {
            let (at, right) = (y(value), width - 12.0);
            let _ = write!(
                svg,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#8884\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                at + 4.0,
            );
        }
    }
    let _ = write!(
        svg,
        "<text x=\"{left}\" y=\"{:.1}\">1</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">epoch {}</text>",
        height - 6.0,
        width - 12.0,
        height - 6.0,
        history.len()
    );
    for (number, (kind, values)) in lines.iter().enumerate().filter(|(_, (_, values))| !values.is_empty()) {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_finite())
            .map(|(epoch, &value)| format!("{:.1},{:.1}", x(epoch), y(value)))
            .collect();
        let color = format!("var(--{kind})");
        let points = match points.as_slice() {
            // One epoch is a point.
            [one] => format!("{one} {one}"),
            _ => points.join(" "),
        };
        let at = left + 70.0 * number as f64 + 60.0;
        let label = if *kind == "val" { "validation" } else { "training" };
        let _ = write!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" \
             stroke-linecap=\"round\" stroke-linejoin=\"round\"/><text x=\"{at}\" y=\"{:.1}\" \
             style=\"fill:{color}\">{label}</text>",
            height - 6.0
        );
    }
    svg + "</svg></figure>\n"
}

/// Which classes are taken for which, in samples that weren't trained with where there are any.
fn confusions(session: &mut Session) -> Result<String> {
    let Session { model, losses, test, validation, training, classes, definition, .. } = session;
    let (what, samples) = match (test, validation) {
        (Some(test), _) => ("test", &*test),
        (None, Some(validation)) => ("validation", &*validation),
        _ => ("training", &*training),
    };
    let shown: Vec<usize> = (0..samples.count().min(CONFUSED_MAX)).collect();
    let samples = match samples {
        Source::Memory(all) => Cow::Borrowed(&**all),
        Source::Disk(_) => samples.batch(&shown)?.samples,
    };
    let Some((labels, count)) = classes_of(&samples.y[0], &model.output_shape(0), &losses[0]) else {
        return Ok(String::new());
    };
    if count > CLASSES_MAX {
        return Ok(String::new());
    }
    let predicted = model.predict(samples.x.clone(), definition.fit.batch_size)?.swap_remove(0);
    let guesses: Vec<usize> = match predicted.sample_len() {
        1 => predicted.values.iter().map(|&value| (value > 0.5) as usize).collect(),
        len => predicted.values.chunks_exact(len).map(greatest).collect(),
    };
    let mut counts = vec![vec![0usize; count]; count];
    labels.iter().zip(&guesses).for_each(|(&label, &guess)| counts[label][guess] += 1);
    let numbers: Vec<String> = (0..count).map(|class| class.to_string()).collect();
    let names = classes[0].as_ref().filter(|names| names.len() == count).unwrap_or(&numbers);
    let mut page = format!(
        "<h2>Confusions</h2>\n<p>{} {what} samples: rows are what they are, columns what the model says.</p>\n<div \
         class=\"confusions\"><table><tr><th></th>",
        labels.len()
    );
    for name in names {
        let _ = write!(page, "<th>{}</th>", escaped(name));
    }
    page += "</tr>\n";
    for (label, row) in counts.iter().enumerate() {
        let _ = write!(page, "<tr><th>{}</th>", escaped(&names[label]));
        let all: usize = row.iter().sum();
        for (guess, &found) in row.iter().enumerate() {
            let color = if guess == label { "hit" } else { "miss" };
            let share = if found == 0 { 0.0 } else { 0.12 + 0.6 * found as f64 / all as f64 };
            let _ = write!(page, "<td style=\"background:rgba(var(--{color}),{share:.2})\">{found}</td>");
        }
        page += "</tr>\n";
    }
    Ok(page + "</table></div>\n")
}

pub(super) fn environment(model: &Model, seed: u64, data: u64) -> Vec<(&'static str, String)> {
    let (isa, threads) = model.machine();
    vec![
        ("finished", date(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))),
        ("tureen", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("instruction set", isa),
        ("threads", threads.to_string()),
        ("seed", seed.to_string()),
        ("data (xxh3)", format!("{data:016x}")),
    ]
}

fn date(seconds: u64) -> String {
    let DateTime { year, month, day, hour, minute, .. } = DateTime::utc(seconds);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[test]
fn dates_are_of_the_calendar() {
    assert_eq!(date(0), "1970-01-01 00:00 UTC");
    assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
    assert_eq!(date(1_798_761_599), "2026-12-31 23:59 UTC");
}

#[test]
fn axes_have_round_numbers_that_fit() {
    let check = |low: f64, high: f64, expected: &[&str]| {
        let found: Vec<String> = ticks(low, high).into_iter().map(|(_, label)| label).collect();
        assert_eq!(found, expected);
    };
    check(0.0, 1.0, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    check(0.113, 0.95, &["0.2", "0.4", "0.6", "0.8"]);
    check(339.4, 7340.2, &["2000", "4000", "6000"]);
    check(1.19e-23, 4e-23, &["1.50e-23", "2.00e-23", "2.50e-23", "3.00e-23", "3.50e-23", "4.00e-23"]);
    assert!(ticks(1.0, 1.0 + f64::EPSILON).len() <= 8);
}
