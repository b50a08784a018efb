//! SQLite: a file that needs nobody to look after it, and the default.

use std::path::Path;

use futures_executor::block_on;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{Arguments, ConnectOptions, Error};

use super::{Row, Value, WAIT_MAX, integer};

/// Each brings a database from the form of its index to the next. Those that are here don't change any more.
pub const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/sqlite/1.sql"), include_str!("../migrations/sqlite/2.sql")];

type Result<T> = std::result::Result<T, Error>;

pub fn connect(path: &Path, is_read_only: bool) -> Result<SqliteConnection> {
    // Not WAL: its side files keep a user who may only read from reading.
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(!is_read_only)
        .read_only(is_read_only)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(WAIT_MAX);
    block_on(options.connect())
}

pub fn write(link: &mut SqliteConnection, sql: &'static str, values: &[Value<'_>]) -> Result<u64> {
    Ok(block_on(sqlx::query_with(sql, arguments(values)?).execute(link))?.rows_affected())
}

pub fn rows(link: &mut SqliteConnection, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>> {
    let rows = block_on(sqlx::query_with(sql, arguments(values)?).fetch_all(link))?;
    Ok(rows.into_iter().map(Row::Sqlite).collect())
}

pub fn script(link: &mut SqliteConnection, sql: &'static str) -> Result<()> {
    block_on(sqlx::raw_sql(sql).execute(link)).map(|_| ())
}

fn arguments(values: &[Value<'_>]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(text.map(str::to_owned)),
            Value::Integer(number) => arguments.add(integer(*number)),
        };
        added.map_err(Error::Encode)?;
    }
    Ok(arguments)
}
