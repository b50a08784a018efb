//! `tureen serve`: models behind the OpenAI API, until told to stop.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Error, anyhow, bail};
use clap::Args;
use formats::onnx::is_onnx;
use serve::{JobSettings, ServeError, ServeSettings, Server, Services, shutdown_signals};
use store::Store;

use super::model::{Model, find_to_load, load, load_onnx};
use super::{Context, compress_job};
use crate::models::find::names;
use crate::recipes;
use crate::settings::{Listen, SettingValue, Settings};
use crate::terminal::say;

/// Bytes of a file of keys.
const KEYS_BYTES_MAX: u64 = 1 << 20;

/// Serve models: those that generate text over the OpenAI API, .onnx files as tensor services
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A .gguf or .onnx file, a folder, a pulled name, or REMOTE/NAME@NUMBER; NAME=MODEL serves it
    /// as NAME. Without any, files and jobs are taken
    #[arg(value_name = "MODEL")]
    served: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  tureen serve smollm2:135m                        at http://127.0.0.1:8080/v1
  tureen serve smollm2:135m chat=./model.gguf      two models, one under a name of its own
  tureen serve digits=./model.onnx --grpc-listen 127.0.0.1:8001
                                                   tensors, over REST and gRPC
  tureen serve s3://bucket/models/digits@3         what was pushed there, kept in a cache
  TUREEN_KEYS=a-long-secret tureen serve smollm2:135m --listen 0.0.0.0:8080
  tureen serve qwen3:8b --context 16384 --sequences-max 4 --memory-max 12GiB
  tureen serve                                     no model: jobs alone, at /v1/jobs

  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"model\": \"smollm2:135m\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'

SIGTERM or Ctrl-C lets running answers end and takes no new ones; a second one ends at once.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let settings = &context.resolved.settings;
    if arguments.served.is_empty() {
        say(format!(
            "no MODEL is named, so only files and jobs are taken; to serve: {}",
            what_is_here(context)?
        ));
    }
    let mut models = Vec::new();
    for text in &arguments.served {
        let (name, text) = named(text, Path::new(text).exists());
        let mut model = find_to_load(context, text)?;
        if let Some(name) = name {
            model.name = name.to_string();
        }
        models.push(model);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(network_threads())
        .enable_all()
        .build()
        .context("starting threads")?;
    let result = runtime.block_on(serve(serve_settings(settings, &context.store)?, settings.clone(), models));
    // A model that is still being loaded doesn't keep a server that was told to stop.
    runtime.shutdown_background();
    result
}

/// `NAME=MODEL` taken apart. A path may hold a `=` too, and goes first where it is one that exists.
fn named(text: &str, is_path: bool) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, model)) if !is_path && !name.is_empty() && !name.contains(['/', '\\']) => {
            (Some(name), model)
        }
        _ => (None, text),
    }
}

/// Half of the cores: the engines need the rest, and threads beyond that only take each other's turns (on 2 cores, with
/// one instead of two, a small network answers 1.4 times as many calls).
fn network_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// What could be served, for whoever named nothing.
fn what_is_here(context: &Context) -> anyhow::Result<String> {
    let names = names(&context.store)?;
    Ok(match names.as_slice() {
        [] => "a .gguf file, a folder, or a name after tureen pull smollm2:135m".to_string(),
        names => format!("a .gguf file, a folder, or one that is here: {}", names.join(", ")),
    })
}

/// Listens first, so that `/health` answers and a port in use is said at once; then loads one model after the other.
async fn serve(serve: ServeSettings, settings: Settings, mut models: Vec<Model>) -> anyhow::Result<()> {
    let shutdown = shutdown_signals()?;
    models.iter_mut().for_each(|model| drop(model.ends.take()));
    let services = Services::announce(models.iter().map(|model| model.name.clone()))?;
    let has_keys = !serve.keys.is_empty();
    let server = Server::bind(serve, services.clone()).await.map_err(with_flags)?;
    let (address, grpc) = (server.address(), server.grpc_address());
    let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    let mut running = tokio::spawn(server.run(shutdown));
    let loading = tokio::task::spawn_blocking(move || {
        let mut promised_bytes = 0;
        models.iter().try_for_each(|model| {
            if is_onnx(&model.path) {
                services.loaded(&model.name, model.version, load_onnx(model, &settings)?);
                return Ok(());
            }
            let llm = load(model, &settings, promised_bytes, true)?;
            promised_bytes += llm.facts().memory.promised_bytes();
            services.loaded(&model.name, model.version, llm);
            anyhow::Ok(())
        })
    });
    tokio::select! {
        loaded = loading => loaded.context("loading")??,
        ended = &mut running => return Ok(ended??),
    }
    say(ready_line(address, &names, has_keys));
    if let Some(address) = grpc {
        say(format!("gRPC of the Open Inference Protocol: {address}"));
    }
    Ok(running.await??)
}

