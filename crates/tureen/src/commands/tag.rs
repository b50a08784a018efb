//! `tureen tag`: a name for a version.

use clap::Args;

use super::Context;
use crate::models::find::require;
use crate::terminal::print;

/// Let a tag mean a version, whatever it meant before
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// NAME, NAME:TAG or NAME@NUMBER
    #[arg(value_name = "MODEL")]
    model: String,
    /// The tag; `latest` is what NAME alone means
    #[arg(value_name = "TAG")]
    tag: String,
}

const EXAMPLES: &str = "\
Examples:
  tureen tag digits@3 best        digits:best is digits@3 from now on
  tureen tag digits@2 latest      back to the second: digits is digits@2";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let version = require(&context.store, &arguments.model)?;
    let model = context.store.tag(&version, &arguments.tag)?;
    Ok(print(format!("{model} is {} now.\n", version.id()))?)
}
