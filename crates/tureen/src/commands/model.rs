//! What MODEL means on the command line, a file, a folder, or the name of a model that was pulled; and loading it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use engine::llm::{Llm, MemoryPlan, ModelFacts, PackedFolder};
use engine::onnx::{Onnx, TensorSpec};
use formats::model::ModelFiles;
use formats::onnx::is_onnx;
use indicatif::ProgressBar;
use kernels::attention::PAGE_TOKENS;
use kernels::compute::Isa;
use store::manifest::{Facts, Kind, Manifest};
use store::{ModelName, Reference, Remote};

use super::pull::EndsAtInterrupt;
use super::remote::apart;
use super::table::parameters;
use super::{Context, pull};
use crate::models::find::require;
use crate::models::sources::{is_model_file, stem};
use crate::models::{cache, catalogue};
use crate::nearest::nearest;
use crate::settings::{ModelText, Settings};
use crate::terminal::{confirmed, is_attended, say};

/// A model to load.
pub struct Model {
    /// What it is called where it is served.
    pub name: String,
    /// A .gguf or .onnx file, or a folder.
    pub path: PathBuf,
    /// Its number in the store; 1 for one that isn't there.
    pub version: u64,
    /// Of one that is in the store.
    pub manifest: Option<Manifest>,
    /// Of one that was pulled just now. Whoever listens for Ctrl-C drops it.
    pub ends: Option<EndsAtInterrupt>,
    /// The model that guesses ahead for it.
    pub draft: Option<PathBuf>,
}

/// # Errors
/// Neither a path nor a name of a model that is here; the nearest is named.
pub fn find(context: &Context, text: &str) -> anyhow::Result<Model> {
    let path = Path::new(text);
    let looks_like_a_path = text.contains(['/', '\\']) || is_model_file(text) || matches!(text, "." | "..");
    if looks_like_a_path || path.is_file() || path.join("config.json").is_file() {
        let path = path.canonicalize().with_context(|| format!("there is no model at {text:?}"))?;
        let file =
            path.file_name().map_or_else(|| text.to_string(), |name| name.to_string_lossy().into_owned());
        return Ok(Model { name: stem(&file), path, version: 1, manifest: None, ends: None, draft: None });
    }
    let found = require(&context.store, text).map_err(|error| match path.exists() {
        true => anyhow!("{error}; ./{text} is a folder without config.json, so no model either"),
        false => error,
    });
    let (version, name) = (found?, Reference::parse(text)?.to_string());
    let (path, number, manifest) = (version.entry()?, version.number, Some(version.manifest));
    Ok(Model { name, path, version: number, manifest, ends: None, draft: None })
}

/// As [`find`]; a short name whose model isn't here is fetched, where somebody is there to say so. So is the draft model
/// that the settings name.
///
/// # Errors
/// As for [`find`], with the command that would get the model.
pub fn find_to_load(context: &Context, text: &str) -> anyhow::Result<Model> {
    let mut model = find_or_pull(context, text)?;
    let Settings { draft_model, draft_tokens_max, .. } = &context.resolved.settings;
    if let Some(draft) = wanted_draft(draft_model.as_ref(), draft_tokens_max.0, &model.path) {
        let draft = find_or_pull(context, &draft.0).context("finding the draft model")?;
        model.draft = Some(draft.path);
        model.ends = model.ends.or(draft.ends);
    }
    Ok(model)
}

/// The draft model that is named for the model at `path`, where tokens are guessed.
fn wanted_draft<'a>(named: Option<&'a ModelText>, tokens_max: usize, path: &Path) -> Option<&'a ModelText> {
    named.filter(|_| tokens_max > 0 && !is_onnx(path))
}

fn find_or_pull(context: &Context, text: &str) -> anyhow::Result<Model> {
    if text.contains("://") || is_in_remote_folder(text) {
        return find_in_remote(context, text);
    }
    let error = match find(context, text) {
        Ok(model) => return Ok(model),
        Err(error) => error,
    };
    let Ok(name) = ModelName::parse(text) else { return Err(error) };
    if !matches!(context.store.find(&Reference::Tag(name.clone())), Ok(None)) {
        return Err(error);
    }
    let Some(entry) = catalogue::find(&name) else {
        let known = catalogue::entries().iter().map(|entry| entry.name.as_str());
        return Err(match nearest(text, known) {
            Some(close) => anyhow!("{error}; get {close} with: tureen pull {close}"),
            None => error,
        });
    };
    if !is_attended() {
        bail!("{name} is not here yet; get it with: tureen pull {name}");
    }
    if !confirmed(&format!("{name} is not here yet. {}. Fetch it?", entry.about))? {
        bail!("{name} is not here; later: tureen pull {name}");
    }
    let (_, _, ends) = pull::pull(context, text, None, false, false)?;
    Ok(Model { ends: Some(ends), ..find(context, text)? })
}

