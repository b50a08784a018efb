//! Starts the processes that do jobs, at most so many at once, and sees how they end.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use store::{Job, State, Stop, StoreError};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::gate::{Gate, Permit};
use crate::http::App;
use crate::settings::JobSettings;

/// Between two looks for jobs that wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two looks after the store failed.
const REST: Duration = Duration::from_secs(30);
/// Bytes of a job's log that are looked through for why it ended.
const LOG_TAIL_BYTES: u64 = 64 << 10;
/// Characters of that which are kept.
const REASON_CHARS_MAX: usize = 500;
/// SIGKILL, SIGTERM and SIGINT: somebody ended it, and it can go on.
const SIGNALS_OF_OTHERS: [i32; 3] = [9, 15, 2];

/// Jobs whose processes are children of this server.
type Running = Arc<Mutex<BTreeSet<String>>>;

/// Works on until the gate closes. Each job holds a permit, so that a server that stops waits until they have written
/// their checkpoints.
pub fn start(app: &App) {
    let Some(settings) = app.settings.jobs.clone() else { return };
    let (gate, running) = (app.gate.clone(), Running::default());
    tokio::spawn(async move {
        while !gate.is_closed() {
            let (settings, gate, running) = (settings.clone(), gate.clone(), running.clone());
            let looked = tokio::task::spawn_blocking(move || look(&settings, &gate, &running)).await;
            match looked {
                Ok(Ok(())) => sleep(LOOK_EVERY).await,
                Ok(Err(error)) => {
                    error!("jobs: {error}");
                    sleep(REST).await;
                }
                Err(error) => {
                    error!("jobs: {error}");
                    return;
                }
            }
        }
        let stopped = tokio::task::spawn_blocking(move || {
            for id in locked(&running).iter() {
                if let Err(error) = settings.store.stop_job(id, Stop::Interrupted) {
                    warn!("job {id}: {error}");
                }
            }
        });
        if let Err(error) = stopped.await {
            error!("jobs: {error}");
        }
    });
}

fn locked(running: &Running) -> MutexGuard<'_, BTreeSet<String>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds jobs whose process is gone, and starts those that wait as far as there are places.
fn look(settings: &JobSettings, gate: &Gate, running: &Running) -> Result<(), StoreError> {
    for id in settings.store.reap_jobs()? {
        warn!("job {id} was interrupted: its process is gone");
    }
    while let Some(permit) = gate.enter() {
        let Some(job) = settings.store.claim_job(settings.jobs_max)? else { break };
        begin(settings, running, permit, job)?;
    }
    Ok(())
}

fn begin(settings: &JobSettings, running: &Running, permit: Permit, job: Job) -> Result<(), StoreError> {
    let id = job.id;
    let child = match spawn(settings, &id) {
        Ok(child) => child,
        Err(error) => {
            let why = format!("its process can't be started: {error}");
            return settings.store.close_job(&id, State::Failed, &why).map(|_| ());
        }
    };
    info!("job {id} ({} of {}) runs as process {}", job.kind, job.model, child.id());
    locked(running).insert(id.clone());
    let (settings, running) = (settings.clone(), running.clone());
    // It waits as long as the job takes, which a pool of threads for short work is not for.
    std::thread::spawn(move || {
        attend(&settings, &id, child);
        locked(&running).remove(&id);
        drop(permit);
    });
    Ok(())
}

fn spawn(settings: &JobSettings, id: &str) -> std::io::Result<Child> {
    let (program, arguments) =
        settings.command.split_first().ok_or_else(|| std::io::Error::other("no program is named"))?;
    let log = OpenOptions::new().create(true).append(true).open(settings.store.job_folder(id).log())?;
    Command::new(program)
        .args(arguments)
        .arg(id)
        .env_remove("TUREEN_KEYS")
        .envs(settings.environment.iter().map(|(name, value)| (name, value)))
        // The allocator (mimalloc) would begin with a gibibyte that counts against the limit of memory, touched or not.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C at the server's terminal is for the server, which asks its jobs to stop.
        .process_group(0)
        .spawn()
}

/// Waits for the end. A job that ended well, or badly by its own account, has said so itself.
fn attend(settings: &JobSettings, id: &str, mut child: Child) {
    let ended = match child.wait() {
        Ok(status) => closed(settings, id, status),
        Err(error) => Err(StoreError::Refused(format!("waiting for its process: {error}"))),
    };
    match (ended, settings.store.job(id)) {
        (Ok(()), Ok(Some(job))) => info!("job {id} is {}", job.state.name()),
        (Ok(()), _) => info!("job {id} has ended"),
        (Err(error), _) => error!("job {id}: {error}"),
    }
}

fn closed(settings: &JobSettings, id: &str, status: ExitStatus) -> Result<(), StoreError> {
    let interrupted = status.signal().is_some_and(|signal| SIGNALS_OF_OTHERS.contains(&signal));
    let state = if interrupted { State::Interrupted } else { State::Failed };
    let why = format!("its process ended with {status}{}", last_line(&settings.store.job_folder(id).log()));
    settings.store.close_job(id, state, &why).map(|_| ())
}

/// `: ` and the last line of a log, if it has one.
fn last_line(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    // Why memory ended stands before the trace of where it did.
    let is_reason =
        |line: &&str| line.contains("memory allocation of") || line.contains("overflowed its stack");
    let line = text.lines().rev().find(is_reason);
    let line = line.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
    line.map_or_else(String::new, |line| {
        let tip =
            if line.contains("memory allocation of") { "; job_memory_max bounds its memory" } else { "" };
        format!(": {}{tip}", line.chars().take(REASON_CHARS_MAX).collect::<String>())
    })
}
