//! PostgreSQL: for several machines that share a models folder. Each process has one connection.
//!
//! SQLite's write lock is an advisory lock here, held by a transaction: so one process at a time renames, whichever
//! machine it is on, and one that is killed or cut off lets go of it.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, ConnectOptions, Connection as _, Error};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Database, DatabaseUrl, Row, Value, WAIT_MAX, integer};
use crate::durable::{read_within, write_durably};
use crate::error::StoreError;
use crate::id::new_id;

/// As for SQLite, with numbers of their own: [`Database::form`].
pub const MIGRATIONS: &[&str] = &[include_str!("../migrations/postgres/1.sql")];
/// The advisory lock of who writes: `tureen` in ASCII.
pub const LOCK: u64 = 0x7475_7265_656e;

/// For a connection to come about.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// For an answer: longer than the server lets us wait for a lock.
const ANSWER_MAX: Duration = WAIT_MAX.saturating_add(Duration::from_secs(15));
const PING_MAX: Duration = Duration::from_secs(5);
/// Between two tries to find a server that went away.
const REST: Duration = Duration::from_millis(500);
/// The file that says which folder this is, beside uploads and jobs; a path would differ between machines.
const FOLDER: &str = "folder";
const FOLDER_BYTES_MAX: u64 = 1000;

/// A machine that went down, or stands still, lets go of its lock in these times.
const SESSION: &str = "
    SET search_path = tureen;
    SET client_min_messages = warning;
    SET lock_timeout = '60s';
    SET idle_in_transaction_session_timeout = '600s';
    SET tcp_keepalives_idle = 30;
    SET tcp_keepalives_interval = 10;
    SET tcp_keepalives_count = 3;
";

type Result<T> = std::result::Result<T, Error>;

pub struct Link {
    connection: Option<PgConnection>,
    /// Looks after the socket; what is asked is waited for on the thread that asks.
    runtime: Option<Runtime>,
}

