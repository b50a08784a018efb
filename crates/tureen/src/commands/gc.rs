//! `tureen gc`: deletes what no version of a remote needs.

use clap::Args;
use store::Remote;

use super::Context;
use super::table::size;
use crate::terminal::print;

/// Delete the chunks of a remote that no version there needs
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The remote
    #[arg(value_name = "REMOTE")]
    remote: String,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen rm digits@1 --from /mnt/models
  tureen gc /mnt/models                     frees what no other version needs

While something is being pushed, it refuses. Models that are here need no gc: rm deletes them.";

pub fn run(_: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let remote = Remote::open(&arguments.remote)?;
    let found = remote.collect(arguments.dry_run)?;
    let verb = if arguments.dry_run { "would be deleted" } else { "were deleted" };
    let (gone, kept) = (size(found.deleted_bytes), size(found.kept_bytes));
    Ok(print(format!("{} chunks ({gone}) {verb}; {} ({kept}) are needed.\n", found.deleted, found.kept))?)
}
