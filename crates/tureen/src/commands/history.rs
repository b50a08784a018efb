//! `tureen history`: a model's versions, newest first.

use anyhow::bail;
use clap::Args;
use store::{Manifest, Reference, Version};

use super::Context;
use super::table::{columns, size};
use crate::models::find::require;
use crate::terminal::print;

/// Metrics shown in a line.
const METRICS_SHOWN_MAX: usize = 4;

/// List a model's versions, newest first: tags, where each came from, what was measured
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model's name
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON: an array of the versions' manifests
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen history digits";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let reference = Reference::parse(&arguments.name)?;
    let all = context.store.list()?.into_iter().filter_map(|(_, version)| version.ok());
    let mut versions: Vec<Version> = all.filter(|version| version.name == reference.name()).collect();
    versions.reverse();
    if versions.is_empty() {
        // The error names the nearest.
        require(&context.store, &arguments.name)?;
        bail!("no manifest of {} can be read; tureen verify {0} says more", arguments.name);
    }
    if arguments.json {
        let manifests: Vec<&Manifest> = versions.iter().map(|version| &version.manifest).collect();
        return Ok(print(serde_json::to_string_pretty(&manifests)? + "\n")?);
    }
    let mut rows =
        vec![["VERSION", "TAGS", "SIZE", "CREATED", "SOURCE", "METRICS"].map(str::to_string).to_vec()];
    for version in &versions {
        let manifest = &version.manifest;
        let metric = |(name, value): (&String, &f64)| format!("{name} {value:.4}");
        let metrics: Vec<String> = manifest.metrics.iter().take(METRICS_SHOWN_MAX).map(metric).collect();
        rows.push(vec![
            version.id(),
            version.tags.join(", "),
            size(manifest.bytes()),
            manifest.created.get(..16).unwrap_or(&manifest.created).replace('T', " "),
            manifest.source.clone(),
            metrics.join(", "),
        ]);
    }
    Ok(print(columns(&rows))?)
}
