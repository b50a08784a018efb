//! What a person can set, each thing defined once: one line of the table below yields the typed field, the flag, the
//! environment name, the key in the file, the help and the line of `tureen config`.

mod locks;
mod resolve;
mod value;

use std::path::PathBuf;

use resolve::Reading;
pub use resolve::{Misused, Origin, Resolved, arguments, resolve};
use store::DatabaseUrl;
pub use value::{ByteSize, Count, CpuPath, Keys, KvKind, Listen, LogLevel, ModelText, Origins, SettingValue};

/// The commands that a setting shows up in as a flag. `config` takes them all.
pub const ALL: &[&str] = &[
    "serve", "run", "pull", "push", "list", "show", "tag", "history", "diff", "verify", "rm", "gc", "train",
    "compress", "jobs", "job", "config",
];
const MODEL: &[&str] = &["serve", "run", "config"];
/// What runs or reads a model's weights.
const COMPUTE: &[&str] = &["serve", "run", "compress", "config"];
const SERVER: &[&str] = &["serve", "config"];
const JOB: &[&str] = &["serve", "job", "config"];
/// No flag: a list of processes would show it to everybody on the machine.
const SECRET: &[&str] = &[];

/// One row of the table, for parsing and printing.
pub struct Setting {
    /// `step_tokens_max`: the key in the file; `--step-tokens-max` and `TUREEN_STEP_TOKENS_MAX` follow from it.
    pub key: &'static str,
    pub unit: &'static str,
    pub help: &'static str,
    /// As a person would write it; empty where nothing is the default.
    pub default: fn() -> String,
    /// What having no value means, for those without a default.
    pub unset: &'static str,
    /// What one might write where there is no default.
    pub example: &'static str,
    pub commands: &'static [&'static str],
}

impl Setting {
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Whether it is about a model that is loaded in this process.
    pub fn is_for_loading(&self) -> bool {
        self.commands == MODEL
    }

    pub fn environment(&self) -> String {
        format!("TUREEN_{}", self.key.to_uppercase())
    }
}

macro_rules! settings {
    ($($key:ident: $kind:ty, $unit:literal, $commands:expr, $default:expr, $unset:literal, $help:literal;)*) => {
        /// Every setting, resolved: immutable from here on.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $(#[doc = $help] pub $key: $kind,)*
        }

        /// Every setting in the order of `tureen config`.
        pub const TABLE: &[Setting] = &[$(Setting {
            key: stringify!($key),
            unit: $unit,
            help: $help,
            default: || String::from($default),
            unset: $unset,
            example: <$kind as SettingValue>::EXAMPLE,
            commands: $commands,
        }),*];

        impl Settings {
            /// Each read once, in the order of the table.
            fn read(reading: &mut Reading) -> anyhow::Result<Settings> {
                Ok(Settings { $($key: reading.next::<$kind>()?,)* })
            }
        }
    };
}

