//! `oci://` in `push` and `pull`: versions by way of registries.

use std::path::Path;

use anyhow::bail;
use store::oci::{Address, Described, Registered};
use store::{ModelName, Reference, Store, Version};

use super::model::read_facts;
use super::table::size;
use crate::models::progress::Shared;
use crate::models::sources::chosen_entry;
use crate::terminal::{print, say};

pub fn push(store: &Store, version: &Version, text: &str) -> anyhow::Result<()> {
    let address = Address::parse(text)?;
    let progress = Shared::start(&format!("pushing {}", version.id()), version.manifest.bytes());
    let sent = store.push_to_registry(version, &address, &|count| progress.add(count))?;
    progress.finish();
    let (id, bytes, new) = (version.id(), size(sent.bytes), size(sent.sent));
    Ok(print(format!("{id} is {address} ({}): {bytes}, of which {new} were sent.\n", sent.digest))?)
}

/// A version out of a registry, as `name` or under the repository's own.
pub fn pull(
    store: &Store,
    text: &str,
    name: Option<&str>,
    (replace, again): (bool, bool),
) -> anyhow::Result<(ModelName, Version)> {
    let address = Address::parse(text)?;
    let model = match name {
        Some(name) => ModelName::parse(name)?,
        None if address.is_digest() => ModelName::from_any(address.short_name())?,
        None => ModelName::from_any(address.short_name())?.with_tag(&address.reference)?,
    };
    let found = Registered::find(&address)?;
    if let Ok(Some(here)) = store.find(&Reference::Tag(model.clone())) {
        let source = &here.manifest.source;
        if *source == found.source() && !again {
            say(format!("{model} is here already (--again fetches it again)"));
            return Ok((model, here));
        }
        if !source.starts_with(&format!("{address} (")) && !replace {
            bail!(
                "{model} is here already, from {source}; --replace puts this one in its place, --as NAME keeps both"
            );
        }
    }
    let progress = Shared::start(&format!("pulling {address}"), found.bytes());
    let version = store.pull_from_registry(&found, &model, &describe, &|count| progress.add(count))?;
    progress.finish();
    Ok((model, version))
}

/// What another program packed: which file is to be loaded, and what that says of itself.
fn describe(folder: &Path, names: &[String]) -> Result<Described, String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(entry) = chosen_entry(&names) else {
        return Err("one .gguf or .onnx file, or config.json with safetensors, is expected in it".to_owned());
    };
    let facts = match read_facts(&folder.join(&entry)) {
        Ok(facts) => Some(facts),
        Err(error) => {
            say(format!("note: this version of tureen can't run it: {error:#}"));
            None
        }
    };
    Ok(Described { entry, facts })
}
