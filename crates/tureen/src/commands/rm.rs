//! `tureen rm`: a model's files are deleted, after a question.

use clap::Args;

use super::Context;
use super::table::size;
use crate::models::name::ModelName;
use crate::terminal::{confirmed, print};

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
    let unfinished = context.store.unfinished()?;
    // All are looked up first, so that a wrong name deletes nothing.
    let mut found = Vec::new();
    for text in &arguments.names {
        let left = ModelName::parse(text).ok().and_then(|model| unfinished.get_key_value(&model));
        found.push(match (context.store.require(text), left) {
            (Ok((model, manifest)), _) => (model.to_string(), manifest.bytes(), model),
            (Err(_), Some((model, bytes))) => {
                (format!("what an interrupted pull of {model} left"), *bytes, model.clone())
            }
            (Err(error), None) => return Err(error),
        });
    }
    for (what, bytes, model) in found {
        if !arguments.yes && !confirmed(&format!("Delete {what} ({})?", size(bytes)))? {
            print(format!("{what} stays.\n"))?;
            continue;
        }
        context.store.remove(&model)?;
        print(format!("{what} is deleted.\n"))?;
    }
    Ok(())
}
