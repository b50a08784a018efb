//! `tureen list`: the models that are here.

use clap::Args;
use store::{Manifest, Reference, Unfinished};

use super::Context;
use super::table::{columns, parameters, size};
use crate::models::catalogue;
use crate::terminal::{print, say};

/// List the models that are here, pulled or made by jobs
#[derive(Args)]
#[command(after_help = EXAMPLES, visible_alias = "ls")]
pub struct Arguments {
    /// List the short names that can be pulled instead
    #[arg(long)]
    catalogue: bool,
    /// What a remote has: a folder, a bucket or https://
    #[arg(long, value_name = "REMOTE", conflicts_with = "catalogue")]
    from: Option<String>,
    /// Print JSON: an array of the models' manifests
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen list                  what is here
  tureen list --catalogue      what has a short name
  tureen list --from /mnt/models    what was pushed there";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(remote) = &arguments.from {
        return super::remote::list(remote, arguments.json);
    }
    if arguments.catalogue {
        let entries = catalogue::entries();
        if arguments.json {
            let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            print(serde_json::to_string_pretty(&names)? + "\n")?;
        } else {
            let rows: Vec<_> =
                entries.iter().map(|entry| vec![entry.name.clone(), entry.about.clone()]).collect();
            print(columns(&rows))?;
        }
        return Ok(());
    }
    let mut manifests = Vec::new();
    for (name, version) in context.store.list()? {
        match version {
            Ok(version) => manifests.push((name, version.manifest)),
            Err(error) => say(format!("{name}: {error:#}")),
        }
    }
    if arguments.json {
        let manifests: Vec<&Manifest> = manifests.iter().map(|(_, manifest)| manifest).collect();
        print(serde_json::to_string_pretty(&manifests)? + "\n")?;
        return Ok(());
    }
    for (model, Unfinished { bytes, is_under_way }) in context.store.unfinished()? {
        let bytes = size(bytes);
        if is_under_way {
            say(format!("under way: {model}, {bytes} so far"));
            continue;
        }
        // `rm` would take the whole one.
        let next = match context.store.find(&Reference::Tag(model.clone())) {
            Ok(Some(_)) => "to go on, pull it with --again; what is here already stays until then".to_owned(),
            _ => format!("pull it again to go on, or: tureen rm {model}"),
        };
        say(format!("unfinished: {model}, {bytes} came; {next}"));
    }
    if manifests.is_empty() {
        print(format!("No models in {}.\n", context.resolved.settings.models.display()))?;
        print("Get one: tureen pull smollm2:135m (tureen list --catalogue shows more)\n")?;
        return Ok(());
    }
    let mut rows = vec![
        ["NAME", "SIZE", "PARAMETERS", "QUANTISATION", "VERSION", "CREATED"].map(str::to_string).to_vec(),
    ];
    for (name, manifest) in manifests {
        let facts = manifest.facts.as_ref();
        rows.push(vec![
            name,
            size(manifest.bytes()),
            facts.map_or_else(|| "?".to_string(), |facts| parameters(facts.parameters)),
            facts.map_or_else(|| "?".to_string(), |facts| facts.quantisation.clone()),
            format!("@{}", manifest.version),
            manifest.created.get(..16).unwrap_or(&manifest.created).replace('T', " "),
        ]);
    }
    Ok(print(columns(&rows))?)
}
