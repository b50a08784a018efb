//! `tureen diff`: what one version has otherwise than another.

use clap::Args;
use serde_json::{Value, json};
use store::{Change, Contents, Differences, Manifest, Reference, Remote};

use super::Context;
use super::remote::apart;
use super::table::{columns, parameters, size};
use crate::models::find::require;
use crate::terminal::print;

/// Show what differs between two versions: files, tensors, metrics, and how much a remote would keep once
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// NAME, NAME:TAG or NAME@NUMBER; REMOTE/NAME@NUMBER is one of a remote
    #[arg(value_name = "A")]
    before: String,
    /// The version that A is compared with
    #[arg(value_name = "B")]
    after: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen diff digits@1 digits@2
  tureen diff digits /mnt/models/digits          what is here, and what was pushed
  tureen diff s3://bucket/models/digits@1 s3://bucket/models/digits@2 --json

Weights are compared by their bytes. Tensors below 64 KiB are told with their file only. Of a
remote nothing is read but the two manifests.";

/// A version, and what it is called.
struct Side {
    id: String,
    contents: Contents,
}

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    // What is here is cut as what is in a remote, so that equal tensors have equal chunks; so that goes first.
    let (before, after) = if apart(&arguments.before).is_some() {
        let before = side(context, &arguments.before, None)?;
        let after = side(context, &arguments.after, Some(&before.contents))?;
        (before, after)
    } else {
        let after = side(context, &arguments.after, None)?;
        (side(context, &arguments.before, Some(&after.contents))?, after)
    };
    let differences = before.contents.differences(&after.contents);
    if arguments.json {
        let value = json!({
            "before": described(&before),
            "after": described(&after),
            "differences": serde_json::to_value(&differences)?,
        });
        return Ok(print(serde_json::to_string_pretty(&value)? + "\n")?);
    }
    print(columns(&facts(&before, &after)))?;
    print_changes("FILE", &differences.files, differences.files_same)?;
    if differences.tensors_same > 0 || !differences.tensors.is_empty() {
        print_changes("TENSOR", &differences.tensors, differences.tensors_same)?;
    }
    Ok(print(shared(&after.id, &differences))?)
}

fn side(context: &Context, text: &str, like: Option<&Contents>) -> anyhow::Result<Side> {
    if let Some((remote, name)) = apart(text) {
        let (remote, reference) = (Remote::open(remote)?, Reference::parse(name)?);
        let (number, contents) = remote.contents(&reference)?;
        return Ok(Side { id: format!("{remote}/{}@{number}", reference.name()), contents });
    }
    let version = require(&context.store, text)?;
    Ok(Side { id: version.id(), contents: context.store.contents(&version, like)? })
}

fn described(side: &Side) -> Value {
    json!({ "id": side.id, "manifest": side.contents.manifest() })
}

/// What manifests say, where it isn't the same.
fn facts(before: &Side, after: &Side) -> Vec<Vec<String>> {
    let manifests = [before.contents.manifest(), after.contents.manifest()];
    let mut rows = vec![vec![String::new(), before.id.clone(), after.id.clone()]];
    let mut row = |name: &str, of: &dyn Fn(&Manifest) -> String| {
        let [a, b] = manifests.map(of);
        if a != b {
            rows.push(vec![name.to_owned(), a, b]);
        }
    };
    let fact = |manifest: &Manifest, of: fn(&store::manifest::Facts) -> String| {
        manifest.facts.as_ref().map_or_else(|| "?".to_owned(), of)
    };
    row("size", &|manifest| size(manifest.bytes()));
    row("family", &|manifest| fact(manifest, |facts| facts.family.clone()));
    row("parameters", &|manifest| fact(manifest, |facts| parameters(facts.parameters)));
    row("quantisation", &|manifest| fact(manifest, |facts| facts.quantisation.clone()));
    row("licence", &|manifest| fact(manifest, |facts| facts.licence.clone().unwrap_or_default()));
    row("parent", &|manifest| manifest.parent.clone().unwrap_or_default());
    row("source", &|manifest| manifest.source.clone());
    row("created", &|manifest| manifest.created.clone());
    let metrics: std::collections::BTreeSet<&String> =
        manifests.iter().flat_map(|manifest| manifest.metrics.keys()).collect();
    for name in metrics {
        row(name, &|manifest| {
            manifest.metrics.get(name).map_or_else(String::new, |value| format!("{value:.6}"))
        });
    }
    rows
}

fn print_changes(what: &str, changes: &[Change], same: usize) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Ok(print(format!("\n{what}S: {same} the same, none changed\n"))?);
    }
    let mut rows = vec![["", what, "BEFORE", "AFTER", "NEW"].map(str::to_owned).to_vec()];
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
    for change in changes {
        let verb = match (change.before, change.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let (before, after) = (bytes(change.before), bytes(change.after));
        rows.push(vec![verb.to_owned(), change.name.clone(), before, after, size(change.new)]);
    }
    Ok(print(format!("\n{}{same} the same\n", columns(&rows)))?)
}

fn shared(after: &str, differences: &Differences) -> String {
    let Differences { chunks, chunks_shared, bytes, bytes_shared, .. } = differences;
    let percent = 100.0 * *bytes_shared as f64 / (*bytes).max(1) as f64;
    format!(
        "\n{percent:.1}% of {after} is in the other: {} of {}, {chunks_shared} of {chunks} chunks\n",
        size(*bytes_shared),
        size(*bytes)
    )
}
