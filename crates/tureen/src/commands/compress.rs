//! `tureen compress`: a language model in fewer bits, or a network in one of many ways, as a file or as a version in the store, with a report.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use compress::mix::MIXES;
use compress::report::Report;
use compress::{CompressError, Mix};
use formats::onnx::is_onnx;
use indicatif::{ProgressBar, ProgressStyle};
use kernels::compute::{Compute, Isa};
use store::manifest::Manifest;
use store::{ModelName, Version};

use super::Context;
use super::compress_network::{self, Options};
use super::model::{self, Model, read_facts};
use super::run::Interrupted;
use super::train::stopped_by_signals;
use crate::nearest::nearest;
use crate::recipes::compress::{self as recipe, Made, Request, Stage};
use crate::settings::Misused;
use crate::terminal::{print, say};

/// Make a model smaller, and say what that cost
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A .gguf or .onnx file, or a model in the store: NAME, NAME:TAG or NAME@NUMBER
    #[arg(value_name = "MODEL")]
    model: String,
    /// The type of the weights: Q4_K_M is what most people want; see the list below
    #[arg(long, value_name = "TYPE")]
    to: String,
    /// The file to write, or the folder for a network; without it the result goes to the store, as a version of its own
    #[arg(long, value_name = "FILE.gguf|FOLDER", conflicts_with = "name")]
    output: Option<PathBuf>,
    /// What to call it in the store; otherwise the model's name with the type as its tag
    #[arg(long = "as", value_name = "NAME:TAG")]
    name: Option<String>,
    /// A text of the kind that the model will read: rounding goes by what matters on it
    #[arg(long, value_name = "TEXT")]
    calibration: Option<PathBuf>,
    /// Another such text: the report says perplexity and divergence from the original on it
    #[arg(long, value_name = "TEXT")]
    measure: Option<PathBuf>,
    /// Tokens of that text that are read at most
    #[arg(long, value_name = "TOKENS", default_value_t = 16_384)]
    measure_tokens_max: usize,
    #[command(flatten)]
    network: Options,
}

const EXAMPLES: &str = "\
Examples:
  tureen compress smollm2 --to Q4_K_M
      makes smollm2:q4_k_m in the store, whose parent is smollm2
  tureen compress model-F16.gguf --to Q4_K_M --output model-Q4_K_M.gguf
      makes a file, and model-Q4_K_M.report.html and .json beside it
  tureen compress digits --to int8 --definition digits.toml
      a network: products of 8 bits, with ranges seen on the definition's data; makes digits:int8
  tureen compress digits --to smallest --max-loss 0.005 --definition digits.toml
      a coding for each weight, so that no more than half a point of accuracy is lost
  tureen compress smollm2 --to Q3_K_M --calibration notes.txt --measure letters.txt
      rounds by what matters on notes.txt, and measures on letters.txt

Types, with the bits that a weight takes in a large model:
  Q2_K_S Q2_K 3.0          heavy loss
  Q3_K_S Q3_K_M Q3_K_L     3.5 to 4.2, noticeable loss; --calibration helps most here
  Q4_0 4.5                 what machines multiply fastest
  Q4_K_S 4.6, Q4_K_M 4.8   little loss
  Q5_K_S 5.5, Q5_K_M 5.7   hardly any
  Q6_K 6.6, Q8_0 8.5       next to none
  IQ4_NL Q4_1 Q5_0 Q5_1 F16 BF16 F32
The mixes (those that end in S, M, L) give the matrices where errors cost most more bits. Rows
that are no multiple of 256 get a type of about as many bits in blocks of 32.

A network becomes float16, int8, int8-dynamic, int8-qdq, int8-weights, codebook8, codebook4,
codebook2, low-rank, fewer-units, fewer-weights, int8-aware, distilled or smallest. fewer-units,
fewer-weights and int8-aware train it again: they need --definition, and model.safetensors beside
the .onnx file.

A model that is quantised already can be quantised again, and loses twice: begin with F16 or BF16.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let model = model::find(context, &arguments.model)?;
    if is_onnx(&model.path) {
        return network(context, arguments, &model);
    }
    let mix = find_mix(&arguments.to)?;
    let settings = &context.resolved.settings;
    let isa = settings.isa.0.unwrap_or_else(Isa::detect);
    let compute = Arc::new(Compute::new(isa, settings.threads.0));
    let request = Request {
        name: &model.name,
        model: &model.path,
        mix,
        calibration: arguments.calibration.as_deref(),
        measure: arguments.measure.as_deref().map(|text| (text, arguments.measure_tokens_max)),
    };
    if let Some(output) = &arguments.output {
        let made = make(&compute, &request, output)?;
        return Ok(print(summary(&made.report) + &files(&made))?);
    }
    let name = match &arguments.name {
        Some(name) => ModelName::parse(name)?,
        None => default_name(&model.name, mix.name)?,
    };
    let staging = context.store.stage_anew(&name)?;
    let made = make(&compute, &request, &staging.folder.join(format!("{}.gguf", mix.name)))?;
    let manifest = manifest(&name, &model, &made.files, metrics(&made.report))?;
    let version = context.store.publish(&staging.folder, &name, manifest)?;
    Ok(print(summary(&made.report) + &published(&name, &version, "run"))?)
}

