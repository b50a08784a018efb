//! Compressing a network: what `to` means for an ONNX file, and what is kept of its report.

use anyhow::bail;
use compress::Wish;
use compress::networks::{Budget, Calibration, Coding, Form, Method, Report, Teaching};

use super::compress_request::{Ranges, Request, SMALLEST};
use crate::nearest::nearest;
use crate::settings::Misused;

/// What `to` may be.
const NAMES: [&str; 15] = [
    "float16",
    "bfloat16",
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
    SMALLEST,
];

/// Epochs of training after something was taken away.
const EPOCHS: usize = 10;

/// # Errors
/// `to` names no way, or one that needs an option that wasn't given: [`Misused`].
pub(super) fn method(request: &Request) -> anyhow::Result<Method> {
    let calibration = match request.ranges {
        Ranges::MinMax => Calibration::MinMax,
        Ranges::Percentile => Calibration::Percentile,
        Ranges::Entropy => Calibration::Entropy,
    };
    let epochs = request.epochs.unwrap_or(EPOCHS);
    let keep = request.keep;
    let products = |form| Method::Products { form, calibration };
    Ok(match request.to.to_ascii_lowercase().as_str() {
        "float16" => Method::Weights(Coding::Float16),
        "bfloat16" => Method::Weights(Coding::Bfloat16),
        "int8" => products(Form::Static),
        "int8-dynamic" => products(Form::Dynamic),
        "int8-qdq" => products(Form::Qdq),
        "int8-weights" => Method::Weights(Coding::Int8),
        "codebook8" => Method::Weights(Coding::Codebook8),
        "codebook4" => Method::Weights(Coding::Codebook4),
        "codebook2" => Method::Weights(Coding::Codebook2),
        "low-rank" => Method::LowRank(match request.error_max {
            Some(error) => Budget::Error(part_of_one("--error-max", error)?),
            None => Budget::Share(part_of_one("--keep", keep)?),
        }),
        "fewer-units" => Method::Prune { keep: part_of_one("--keep", keep)?, units: true, epochs },
        "fewer-weights" => Method::Prune { keep: part_of_one("--keep", keep)?, units: false, epochs },
        "int8-aware" => Method::Aware { greatest: 63, epochs, form: Form::Static, calibration },
        "distilled" => {
            let Some(student) = request.student.clone() else {
                bail!(Misused(
                    "--to distilled needs --student, the definition of the smaller network".to_owned()
                ));
            };
            Method::Distil { student, teaching: Teaching::default(), epochs: request.epochs }
        }
        SMALLEST => {
            let bytes_max = request.target_size.map(|size| size.0);
            Method::Search(Wish { bytes_max, loss_max: request.max_loss })
        }
        other => {
            let close =
                nearest(other, NAMES).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            let known = NAMES.join(", ");
            bail!(Misused(format!("a network can't become {other:?}{close}; there are: {known}")));
        }
    })
}

fn part_of_one(option: &str, value: f64) -> anyhow::Result<f64> {
    if value > 0.0 && value < 1.0 {
        return Ok(value);
    }
    bail!(Misused(format!("{option} takes a number between 0 and 1; received {value}")))
}

/// What a version's manifest keeps of the report.
pub(super) fn metrics(report: &Report) -> Vec<(String, f64)> {
    let (before, after) = (&report.before, &report.after);
    let all = [
        ("accuracy", after.accuracy),
        ("accuracy_of_parent", before.accuracy),
        ("mean_squared_error", after.mean_squared_error),
        ("mean_squared_error_of_parent", before.mean_squared_error),
        ("agreement", after.agreement),
    ];
    all.into_iter().filter_map(|(name, value)| Some((format!("{}{name}", report.part), value?))).collect()
}
