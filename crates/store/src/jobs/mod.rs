//! Long work: a row in the database, a folder, and a child process `tureen job ID` that holds the folder's lock as long
//! as it lives. Whoever finds a running job whose lock is free knows that its process is gone.

mod events;
mod run;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::unix_seconds;
use crate::database::{Cells, Connection};
use crate::durable::{delete, make_folder, rename, sync_folder, write_durably};
use crate::error::{Result, StoreError};
use crate::id::new_id;
use crate::name::ModelName;
use crate::uploads;
use crate::versions::{OWN, Store};
pub use events::{EventFile, Events};
pub use run::JobRun;

/// Jobs that may wait at once.
const QUEUED_MAX: u64 = 1000;
/// Between a job's row saying that it runs and its process having the lock.
const START_SECONDS_MAX: u64 = 10;
/// Between two signs of life of a job's process, and how long another machine's may give none.
const SIGN_EVERY: Duration = Duration::from_secs(10);
const SILENT_SECONDS_MAX: u64 = 60;

const DEFINITION: &str = "definition.toml";
const LOCK: &str = "lock";

/// Asks for jobs, as [`Job::read`] reads them.
macro_rules! select_jobs {
    ($end:literal) => {
        concat!(
            "SELECT id, kind, model, state, is_to_stop, progress, error, version, pid, created, started, ended FROM jobs ",
            $end
        )
    };
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Queued,
    Running,
    /// Its process, or the server, ended before its time; it goes on when it is resumed.
    Interrupted,
    /// Somebody stopped it; it goes on when it is resumed.
    Stopped,
    Failed,
    Done,
}

impl State {
    const ALL: [State; 6] =
        [State::Queued, State::Running, State::Interrupted, State::Stopped, State::Failed, State::Done];

    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Interrupted => "interrupted",
            State::Stopped => "stopped",
            State::Failed => "failed",
            State::Done => "done",
        }
    }

    /// Whether nothing happens any more unless somebody asks.
    pub fn is_ended(self) -> bool {
        !matches!(self, State::Queued | State::Running)
    }
}

/// Who wants a running job to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A person: it is stopped then.
    Asked,
    /// The server, which stops itself: the job is interrupted then.
    Interrupted,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: String,
    pub kind: String,
    /// What it publishes a version of.
    pub model: ModelName,
    pub state: State,
    pub stop: Option<Stop>,
    /// The last event that tells how far it is.
    pub progress: Option<Value>,
    pub error: Option<String>,
    /// The number of the version that came of it.
    pub version: Option<u64>,
    pub pid: Option<u64>,
    /// Seconds since 1970, as all times here.
    pub created: u64,
    pub started: Option<u64>,
    pub ended: Option<u64>,
}

impl Job {
    fn read(row: &Cells) -> Result<Job> {
        let (model, state) = (row.text(2)?, row.text(3)?);
        let damaged = |why: String| StoreError::Damaged { place: "the table of jobs".to_owned(), why };
        let state = State::ALL.into_iter().find(|known| known.name() == state);
        Ok(Job {
            id: row.text(0)?,
            kind: row.text(1)?,
            model: ModelName::parse(&model)?,
            state: state.ok_or_else(|| damaged("an unknown state".to_owned()))?,
            stop: match row.number(4)? {
                0 => None,
                1 => Some(Stop::Asked),
                _ => Some(Stop::Interrupted),
            },
            progress: row.maybe_text(5)?.and_then(|text| serde_json::from_str(&text).ok()),
            error: row.maybe_text(6)?,
            version: row.maybe_number(7)?,
            pid: row.maybe_number(8)?,
            created: row.number(9)?,
            started: row.maybe_number(10)?,
            ended: row.maybe_number(11)?,
        })
    }

    /// For people and for programs, whatever the way.
    pub fn json(&self) -> Value {
        json!({
            "id": self.id,
            "object": "job",
            "kind": self.kind,
            "model": self.model.to_string(),
            "state": self.state.name(),
            "stopping": self.stop.is_some() && self.state == State::Running,
            "progress": self.progress,
            "error": self.error,
            "version": self.version.map(|number| format!("{}@{number}", self.model.name())),
            "created_at": self.created,
            "started_at": self.started,
            "ended_at": self.ended,
        })
    }
}