fn network(context: &Context, arguments: &Arguments, model: &Model) -> anyhow::Result<()> {
    let Arguments { to, network: options, .. } = arguments;
    if let Some(output) = &arguments.output {
        let made = compress_network::make(&model.path, to, options, output)?;
        let shown = compress_network::summary(to, &made.report);
        return Ok(print(shown + &format!("Now: tureen serve {}\n", made.files[0].display()))?);
    }
    let name = match &arguments.name {
        Some(name) => ModelName::parse(name)?,
        None => default_name(&model.name, to)?,
    };
    let staging = context.store.stage_anew(&name)?;
    let made = compress_network::make(&model.path, to, options, &staging.folder)?;
    let manifest = manifest(&name, model, &made.files, compress_network::metrics(&made.report))?;
    let version = context.store.publish(&staging.folder, &name, manifest)?;
    Ok(print(compress_network::summary(to, &made.report) + &published(&name, &version, "serve"))?)
}

fn find_mix(text: &str) -> anyhow::Result<&'static Mix> {
    Mix::find(text).ok_or_else(|| {
        let close = nearest(&text.to_ascii_uppercase(), MIXES.iter().map(|mix| mix.name));
        let close = close.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        Misused(format!("there is no type {text:?}{close} (tureen compress --help lists them)")).into()
    })
}

/// `smollm2:q4_k_m`, whatever the tag was.
fn default_name(model: &str, tag: &str) -> anyhow::Result<ModelName> {
    let name = model.split([':', '@']).next().unwrap_or_default();
    Ok(ModelName::from_any(name)?.with_tag(tag)?)
}

/// Does the work with a bar, until Ctrl-C.
fn make(compute: &Arc<Compute>, request: &Request<'_>, out: &Path) -> anyhow::Result<Made> {
    let stop = stopped_by_signals()?;
    let mut shown: Option<(Stage, ProgressBar)> = None;
    let made = recipe::run(compute, request, out, &mut |stage, done, all| {
        if !matches!(&shown, Some((now, _)) if *now == stage) {
            if let Some((_, bar)) = shown.take() {
                bar.finish_and_clear();
            }
            shown = Some((stage, bar(stage, all)));
        }
        if let Some((_, bar)) = &shown {
            bar.set_position(done);
        }
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Some((_, bar)) = shown {
        bar.finish_and_clear();
    }
    made.map_err(|error| match error.downcast_ref::<CompressError>() {
        Some(CompressError::Stopped) => {
            say("stopped; nothing was kept");
            Interrupted.into()
        }
        _ => error,
    })
}

/// Shown on a terminal only.
fn bar(stage: Stage, all: u64) -> ProgressBar {
    let (what, counts) = match stage {
        Stage::Calibrating => ("finding what matters", "{pos} of {len} windows, {per_sec}"),
        Stage::Writing => ("quantising", "{binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}"),
        Stage::Measuring => ("measuring", "{pos} of {len} windows, {per_sec}"),
    };
    // The template is made of constants; were it wrong, the plain style shows the same numbers.
    let style = ProgressStyle::with_template(&format!("{{msg}} {{wide_bar}} {counts}, {{eta}} left"));
    let bar = ProgressBar::new(all).with_message(what);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn parent(source: &Model) -> Option<String> {
    let manifest = source.manifest.as_ref()?;
    let name = manifest.model.split(':').next().unwrap_or_default();
    Some(format!("{name}@{}", manifest.version))
}

fn manifest(
    name: &ModelName,
    source: &Model,
    made: &[PathBuf],
    metrics: Vec<(&'static str, f64)>,
) -> anyhow::Result<Manifest> {
    let parent = parent(source);
    let origin =
        format!("compressed from {}", parent.clone().unwrap_or_else(|| source.path.display().to_string()));
    let metrics = metrics.into_iter().map(|(name, value)| (name.to_owned(), value));
    // A family that can't be run here can be made smaller all the same.
    let facts = made.first().and_then(|model| read_facts(model).ok());
    Ok(Manifest { parent, facts, ..Manifest::made_of(name, &origin, made, metrics)? })
}

fn metrics(report: &Report) -> Vec<(&'static str, f64)> {
    let mut found = vec![("bits_per_weight", report.bits_per_weight)];
    if let Some(comparison) = &report.comparison {
        found.push(("perplexity", comparison.compressed.perplexity));
        found.push(("perplexity_of_parent", comparison.original.perplexity));
        found.push(("kl_mean", comparison.kl_mean));
    }
    found
}

fn summary(report: &Report) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let mut text = format!(
        "{}: {:.1} MB of {:.1} MB ({:.1}%), {:.2} bits a weight, in {:.1} s\n",
        report.to,
        megabytes(report.bytes_after),
        megabytes(report.bytes_before),
        100.0 * report.bytes_after as f64 / report.bytes_before.max(1) as f64,
        report.bits_per_weight,
        report.seconds,
    );
    if let Some(comparison) = &report.comparison {
        text += &format!(
            "perplexity {:.3} (original {:.3}), divergence {:.4} nats a token, the same likeliest token at {:.1}%\n",
            comparison.compressed.perplexity,
            comparison.original.perplexity,
            comparison.kl_mean,
            100.0 * comparison.same_first,
        );
    }
    text
}

fn files(made: &Made) -> String {
    let names: Vec<String> = made.files.iter().map(|file| file.display().to_string()).collect();
    format!("{}\nNow: tureen run {}\n", names.join(", "), names[0])
}

fn published(name: &ModelName, version: &Version, command: &str) -> String {
    let (id, folder) = (version.id(), version.folder.display());
    format!("{name} is {id} now, in {folder}\nNow: tureen {command} {name}\n")
}