/// The server knows settings; which flags set them is known here.
fn with_flags(error: ServeError) -> anyhow::Error {
    match error {
        ServeError::KeyNeeded { .. } => {
            anyhow!("{error} (keys: TUREEN_KEYS or --keys-file; address: --listen)")
        }
        ServeError::PortInUse { .. } | ServeError::Bind { .. } => {
            anyhow!("{error} (--listen and --grpc-listen ADDRESS:PORT)")
        }
        _ => error.into(),
    }
}

fn ready_line(address: SocketAddr, names: &[String], has_keys: bool) -> String {
    let key = if has_keys { "callers need a key" } else { "no key is needed" };
    let (mut asked_at, mut others) = (address, "");
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        asked_at.set_ip(loopback);
        others = " (and at every other address of this machine)";
    }
    let answers = match names {
        [] => "takes files and jobs".to_string(),
        names => format!("answers for {}", names.join(", ")),
    };
    format!("ready: http://{asked_at}/v1{others} {answers}; {key}")
}

fn serve_settings(settings: &Settings, store: &Store) -> anyhow::Result<ServeSettings> {
    let mut keys = settings.keys.as_ref().map(|keys| keys.0.clone()).unwrap_or_default();
    if let Some(path) = &settings.keys_file {
        keys.extend(read_keys(path)?);
    }
    let body_bytes_max = usize::try_from(settings.body_max.0).context("body_max")?;
    Ok(ServeSettings {
        listen: settings.listen.look_up().map_err(Error::msg)?,
        grpc_listen: settings.grpc_listen.as_ref().map(Listen::look_up).transpose().map_err(Error::msg)?,
        keys,
        origins: settings.origins.as_ref().map(|origins| origins.0.clone()).unwrap_or_default(),
        body_bytes_max,
        connections_max: settings.connections_max.0,
        request_max: (settings.request_max.0 > 0).then(|| Duration::from_secs(settings.request_max.0 as u64)),
        priority_min: settings.priority_min,
        drain_max: Duration::from_secs(settings.drain_max.0 as u64),
        jobs: Some(job_settings(settings, store)?),
        ..ServeSettings::default()
    })
}

/// A job gets the settings that are its own as flags, which go before whatever the environment and files say there.
fn job_settings(settings: &Settings, store: &Store) -> anyhow::Result<JobSettings> {
    let program = std::env::current_exe().context("finding this program's file, to start jobs with")?;
    let mut command = vec![program.into_os_string(), OsString::from("job")];
    let mut flag = |name: &str, value: OsString| command.extend([OsString::from(name), value]);
    flag("--models", settings.models.clone().into_os_string());
    flag("--job-threads", settings.job_threads.show().into());
    if let Some(bytes) = settings.job_memory_max {
        flag("--job-memory-max", bytes.show().into());
    }
    // Not a flag, for its password.
    let database =
        settings.database.iter().map(|url| (OsString::from("TUREEN_DATABASE"), url.secret_text().into()));
    Ok(JobSettings {
        store: store.clone(),
        command,
        environment: database.collect(),
        check_training: recipes::train::check,
        plan_compression: compress_job::plan,
        jobs_max: settings.jobs_max.0,
        file_bytes_max: settings.file_max.0,
        files_bytes_max: settings.files_max.0,
    })
}

/// One key a line; empty lines and those that begin with `#` are none. A file without a key is an error: whoever
/// names one wants the door locked.
fn read_keys(path: &Path) -> anyhow::Result<Vec<String>> {
    let place = path.display();
    let context = || format!("reading the keys in {place}");
    if std::fs::metadata(path).with_context(context)?.len() > KEYS_BYTES_MAX {
        bail!("{place} has more than {KEYS_BYTES_MAX} bytes: not a file of keys");
    }
    let text = std::fs::read_to_string(path).with_context(context)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_string).collect();
    if keys.is_empty() {
        bail!("{place} has no key; write one a line, or take keys_file away");
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# of the office\n one \n\ntwo\n").unwrap();
        assert_eq!(read_keys(&path).unwrap(), ["one", "two"]);
        std::fs::write(&path, "# none\n").unwrap();
        assert!(read_keys(&path).unwrap_err().to_string().contains("has no key"));
        assert!(read_keys(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_name_may_have_dots_and_a_path_that_exists_goes_first() {
        assert_eq!(named("gpt-3.5-turbo=./m.gguf", false), (Some("gpt-3.5-turbo"), "./m.gguf"));
        assert_eq!(named("a=b.gguf", true), (None, "a=b.gguf"));
        for plain in ["smollm2:135m", "./a=b.gguf", "=m.gguf"] {
            assert_eq!(named(plain, false), (None, plain));
        }
    }

    #[test]
    fn the_line_says_where_and_whether_a_key_is_needed() {
        let address = "127.0.0.1:8080".parse().unwrap();
        let line = ready_line(address, &["a".to_string(), "b".to_string()], false);
        assert_eq!(line, "ready: http://127.0.0.1:8080/v1 answers for a, b; no key is needed");
        assert!(ready_line(address, &[], false).ends_with("/v1 takes files and jobs; no key is needed"));
        let open = ready_line("[::]:80".parse().unwrap(), &["a".to_string()], true);
        assert!(open.starts_with("ready: http://[::1]:80/v1 (and at every other"), "{open}");
    }
}
