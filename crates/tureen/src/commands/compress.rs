//! `tureen compress`: a language model in fewer bits, or a network in one of many ways, as a file or as a version in the store, with a report.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use compress::networks;
use compress::report::Report as TextsReport;
use kernels::compute::{Compute, Isa};
use store::manifest::Manifest;
use store::{ModelName, Reference};

use super::Context;
use super::model::{self, read_facts};
use super::phases::Phases;
use super::run::Interrupted;
use super::train::stopped_by_signals;
use crate::recipes::compress::{Made, Report, Request, Work};
use crate::terminal::{print, say};

/// Make a model smaller, and say what that cost
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    request: Request,
    /// The file to write, or the folder for a network; without it the result goes to the store, as a version of its own
    #[arg(long, value_name = "FILE.gguf|FOLDER", conflicts_with = "name")]
    output: Option<PathBuf>,
    /// What to call it in the store; otherwise the model's name with the type as its tag
    #[arg(long = "as", value_name = "NAME:TAG")]
    name: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  tureen compress smollm2:135m --to Q4_K_M
      makes smollm2:q4_k_m in the store, whose parent is smollm2:135m
  tureen compress model-F16.gguf --to Q4_K_M --output model-Q4_K_M.gguf
      makes a file, and model-Q4_K_M.report.html and .json beside it
  tureen compress ./Qwen3-0.6B --to F16 --output qwen3.gguf
      a folder with config.json, tokenizer.json and safetensors, in any of the types
  tureen compress digits --to int8 --definition digits.toml
      a network: products of 8 bits, with ranges seen on the definition's data; makes digits:int8
  tureen compress digits --to smallest --max-loss 0.005 --definition digits.toml
      a coding for each weight, so that no more than half a point of accuracy is lost
  tureen compress smollm2:135m --to Q3_K_M --calibration notes.txt --measure letters.txt
      rounds by what matters on notes.txt, and measures on letters.txt
  tureen compress smollm2:135m --to Q4_K_M --drop-layers 3 --calibration notes.txt
      without the three layers that notes.txt needs least
  tureen compress smollm2:135m --to Q4_0 --rounding gptq --calibration notes.txt
      takes minutes instead of seconds, and says more nearly what the original said
  tureen compress model-F16.gguf --to smallest --target-size 80MB --calibration notes.txt
      a type for each matrix, chosen by what it costs on notes.txt, so that it has that size

Types, with the bits that a weight takes in a large model:
  Q2_K_S Q2_K 3.0          heavy loss
  Q3_K_S Q3_K_M Q3_K_L     3.5 to 4.2, noticeable loss; --calibration helps most here
  Q4_0 4.5                 what machines multiply fastest
  Q4_K_S 4.6, Q4_K_M 4.8   little loss
  Q5_K_S 5.5, Q5_K_M 5.7   hardly any
  Q6_K 6.6, Q8_0 8.5       next to none
  IQ4_NL Q4_1 Q5_0 Q5_1 F16 BF16 F32
  smallest                 a type for each matrix, for --target-size or --max-loss
The mixes (those that end in S, M, L) give the matrices where errors cost most more bits. Rows
that are no multiple of 256 get a type of about as many bits in blocks of 32.

A network becomes float16, bfloat16, int8, int8-dynamic, int8-qdq, int8-weights, codebook8,
codebook4, codebook2, low-rank, fewer-units, fewer-weights, int8-aware, distilled or smallest.
fewer-units, fewer-weights and int8-aware train it again: they need --definition, and
model.safetensors beside the .onnx file.

A server does the same as a job (POST /v1/jobs, kind compress), see README.md.

A model that is quantised already can be quantised again, and loses twice: begin with F16 or BF16.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let request = &arguments.request;
    let model = model::find(context, &request.source)?;
    let work = Work::new(request, &model.name, &model.path)?;
    let settings = &context.resolved.settings;
    let isa = settings.isa.0.unwrap_or_else(Isa::detect);
    let compute = Arc::new(Compute::new(isa, settings.threads.0));
    if let Some(output) = &arguments.output {
        let made = make(&compute, &work, output)?;
        return Ok(print(summary(request, &made.report) + &files(&made))?);
    }
    let name = match &arguments.name {
        Some(name) => ModelName::parse(name)?,
        None => default_name(&model.name, work.tag())?,
    };
    let staging = context.store.stage_anew(&name)?;
    let made = make(&compute, &work, &work.place_in(&staging.folder))?;
    let known = known(model.manifest.as_ref(), &made);
    let origin =
        format!("compressed from {}", known.parent.clone().unwrap_or(model.path.display().to_string()));
    let manifest = Manifest::made_of(&name, &origin, &made.files, known.metrics)?;
    let manifest = Manifest { parent: known.parent, facts: known.facts, ..manifest };
    let before = context.store.find(&Reference::Tag(name.clone()))?;
    let version = context.store.publish(&staging.folder, &name, manifest)?;
    if let Some(before) = before.filter(|before| before.number != version.number) {
        say(format!("{name} was {}, {}; that stays under its number", before.id(), before.manifest.source));
    }
    let (id, folder, command) = (version.id(), version.folder.display(), next(&made.report));
    let published = format!("{name} is {id} now, in {folder}\nNow: tureen {command} {name}\n");
    Ok(print(summary(request, &made.report) + &published)?)
}

