//! `tureen rm`: a model's files are deleted, after a question.

use std::io::{IsTerminal, Write};

use anyhow::bail;
use clap::Args;

use super::Context;
use super::table::size;
use crate::models::name::ModelName;

/// Delete a model that was pulled
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Its name, as `tureen list` shows it
    #[arg(value_name = "MODEL", required = true)]
    names: Vec<String>,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen rm smollm2:135m
  tureen rm --yes smollm2:135m qwen3:0.6b

A model that is being served keeps working until the server ends.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    // All are looked up first, so that a wrong name deletes nothing.
    let mut names = Vec::new();
    for text in &arguments.names {
        let unfinished = ModelName::parse(text)
            .is_ok_and(|model| context.store.get(&model).is_ok_and(|found| found.is_none()));
        if unfinished && context.store.clear_unfinished(&ModelName::parse(text)?)? {
            println!("What an interrupted pull of {text} left is deleted.");
        } else {
            names.push(text);
        }
    }
    let models = names.into_iter().map(|text| context.store.require(text));
    for (model, manifest) in models.collect::<anyhow::Result<Vec<_>>>()? {
        if !arguments.yes && !confirmed(&format!("Delete {model} ({})?", size(manifest.bytes())))? {
            println!("{model} stays.");
            continue;
        }
        context.store.remove(&model)?;
        println!("{model} is deleted.");
    }
    Ok(())
}

fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to ask; say --yes");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
