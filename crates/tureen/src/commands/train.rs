//! `tureen train`: a definition file becomes a trained model, in the foreground.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;
use store::manifest::Manifest;
use store::{ModelName, Version};
use tokio::signal::unix::{SignalKind, signal};

use super::epochs::Epochs;
use super::model::read_facts;
use super::run::Interrupted;
use super::{Context, INTERRUPTED};
use crate::recipes::train::{self as recipe, Event, Outcome};
use crate::terminal::{print, say};

/// Train a network that a file defines, in the words of Keras
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The file that says the network, the data and the training
    #[arg(value_name = "DEFINITION.toml", required_unless_present_any = ["template", "schema"])]
    definition: Option<PathBuf>,
    /// The folder for checkpoints and the trained model; the definition's name, here, otherwise
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// What the model is called; the definition's name otherwise
    #[arg(long)]
    name: Option<String>,
    /// Keep what comes of it in the store too, as a new version of NAME
    #[arg(long, value_name = "NAME")]
    publish: Option<String>,
    /// Print what happens as lines of JSON, on standard output
    #[arg(long)]
    json: bool,
    /// Print a definition to begin with, and nothing else
    #[arg(long, conflicts_with_all = ["definition", "schema"])]
    template: bool,
    /// Print the JSON Schema of definitions, by which editors complete them, and nothing else
    #[arg(long, conflicts_with = "definition")]
    schema: bool,
}

/// The file of a run that is served.
pub const MODEL: &str = "model.onnx";

const EXAMPLES: &str = "\
Examples:
  tureen train --template > digits.toml      a definition to begin with
  tureen train digits.toml                   trains it, in the folder digits
  tureen train digits.toml --output runs/1   in a folder of your choice
  tureen train digits.toml --publish digits  and keeps it as a version: tureen serve digits

Ctrl-C writes a checkpoint, and the same command goes on from it, bit for bit; so it does after a
crash. The folder holds the model (model.onnx), report.html, and logs for TensorBoard.";

impl Arguments {
    /// Asked for a text that needs no settings.
    pub fn wants_text(&self) -> bool {
        self.template || self.schema
    }
}

/// Prints the template or the schema.
pub fn print_text(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.template {
        return Ok(print(train::definition::TEMPLATE)?);
    }
    Ok(print(serde_json::to_string_pretty(&train::definition::schema())? + "\n")?)
}

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    // A name that can't be is told before hours of training.
    let published = arguments.publish.as_deref().map(ModelName::parse).transpose()?;
    let definition = arguments.definition.as_deref().context("a definition file is needed")?;
    let stem = definition.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = arguments.name.as_ref().unwrap_or(&stem);
    let folder = arguments.output.clone().unwrap_or_else(|| PathBuf::from(&stem));
    check_folder(&folder)?;
    let stop = stopped_by_signals()?;
    let mut epochs = Epochs::default();
    let mut failed = None;
    let outcome = recipe::run(definition, &folder, &mut |event| {
        let shown = if arguments.json {
            line(event)
        } else {
            epochs.show(event);
            Ok(())
        };
        // Nobody reads any more: what is so far is kept.
        if let Err(error) = shown {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    epochs.end();
    let outcome = outcome?;
    if let Some(error) = failed {
        return Err(error);
    }
    if outcome.stopped {
        say(format!(
            "stopped; a checkpoint is in {}, and the same command goes on from it",
            folder.display()
        ));
        return Err(Interrupted.into());
    }
    let version = published.map(|name| publish(context, &name, &folder, &outcome)).transpose()?;
    if !arguments.json {
        print(closing(name, &folder, &outcome, version.as_ref()))?;
    }
    Ok(())
}

/// Keeps what a finished run left as a version.
fn publish(context: &Context, name: &ModelName, folder: &Path, outcome: &Outcome) -> anyhow::Result<Version> {
    let staging = context.store.stage_anew(name)?;
    let mut files = Vec::new();
    for from in &outcome.files {
        let to = staging.folder.join(from.file_name().unwrap_or_default());
        std::fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
        files.push(to);
    }
    let source =
        format!("trained in {}", folder.canonicalize().context("finding the run's folder")?.display());
    let manifest = Manifest {
        entry: MODEL.to_owned(),
        facts: Some(read_facts(&staging.folder.join(MODEL))?),
        ..Manifest::made_of(name, &source, &files, outcome.metrics.clone())?
    };
    Ok(context.store.publish(&staging.folder, name, manifest)?)
}

fn line(event: &Event) -> anyhow::Result<()> {
    Ok(print(serde_json::to_string(event)? + "\n")?)
}

/// A folder of something else is left alone.
fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let Ok(mut entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let is_ours = folder.join("lock").exists();
    if entries.next().is_some() && !is_ours {
        bail!(
            "{} holds other files; say --output FOLDER, a new one or that of an earlier run",
            folder.display()
        );
    }
    Ok(())
}

/// Set by the first Ctrl-C or SIGTERM; a second ends the program at once.
pub fn stopped_by_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("listening for Ctrl-C")?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let flag = stop.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
                if flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED.into());
                }
                say("\nstopping after this step; once more ends at once");
            }
        });
    });
    Ok(stop)
}

/// Figures, files, and what to do next.
fn closing(name: &str, folder: &Path, outcome: &Outcome, version: Option<&Version>) -> String {
    let mut text = String::new();
    for (figure, value) in &outcome.metrics {
        text.push_str(&format!("{figure:<24} {value:.4}\n"));
    }
    let names: Vec<String> = outcome
        .files
        .iter()
        .filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()))
        .collect();
    text.push_str(&format!("{}: {}\n", folder.display(), names.join(", ")));
    let model = folder.join(MODEL);
    if let Some(version) = version {
        text.push_str(&format!("kept as {}\nNow: tureen serve {}\n", version.id(), version.label()));
    } else if outcome.files.contains(&model) {
        text.push_str(&format!("Now: tureen serve {name}={}\n", model.display()));
        text.push_str("To keep it as a version, give the same command with --publish NAME\n");
    }
    text
}
