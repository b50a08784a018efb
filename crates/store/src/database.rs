//! One SQLite file beside the models: versions, tags, uploads and jobs. The only place that knows how it is asked.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_executor::block_on;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{Arguments, ConnectOptions, Row, SqliteConnection};

use crate::durable::make_folder;
use crate::error::{Result, StoreError};

/// Each brings a database from the form of its index to the next. Those that are here don't change any more.
const MIGRATIONS: &[&str] = &[include_str!("migrations/1.sql")];

/// How long to wait for another process that writes.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A connection, shared by the threads of this process. Others may have the same file open.
pub struct Database {
    connection: Mutex<SqliteConnection>,
    place: String,
    /// Whether the file, or its folder, may only be read by us.
    pub is_read_only: bool,
}

/// A value to ask with.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Text(&'a str),
    Integer(u64),
    Null,
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Value<'a> {
        Value::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Integer(number)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
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
        // Not WAL: its side files keep a user who may only read from reading.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(!is_read_only)
            .read_only(is_read_only)
            .journal_mode(SqliteJournalMode::Delete)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT_MAX);
        let place = path.display().to_string();
        let connection = block_on(options.connect())
            .map_err(|cause| StoreError::Database { place: place.clone(), cause })?;
        let database = Database { connection: Mutex::new(connection), place, is_read_only };
        database.migrate()?;
        Ok(database)
    }

    fn migrate(&self) -> Result<()> {
        let newest = MIGRATIONS.len() as u64;
        if self.form()? == newest || self.is_read_only {
            return Ok(());
        }
        self.transaction(|transaction| {
            // Another process may have done it meanwhile.
            let form = transaction.number("PRAGMA user_version", &[])?.unwrap_or(0);
            if form > newest {
                let place = self.place.clone();
                return Err(StoreError::Newer { place, found: form, known: newest });
            }
            for migration in MIGRATIONS.iter().skip(form as usize) {
                transaction.script(migration)?;
            }
            Ok(())
        })
    }

    fn form(&self) -> Result<u64> {
        Ok(self.lock().number("PRAGMA user_version", &[])?.unwrap_or(0))
    }

    /// For reading, and for writing one thing.
    pub fn lock(&self) -> Connection<'_> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Connection { connection, place: &self.place }
    }

    /// All that `work` writes, or nothing. No other process writes meanwhile.
    ///
    /// # Errors
    /// Those of `work`, and the database's.
    pub fn transaction<T>(&self, work: impl FnOnce(&mut Connection<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        connection.write("BEGIN IMMEDIATE", &[])?;
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
    connection: MutexGuard<'a, SqliteConnection>,
    place: &'a str,
}

impl Connection<'_> {
    /// Rows changed.
    pub fn write(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
        let asked = sqlx::query_with(sql, arguments(values, self.place)?);
        let done = block_on(asked.execute(&mut *self.connection)).map_err(failed(self.place))?;
        Ok(done.rows_affected())
    }

    pub fn rows(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Cells>> {
        let asked = sqlx::query_with(sql, arguments(values, self.place)?);
        let rows = block_on(asked.fetch_all(&mut *self.connection)).map_err(failed(self.place))?;
        Ok(rows.into_iter().map(|row| Cells { row, place: self.place.to_owned() }).collect())
    }

    /// The number in the first cell; `None` where there is no row, or nothing in it.
    pub fn number(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Option<u64>> {
        self.rows(sql, values)?.first().map_or(Ok(None), |row| row.maybe_number(0))
    }

    fn script(&mut self, sql: &'static str) -> Result<()> {
        block_on(sqlx::raw_sql(sql).execute(&mut *self.connection)).map_err(failed(self.place))?;
        Ok(())
    }
}

fn failed(place: &str) -> impl FnOnce(sqlx::Error) -> StoreError + '_ {
    move |cause| StoreError::Database { place: place.to_owned(), cause }
}

fn arguments(values: &[Value<'_>], place: &str) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add((*text).to_owned()),
            Value::Integer(number) => arguments.add(i64::try_from(*number).unwrap_or(i64::MAX)),
            Value::Null => arguments.add(None::<String>),
        };
        added.map_err(|error| failed(place)(sqlx::Error::Encode(error)))?;
    }
    Ok(arguments)
}

/// One row of an answer.
pub struct Cells {
    row: SqliteRow,
    place: String,
}

impl Cells {
    pub fn text(&self, column: usize) -> Result<String> {
        self.row.try_get(column).map_err(failed(&self.place))
    }

    pub fn maybe_text(&self, column: usize) -> Result<Option<String>> {
        self.row.try_get(column).map_err(failed(&self.place))
    }

    pub fn number(&self, column: usize) -> Result<u64> {
        Ok(self.maybe_number(column)?.unwrap_or(0))
    }

    pub fn maybe_number(&self, column: usize) -> Result<Option<u64>> {
        let number: Option<i64> = self.row.try_get(column).map_err(failed(&self.place))?;
        Ok(number.map(|number| u64::try_from(number).unwrap_or(0)))
    }
}
