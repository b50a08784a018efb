//! `--from REMOTE` of the commands that look at models: the same for what a remote has.

use anyhow::bail;
use store::{Kept, Manifest, ModelName, Reference, Remote, Store, StoreError, Version};

use super::table::{columns, parameters, size};
use crate::models::progress::Shared;
use crate::terminal::{confirmed, print, say};

/// `REMOTE/NAME@NUMBER` taken apart; `None` where no remote is named.
pub fn apart(text: &str) -> Option<(&str, &str)> {
    let (remote, name) = text.rsplit_once('/')?;
    // `https://` alone is no remote.
    (!remote.is_empty() && !remote.ends_with('/')).then_some((remote, name))
}

/// A version out of a remote, as `name` or under its own.
pub fn pull(
    store: &Store,
    remote: &str,
    text: &str,
    name: Option<&str>,
    (replace, again): (bool, bool),
) -> anyhow::Result<(ModelName, Version)> {
    let remote = Remote::open(remote)?;
    let reference = Reference::parse(text)?;
    let (number, manifest) = remote.look(&reference)?;
    let model = match (name, &reference) {
        (Some(name), _) => ModelName::parse(name)?,
        (None, Reference::Tag(model)) => model.clone(),
        (None, Reference::Number { name, .. }) => ModelName::parse(name)?,
    };
    if let Ok(Some(here)) = store.find(&Reference::Tag(model.clone())) {
        if here.manifest.has_files_of(&manifest) && !again {
            say(format!("{model} is here already (--again fetches it again)"));
            return Ok((model, here));
        }
        let source = &here.manifest.source;
        if !source.starts_with(&format!("{remote}: ")) && !here.manifest.has_files_of(&manifest) && !replace {
            bail!(
                "{model} is here already, from {source}; --replace puts this one in its place, --as NAME keeps both"
            );
        }
    }
    let name = format!("pulling {}@{number}", reference.name());
    let progress = Shared::start(&name, manifest.bytes());
    let version = store.pull(&remote, (reference.name(), number), &model, &|count| progress.add(count))?;
    progress.finish();
    Ok((model, version))
}

pub fn list(remote: &str, as_json: bool) -> anyhow::Result<()> {
    let remote = Remote::open(remote)?;
    let mut found: Vec<Kept> = Vec::new();
    for (id, version) in remote.versions()? {
        match version {
            Ok(version) => found.push(version),
            Err(error) => say(format!("{id}: {error}")),
        }
    }
    if as_json {
        let manifests: Vec<&Manifest> = found.iter().map(|version| &version.manifest).collect();
        return Ok(print(serde_json::to_string_pretty(&manifests)? + "\n")?);
    }
    if found.is_empty() {
        return Ok(print(format!("No models in {remote}.\n"))?);
    }
    let heading = ["VERSION", "TAGS", "SIZE", "KEPT IN", "PARAMETERS", "QUANTISATION", "CREATED"];
    let mut rows = vec![heading.map(str::to_string).to_vec()];
    for version in &found {
        let manifest = &version.manifest;
        let facts = manifest.facts.as_ref();
        rows.push(vec![
            version.id(),
            version.tags.join(", "),
            size(manifest.bytes()),
            size(version.stored),
            facts.map_or_else(|| "?".to_string(), |facts| parameters(facts.parameters)),
            facts.map_or_else(|| "?".to_string(), |facts| facts.quantisation.clone()),
            manifest.created.get(..16).unwrap_or(&manifest.created).replace('T', " "),
        ]);
    }
    Ok(print(columns(&rows))?)
}

pub fn verify(remote: &str, named: &[String]) -> anyhow::Result<()> {
    let remote = Remote::open(remote)?;
    let mut versions = Vec::new();
    for text in named {
        let reference = Reference::parse(text)?;
        versions.push((reference.name().to_owned(), remote.number_of(&reference)?));
    }
    let progress = Shared::start(&format!("reading {remote}"), remote.bytes_of(&versions)?);
    let damages = remote.verify(&versions, &|count| progress.add(count))?;
    progress.finish();
    for damage in &damages {
        say(format!("{}: {}", damage.path, damage.why));
    }
    if !damages.is_empty() {
        bail!("{} of what is in {remote} is damaged; the lines above say where", damages.len());
    }
    Ok(print(format!("{remote}: whole\n"))?)
}

pub fn remove(remote: &str, names: &[String], yes: bool) -> anyhow::Result<()> {
    let remote = Remote::open(remote)?;
    let mut found = Vec::new();
    // All are looked up first, so that a wrong name deletes nothing.
    for text in names {
        let reference = Reference::parse(text)?;
        found.push((described(&remote, &reference)?, reference));
    }
    for (what, reference) in found {
        if !yes && !confirmed(&format!("Delete {what} from {remote}?"))? {
            print(format!("{what} stays.\n"))?;
            continue;
        }
        match remote.remove(&reference)? {
            Some(number) => {
                let id = format!("{}@{number}", reference.name());
                print(format!("{id} is deleted; to free its chunks: tureen gc {remote}\n"))?;
            }
            None => print(format!("{what} is deleted.\n"))?,
        }
    }
    Ok(())
}

/// What is asked about: a tag goes alone where another means its version too, or where nobody knows what it means.
fn described(remote: &Remote, reference: &Reference) -> anyhow::Result<String> {
    let Reference::Tag(model) = reference else {
        return Ok(format!("{}@{}", reference.name(), remote.number_of(reference)?));
    };
    let number = match remote.number_of(reference) {
        Err(StoreError::EntryDamaged { .. }) => return Ok(format!("the damaged tag {reference}")),
        other => other?,
    };
    let tags = remote.tags_of(model.name(), number)?;
    let others: Vec<&str> = tags.iter().map(String::as_str).filter(|tag| *tag != model.tag()).collect();
    let id = format!("{}@{number}", model.name());
    if others.is_empty() {
        return Ok(id);
    }
    Ok(format!("the tag {reference}, not {id}, which is also {},", others.join(", ")))
}
