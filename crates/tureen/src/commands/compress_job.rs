//! A compression as a job: its request, completed when it is asked for, and its work, which goes on alone and is left where
//! it stands when somebody asks it to stop.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use kernels::compute::{Compute, Isa};
use serde::Deserialize;
use serve::{PlanError, names_uploads_only};
use store::{JobFolder, JobRun, Manifest, ModelName, Store, StoreError};

use super::compress::{default_name, known};
use super::{Context, job};
use crate::models::find::require;
use crate::recipes::compress::{Event, Made, Request, Work};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Of a network's definition.
const DEFINITION_BYTES_MAX: u64 = 16 << 20;

/// What a server does with a request: the version that `source` means now is written into it, so that this is what becomes
/// smaller, whatever the name means later; the result is called as the command calls it where `model` says nothing.
///
/// # Errors
/// A parameter that is missing, unknown or makes no sense for this model, a file that wasn't uploaded for the job; the
/// database.
pub fn plan(
    store: &Store,
    model: Option<ModelName>,
    request: toml::Table,
    files: &[String],
) -> Result<(ModelName, toml::Table), PlanError> {
    let wrong = |name: &str, problem: String| PlanError::Parameter { name: name.to_owned(), problem };
    let mut request = Request::deserialize(request).map_err(|error| {
        let problem = error.to_string();
        // toml says at the end where a value is that doesn't fit, and serde first of all which key is unknown or missing.
        let (problem, place) = problem.trim().split_once("\nin ").unwrap_or((&problem, &problem));
        wrong(place.split('`').nth(1).unwrap_or("kind"), problem.to_owned())
    })?;
    for (name, file) in request.files() {
        if !files.iter().any(|known| Path::new(known) == file) {
            let problem = format!("{} is none of the names in `files`", file.display());
            return Err(wrong(name, problem));
        }
    }
    let version = require(store, &request.source).map_err(|error| match error.downcast() {
        Ok(error @ StoreError::BadName { .. }) => wrong("source", error.to_string()),
        Ok(error) => PlanError::Store(error),
        Err(error) => wrong("source", error.to_string()),
    })?;
    let entry = version.entry().map_err(PlanError::Store)?;
    let work = Work::new(&request, &request.source, &entry);
    let work = work.map_err(|error| wrong("to", error.to_string()))?;
    let named = model.map_or_else(|| default_name(&version.name, work.tag()), Ok);
    let named = named.map_err(|error| wrong("model", error.to_string()))?;
    request.source = version.id();
    let table = toml::Table::try_from(&request);
    Ok((named, table.map_err(|error| wrong("kind", error.to_string()))?))
}

/// Does the job, and says how it ended. What a process that was killed left is deleted first: the work begins anew.
///
/// # Errors
/// As the recipe's; the store's.
pub fn run(context: &Context, run: JobRun) -> anyhow::Result<()> {
    let folder = run.folder.clone();
    let shared = Arc::new(Mutex::new(Some(run)));
    end_when_asked(shared.clone());
    let made = make(context, &folder, &shared);
    // Whoever has it ends the job, so from here on nobody else does.
    let run = locked(&shared).take().ok_or_else(|| anyhow!("the job was ended while it was worked at"))?;
    let published = made.and_then(|(made, known)| Ok(Some(run.publish(&made.files, known)?)));
    job::end(run, published)
}

type Shared = Arc<Mutex<Option<JobRun>>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Option<JobRun>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process as soon as somebody asks the job to stop. Much of the work has no place where it could stop, and nothing
/// of it is kept: a version is published by who has the run, and this takes it away.
fn end_when_asked(shared: Shared) {
    spawn(move || {
        loop {
            sleep(LOOK_EVERY);
            let mut held = locked(&shared);
            let Some(run) = held.as_mut() else { return };
            // Where the database fails, the work itself says so.
            if !run.is_to_stop().unwrap_or(false) {
                continue;
            }
            // Held until the end, so that the work gets no further than its next event.
            match held.take().map(JobRun::stopped) {
                Some(Err(error)) => {
                    tracing::error!("stopping the job: {error}");
                    exit(1)
                }
                _ => exit(0),
            }
        }
    });
}

