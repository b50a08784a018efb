//! A store for a test: with a database of its own in its folder, or in a PostgreSQL server that the test starts.
//! `on_postgres.rs` holds the same tests as the files that include this, with the latter.

#![allow(dead_code)] // each file of tests takes a part of it

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store::{DatabaseUrl, Store};

/// Whether these are the tests with PostgreSQL.
const IS_POSTGRES: bool =
    matches!(option_env!("CARGO_CRATE_NAME"), Some(name) if matches!(name.as_bytes(), b"on_postgres"));
/// The database of a store that another process of the same test opened.
const URL: &str = "STORE_TEST_DATABASE";

/// A folder that ends with the test, and a store in it; `None` where there is no PostgreSQL, which is said.
pub fn folder_and_store() -> Option<(tempfile::TempDir, Store)> {
    let folder = tempfile::tempdir().unwrap();
    let url = if IS_POSTGRES { Some(new_database()?) } else { None };
    let store = Store::with_database(&folder.path().join("models"), url);
    Some((folder, store))
}

/// What a process that starts now finds.
pub fn opened_anew(store: &Store) -> Store {
    Store::with_database(store.folder(), store.database_url().cloned())
}

/// As after a disk was lost, with the models on another.
pub fn lose_database(store: &Store) {
    match store.database_url() {
        None => std::fs::remove_dir_all(store.folder().join(".store")).unwrap(),
        Some(url) => {
            let name = url.secret_text().rsplit('/').next().unwrap();
            server().unwrap().ask(name, "DROP SCHEMA tureen CASCADE");
        }
    }
}

/// Makes a process that is started see the same store.
pub fn tell(store: &Store, process: &mut Command) {
    if let Some(url) = store.database_url() {
        process.env(URL, url.secret_text());
    }
}

/// The store that this process was told of.
pub fn told(folder: &Path) -> Store {
    let url = std::env::var(URL).ok().map(|url| DatabaseUrl::parse(&url).unwrap());
    Store::with_database(folder, url)
}

/// A database that nobody else has.
pub fn new_database() -> Option<DatabaseUrl> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let server = server()?;
    let name = format!("{}_{}", module_path!().replace("::", "_"), COUNT.fetch_add(1, Ordering::Relaxed));
    server.ask("postgres", &format!("CREATE DATABASE {name}"));
    Some(DatabaseUrl::parse(&server.url(&name)).unwrap())
}

pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    user: &'static str,
}

/// The server of this process, which ends with it.
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(Server::start).as_ref();
    if server.is_none() {
        eprintln!("skipped: no PostgreSQL here (Debian: postgresql)");
    }
    server
}

impl Server {
    fn start() -> Option<Server> {
        let programs = programs()?;
        let is_root = text_of(Command::new("id").arg("-u")).trim() == "0";
        // PostgreSQL refuses to run as root.
        let user = if is_root { "postgres" } else { "" };
        let folder = std::env::temp_dir().join(format!("tureen-postgres-{}", std::process::id()));
        let as_user = if is_root {
            format!("exec setpriv --reuid={user} --regid={user} --clear-groups sh -c")
        } else {
            "exec sh -c".to_owned()
        };
        let server = Server { folder: folder.clone(), programs: programs.clone(), user: "tureen" };
        if std::fs::create_dir(&folder).is_err() {
            // Another of this process's modules of tests has begun to.
            let begun = Instant::now();
            while !folder.join("ready").exists() {
                assert!(begun.elapsed() < Duration::from_secs(120), "PostgreSQL doesn't start");
                std::thread::sleep(Duration::from_millis(50));
            }
            return Some(server);
        }
        let mut script = String::new();
        // Ends, with all that it made, when this process does and the pipe closes, however that happens.
        write!(
            script,
            r#"chmod 700 "$F"; [ -z "$U" ] || chown "$U" "$F"; {as_user} '
            cd "$F" && printf "%s" secret >password &&
            "$P/initdb" -D "$F/data" -U tureen -A scram-sha-256 --pwfile="$F/password" -N -E UTF8 --locale=C >"$F/log" 2>&1 &&
            "$P/pg_ctl" -D "$F/data" -w -t 120 -l "$F/log" -o "-k $F -F -c listen_addresses= -c max_connections=200" start >>"$F/log" 2>&1 &&
            touch "$F/ready" && echo ready; cat >/dev/null; "$P/pg_ctl" -D "$F/data" -m immediate stop >/dev/null 2>&1; rm -rf "$F"'"#
        )
        .unwrap();
        let mut process = Command::new("sh")
            .args(["-c", &script])
            .env("F", &folder)
            .env("P", &programs)
            .env("U", user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        let answer = process.stdout.as_mut().unwrap().read_exact(&mut said);
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(answer.is_ok() && said == *b"ready\n", "PostgreSQL doesn't start:\n{}", log());
        // The pipe stays open as long as this process lives.
        std::mem::forget(process);
        Some(server)
    }

    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.to_str().unwrap().replace('/', "%2F");
        format!("postgres://{}:secret@{folder}/{database}", self.user)
    }

    /// What `psql` says to `sql`.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", self.user, "-d", database, "-c", sql])
            .arg("-h")
            .arg(&self.folder)
            .env("PGPASSWORD", "secret");
        text_of(&mut psql)
    }
}

fn text_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Where Debian has them, the newest; else where the shell finds them.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    found.sort();
    found.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    let programs = ["initdb", "pg_ctl", "psql"];
    found.into_iter().find(|folder| programs.iter().all(|program| folder.join(program).is_file()))
}
