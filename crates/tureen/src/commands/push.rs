//! `tureen push`: a version into a remote.

use clap::Args;
use store::oci::Address;
use store::{Reference, Remote};

use super::table::size;
use super::{Context, registry};
use crate::models::find::require;
use crate::models::progress::Shared;
use crate::terminal::print;

/// Keep a version in a remote, from which other machines pull it
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// NAME, NAME:TAG or NAME@NUMBER
    #[arg(value_name = "MODEL")]
    model: String,
    /// A folder, or s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, oci://HOST/NAME:TAG
    #[arg(value_name = "REMOTE", required_unless_present = "to")]
    remote: Option<String>,
    /// The same, as a flag
    #[arg(long, value_name = "REMOTE", conflicts_with = "remote")]
    to: Option<String>,
    /// Send what is there already too, which mends damage
    #[arg(long)]
    again: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen push digits /mnt/models            the newest version; digits:latest is it there too
  tureen push digits@3 /mnt/models
  tureen pull digits --from /mnt/models     on any machine that sees the folder
  tureen push digits s3://bucket/models
  tureen push digits --to oci://registry.example/team/digits:v1     an OCI registry

Weights are coded without loss, what the remote has is not sent again, and a version made of
another is kept as what changed. A push that was interrupted goes on when it is given again.

Environment: for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT (of
servers that speak as S3 does; AWS_ALLOW_HTTP=true for one without TLS); for gs:
GOOGLE_SERVICE_ACCOUNT; for az: AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY.
Registries: what docker login keeps, or TUREEN_OCI_USER and TUREEN_OCI_PASSWORD; oci+http:// for
one without TLS. They get files as they are, in the CNCF's ModelPack format, for others to use.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let version = require(&context.store, &arguments.model)?;
    // One of them is there, or the command line was refused.
    let place = arguments.to.as_ref().or(arguments.remote.as_ref()).map_or("", String::as_str);
    if Address::is_meant(place) {
        return registry::push(&context.store, &version, place);
    }
    let remote = Remote::open(place)?;
    let tag = match Reference::parse(&arguments.model)? {
        Reference::Tag(model) => Some(model),
        Reference::Number { .. } => None,
    };
    let name = format!("pushing {}", version.id());
    let progress = Shared::start(&name, version.manifest.bytes());
    let pushed =
        context.store.push(&version, &remote, tag.as_ref(), arguments.again, &|count| progress.add(count))?;
    progress.finish();
    let id = format!("{}@{}", version.name, pushed.number);
    if pushed.was_there && !arguments.again {
        return Ok(print(format!("{remote} has it already, as {id}.\n"))?);
    }
    let (bytes, stored, sent) = (size(pushed.bytes), size(pushed.stored), size(pushed.sent));
    print(format!("{id} is in {remote}: {bytes}, kept in {stored}, of which {sent} were sent.\n"))?;
    if pushed.number != version.number {
        print(format!("Numbers are each store's own: what is {} here is {id} there.\n", version.id()))?;
    }
    Ok(())
}