/// The smaller model in the job's work folder, and what its manifest says.
fn make(context: &Context, folder: &JobFolder, shared: &Shared) -> anyhow::Result<(Made, Manifest)> {
    let request = read_request(folder)?;
    let source = require(&context.store, &request.source)?;
    let (entry, settings) = (source.entry()?, &context.resolved.settings);
    let work = Work::new(&request, &request.source, &entry)?;
    let isa = settings.isa.0.unwrap_or_else(Isa::detect);
    let compute = Arc::new(Compute::new(isa, settings.job_threads.0));
    let staged = stage(folder)?;
    let mut failed = None;
    let made = work.run(&compute, &work.place_in(&staged), &mut |progress| {
        let told = serde_json::to_value(Event::Progress(progress)).map_err(anyhow::Error::from);
        let told = told.and_then(|event| match locked(shared).as_mut() {
            Some(run) => Ok(run.tell(&event, true)?),
            None => Ok(true),
        });
        match told {
            // Whether to stop is for the thread that looks for it.
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    match (made?, failed) {
        (Some(made), None) => {
            let known = known(Some(&source.manifest), &made);
            Ok((made, known))
        }
        (_, error) => Err(error.unwrap_or_else(|| anyhow!("the work broke off"))),
    }
}

/// The request, with the files that were uploaded for it.
fn read_request(folder: &JobFolder) -> anyhow::Result<Request> {
    let path = folder.definition();
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut request: Request =
        toml::from_str(&text).with_context(|| format!("reading the job's request, {}", path.display()))?;
    let input = path.parent().unwrap_or(&folder.folder);
    for (name, file) in request.files() {
        *file = input.join(&*file);
        if matches!(name, "definition" | "student") {
            check_definition(file)?;
        }
    }
    Ok(request)
}

/// A definition that was uploaded names what was uploaded and nothing else of this machine.
fn check_definition(path: &Path) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().display();
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| format!("opening {name}"))?;
    file.take(DEFINITION_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("reading {name}"))?;
    if text.len() as u64 > DEFINITION_BYTES_MAX {
        bail!("{name} has more than {DEFINITION_BYTES_MAX} bytes: not a definition");
    }
    let table: toml::Table = text.parse().with_context(|| format!("reading {name} as TOML"))?;
    names_uploads_only(&table).map_err(|problem| anyhow!("{name}: {problem}"))
}

/// An empty folder for what is made, this process's own: one that is ending may still write into its.
fn stage(folder: &JobFolder) -> anyhow::Result<PathBuf> {
    let staged = folder.work().join(std::process::id().to_string());
    // As far as it can be: where another still writes, something stays until the job is done.
    let _ = std::fs::remove_dir_all(folder.work());
    let made = match staged.exists() {
        true => Err(std::io::Error::other("it is there already and can't be deleted")),
        false => std::fs::create_dir_all(&staged),
    };
    made.with_context(|| format!("making {}", staged.display()))?;
    Ok(staged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> Store {
        let store = Store::new(folder);
        for (name, entry) in [("tiny", "model.gguf"), ("net", "model.onnx")] {
            let model = ModelName::parse(name).unwrap();
            let staging = store.stage(&model).unwrap();
            let file = staging.folder.join(entry);
            std::fs::write(&file, name).unwrap();
            let manifest = Manifest::made_of(&model, "a test", &[file], []).unwrap();
            store.publish(&staging.folder, &model, manifest).unwrap();
        }
        store
    }

    #[test]
    fn a_request_is_completed_or_refused_by_the_parameter_s_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let plan = |request: &str| {
            plan(&store, None, request.parse().unwrap(), &["notes.txt".to_owned(), "net.toml".to_owned()])
        };
        let (name, request) = plan("source = 'TINY'\nto = 'q4_k'\ncalibration = 'notes.txt'").unwrap();
        assert_eq!((name.to_string().as_str(), request["source"].as_str()), ("tiny:q4_k_m", Some("tiny@1")));
        let (name, _) = plan("source = 'net@1'\nto = 'int8'\ndefinition = 'net.toml'").unwrap();
        assert_eq!(name.to_string(), "net:int8");
        let check = |request: &str, expected: &str, said: &str| match plan(request).unwrap_err() {
            PlanError::Parameter { name, problem } => {
                assert!(name == expected && problem.contains(said), "{name}: {problem}");
            }
            PlanError::Store(error) => panic!("{error}"),
        };
        check("to = 'int8'", "source", "missing");
        check("source = 'net'", "to", "missing");
        check("source = 'net'\nto = 'int8'\ncolour = 1", "colour", "unknown");
        check("source = 'net'\nto = 'int8'\nkeep = 'half'", "keep", "half");
        check("source = 'net'\nto = 'int8'\nranges = 'wide'", "ranges", "min-max");
        check("source = 'nets'\nto = 'int8'", "source", "did you mean net?");
        check("source = 'model.gguf'\nto = 'Q4_0'", "source", "no model");
        check("source = '.'\nto = 'Q4_0'", "source", "no name");
        check("source = 'net'\nto = 'int9'", "to", "did you mean int8");
        check("source = 'tiny'\nto = 'int8'", "to", "no type");
        check("source = 'tiny'\nto = 'Q4_0'\nmeasure = 'other.txt'", "measure", "`files`");
    }

    #[test]
    fn a_definition_that_was_uploaded_names_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.toml");
        let check = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            check_definition(&path)
        };
        check(b"[data]\npath = 'points.csv'").unwrap();
        for text in [&b"[data]\npath = '/etc/passwd'"[..], b"[data]\nx = ['..']", b"[data", b"\xff"] {
            let error = format!("{:#}", check(text).unwrap_err());
            assert!(error.contains("net.toml"), "{error}");
        }
        std::fs::File::create(&path).unwrap().set_len(DEFINITION_BYTES_MAX + 1).unwrap();
        assert!(check_definition(&path).unwrap_err().to_string().contains("more than"));
    }
}