/// `FOLDER/NAME@NUMBER` where the folder is what `tureen push` made. What stands at that path itself goes first.
fn is_in_remote_folder(text: &str) -> bool {
    let is_remote = |folder: &Path| ["models", "chunks"].iter().all(|part| folder.join(part).is_dir());
    !Path::new(text).exists() && apart(text).is_some_and(|(folder, _)| is_remote(Path::new(folder)))
}

/// `s3://BUCKET/PATH/NAME@NUMBER`, kept in the cache.
fn find_in_remote(context: &Context, text: &str) -> anyhow::Result<Model> {
    let Some((remote, name)) = apart(text) else {
        bail!("{text:?} names no version of a remote: REMOTE/NAME@NUMBER does, or REMOTE/NAME:TAG");
    };
    let (remote, reference) = (Remote::open(remote)?, Reference::parse(name)?);
    let settings = &context.resolved.settings;
    let (version, number) = cache::version(&settings.models, &remote, &reference, settings.cache_max.0)
        .with_context(|| format!("getting {reference} from {remote}"))?;
    let (path, manifest) = (version.entry()?, Some(version.manifest));
    Ok(Model { name: reference.to_string(), path, version: number, manifest, ends: None, draft: None })
}

/// Opens the files of a model that generates text.
pub fn open(path: &Path) -> anyhow::Result<ModelFiles> {
    if is_onnx(path) {
        bail!("{} is an ONNX model, which takes tensors and generates no text", path.display());
    }
    Ok(ModelFiles::open(path)?)
}

/// What the manifest keeps of a model's own words.
pub fn read_facts(path: &Path) -> anyhow::Result<Facts> {
    if is_onnx(path) {
        let facts = formats::onnx::read(path)?;
        let (family, parameters, quantisation) = ("onnx".to_string(), facts.parameters, "-".to_string());
        return Ok(Facts { kind: Kind::Onnx, family, parameters, quantisation, licence: None });
    }
    let files = open(path)?;
    let (decoder, facts) = (files.decoder(), files.facts());
    Ok(Facts {
        kind: Kind::Llm,
        family: decoder.family.clone(),
        parameters: facts.parameters,
        quantisation: facts.quantisation.clone(),
        licence: facts.licence.clone(),
    })
}

/// Loads one model and, where that is wanted, says what it is and what it takes. `promised_bytes` of memory are other
/// models', though they have not touched them yet.
pub fn load(model: &Model, settings: &Settings, promised_bytes: u64, is_said: bool) -> anyhow::Result<Llm> {
    let draft_model = model.draft.clone();
    let settings = engine::llm::Settings {
        memory_promised_bytes: promised_bytes,
        draft_model,
        ..engine_settings(settings)
    };
    if is_onnx(&model.path) {
        bail!(
            "{} is an ONNX model, which takes tensors and generates no text: tureen serve serves it",
            model.name
        );
    }
    let started = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0).with_message("loading"));
    let mut progress = |done: usize, all: usize| {
        if let Some(bar) = &bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
    };
    let loaded = Llm::load(&model.path, &settings, &mut progress);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let llm = loaded.with_context(|| format!("loading {}", model.name))?;
    for trouble in &llm.facts().packed_troubles {
        tracing::warn!(model = model.name, "packed weights: {trouble}; packed from its own files");
    }
    if is_said {
        let full = full_contexts(llm.stats().kv_pages_total, llm.facts().context);
        say(loaded_line(&model.name, llm.facts(), &settings, full, started.elapsed()));
    }
    Ok(llm)
}

