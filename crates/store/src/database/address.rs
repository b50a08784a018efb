//! Where PostgreSQL is: a URL as its own programs take it, which is never printed with its password.

use std::fmt;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. What it leaves out comes from PGHOST, PGUSER, PGPASSWORD and their
/// like, and from `~/.pgpass`.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    pub(super) options: PgConnectOptions,
}

impl DatabaseUrl {
    /// # Errors
    /// What is wrong with it, without what it is: a password may stand anywhere in it.
    pub fn parse(text: &str) -> Result<DatabaseUrl, String> {
        let form = "postgres://USER@HOST:PORT/DATABASE";
        if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(format!(
                "expected {form}, received something else (not shown: a password may be in it)"
            ));
        }
        let options: PgConnectOptions =
            text.parse().map_err(|error: sqlx::Error| format!("expected {form}: {error}"))?;
        let options = options.application_name("tureen").disable_statement_logging();
        Ok(DatabaseUrl { text: text.to_owned(), options })
    }

    /// The URL itself, for another process's environment.
    pub fn secret_text(&self) -> &str {
        &self.text
    }

    /// Whether the password stands in it.
    pub fn has_password(&self) -> bool {
        let rest = SCHEMES.iter().find_map(|scheme| self.text.strip_prefix(scheme)).unwrap_or(&self.text);
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let user = before.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':') || query.split('&').any(|pair| pair.starts_with("password"))
    }

    pub(super) fn user(&self) -> &str {
        self.options.get_username()
    }

    /// Where none is named, PostgreSQL takes the user's name.
    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or(self.user())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (options, user, database) = (&self.options, self.user(), self.database());
        match options.get_socket() {
            Some(socket) => write!(f, "postgres://{user}@/{database} (socket {})", socket.display()),
            None => write!(f, "postgres://{user}@{}:{}/{database}", options.get_host(), options.get_port()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[test]
fn a_password_is_never_shown() {
    let check = |text: &str, shown: &str, has_password: bool| {
        let url = DatabaseUrl::parse(text).unwrap();
        assert_eq!((url.to_string().as_str(), format!("{url:?}").as_str()), (shown, shown));
        assert_eq!(url.has_password(), has_password, "{text}");
    };
    check("postgres://me:hush@db:5433/store", "postgres://me@db:5433/store", true);
    check("postgresql://me@db/store?password=hush", "postgres://me@db:5432/store", true);
    check("postgres://me@db/store?sslmode=require", "postgres://me@db:5432/store", false);
    check("postgres://me@%2Frun%2Fpg/store", "postgres://me@/store (socket /run/pg)", false);
    for text in
        ["mysql://me:hush@db/store", "hush", "postgres://me:hush@db:port/store", "postgres://h?sslmode=hu"]
    {
        let error = DatabaseUrl::parse(text).unwrap_err();
        assert!(error.starts_with("expected postgres://") && !error.contains("hush"), "{error}");
    }
}
