//! `tureen job`: the process that does one job. A server starts it; nothing that happens in it reaches the server but by
//! the store.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::anyhow;
use clap::Args;
use store::{JobFolder, JobRun, Manifest, Version};

use super::model::read_facts;
use super::train::MODEL;
use super::{Context, compress_job, limits};
use crate::recipes::train::{self, Event};

/// Do a job that waits, in this process: what a server starts for each
#[derive(Args)]
#[command(hide = true, after_help = EXAMPLES)]
pub struct Arguments {
    /// The job's id
    #[arg(value_name = "ID")]
    id: String,
}

const EXAMPLES: &str = "\
Examples:
  tureen job job-0123456789abcdef0123456789abcdef";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let settings = &context.resolved.settings;
    // Before there are threads, which take them over.
    limits::set(settings.job_threads.0, settings.job_memory_max.map(|bytes| bytes.0))?;
    let mut run = JobRun::begin(&context.store, &arguments.id)?;
    if let Some(version) = run.published()? {
        return Ok(run.done(&version)?);
    }
    match run.job.kind.as_str() {
        "train" => {
            let outcome = train(&mut run);
            end(run, outcome)
        }
        "compress" => compress_job::run(context, run),
        kind => {
            let error = anyhow!("this tureen knows no jobs of the kind {kind:?}");
            end(run, Err(error))
        }
    }
}

/// Ends a job by the version that came of it; `None` where it was stopped before.
pub fn end(run: JobRun, outcome: anyhow::Result<Option<Version>>) -> anyhow::Result<()> {
    match outcome {
        Ok(Some(version)) => Ok(run.done(&version)?),
        Ok(None) => Ok(run.stopped()?),
        Err(error) => {
            let said = without_places(&format!("{error:#}"), &run.folder);
            run.failed(&said)?;
            Err(error)
        }
    }
}

/// Names of files stay; where this machine keeps them is nothing to who reads of the job over HTTP.
fn without_places(text: &str, job: &JobFolder) -> String {
    // The store has the jobs' folder within, and that this job's.
    let store = job.folder.ancestors().nth(3);
    let input = job.definition().parent().map(Path::to_owned);
    let places = input.into_iter().chain([job.work(), job.folder.clone()]).chain(store.map(Path::to_owned));
    places.fold(text.to_owned(), |text, place| {
        text.replace(&format!("{}/", place.display()), "").replace(&place.display().to_string(), "its folder")
    })
}

#[test]
fn errors_name_files_and_no_places() {
    let job = JobFolder { folder: "/srv/models/.store/jobs/job-1".into() };
    let check = |said: &str, expected: &str| assert_eq!(without_places(said, &job), expected);
    let data = job.definition().with_file_name("data.csv");
    check(&format!("{}: line 3", data.display()), "data.csv: line 3");
    check(&format!("{}/checkpoint: full", job.work().display()), "checkpoint: full");
    check("opening /srv/models/tiny/@1/model.gguf", "opening tiny/@1/model.gguf");
}

fn train(run: &mut JobRun) -> anyhow::Result<Option<Version>> {
    let folder = run.folder.clone();
    let mut failed = None;
    let mut tell = |event: &Event| -> anyhow::Result<bool> {
        let is_progress = matches!(event, Event::Started { .. } | Event::Step { .. } | Event::Epoch { .. });
        Ok(run.tell(&serde_json::to_value(event)?, is_progress)?)
    };
    let outcome = train::run(&folder.definition(), &folder.work(), &mut |event| match tell(event) {
        Ok(false) => ControlFlow::Continue(()),
        Ok(true) => ControlFlow::Break(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if outcome.stopped {
        return Ok(None);
    }
    let facts = Some(read_facts(&folder.work().join(MODEL))?);
    let (entry, metrics) = (MODEL.to_owned(), outcome.metrics);
    Ok(Some(run.publish(&outcome.files, Manifest { entry, facts, metrics, ..Manifest::default() })?))
}