impl Drop for Link {
    /// Where a store is dropped nobody may block, as waiting for a runtime's end does.
    fn drop(&mut self) {
        drop(self.connection.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// # Errors
/// Why there is no connection, with the way out.
pub fn connect(url: &DatabaseUrl, patience: Duration) -> crate::error::Result<Link> {
    let begun = Instant::now();
    loop {
        match try_connect(url) {
            Ok(link) => return Ok(link),
            Err(error) if is_lost(&error) && begun.elapsed() < patience => std::thread::sleep(REST),
            Err(error) => {
                return Err(StoreError::Unreachable { place: url.to_string(), why: why(url, &error) });
            }
        }
    }
}

fn try_connect(url: &DatabaseUrl) -> Result<Link> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        runtime.worker_threads(1).thread_name("database").enable_all().build().map_err(Error::Io)?;
    let mut link = Link { connection: None, runtime: Some(runtime) };
    link.connection = Some(link.wait(CONNECT_MAX, url.options.connect())?);
    link.script(SESSION)?;
    let is_there = "SELECT count(*) FROM pg_namespace WHERE nspname = 'tureen'";
    let found = link.rows(is_there, &[])?;
    if let Some(Row::Postgres(row)) = found.first()
        && sqlx::Row::try_get::<i64, _>(row, 0)? == 0
    {
        // Another process may be doing it too; a second time is no error.
        link.script("CREATE SCHEMA IF NOT EXISTS tureen").or_else(|error| match code(&error) {
            Some(code) if code == "23505" || code == "42P06" => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(link)
}

impl Link {
    fn wait<T>(&self, time_max: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        let late = || Error::Io(ErrorKind::TimedOut.into());
        block_on(async { timeout(time_max, work).await.unwrap_or_else(|_| Err(late())) })
    }

    /// Does `work` with the connection, which is gone where that didn't come to an end: answers would be mixed up.
    fn with<T>(
        &mut self,
        time_max: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let gone = || Error::Io(ErrorKind::NotConnected.into());
        let mut connection = self.connection.take().ok_or_else(gone)?;
        let done = self.wait(time_max, work(&mut connection));
        if !done.as_ref().is_err_and(is_lost) {
            self.connection = Some(connection);
        }
        done
    }

    pub fn write(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
        let asked = sqlx::query_with(sql, arguments(values)?);
        self.with(ANSWER_MAX, async |link| Ok(asked.execute(link).await?.rows_affected()))
    }

    pub fn rows(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let asked = sqlx::query_with(sql, arguments(values)?);
        let rows = self.with(ANSWER_MAX, async |link| asked.fetch_all(link).await)?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    pub fn script(&mut self, sql: &'static str) -> Result<()> {
        self.with(ANSWER_MAX, async |link| sqlx::raw_sql(sql).execute(link).await.map(|_| ()))
    }

    pub fn ping(&mut self) -> bool {
        self.with(PING_MAX, async |link| link.ping().await).is_ok()
    }
}

fn arguments(values: &[Value<'_>]) -> Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(text.map(str::to_owned)),
            Value::Integer(number) => arguments.add(integer(*number)),
        };
        added.map_err(Error::Encode)?;
    }
    Ok(arguments)
}

/// Makes sure that these tables are of the folder that `own` is in: two folders at one database would each take the
/// other's versions for deleted.
pub fn claim(database: &Database, own: &Path) -> crate::error::Result<()> {
    let path = own.join(FOLDER);
    let here = || -> crate::error::Result<Option<String>> {
        let text = read_within(&path, FOLDER_BYTES_MAX)?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
    };
    let known = database.lock().rows("SELECT folder FROM about", &[])?;
    let known = known.first().map(|row| row.maybe_text(0)).transpose()?.flatten();
    if known.is_some() && known == here()? {
        return Ok(());
    }
    database.transaction(|transaction| {
        let rows = transaction.rows("SELECT folder FROM about", &[])?;
        let known = rows.first().map(|row| row.maybe_text(0)).transpose()?.flatten();
        let folder = match (known, here()?) {
            (None, Some(here)) => here,
            (None, None) if database.is_read_only => return Ok(()),
            (None, None) => {
                let id = new_id("folder");
                write_durably(&path, id.as_bytes())?;
                id
            }
            (Some(known), Some(here)) if known == here => return Ok(()),
            (Some(known), here) => {
                let (place, path) = (&database.place, path.display());
                let here = here.unwrap_or_else(|| "nothing".to_owned());
                return Err(StoreError::Refused(format!(
                    "the database {place} is of another models folder: {path} has {here}, expected {known}. Give each \
                     models folder a database of its own; where this is the same folder, write {known} into that file"
                )));
            }
        };
        transaction.write("UPDATE about SET folder = $1", &[(&folder).into()]).map(|_| ())
    })
}

fn code(error: &Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// Whether the connection is of no use any more; another may be.
pub fn is_lost(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Protocol(_) | Error::Tls(_) => true,
        // The server's shutdown, its start, and what it does to connections that stand still.
        _ => code(error).is_some_and(|code| {
            code.starts_with("57P") || code.starts_with("08") || code == "25P03" || code == "53300"
        }),
    }
}

fn why(url: &DatabaseUrl, error: &Error) -> String {
    let (user, database) = (url.user(), url.database());
    match (code(error).as_deref(), error) {
        (Some("28P01"), _) => format!(
            "the password of {user} is wrong, or none was given: it stands in the URL (TUREEN_DATABASE, or the \
             settings file), in PGPASSWORD or in ~/.pgpass"
        ),
        (Some("28000"), Error::Database(said)) => {
            format!("{}; its pg_hba.conf says who may connect from where", said.message())
        }
        (Some("3D000"), _) => format!("it has no database {database}; to make it: createdb {database}"),
        (Some("42501"), Error::Database(said)) => format!(
            "{}; {user} needs the right to make a schema there: GRANT CREATE ON DATABASE {database} TO {user}",
            said.message()
        ),
        (_, Error::Io(cause)) if cause.kind() == ErrorKind::ConnectionRefused => {
            "nothing answers there (connection refused): start PostgreSQL, or correct the setting `database`"
                .to_owned()
        }
        (_, Error::Io(cause)) if cause.kind() == ErrorKind::TimedOut => {
            format!("no answer within {} s: is the address right, and the way open?", CONNECT_MAX.as_secs())
        }
        (_, Error::Io(cause)) => format!("{cause}: start PostgreSQL, or correct the setting `database`"),
        (_, Error::Tls(cause)) => {
            format!("{cause} (sslmode=..., sslrootcert=FILE in the URL say how TLS is spoken)")
        }
        _ => error.to_string(),
    }
}
