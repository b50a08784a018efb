//! What folders can't say: versions, tags, uploads and jobs, in one SQLite file beside the models, or in PostgreSQL where
//! several machines share a folder. The only place that knows how it is asked; both are asked in the same words.

mod address;
mod postgres;
mod sqlite;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};

use crate::durable::make_folder;
use crate::error::{Result, StoreError};
pub use address::DatabaseUrl;

/// How long to wait for another process that writes.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A connection, shared by the threads of this process. Others may be at the same database.
pub struct Database {
    link: Mutex<Link>,
    place: String,
    /// Whether the folder beside the models may only be read by us.
    pub is_read_only: bool,
    is_lost: AtomicBool,
}

enum Link {
    Sqlite(SqliteConnection),
    Postgres(Box<postgres::Link>),
}

/// A value to ask with.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Text(Option<&'a str>),
    Integer(Option<u64>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(Some(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Value<'a> {
        Value::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Value<'a> {
        Value::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Integer(Some(number))
    }
}

impl From<Option<u64>> for Value<'_> {
    fn from(number: Option<u64>) -> Self {
        Value::Integer(number)
    }
}

/// As both databases have it.
fn integer(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

impl Database {
    /// Opens the file, making it where there is none, and brings it to the newest form. Where it may not be written,
    /// it is opened for reading.
    ///
    /// # Errors
    /// It can't be opened, or a newer program made it.
    pub fn open(path: &Path) -> Result<Database> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let is_read_only = make_folder(folder).is_err() || !is_writable(folder);
        let place = path.display().to_string();
        let link = sqlite::connect(path, is_read_only).map_err(failed(&place))?;
        Database::new(Link::Sqlite(link), place, is_read_only)
    }

    /// Connects to PostgreSQL, makes what tables are missing, and makes sure that they are of the models folder whose own
    /// folder is `own`. Waits up to `patience` for a server that isn't there.
    ///
    /// # Errors
    /// No server, database or right; a newer program made the tables; they are another folder's.
    pub fn connect(url: &DatabaseUrl, own: &Path, patience: Duration) -> Result<Database> {
        let is_read_only = make_folder(own).is_err() || !is_writable(own);
        let link = Link::Postgres(Box::new(postgres::connect(url, patience)?));
        let database = Database::new(link, url.to_string(), is_read_only)?;
        postgres::claim(&database, own)?;
        Ok(database)
    }

    fn new(link: Link, place: String, is_read_only: bool) -> Result<Database> {
        let database =
            Database { link: Mutex::new(link), place, is_read_only, is_lost: AtomicBool::new(false) };
        database.migrate()?;
        Ok(database)
    }

    fn migrate(&self) -> Result<()> {
        let (migrations, needs_folder) = match &*self.lock().link {
            Link::Sqlite(_) => (sqlite::MIGRATIONS, true),
            Link::Postgres(_) => (postgres::MIGRATIONS, false),
        };
        let newest = migrations.len() as u64;
        let check = |form: u64| {
            let place = self.place.clone();
            if form > newest {
                Err(StoreError::Newer { place, found: form, known: newest })
            } else {
                Ok(form)
            }
        };
        let form = check(self.lock().form()?)?;
        if form == newest || (needs_folder && self.is_read_only) {
            return Ok(());
        }
        self.transaction(|transaction| {
            // Another process may have done it meanwhile.
            let form = check(transaction.form()?)?;
            for migration in migrations.iter().skip(form as usize) {
                transaction.script(migration)?;
            }
            Ok(())
        })
    }

    /// For reading, and for writing one thing.
    pub fn lock(&self) -> Connection<'_> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        Connection { link, database: self }
    }

    /// Whether it still answers. A file does; a server may have been started anew since.
    pub fn is_alive(&self) -> bool {
        let is_alive = !self.is_lost.load(Ordering::Relaxed)
            && match &mut *self.lock().link {
                Link::Sqlite(_) => true,
                Link::Postgres(link) => link.ping(),
            };
        self.is_lost.store(!is_alive, Ordering::Relaxed);
        is_alive
    }

    /// All that `work` writes, or nothing. No other process writes meanwhile: what is renamed within is renamed by one at
    /// a time.
    ///
    /// # Errors
    /// Those of `work`, and the database's.
    pub fn transaction<T>(&self, work: impl FnOnce(&mut Connection<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        connection.begin()?;
        match work(&mut connection) {
            Ok(value) => connection.write("COMMIT", &[]).map(|_| value),
            Err(error) => {
                // The first error is the one to tell; where this fails too, the connection's end rolls back.
                let _ = connection.write("ROLLBACK", &[]);
                Err(error)
            }
        }
    }
}