/// `smollm2:q4_k_m`, whatever the tag was.
///
/// # Errors
/// The type makes no tag.
pub fn default_name(model: &str, tag: &str) -> anyhow::Result<ModelName> {
    let name = model.split([':', '@']).next().unwrap_or_default();
    Ok(ModelName::from_any(name)?.with_tag(tag)?)
}

/// Does the work with a bar, until Ctrl-C.
fn make(compute: &Arc<Compute>, work: &Work<'_>, out: &Path) -> anyhow::Result<Made> {
    let stop = stopped_by_signals()?;
    let mut phases = Phases::default();
    let made = work.run(compute, out, &mut |progress| {
        phases.show(&progress);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    phases.end();
    made?.ok_or_else(|| {
        say("stopped; nothing was kept");
        Interrupted.into()
    })
}

/// What a manifest says of a model beside its files, where it came of the version with the manifest `parent`, or of a file.
pub fn known(parent: Option<&Manifest>, made: &Made) -> Manifest {
    let parent = parent.map(|manifest| {
        let name = manifest.model.split(':').next().unwrap_or_default();
        format!("{name}@{}", manifest.version)
    });
    // A family that can't be run here can be made smaller all the same.
    let facts = made.files.first().and_then(|model| read_facts(model).ok());
    let entry = made.files.first().and_then(|model| Some(model.file_name()?.to_string_lossy().into_owned()));
    let (entry, metrics) = (entry.unwrap_or_default(), made.report.metrics().into_iter().collect());
    Manifest { entry, parent, facts, metrics, ..Manifest::default() }
}

/// A few lines for a person.
fn summary(request: &Request, report: &Report) -> String {
    match report {
        Report::Texts(report) => texts_summary(report),
        Report::Network(report) => network_summary(&request.to, report),
    }
}

fn texts_summary(report: &TextsReport) -> String {
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
    if report.bytes_after >= report.bytes_before {
        text += match &report.choice {
            Some(_) => "It is no smaller: nothing was to be lost, or more room was allowed than it takes.\n",
            None => "It is no smaller: the original is quantised already. Begin with one in F16 or BF16.\n",
        };
    }
    if let Some(choice) = &report.choice {
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in &report.tensors {
            *bytes.entry(tensor.to).or_default() += tensor.bytes_after as u64;
        }
        let mut shares: Vec<(&str, u64)> = bytes.into_iter().collect();
        shares.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let all = report.bytes_after.max(1);
        let shares = shares.iter().map(|(name, bytes)| (name, 100 * bytes / all));
        let shares = shares.filter(|(_, share)| *share > 0).map(|(name, share)| format!("{name} {share}%"));
        text += &format!(
            "{}; divergence {:.4} nats a token on the calibration text\n",
            shares.collect::<Vec<_>>().join(", "),
            choice.loss
        );
    }
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

fn network_summary(to: &str, report: &networks::Report) -> String {
    let (before, after) = (&report.before, &report.after);
    let mut text = format!(
        "{to}: {} of {} bytes ({:.1}%)\n",
        after.bytes,
        before.bytes,
        100.0 * after.bytes as f64 / before.bytes.max(1) as f64
    );
    // What was tried is in the report; that nothing was done is said here.
    for note in report.notes.iter().filter(|_| report.tensors.is_empty()) {
        text += &format!("{note}\n");
    }
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

fn files(made: &Made) -> String {
    let names: Vec<String> = made.files.iter().map(|file| file.display().to_string()).collect();
    format!("{}\nNow: tureen {} {}\n", names.join(", "), next(&made.report), names[0])
}

/// The command to try the model with.
fn next(report: &Report) -> &'static str {
    match report {
        Report::Texts(_) => "run",
        Report::Network(_) => "serve",
    }
}
