//! A job's own process: it holds the lock, tells how far it is, looks whether it is to stop, and publishes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::events::Events;
use super::{Job, JobFolder, SIGN_EVERY, State, Stop, end, one, set_running};
use crate::durable::{delete, make_folder};
use crate::error::{Result, StoreError};
use crate::manifest::Manifest;
use crate::versions::{Store, Version};

/// Between two looks into the database.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Characters of why a job failed, at most: everybody who lists jobs reads them.
const ERROR_CHARS_MAX: usize = 4000;

/// A job that this process does.
pub struct JobRun {
    store: Store,
    pub job: Job,
    pub folder: JobFolder,
    events: Events,
    looked: Instant,
    stop: Option<Stop>,
    /// The last event that tells how far it is.
    progress: Option<String>,
    /// Where this is dropped, signs of life end.
    _signs: Sender<()>,
    _lock: File,
}

impl JobRun {
    /// Takes a job that waits, or that a server gave to this process.
    ///
    /// # Errors
    /// No such job; another process does it; it has ended; the disk; the database.
    pub fn begin(store: &Store, id: &str) -> Result<JobRun> {
        let missing = || StoreError::Missing { what: format!("job {id:?}") };
        store.job(id)?.ok_or_else(missing)?;
        let folder = store.job_folder(id);
        let busy = || StoreError::Refused(format!("job {id} is being done by another process"));
        let lock = folder.lock()?.ok_or_else(busy)?;
        let job = store.database()?.transaction(|transaction| {
            let job = one(transaction, id)?.ok_or_else(missing)?;
            if job.state.is_ended() {
                let state = job.state.name();
                return Err(StoreError::Refused(format!("job {id} is {state}; resume it first")));
            }
            set_running(transaction, id)?;
            let pid = u64::from(std::process::id());
            transaction.write("UPDATE jobs SET pid = $2 WHERE id = $1", &[id.into(), pid.into()])?;
            Ok(job)
        })?;
        let mut events = Events::open(&folder.events())?;
        events.add(&json!({ "event": "running" }))?;
        make_folder(&folder.work())?;
        let (signs, store) = (give_signs(store, id), store.clone());
        let (looked, stop) = (Instant::now(), job.stop);
        Ok(JobRun { store, job, folder, events, looked, stop, progress: None, _signs: signs, _lock: lock })
    }

    /// Keeps an event, and says whether the job is to stop. `is_progress` marks those that tell how far it is.
    ///
    /// # Errors
    /// The disk; the database.
    pub fn tell(&mut self, event: &Value, is_progress: bool) -> Result<bool> {
        self.events.add(event)?;
        if is_progress {
            self.progress = Some(event.to_string());
        }
        if self.looked.elapsed() >= LOOK_EVERY { self.is_to_stop() } else { Ok(self.stop.is_some()) }
    }

    /// Looks whether the job is to stop, and keeps how far it is.
    ///
    /// # Errors
    /// The database.
    pub fn is_to_stop(&mut self) -> Result<bool> {
        self.keep_progress()?;
        self.stop = self.store.job(&self.job.id)?.and_then(|job| job.stop);
        // Counted from the end, so that a slow disk doesn't make this all that is done.
        self.looked = Instant::now();
        Ok(self.stop.is_some())
    }

    fn keep_progress(&mut self) -> Result<()> {
        let Some(progress) = self.progress.take() else { return Ok(()) };
        let sql = "UPDATE jobs SET progress = $2 WHERE id = $1";
        self.store.database()?.lock().write(sql, &[(&self.job.id).into(), (&progress).into()]).map(|_| ())
    }

    /// The version that this job has published already: its process was killed just after.
    ///
    /// # Errors
    /// The database.
    pub fn published(&self) -> Result<Option<Version>> {
        self.store.version_of_job(&self.job.id)
    }

    /// Publishes files of the work folder as the next version of the job's model. `known` says what files
    /// don't: the one to load (`entry`), its facts, its parent, and what was measured.
    ///
    /// # Errors
    /// A file that isn't in the work folder; the disk; the database.
    pub fn publish(&self, files: &[PathBuf], known: Manifest) -> Result<Version> {
        let staged = self.folder.folder.join("publishing");
        delete(&staged)?;
        make_folder(&staged)?;
        let mut placed = Vec::new();
        for file in files {
            let place = staged.join(file.file_name().unwrap_or_default());
            link(file, &place)?;
            placed.push(place);
        }
        let source = format!("job:{}", self.job.id);
        let made = Manifest::made_of(&self.job.model, &source, &placed, known.metrics)?;
        let Manifest { entry, facts, parent, .. } = known;
        let manifest = Manifest { entry, facts, parent, job: Some(self.job.id.clone()), ..made };
        self.store.publish(&staged, &self.job.model, manifest)
    }

    /// # Errors
    /// The disk; the database.
    pub fn done(mut self, version: &Version) -> Result<()> {
        self.folder.tidy()?;
        self.end(
            State::Done,
            None,
            Some(version.number),
            &json!({ "event": "done", "version": version.id() }),
        )
    }

    /// Ends as whoever asked for it wants.
    ///
    /// # Errors
    /// The disk; the database.
    pub fn stopped(mut self) -> Result<()> {
        match self.stop {
            Some(Stop::Interrupted) => {
                let error = "the server was stopped";
                let event = json!({ "event": "interrupted", "error": error });
                self.end(State::Interrupted, Some(error), None, &event)
            }
            _ => self.end(State::Stopped, None, None, &json!({ "event": "stopped" })),
        }
    }

    /// # Errors
    /// The disk; the database.
    pub fn failed(mut self, error: &str) -> Result<()> {
        // What came in data may stand in it, as long as that was.
        let mut shown: String = error.chars().take(ERROR_CHARS_MAX).collect();
        if shown.len() < error.len() {
            shown.push_str(" ...");
        }
        self.end(State::Failed, Some(&shown), None, &json!({ "event": "failed", "error": shown }))
    }

    /// The event goes first: whoever sees the state reads the events to their end.
    fn end(&mut self, state: State, error: Option<&str>, version: Option<u64>, event: &Value) -> Result<()> {
        self.events.add(event)?;
        self.keep_progress()?;
        let id = self.job.id.clone();
        self.store.database()?.transaction(|transaction| end(transaction, &id, state, error, version))
    }
}

/// Says that the job lives, for machines that don't see its lock, until what is returned is dropped.
fn give_signs(store: &Store, id: &str) -> Sender<()> {
    let (signs, ended) = channel();
    let (store, id) = (store.clone(), id.to_owned());
    std::thread::spawn(move || {
        while ended.recv_timeout(SIGN_EVERY) == Err(RecvTimeoutError::Timeout) {
            let sql = "UPDATE jobs SET seen = unixepoch() WHERE id = $1";
            // A sign that fails is followed by others; the job itself says what is wrong with the database.
            let _ = store.database().and_then(|database| database.lock().write(sql, &[(&id).into()]));
        }
    });
    signs
}

fn link(from: &Path, to: &Path) -> Result<()> {
    std::fs::hard_link(from, to)
        .or_else(|_| std::fs::copy(from, to).map(|_| ()))
        .map_err(StoreError::io("publishing", from))
}