settings! {
    models: PathBuf, "FOLDER", ALL, models_folder(), "",
        "Folder that models, jobs and uploaded files are kept in";
    database: Option<DatabaseUrl>, "URL", ALL, "", "SQLite, in the models folder",
        "PostgreSQL for versions, tags and jobs, as postgres://USER@HOST:PORT/DATABASE, for machines that share the models folder";
    listen: Listen, "ADDRESS:PORT", SERVER, "127.0.0.1:8080", "",
        "Where to listen; a port alone is on 127.0.0.1, port 0 a free one. Anything but loopback needs a key";
    grpc_listen: Option<Listen>, "ADDRESS:PORT", SERVER, "", "nowhere",
        "Where to answer gRPC of the Open Inference Protocol; its clients expect port 8001";
    keys: Option<Keys>, "KEY,KEY", SECRET, "", "no key is asked for",
        "Keys that callers send as `Authorization: Bearer KEY` (environment or file only)";
    keys_file: Option<PathBuf>, "FILE", SERVER, "", "none",
        "File of keys, one a line; # begins a comment";
    context: Option<Count<1, 1_000_000_000>>, "TOKENS", MODEL, "", "what the model was made for",
        "Tokens that prompt and answer may have together";
    sequences_max: Count<1, 4_096>, "COUNT", SERVER, "16", "",
        "Requests that run at the same time; more wait";
    queue_max: Count<1, 1_000_000>, "COUNT", SERVER, "256", "",
        "Requests that may wait; more get 429 at once";
    request_max: Count<0, 31_536_000>, "SECONDS", SERVER, "3600", "",
        "How long a request may take, waiting included; then it ends with what there is of its answer, or an error. 0 sets no limit";
    priority_min: i32, "NUMBER", SERVER, "0", "",
        "Lowest `priority` that callers may ask for; lower goes first, and 0 lets nobody push ahead";
    step_tokens_max: Count<1, 65_536>, "TOKENS", MODEL, "512", "",
        "Tokens evaluated in one step, over all requests";
    step_beside_answers_max: Count<1, 60_000>, "MILLISECONDS", MODEL, "60", "",
        "About how long a step may take that evaluates prompts while others are answering";
    draft_tokens_max: Count<0, 64>, "TOKENS", MODEL, "8", "",
        "Tokens guessed ahead, and checked in one step; 0 guesses none";
    draft_model: Option<ModelText>, "MODEL", MODEL, "", "what was said before",
        "Smaller model of the same tokeniser that guesses too, where that is faster; answers stay the same";
    batch_rows_max: Count<1, 1_000_000>, "COUNT", SERVER, "64", "",
        "Rows of tensor calls that are run together; 1 runs each call alone";
    batch_wait_us: Count<0, 60_000_000>, "MICROSECONDS", SERVER, "0", "",
        "How long a tensor call may wait for others to be run with; 0 takes what waits already";
    threads: Count<1, 1_024>, "COUNT", COMPUTE, threads(), "",
        "Threads that compute; the default is what this machine has";
    isa: CpuPath, "NAME", COMPUTE, "auto", "",
        "Instruction set: auto (the best here), portable, avx2, avx512 or avx512-bf16";
    kv_element: Option<KvKind>, "TYPE", MODEL, "", "what the model says, or i16",
        "How keys and values are kept: i16, or i8 for half the memory and a rounding of 1/254";
    memory_max: Option<ByteSize>, "BYTES", MODEL, "", "nine tenths of what is free",
        "Memory a model may take in all, such as 8GiB or 500MB";
    packed_max: Option<ByteSize>, "BYTES", MODEL, "", "none are kept",
        "Disk space for weights as they are laid out in memory: the next start maps them, and processes share them";
    cache_max: ByteSize, "BYTES", MODEL, "64GiB", "",
        "Disk space for versions that are served from a remote: those used longest ago make room";
    origins: Option<Origins>, "URL,URL", SERVER, "", "none",
        "Origins of web pages that may call, such as https://chat.example; * is any";
    connections_max: Count<1, 1_000_000>, "COUNT", SERVER, "1024", "",
        "Connections open at the same time; more wait to be accepted";
    body_max: ByteSize, "BYTES", SERVER, "4MiB", "",
        "Largest body of a request";
    jobs_max: Count<1, 1_000>, "COUNT", SERVER, "1", "",
        "Jobs that run at once, each in a process of its own; more wait";
    job_threads: Count<1, 1_024>, "COUNT", JOB, threads(), "",
        "Cores that a job may use; the default is what this machine has";
    job_memory_max: Option<ByteSize>, "BYTES", JOB, "", "what there is",
        "Memory that a job may take, such as 8GiB; one that needs more fails";
    file_max: ByteSize, "BYTES", SERVER, "1GiB", "",
        "Largest file that may be uploaded for jobs";
    files_max: ByteSize, "BYTES", SERVER, "16GiB", "",
        "What uploaded files may take together";
    drain_max: Count<0, 31_536_000>, "SECONDS", SERVER, "300", "",
        "How long running answers may go on after SIGTERM";
    log: LogLevel, "LEVEL", ALL, "info", "",
        "What is logged to standard error: off, error, warn, info, debug or trace";
}

fn threads() -> String {
    std::thread::available_parallelism().map_or(1, usize::from).to_string()
}

/// `$XDG_DATA_HOME/tureen/models`, or its default below the home folder; without either, a folder here.
fn models_folder() -> String {
    data_folder().join("models").to_string_lossy().into_owned()
}

/// Where `tureen` keeps what it makes: models and the chat's history.
pub fn data_folder() -> PathBuf {
    xdg_folder("XDG_DATA_HOME", ".local/share").unwrap_or_else(|| PathBuf::from("tureen-data"))
}

/// The file read where `--config` and TUREEN_CONFIG name no other.
pub fn default_file() -> Option<PathBuf> {
    xdg_folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("config.toml"))
}

fn xdg_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        named.or_else(|| Some(std::env::home_dir().filter(|home| home.is_absolute())?.join(below_home)))?;
    Some(base.join("tureen"))
}
