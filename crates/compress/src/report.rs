//! What compressing a model cost and brought, as JSON for programs and as one HTML page for people.

use std::fmt::Write as _;

use serde::Serialize;

use crate::layer_choice::LayerInfluence;
use crate::measure::{Comparison, Expected};
use crate::rewrite::{Rewritten, TensorChange};
use crate::smallest::Choice;

/// All that is known of one compression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// As it was asked for.
    pub model: String,
    /// The mix's name.
    pub to: String,
    pub parameters: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Of the new file's weights, without what is around them.
    pub bits_per_weight: f64,
    pub seconds: f64,
    /// Tokens of the text that importance was measured on.
    pub calibration_tokens: Option<usize>,
    /// Where layers were left out: what was found of each.
    pub layers: Vec<LayerInfluence>,
    /// Where types were chosen by a size or by what may be lost.
    pub choice: Option<Choice>,
    /// Over a text, where one was given.
    pub comparison: Option<Comparison>,
    pub tensors: Vec<TensorChange>,
}

impl Report {
    pub fn new(model: &str, to: &str, rewritten: Rewritten, seconds: f64) -> Report {
        let elements = |change: &TensorChange| change.shape.iter().product::<usize>() as u64;
        let parameters = rewritten.tensors.iter().map(elements).sum::<u64>();
        let bytes: u64 = rewritten.tensors.iter().map(|change| change.bytes_after as u64).sum();
        Report {
            model: model.to_owned(),
            to: to.to_owned(),
            parameters,
            bytes_before: rewritten.bytes_before,
            bytes_after: rewritten.bytes_after,
            bits_per_weight: 8.0 * bytes as f64 / parameters.max(1) as f64,
            seconds,
            calibration_tokens: None,
            layers: Vec::new(),
            choice: None,
            comparison: None,
            tensors: rewritten.tensors,
        }
    }

