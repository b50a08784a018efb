//! `tureen verify`: reads every file again, and names what is damaged.

use anyhow::bail;
use clap::Args;

use super::Context;
use super::table::size;
use crate::models::find::require;
use crate::models::progress::Progress;
use crate::terminal::{print, say};

/// Compare the files of models with their hashes, and name those that are damaged
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// NAME, NAME:TAG or NAME@NUMBER; all that is here where none is named
    #[arg(value_name = "MODEL")]
    named: Vec<String>,
    /// Read what a remote has
    #[arg(long, value_name = "REMOTE")]
    from: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  tureen verify                   everything
  tureen verify smollm2:135m digits@2
  tureen verify --from /mnt/models

A damaged model that was pulled is mended by: tureen pull --again SOURCE";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(remote) = &arguments.from {
        return super::remote::verify(remote, &arguments.named);
    }
    let (mut versions, mut damaged) = (Vec::new(), 0);
    for text in &arguments.named {
        versions.push(require(&context.store, text)?);
    }
    if arguments.named.is_empty() {
        for (label, version) in context.store.list()? {
            match version {
                Ok(version) => versions.push(version),
                Err(error) => {
                    say(format!("{label}: {error:#}"));
                    damaged += 1;
                }
            }
        }
    }
    for version in &versions {
        let bytes = version.manifest.bytes();
        let mut progress = Progress::start(&format!("reading {}", version.id()), 0, Some(bytes));
        let found = context.store.verify(version, |count| progress.add(count))?;
        progress.finish();
        for damage in &found {
            say(format!("{}: {}: {}", version.id(), damage.path, damage.why));
        }
        if found.is_empty() {
            print(format!("{}: whole ({})\n", version.id(), size(bytes)))?;
        } else {
            damaged += 1;
        }
    }
    if damaged > 0 {
        bail!("{damaged} of what is here is damaged; the lines above say where");
    }
    Ok(())
}