/// Loads a model that takes tensors and says what it is.
pub fn load_onnx(model: &Model, settings: &Settings) -> anyhow::Result<Onnx> {
    let started = Instant::now();
    let settings = engine::onnx::Settings {
        threads: settings.threads.0,
        queue_max: settings.queue_max.0,
        batch_rows_max: settings.batch_rows_max.0,
        batch_wait: Duration::from_micros(settings.batch_wait_us.0 as u64),
    };
    let onnx = Onnx::load(&model.path, &settings).with_context(|| format!("loading {}", model.name))?;
    let (facts, signature) = (onnx.facts(), onnx.signature());
    say(format!(
        "loaded {}: onnx, {} parameters, {} -> {}; {}; {} threads; {:.1} s",
        model.name,
        parameters(facts.parameters),
        specs(&signature.inputs),
        specs(&signature.outputs),
        onnx.batching(),
        settings.threads,
        started.elapsed().as_secs_f64(),
    ));
    for deviation in &facts.deviations {
        tracing::warn!(model = model.name, "answers may differ from other runtimes': {deviation}");
    }
    Ok(onnx)
}

/// Inputs or outputs in a line.
pub fn specs(specs: &[TensorSpec]) -> String {
    let all: Vec<String> = specs.iter().map(ToString::to_string).collect();
    if all.is_empty() { "nothing".to_string() } else { all.join("; ") }
}

/// Contexts of `context` tokens that `pages` hold.
fn full_contexts(pages: u64, context: usize) -> u64 {
    pages / context.div_ceil(PAGE_TOKENS).max(1) as u64
}

fn loaded_line(
    name: &str,
    facts: &ModelFacts,
    settings: &engine::llm::Settings,
    full: u64,
    time: Duration,
) -> String {
    let fewer = if full < settings.sequences_max as u64 {
        format!(" ({full} if each fills its context)")
    } else {
        String::new()
    };
    let drafts = facts.draft.as_ref().map(|draft| format!("guesses by {draft}; ")).unwrap_or_default();
    format!(
        "loaded {name}: {}, {} parameters, {}, context {} of {} tokens, {} at once{fewer}; {}; {drafts}{} on {} threads; {:.1} s",
        facts.family,
        parameters(facts.parameters),
        facts.quantisation,
        facts.context,
        facts.context_trained,
        settings.sequences_max,
        memory_line(facts.memory),
        settings.isa,
        settings.threads,
        time.as_secs_f64(),
    )
}

fn memory_line(memory: MemoryPlan) -> String {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    format!(
        "{} of memory ({} weights, {} keys and values, {} for a step)",
        mebibytes(memory.total_bytes()),
        mebibytes(memory.weights_bytes),
        mebibytes(memory.kv_bytes),
        mebibytes(memory.activations_bytes),
    )
}

/// Beside the models, whose own folders never change.
fn packed_folder(settings: &Settings, bytes_max: u64) -> PackedFolder {
    PackedFolder { path: settings.models.join(".packed"), bytes_max }
}

/// What the engine is told of the settings.
fn engine_settings(settings: &Settings) -> engine::llm::Settings {
    engine::llm::Settings {
        context_tokens: settings.context.map(|tokens| tokens.0),
        sequences_max: settings.sequences_max.0,
        queue_max: settings.queue_max.0,
        threads: settings.threads.0,
        isa: settings.isa.0.unwrap_or_else(Isa::detect),
        kv_element: settings.kv_element.map(|kind| kind.0),
        step_tokens_max: settings.step_tokens_max.0,
        step_beside_answers_max: Duration::from_millis(settings.step_beside_answers_max.0 as u64),
        draft_tokens_max: settings.draft_tokens_max.0,
        draft_model: None,
        packed: settings.packed_max.map(|bytes| packed_folder(settings, bytes.0)),
        memory_max_bytes: settings.memory_max.map(|bytes| bytes.0),
        memory_promised_bytes: 0,
    }
}

#[test]
fn an_error_says_its_cause_once() {
    let Err(error) = open(Path::new("/no/such/model.gguf")) else { panic!("it is there") };
    let text = format!("{error:#}");
    assert_eq!(text.matches("os error 2").count(), 1, "{text}");
}

#[test]
fn no_draft_model_is_looked_for_where_nothing_is_guessed() {
    let named = ModelText("no-such-model".to_string());
    let is_wanted = |tokens_max, path| wanted_draft(Some(&named), tokens_max, Path::new(path)).is_some();
    assert_eq!(
        [is_wanted(8, "m.gguf"), is_wanted(0, "m.gguf"), is_wanted(8, "m.onnx")],
        [true, false, false]
    );
}

#[test]
fn contexts_that_fit_at_once_are_counted_in_whole_pages() {
    assert_eq!([full_contexts(600, 8192), full_contexts(512, 8192), full_contexts(3, 33)], [2, 2, 1]);
}
