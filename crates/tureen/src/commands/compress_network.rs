//! `tureen compress` for a network: what `--to` means for an ONNX file, and what it takes besides.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use compress::networks::{
    Budget, Calibration, Coding, Form, Method, Outcome, Report, Request, Teaching, Wish, compress,
};

use crate::nearest::nearest;
use crate::settings::Misused;
use crate::terminal::say;

/// Options that only networks have.
#[derive(Args)]
pub struct Options {
    /// Of a network: its definition, for int8, for what is trained again, and for figures on its data
    #[arg(long, value_name = "FILE.toml")]
    definition: Option<PathBuf>,
    /// Of a network: the share of parameters that is kept by fewer-units, fewer-weights and low-rank
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    keep: f64,
    /// Of a network: epochs of training afterwards
    #[arg(long, value_name = "EPOCHS")]
    epochs: Option<usize>,
    /// Of a network: the definition of the smaller one that --to distilled teaches
    #[arg(long, value_name = "FILE.toml")]
    student: Option<PathBuf>,
    /// Of a network: how ranges of int8 are chosen: min-max, percentile or entropy
    #[arg(long, value_name = "HOW", default_value = "min-max")]
    ranges: String,
    /// Of a network, with --to smallest: bytes of the file, at most
    #[arg(long, value_name = "BYTES")]
    target_size: Option<u64>,
    /// Of a network, with --to smallest: what may be lost; 0.005 is half a point of accuracy
    #[arg(long, value_name = "LOSS")]
    max_loss: Option<f64>,
}

/// What `--to` may be.
const NAMES: [&str; 14] = [
    "float16",
    "int8",
    "int8-dynamic",
    "int8-qdq",
    "int8-weights",
    "codebook8",
    "codebook4",
    "codebook2",
    "low-rank",
    "fewer-units",
    "fewer-weights",
    "distilled",
    "int8-aware",
    "smallest",
];

/// Epochs of training after something was taken away.
const EPOCHS: usize = 10;

fn method(to: &str, options: &Options) -> anyhow::Result<Method> {
    let calibration = match options.ranges.as_str() {
        "min-max" => Calibration::MinMax,
        "percentile" => Calibration::Percentile,
        "entropy" => Calibration::Entropy,
        other => bail!(Misused(format!("--ranges takes min-max, percentile or entropy; received {other:?}"))),
    };
    let epochs = options.epochs.unwrap_or(EPOCHS);
    let keep = options.keep;
    let products = |form| Method::Products { form, calibration };
    Ok(match to.to_ascii_lowercase().as_str() {
        "float16" => Method::Weights(Coding::Float16),
        "int8" => products(Form::Static),
        "int8-dynamic" => products(Form::Dynamic),
        "int8-qdq" => products(Form::Qdq),
        "int8-weights" => Method::Weights(Coding::Int8),
        "codebook8" => Method::Weights(Coding::Codebook8),
        "codebook4" => Method::Weights(Coding::Codebook4),
        "codebook2" => Method::Weights(Coding::Codebook2),
        "low-rank" => Method::LowRank(Budget::Share(keep)),
        "fewer-units" => Method::Prune { keep, units: true, epochs },
        "fewer-weights" => Method::Prune { keep, units: false, epochs },
        "int8-aware" => Method::Aware { greatest: 63, epochs, form: Form::Static, calibration },
        "distilled" => {
            let Some(student) = options.student.clone() else {
                bail!(Misused(
                    "--to distilled needs --student, the definition of the smaller network".to_owned()
                ));
            };
            Method::Distil { student, teaching: Teaching::default(), epochs: options.epochs }
        }
        "smallest" => Method::Search(Wish { bytes_max: options.target_size, loss_max: options.max_loss }),
        other => {
            let close =
                nearest(other, NAMES).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            let known = NAMES.join(", ");
            bail!(Misused(format!("a network can't become {other:?}{close}; there are: {known}")));
        }
    })
}

/// Makes the network `source` smaller, in the folder `output`.
pub fn make(source: &Path, to: &str, options: &Options, output: &Path) -> anyhow::Result<Outcome> {
    let request = Request {
        source: source.to_owned(),
        definition: options.definition.clone(),
        output: output.to_owned(),
        method: method(to, options)?,
    };
    Ok(compress(&request, &mut |what| say(what))?)
}

/// What a version's manifest keeps of the report.
pub fn metrics(report: &Report) -> Vec<(&'static str, f64)> {
    let (before, after) = (&report.before, &report.after);
    let all = [
        ("accuracy", after.accuracy),
        ("accuracy_of_parent", before.accuracy),
        ("mean_squared_error", after.mean_squared_error),
        ("mean_squared_error_of_parent", before.mean_squared_error),
        ("agreement", after.agreement),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A few lines for a person.
pub fn summary(to: &str, report: &Report) -> String {
    let (before, after) = (&report.before, &report.after);
    let mut text = format!(
        "{to}: {} of {} bytes ({:.1}%)\n",
        after.bytes,
        before.bytes,
        100.0 * after.bytes as f64 / before.bytes.max(1) as f64
    );
    if let Some((before, after)) = before.accuracy.zip(after.accuracy) {
        text += &format!("accuracy {after:.4} (original {before:.4})\n");
    }
    if let Some((before, after)) = before.mean_squared_error.zip(after.mean_squared_error) {
        text += &format!("mean squared error {after:.6} (original {before:.6})\n");
    }
    if before.samples_per_second > 0.0 {
        let (before, after) = (before.samples_per_second, after.samples_per_second);
        text += &format!("{after:.0} samples a second in batches of 64 (original {before:.0})\n");
    }
    text
}
