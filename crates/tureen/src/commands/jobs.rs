//! `tureen jobs`: what long work there is, and how it goes.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use store::{EventFile, Job, State, Stop, Store, unix_seconds};

use super::Context;
use super::epochs::Epochs;
use super::phases::{self, Phases};
use super::table::columns;
use crate::recipes::compress;
use crate::recipes::train::Event;
use crate::terminal::{print, say};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// List jobs, follow one, stop it, let it go on or forget it
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A job to follow until its end
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Stop it; of a training, what it did so far is kept
    #[arg(long, requires = "id", conflicts_with = "resume")]
    cancel: bool,
    /// Let it go on from its last checkpoint, when a server has a place for it; a compression begins anew
    #[arg(long, requires = "id")]
    resume: bool,
    /// Forget it, with its log and checkpoints, once it has ended; what it published stays
    #[arg(long, requires = "id", conflicts_with_all = ["cancel", "resume"])]
    remove: bool,
    /// Print JSON: an array of jobs, or the events of one as lines
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen jobs                     all of them, newest first
  tureen jobs job-0123...         what it does, until it ends
  tureen jobs job-0123... --cancel
  tureen jobs job-0123... --resume
  tureen jobs job-0123... --remove

Jobs train networks or make models smaller. They are begun over HTTP (POST /v1/jobs) and done by
the server; without one, tureen train and tureen compress do the same.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let store = &context.store;
    match &arguments.id {
        None => list(store, arguments.json),
        Some(id) if arguments.cancel => {
            let job = store.stop_job(id, Stop::Asked)?;
            let how = if job.state == State::Running { "is being stopped" } else { "is stopped" };
            Ok(print(format!("{id} {how}.\n"))?)
        }
        Some(id) if arguments.resume => {
            store.resume_job(id)?;
            let models = store.folder().display();
            Ok(print(format!("{id} waits for a server that keeps its models in {models}.\n"))?)
        }
        Some(id) if arguments.remove => {
            store.delete_job(id)?;
            Ok(print(format!("{id} is removed.\n"))?)
        }
        Some(id) => follow(store, id, arguments.json),
    }
}

fn list(store: &Store, as_json: bool) -> anyhow::Result<()> {
    let jobs = store.jobs()?;
    if as_json {
        let jobs: Vec<Value> = jobs.iter().map(Job::json).collect();
        return Ok(print(serde_json::to_string_pretty(&jobs)? + "\n")?);
    }
    if jobs.is_empty() {
        return Ok(print("No jobs. One is begun by POST /v1/jobs of a server; see README.md.\n")?);
    }
    let mut rows = vec![["ID", "KIND", "MODEL", "STATE", "AGE", "PROGRESS"].map(str::to_string).to_vec()];
    for job in &jobs {
        rows.push(vec![
            job.id.clone(),
            job.kind.clone(),
            job.version
                .map_or_else(|| job.model.to_string(), |number| format!("{}@{number}", job.model.name())),
            job.state.name().to_string(),
            age(unix_seconds().saturating_sub(job.created)),
            job.error.clone().unwrap_or_else(|| progress(job)),
        ]);
    }
    Ok(print(columns(&rows))?)
}

/// `epoch 3, step 120` or `quantising, 3 of 40`, as far as the job says it.
fn progress(job: &Job) -> String {
    let Some(event) = &job.progress else { return String::new() };
    if let Ok(compress::Event::Progress(progress)) = compress::Event::deserialize(event) {
        return phases::line(&progress);
    }
    let known =
        ["epoch", "step", "loss"].iter().filter_map(|name| Some(format!("{name} {}", event.get(name)?)));
    known.collect::<Vec<String>>().join(", ")
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Shows what was and what comes; an error where the job didn't end well.
fn follow(store: &Store, id: &str, as_json: bool) -> anyhow::Result<()> {
    let find = || store.job(id)?.ok_or_else(|| anyhow!("there is no job {id} here; tureen jobs lists them"));
    let path = find()?.id;
    let path = store.job_folder(&path).events();
    let (mut epochs, mut phases) = (Epochs::default(), Phases::default());
    let (mut offset, mut said) = (0, None);
    loop {
        // In this order: what is told at the end comes before it.
        let job = find()?;
        if said != Some(job.state) && !job.state.is_ended() {
            say(format!("{id} is {}", job.state.name()));
            said = Some(job.state);
        }
        let events = EventFile(&path).after(offset)?;
        let is_over = events.is_empty() && job.state.is_ended();
        for (end, text) in events {
            offset = end;
            if as_json {
                print(text + "\n")?;
            } else if let Ok(event) = serde_json::from_str::<Event>(&text) {
                epochs.show(&event);
            } else if let Ok(compress::Event::Progress(progress)) = serde_json::from_str(&text) {
                phases.show(&progress);
            }
        }
        if is_over {
            epochs.end();
            phases.end();
            return close(&job);
        }
        sleep(LOOK_EVERY);
    }
}

fn close(job: &Job) -> anyhow::Result<()> {
    let (id, error) = (&job.id, job.error.as_deref().unwrap_or("no reason is known"));
    match (job.state, job.version) {
        (State::Done, Some(number)) => {
            let name = job.model.name();
            Ok(print(format!("{id} is done: {name}@{number}. Now: tureen serve {}\n", job.model))?)
        }
        (State::Failed, _) => bail!("{id} failed: {error}"),
        (State::Interrupted, _) => {
            bail!("{id} was interrupted: {error}; it goes on with: tureen jobs {id} --resume")
        }
        _ => {
            Ok(print(format!("{id} is {}; it goes on with: tureen jobs {id} --resume\n", job.state.name()))?)
        }
    }
}