    /// # Errors
    /// None, in fact: all of it has a form in JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// One page that needs nothing else.
    pub fn html(&self) -> String {
        let title = escape(&format!("{} as {}", self.model, self.to));
        let mut page = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
             <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        );
        page += &self.figures();
        if let Some(comparison) = &self.comparison {
            page += &examples(comparison);
        }
        page += &self.layers();
        page += &self.choice();
        page += &self.table();
        page + "</html>\n"
    }

    fn figures(&self) -> String {
        let mut rows = String::new();
        let mut row = |what: &str, before: String, after: String, change: String| {
            let _ = write!(
                rows,
                "<tr><th scope=row>{what}<td class=n>{before}<td class=n>{after}<td class=n>{change}"
            );
        };
        let percent = |before: f64, after: f64| format!("{:.1}%", 100.0 * after / before.max(1e-12));
        let (before, after) = (self.bytes_before as f64, self.bytes_after as f64);
        row("File", megabytes(before), megabytes(after), percent(before, after));
        if let Some(comparison) = &self.comparison {
            let (one, other) = (&comparison.original, &comparison.compressed);
            let (before, after) = (one.weights_bytes as f64, other.weights_bytes as f64);
            row("Weights in memory", megabytes(before), megabytes(after), percent(before, after));
            let change = 100.0 * (other.perplexity / one.perplexity - 1.0);
            row(
                "Perplexity",
                format!("{:.3}", one.perplexity),
                format!("{:.3}", other.perplexity),
                format!("{change:+.2}%"),
            );
            for (what, of) in [
                ("Reading, tokens a second", (one.prompt_tokens_per_second, other.prompt_tokens_per_second)),
                (
                    "Answering, tokens a second",
                    (one.answer_tokens_per_second, other.answer_tokens_per_second),
                ),
            ] {
                row(what, format!("{:.0}", of.0), format!("{:.0}", of.1), percent(of.0, of.1));
            }
        }
        let calibration = match self.calibration_tokens {
            Some(tokens) => format!("importance measured on {tokens} tokens"),
            None => "without importance".to_owned(),
        };
        let mut text = format!(
            "<p>{} parameters, {:.2} bits each, {calibration}; made in {:.1} s.</p>\
             <table><tr><th><th>before<th>after<th>after / before{rows}</table>",
            self.parameters, self.bits_per_weight, self.seconds
        );
        if let Some(comparison) = &self.comparison {
            let _ = write!(
                text,
                "<p>KL divergence to the original over {} tokens: {:.5} nats in the mean, {:.5} in the median, {:.4} \
                 at 99%, {:.3} at most. Both find the same token likeliest at {:.2}% of them.</p>",
                comparison.tokens,
                comparison.kl_mean,
                comparison.kl_median,
                comparison.kl_99,
                comparison.kl_max,
                100.0 * comparison.same_first
            );
        }
        text
    }

    fn layers(&self) -> String {
        if self.layers.is_empty() {
            return String::new();
        }
        let mut text = "<h2>Layers</h2><p>Influence is one less the mean cosine similarity of what goes into a layer and what \
                        comes out. Perplexity is that of the calibration text without the layer and those dropped before \
                        it.</p><table><tr><th>layer<th>influence<th>dropped<th>perplexity without"
            .to_owned();
        let worst = self.layers.iter().map(|layer| layer.influence).fold(1e-12, f64::max);
        for layer in &self.layers {
            let _ = write!(
                text,
                "<tr><td class=n>{}<td class=n style='background:linear-gradient(to right,#f4c9a8 {:.0}%,transparent \
                 0)'>{:.4}<td>{}<td class=n>{}",
                layer.layer,
                100.0 * (layer.influence / worst).max(0.0),
                layer.influence,
                if layer.is_dropped { "yes" } else { "" },
                layer.perplexity_without.map(|perplexity| format!("{perplexity:.3}")).unwrap_or_default(),
            );
        }
        text + "</table>"
    }

    fn choice(&self) -> String {
        let Some(choice) = &self.choice else { return String::new() };
        let asked = [
            choice.wish.bytes_max.map(|bytes| format!("at most {bytes} bytes")),
            choice.wish.loss_max.map(|loss| format!("at most {loss} nats a token lost")),
        ];
        let asked: Vec<String> = asked.into_iter().flatten().collect();
        let mut text = format!(
            "<h2>How types were chosen</h2><p>Asked for: {}.</p><p>All matrices of a group were rounded to Q3_K, or what \
             fits their rows, and the others left as they are. The more nats a token that costs, the more bits its matrices got. On the windows of the \
             calibration text that it was chosen by, the result diverges by {:.5} nats a token.</p>\
             <table><tr><th>group<th>matrices<th>divergence of the group alone",
            asked.join(", "),
            choice.loss
        );
        let worst = choice.sensitivities.iter().map(|found| found.divergence).fold(1e-12, f64::max);
        for found in &choice.sensitivities {
            let _ = write!(
                text,
                "<tr><td>{}<td class=n>{}<td class=n style='background:linear-gradient(to right,#f4c9a8 \
                 {:.0}%,transparent 0)'>{:.5}",
                escape(&found.group),
                found.matrices,
                100.0 * found.divergence / worst,
                found.divergence
            );
        }
        text + "</table>"
    }

    fn table(&self) -> String {
        let note = "<p>Errors in * are of weights whose rounding later columns made up for: larger than by rounding each \
                    weight, so that errors of what the matrix gives are smaller.";
        let note = if self.tensors.iter().any(|tensor| tensor.compensated) { note } else { "" };
        let mut text = "<h2>Tensors</h2>".to_owned() + note;
        text += "<table><tr><th>tensor<th>shape<th>from<th>to<th>bytes<th>relative error";
        let worst = self.tensors.iter().map(|tensor| tensor.relative_error).fold(1e-12, f64::max);
        for tensor in &self.tensors {
            let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
            let _ = write!(
                text,
                "<tr><td>{}<td class=n>{}<td>{}<td>{}<td class=n>{}<td class=n \
                 style='background:linear-gradient(to right,#f4c9a8 {:.0}%,transparent 0)'>{:.5}{}",
                escape(&tensor.name),
                shape.join(" × "),
                tensor.from,
                tensor.to,
                tensor.bytes_after,
                100.0 * tensor.relative_error / worst,
                tensor.relative_error,
                if tensor.compensated { " *" } else { "" }
            );
        }
        text + "</table>"
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}\
.n{text-align:right;font-variant-numeric:tabular-nums}.c{white-space:pre-wrap;max-width:28rem}mark{background:#f4c9a8}";

/// The tokens at which the models differ most, side by side.
fn examples(comparison: &Comparison) -> String {
    let mut text =
        "<h2>Where they differ most</h2><table><tr><th>text<th>original expects<th>compressed expects<th>KL"
            .to_owned();
    let choices = |choices: &[Expected]| -> String {
        let each = choices.iter().map(|choice| {
            format!("{} {:.0}%<br>", escape(&format!("{:?}", choice.token)), 100.0 * choice.probability)
        });
        each.collect()
    };
    for example in &comparison.examples {
        let _ = write!(
            text,
            "<tr><td class=c>…{}<mark>{}</mark><td>{}<td>{}<td class=n>{:.2}",
            escape(&example.context),
            escape(&example.actual),
            choices(&example.original),
            choices(&example.compressed),
            example.kl
        );
    }
    text + "</table>"
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&quot;")
}
