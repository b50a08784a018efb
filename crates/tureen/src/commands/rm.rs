//! `tureen rm`: a model's files are deleted, after a question.

use clap::Args;
use store::{ModelName, Reference, Version};

use super::Context;
use super::table::size;
use crate::models::find::require;
use crate::terminal::{confirmed, print};

/// Delete a model, or one version of it
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Its name, as `tureen list` shows it
    #[arg(value_name = "MODEL", required = true)]
    names: Vec<String>,
    /// Delete it from a remote, and not here
    #[arg(long, value_name = "REMOTE")]
    from: Option<String>,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen rm smollm2:135m
  tureen rm --yes smollm2:135m qwen3:0.6b
  tureen rm digits@2                     one version, with its tags
  tureen rm digits@2 --from /mnt/models

A name or NAME:TAG goes, and with it the version that it means, unless another tag means it too.
A model that is being served keeps working until the server ends.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(remote) = &arguments.from {
        return super::remote::remove(remote, &arguments.names, arguments.yes);
    }
    let unfinished = context.store.unfinished()?;
    // All are looked up first, so that a wrong name deletes nothing.
    let mut found = Vec::new();
    for text in &arguments.names {
        let left = ModelName::parse(text).ok().and_then(|model| unfinished.get_key_value(&model));
        found.push(match (require(&context.store, text), left) {
            (Ok(version), _) => described(&version, Reference::parse(text)?),
            (Err(_), Some((model, left))) => {
                let what = format!("what an interrupted pull of {model} left");
                (what, left.bytes, Reference::Tag(model.clone()))
            }
            (Err(error), None) => return Err(error),
        });
    }
    for (what, bytes, reference) in found {
        if !arguments.yes && !confirmed(&format!("Delete {what} ({})?", size(bytes)))? {
            print(format!("{what} stays.\n"))?;
            continue;
        }
        let name = reference.to_string();
        let name = Reference::parse(name.split([':', '@']).next().unwrap_or_default())?;
        let meant = |name: &Reference| Ok::<_, anyhow::Error>(context.store.find(name)?);
        let before = meant(&name)?.map(|version| version.id());
        context.store.remove(&reference)?;
        print(format!("{what} is deleted.\n"))?;
        // The name alone may have meant it: what it means now is somebody's surprise later.
        if let Some(now) = meant(&name)?.filter(|now| before.is_some() && before != Some(now.id())) {
            print(format!("{name} means {} now, {}.\n", now.id(), now.manifest.source))?;
        }
    }
    Ok(())
}

/// What is asked about, what deleting it frees, and the thing itself.
fn described(version: &Version, reference: Reference) -> (String, u64, Reference) {
    let others: Vec<&str> = match &reference {
        Reference::Tag(model) => {
            version.tags.iter().map(String::as_str).filter(|tag| *tag != model.tag()).collect()
        }
        Reference::Number { .. } => Vec::new(),
    };
    if others.is_empty() {
        return (reference.to_string(), version.manifest.bytes(), reference);
    }
    let (id, others) = (version.id(), others.join(", "));
    (format!("the tag {reference}, not {id}, which is also {others},"), 0, reference)
}