/// The places of a job's files.
#[derive(Clone, Debug)]
pub struct JobFolder {
    pub folder: PathBuf,
}

impl JobFolder {
    /// What is to be done; the files that it names lie beside it.
    pub fn definition(&self) -> PathBuf {
        self.folder.join("input").join(DEFINITION)
    }

    /// Checkpoints, and what comes of it.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// What its process writes to standard output and standard error.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn events(&self) -> PathBuf {
        self.folder.join("events.jsonl")
    }

    /// `None` where its process lives.
    fn lock(&self) -> Result<Option<File>> {
        let path = self.folder.join(LOCK);
        let file = File::create(&path).map_err(StoreError::io("making", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::io("locking", &path)(error)),
        }
    }

    /// A finished job's input and checkpoints are of no use any more.
    fn tidy(&self) -> Result<()> {
        delete(&self.work())?;
        for entry in std::fs::read_dir(self.folder.join("input")).into_iter().flatten().flatten() {
            if entry.file_name() != DEFINITION {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

impl Store {
    pub fn job_folder(&self, id: &str) -> JobFolder {
        JobFolder { folder: self.folder().join(OWN).join("jobs").join(id) }
    }

    /// A job that waits for its turn. `files` are the names that the definition has for uploads, and those's ids.
    ///
    /// # Errors
    /// A name that is no plain file name, an upload that isn't here, too many jobs that wait; the disk.
    pub fn create_job(
        &self,
        kind: &str,
        model: &ModelName,
        definition: &str,
        files: &[(String, String)],
    ) -> Result<Job> {
        let database = self.database()?;
        let sql = "SELECT count(*) FROM jobs WHERE state = 'queued'";
        if database.lock().number(sql, &[])?.unwrap_or(0) >= QUEUED_MAX {
            return Err(StoreError::Refused(format!("{QUEUED_MAX} jobs wait already, which is the limit")));
        }
        let id = new_id("job");
        let folder = self.job_folder(&id);
        let input = folder.folder.join("input");
        make_folder(&input)?;
        let filled = || {
            for (name, upload) in files {
                self.place_upload(upload, name, &input)?;
            }
            write_durably(&folder.definition(), definition.as_bytes())?;
            sync_folder(&input)?;
            let named = model.to_string();
            database.lock().write(
                "INSERT INTO jobs (id, kind, model, state, created) VALUES ($1, $2, $3, 'queued', $4)",
                &[(&id).into(), kind.into(), (&named).into(), unix_seconds().into()],
            )
        };
        filled().inspect_err(|_| {
            // The first error is the one to tell.
            let _ = delete(&folder.folder);
        })?;
        self.job(&id)?.ok_or_else(|| StoreError::Missing { what: format!("job {id}") })
    }

    fn place_upload(&self, upload: &str, name: &str, input: &Path) -> Result<()> {
        let plain = crate::is_plain_path(name) && !name.contains('/') && !name.starts_with('.');
        if !plain || name == DEFINITION || name.len() > uploads::NAME_BYTES_MAX {
            return Err(StoreError::Refused(format!("{name:?} is no name for a file of a job")));
        }
        if self.upload(upload)?.is_none() {
            return Err(StoreError::Missing { what: format!("file {upload:?}") });
        }
        let (from, to) = (self.upload_path(upload), input.join(name));
        if to.exists() {
            return Err(StoreError::Refused(format!("two files are called {name:?}")));
        }
        // A second name for the same contents, which stay though the upload is deleted.
        std::fs::hard_link(&from, &to)
            .or_else(|_| std::fs::copy(&from, &to).map(|_| ()))
            .map_err(StoreError::io("making", &to))
    }

    /// # Errors
    /// The database.
    pub fn job(&self, id: &str) -> Result<Option<Job>> {
        let Some(database) = self.database_if_any()? else { return Ok(None) };
        one(&mut database.lock(), id)
    }

    /// All jobs, newest first.
    ///
    /// # Errors
    /// The database.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let Some(database) = self.database_if_any()? else { return Ok(Vec::new()) };
        let sql = select_jobs!("ORDER BY created DESC, rowid DESC");
        database.lock().rows(sql, &[])?.iter().map(Job::read).collect()
    }

    /// Takes the job that waits longest, unless `running_max` run on this machine already.
    ///
    /// # Errors
    /// The database.
    pub fn claim_job(&self, running_max: usize) -> Result<Option<Job>> {
        let Some(database) = self.database_if_any()? else { return Ok(None) };
        // Most looks find nothing, and need no lock.
        let sql = "SELECT id FROM jobs WHERE state = 'queued' ORDER BY created, rowid LIMIT 1";
        if database.lock().rows(sql, &[])?.is_empty() {
            return Ok(None);
        }
        database.transaction(|transaction| {
            let running = "SELECT count(*) FROM jobs WHERE state = 'running' AND host = $1";
            let running = transaction.number(running, &[(&host()).into()])?;
            let waiting = transaction.rows(sql, &[])?;
            let Some(id) = waiting.first().filter(|_| running.unwrap_or(0) < running_max as u64) else {
                return Ok(None);
            };
            let id = id.text(0)?;
            set_running(transaction, &id)?;
            one(transaction, &id)
        })
    }

    /// Asks a job to stop: one that waits is stopped at once, one that runs when its process has seen it.
    ///
    /// # Errors
    /// No such job; it has ended; the database.
    pub fn stop_job(&self, id: &str, stop: Stop) -> Result<Job> {
        self.change_job(id, |transaction, job| match job.state {
            State::Queued => end(transaction, id, State::Stopped, None, None),
            State::Running => {
                // A person's wish goes before the server's.
                let sql = "UPDATE jobs SET is_to_stop = $2 WHERE id = $1 AND is_to_stop <> 1";
                let stop = if stop == Stop::Asked { 1u64 } else { 2 };
                transaction.write(sql, &[id.into(), stop.into()]).map(|_| ())
            }
            state => Err(StoreError::Refused(format!("job {id} is {} and can't be stopped", state.name()))),
        })
    }

    /// Lets a job that was stopped, interrupted or failed wait for its turn again; it goes on from its checkpoint.
    ///
    /// # Errors
    /// No such job; it hasn't ended, or is done; the database.
    pub fn resume_job(&self, id: &str) -> Result<Job> {
        self.change_job(id, |transaction, job| match job.state {
            State::Interrupted | State::Stopped | State::Failed => {
                let sql = "UPDATE jobs SET state = 'queued', is_to_stop = 0, error = NULL, ended = NULL, pid = NULL \
                           WHERE id = $1";
                transaction.write(sql, &[id.into()]).map(|_| ())
            }
            state => Err(StoreError::Refused(format!("job {id} is {} and can't be resumed", state.name()))),
        })
    }

    /// Forgets a job that has ended: its row, its definition, log, events and checkpoints. What it published stays.
    ///
    /// # Errors
    /// No such job; it waits or runs, or its process lives; the disk; the database.
    pub fn delete_job(&self, id: &str) -> Result<()> {
        let missing = || StoreError::Missing { what: format!("job {id:?}") };
        let Some(database) = self.database_if_any()? else { return Err(missing()) };
        database.transaction(|transaction| {
            let job = one(transaction, id)?.ok_or_else(missing)?;
            let folder = self.job_folder(&job.id);
            let refused = |why: String| Err(StoreError::Refused(format!("job {id} {why}; stop it first")));
            if !job.state.is_ended() {
                return refused(format!("is {}", job.state.name()));
            }
            let lock = if folder.folder.exists() { folder.lock()? } else { None };
            if lock.is_none() && folder.folder.exists() {
                return refused("has a process that still works".to_owned());
            }
            // Moved aside first: whoever looks for its lock meanwhile would make that file anew. The row goes last, so that
            // what is left of a broken deletion can be deleted again.
            let aside = folder.folder.with_extension("removed");
            delete(&aside)?;
            if folder.folder.exists() {
                rename(&folder.folder, &aside)?;
            }
            delete(&aside)?;
            transaction.write("DELETE FROM jobs WHERE id = $1", &[id.into()]).map(|_| ())
        })
    }

    fn change_job(
        &self,
        id: &str,
        change: impl FnOnce(&mut Connection<'_>, &Job) -> Result<()>,
    ) -> Result<Job> {
        let missing = || StoreError::Missing { what: format!("job {id:?}") };
        self.database()?.transaction(|transaction| {
            let job = one(transaction, id)?.ok_or_else(missing)?;
            change(transaction, &job)?;
            one(transaction, id)?.ok_or_else(missing)
        })
    }

    /// Says of a running job whose process is gone how it ended. Whether there was one to say it of.
    ///
    /// # Errors
    /// The disk; the database.
    pub fn close_job(&self, id: &str, state: State, error: &str) -> Result<bool> {
        let folder = self.job_folder(id);
        // A row whose folder somebody deleted holds up nobody else's.
        if !folder.folder.exists() {
            self.database()?.transaction(|transaction| end(transaction, id, state, Some(error), None))?;
            return Ok(true);
        }
        let Some(_lock) = folder.lock()? else { return Ok(false) };
        let is_running = self.job(id)?.is_some_and(|job| job.state == State::Running);
        if is_running {
            Events::open(&folder.events())?.add(&json!({ "event": state.name(), "error": error }))?;
            self.database()?.transaction(|transaction| end(transaction, id, state, Some(error), None))?;
        }
        Ok(is_running)
    }

    /// Finds the running jobs whose process is gone, of this server or of one that was killed. Those that it found.
    ///
    /// # Errors
    /// The disk; the database.
    pub fn reap_jobs(&self) -> Result<Vec<String>> {
        let Some(database) = self.database_if_any()? else { return Ok(Vec::new()) };
        // Most looks find nothing, also in a database of an older form that may only be read.
        if database.lock().number("SELECT count(*) FROM jobs WHERE state = 'running'", &[])? == Some(0) {
            return Ok(Vec::new());
        }
        let sql = "SELECT id, pid, host, unixepoch() - seen FROM jobs WHERE state = 'running'";
        let running = database.lock().rows(sql, &[])?;
        let (mut gone, here) = (Vec::new(), host());
        for row in running {
            let (id, silent_s) = (row.text(0)?, row.maybe_number(3)?.unwrap_or(u64::MAX));
            let is_elsewhere = row.maybe_text(2)?.is_some_and(|host| host != here);
            let is_starting = row.maybe_number(1)?.is_none() && silent_s < START_SECONDS_MAX;
            // Not every shared folder shows one machine the locks of another.
            let is_heard_of = is_elsewhere && silent_s < SILENT_SECONDS_MAX;
            let error = "its process is gone: killed, or the machine went down";
            if !is_starting && !is_heard_of && self.close_job(&id, State::Interrupted, error)? {
                gone.push(id);
            }
        }
        Ok(gone)
    }
}

fn one(connection: &mut Connection<'_>, id: &str) -> Result<Option<Job>> {
    connection.rows(select_jobs!("WHERE id = $1"), &[id.into()])?.first().map(Job::read).transpose()
}

fn set_running(transaction: &mut Connection<'_>, id: &str) -> Result<()> {
    let sql = "UPDATE jobs SET state = 'running', pid = NULL, started = $2, host = $3, seen = unixepoch() WHERE id = $1";
    transaction.write(sql, &[id.into(), unix_seconds().into(), (&host()).into()]).map(|_| ())
}

/// This machine among those that share the folder.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn end(
    transaction: &mut Connection<'_>,
    id: &str,
    state: State,
    error: Option<&str>,
    version: Option<u64>,
) -> Result<()> {
    transaction.write(
        "UPDATE jobs SET state = $2, error = $3, version = $4, ended = $5, is_to_stop = 0, pid = NULL WHERE id = $1",
        &[id.into(), state.name().into(), error.into(), version.into(), unix_seconds().into()],
    )?;
    Ok(())
}