/// Whether files can be made in a folder: what a file system says of rights is not all that counts.
fn is_writable(folder: &Path) -> bool {
    tempfile::tempfile_in(folder).is_ok()
}

/// The connection while nobody else in this process has it.
pub struct Connection<'a> {
    link: MutexGuard<'a, Link>,
    database: &'a Database,
}

impl Connection<'_> {
    /// Rows changed.
    pub fn write(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
        let done = match &mut *self.link {
            Link::Sqlite(link) => sqlite::write(link, sql, values),
            Link::Postgres(link) => link.write(sql, values),
        };
        self.said(done)
    }

    pub fn rows(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Cells>> {
        let rows = match &mut *self.link {
            Link::Sqlite(link) => sqlite::rows(link, sql, values),
            Link::Postgres(link) => link.rows(sql, values),
        };
        let place = self.database.place.clone();
        Ok(self.said(rows)?.into_iter().map(|row| Cells { row, place: place.clone() }).collect())
    }

    /// The number in the first cell; `None` where there is no row, or nothing in it.
    pub fn number(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Option<u64>> {
        self.rows(sql, values)?.first().map_or(Ok(None), |row| row.maybe_number(0))
    }

    fn script(&mut self, sql: &'static str) -> Result<()> {
        let done = match &mut *self.link {
            Link::Sqlite(link) => sqlite::script(link, sql),
            Link::Postgres(link) => link.script(sql),
        };
        self.said(done)
    }

    fn begin(&mut self) -> Result<()> {
        if matches!(*self.link, Link::Sqlite(_)) {
            return self.write("BEGIN IMMEDIATE", &[]).map(|_| ());
        }
        // Each statement sees what was there when it began, so those after the lock see what its last owner wrote.
        self.write("BEGIN ISOLATION LEVEL READ COMMITTED", &[])?;
        let locked = self.rows("SELECT pg_advisory_xact_lock($1)", &[postgres::LOCK.into()]);
        locked.map(|_| ()).inspect_err(|_| {
            let _ = self.write("ROLLBACK", &[]);
        })
    }

    /// Which of the migrations were done.
    fn form(&mut self) -> Result<u64> {
        if matches!(*self.link, Link::Sqlite(_)) {
            return Ok(self.number("PRAGMA user_version", &[])?.unwrap_or(0));
        }
        let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'tureen' AND tablename = 'about'";
        if self.number(sql, &[])? == Some(0) {
            return Ok(0);
        }
        Ok(self.number("SELECT form FROM about", &[])?.unwrap_or(0))
    }

    fn said<T>(&self, answer: std::result::Result<T, sqlx::Error>) -> Result<T> {
        answer.map_err(|cause| {
            if postgres::is_lost(&cause) {
                self.database.is_lost.store(true, Ordering::Relaxed);
            }
            failed(&self.database.place)(cause)
        })
    }
}

fn failed(place: &str) -> impl FnOnce(sqlx::Error) -> StoreError + '_ {
    move |cause| StoreError::Database { place: place.to_owned(), cause }
}

enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// One row of an answer.
pub struct Cells {
    row: Row,
    place: String,
}

impl Cells {
    pub fn text(&self, column: usize) -> Result<String> {
        self.get(column)
    }

    pub fn maybe_text(&self, column: usize) -> Result<Option<String>> {
        self.get(column)
    }

    pub fn number(&self, column: usize) -> Result<u64> {
        Ok(self.maybe_number(column)?.unwrap_or(0))
    }

    pub fn maybe_number(&self, column: usize) -> Result<Option<u64>> {
        let number: Option<i64> = self.get(column)?;
        Ok(number.map(|number| u64::try_from(number).unwrap_or(0)))
    }

    fn get<'r, T>(&'r self, column: usize) -> Result<T>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        let cell = match &self.row {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        };
        cell.map_err(failed(&self.place))
    }
}
