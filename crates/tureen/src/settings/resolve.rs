//! Where settings come from, in one order: flag, environment, file, default.

use std::collections::BTreeMap;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches};

use super::{Setting, SettingValue, Settings, TABLE, default_file};
use crate::nearest::nearest;

/// Largest settings file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Environment(String),
    File(PathBuf),
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "flag --{name}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A flag that can't be what a person wrote: the command was called wrongly.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misused(pub String);

/// Settings, and for each (in the order of the table) its value as text and its origin.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub settings: Settings,
    pub said_by: Vec<(&'static str, String, Origin)>,
    /// The file that was read, or would have been.
    pub file: Option<PathBuf>,
    pub file_found: bool,
    /// Things said that have no effect, to be logged.
    pub warnings: Vec<String>,
}

/// The table's flags for one command.
pub fn arguments(command: &str) -> Vec<Arg> {
    let shown = TABLE.iter().filter(|setting| setting.commands.contains(&command));
    let flags = shown.map(|setting| {
        let default = match (setting.default)() {
            text if text.is_empty() => setting.unset.to_string(),
            text => text,
        };
        let help = format!("{} [env: {}] [default: {default}]", setting.help, setting.environment());
        Arg::new(setting.key)
            .allow_negative_numbers(true)
            .long(setting.flag())
            .value_name(setting.unit)
            .help(help)
            .help_heading("Settings")
    });
    let config = Arg::new("config_file")
        .long("config")
        .value_name("FILE")
        .help("Settings file in TOML [env: TUREEN_CONFIG] [default: config.toml in tureen's configuration folder]")
        .help_heading("Settings");
    flags.chain([config]).collect()
}

/// Settings from a command's flags, this process's environment, and the file that they name.
///
/// # Errors
/// An unknown key or an unfit value in the file, an unfit value anywhere: what was expected, and where it came from.
pub fn resolve(matches: &ArgMatches) -> anyhow::Result<Resolved> {
    let flag = |key: &str| matches.try_get_one::<String>(key).ok().flatten().cloned();
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with("TUREEN_"))
        .collect();
    let (file, must_exist) = match named_file(&flag, &environment) {
        Some(path) => (Some(path), true),
        None => (default_file(), false),
    };
    let from_file = match &file {
        Some(path) => read_file(path, must_exist)?,
        None => None,
    };
    super::locks::refuse_shown(&flag)?;
    super::locks::refuse_empty(&flag, &environment, from_file.as_ref())?;
    let file_found = from_file.is_some();
    let mut resolved = combine(flag, &environment, from_file.unwrap_or_default(), file.as_deref())?;
    resolved.file_found = file_found;
    Ok(resolved)
}

/// The file that the flag names, else the variable, where it is not empty.
fn named_file(
    flag: &dyn Fn(&str) -> Option<String>,
    environment: &BTreeMap<String, String>,
) -> Option<PathBuf> {
    let variable = || environment.get("TUREEN_CONFIG").filter(|path| !path.is_empty()).cloned();
    flag("config_file").or_else(variable).map(PathBuf::from)
}

/// `None` where the file isn't there and need not be.
fn read_file(path: &Path, must_exist: bool) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let place = path.display();
    match std::fs::metadata(path) {
        // A file where the folder would be has no settings either.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) && !must_exist => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading the settings file {place}")),
        Ok(facts) if facts.len() > FILE_BYTES_MAX => {
            bail!("the settings file {place} has {} bytes; {FILE_BYTES_MAX} at most are read", facts.len());
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the settings file {place}"))?;
    parse_file(&text, path).map(Some)
}

fn parse_file(text: &str, path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let place = path.display();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        anyhow::anyhow!("{place}, line {line}: {}", error.message().lines().next().unwrap_or("not TOML"))
    })?;
    let mut found = BTreeMap::new();
    for (key, value) in table {
        if !TABLE.iter().any(|setting| setting.key == key) {
            let keys = TABLE.iter().map(|setting| setting.key);
            match nearest(&key.replace('-', "_"), keys) {
                Some(close) => bail!("{place}: there is no setting `{key}`; did you mean `{close}`?"),
                None => bail!("{place}: there is no setting `{key}`; `tureen config` lists them all"),
            }
        }
        let text = as_text(&value).with_context(|| {
            format!(
                "{place}: `{key}` is to be a text, a number or a list of texts, received {}",
                value.type_str()
            )
        })?;
        found.insert(key, text);
    }
    Ok(found)
}

/// A TOML value as it would be written in a flag.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

/// The texts that a person wrote, taken apart in the order of the table.
pub struct Reading<'a> {
    flag: &'a dyn Fn(&str) -> Option<String>,
    environment: &'a BTreeMap<String, String>,
    from_file: BTreeMap<String, String>,
    file: Option<&'a Path>,
    said_by: Vec<(&'static str, String, Origin)>,
}

impl Reading<'_> {
    /// The value of the table's next setting.
    ///
    /// # Errors
    /// An unfit one: what was expected, and where it came from.
    pub fn next<T: SettingValue>(&mut self) -> anyhow::Result<T> {
        let setting = &TABLE[self.said_by.len()];
        let (text, origin) = self.text(setting);
        let value = T::parse(&text).map_err(|error| {
            let message = format!("{}: {error}", place(setting, &origin));
            if matches!(origin, Origin::Flag(_)) { Misused(message).into() } else { anyhow::anyhow!(message) }
        })?;
        self.said_by.push((setting.key, value.show(), origin));
        Ok(value)
    }

    fn text(&mut self, setting: &Setting) -> (String, Origin) {
        let variable = setting.environment();
        if let Some(text) = (self.flag)(setting.key) {
            (text, Origin::Flag(setting.flag()))
        } else if let Some(text) = self.environment.get(&variable).filter(|text| !text.is_empty()) {
            (text.clone(), Origin::Environment(variable))
        } else if let (Some(text), Some(path)) = (self.from_file.remove(setting.key), self.file) {
            (text, Origin::File(path.to_path_buf()))
        } else {
            ((setting.default)(), Origin::Default)
        }
    }
}

fn combine(
    flag: impl Fn(&str) -> Option<String>,
    environment: &BTreeMap<String, String>,
    from_file: BTreeMap<String, String>,
    file: Option<&Path>,
) -> anyhow::Result<Resolved> {
    let mut reading = Reading { flag: &flag, environment, from_file, file, said_by: Vec::new() };
    let settings = Settings::read(&mut reading)?;
    Ok(Resolved {
        settings,
        said_by: reading.said_by,
        file: file.map(Path::to_path_buf),
        file_found: false,
        warnings: mistyped(environment),
    })
}

fn place(setting: &Setting, origin: &Origin) -> String {
    match origin {
        Origin::Flag(name) => format!("--{name}"),
        Origin::Environment(name) => name.clone(),
        Origin::File(path) => format!("{}: {}", path.display(), setting.key),
        Origin::Default => format!("the default of {}", setting.key),
    }
}

/// TUREEN_ names that look like one of ours. Others are left alone: platforms set their own (TUREEN_SERVICE_HOST).
fn mistyped(environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut known: Vec<String> = TABLE.iter().map(Setting::environment).collect();
    // Read where they are used: the settings file's place, and the key for a server that `run --at` asks,
    // and who we are to a registry.
    known.extend(
        ["TUREEN_CONFIG", "TUREEN_KEY", "TUREEN_OCI_USER", "TUREEN_OCI_PASSWORD"].map(str::to_string),
    );
    let unknown = environment.keys().filter(|name| !known.contains(name));
    let near = unknown.filter_map(|name| {
        let close = nearest(name, known.iter().map(String::as_str))?;
        Some(format!("{name} sets nothing; did you mean {close}?"))
    });
    near.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    fn resolved(
        flags: &[(&str, &str)],
        environment: &[(&str, &str)],
        file: &str,
    ) -> anyhow::Result<Resolved> {
        let path = Path::new("config.toml");
        let flags = map(flags);
        combine(|key| flags.get(key).cloned(), &map(environment), parse_file(file, path)?, Some(path))
    }

    #[test]
    fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
        let check =
            |flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str, queue: usize, origin: &str| {
                let resolved = resolved(flags, environment, file).unwrap();
                let (_, shown, from) =
                    resolved.said_by.iter().find(|(key, _, _)| *key == "queue_max").unwrap();
                assert_eq!(resolved.settings.queue_max.0, queue);
                assert_eq!((shown.as_str(), from.to_string().as_str()), (queue.to_string().as_str(), origin));
            };
        let (flag, variable) = (("queue_max", "1"), ("TUREEN_QUEUE_MAX", "2"));
        check(&[flag], &[variable], "queue_max = 3", 1, "flag --queue-max");
        check(&[], &[variable], "queue_max = 3", 2, "environment TUREEN_QUEUE_MAX");
        check(&[], &[], "queue_max = 3", 3, "file config.toml");
        check(&[], &[], "queue_max = \"3\"", 3, "file config.toml");
        check(&[], &[], "", 256, "default");
    }

    #[test]
    fn lists_and_sizes_may_be_written_as_toml_has_them() {
        let settings = resolved(&[], &[], "keys = ['a', 'b']\nmemory_max = 1024").unwrap().settings;
        assert_eq!(settings.keys.unwrap().0, ["a", "b"]);
        assert_eq!(settings.memory_max.unwrap().0, 1024);
    }

    #[test]
    fn errors_name_the_place_and_the_way_out() {
        let check = |flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str, expected: &str| {
            let error = resolved(flags, environment, file).unwrap_err().to_string();
            assert_eq!(error, expected);
        };
        check(
            &[],
            &[],
            "quue_max = 3",
            "config.toml: there is no setting `quue_max`; did you mean `queue_max`?",
        );
        check(
            &[],
            &[],
            "queue-max = 3",
            "config.toml: there is no setting `queue-max`; did you mean `queue_max`?",
        );
        check(
            &[],
            &[],
            "colour = 3",
            "config.toml: there is no setting `colour`; `tureen config` lists them all",
        );
        check(
            &[],
            &[],
            "[queue_max]\na = 1",
            "config.toml: `queue_max` is to be a text, a number or a list of texts, received table",
        );
        check(
            &[("threads", "x")],
            &[],
            "",
            "--threads: expected a whole number from 1 to 1024, received \"x\"",
        );
        check(
            &[],
            &[("TUREEN_THREADS", "0")],
            "",
            "TUREEN_THREADS: expected a whole number from 1 to 1024, received \"0\"",
        );
        check(
            &[],
            &[],
            "threads = 0",
            "config.toml: threads: expected a whole number from 1 to 1024, received \"0\"",
        );
        let error = resolved(&[], &[], "\n\nthreads =").unwrap_err().to_string();
        assert!(error.starts_with("config.toml, line 3: "), "{error}");
    }

    #[test]
    fn a_mistyped_variable_is_said() {
        let environment = [("TUREEN_THREAD", "1"), ("TUREEN_SERVICE_HOST", "x"), ("TUREEN_KEY", "secret")];
        let warnings = resolved(&[], &environment, "").unwrap().warnings;
        assert_eq!(warnings, ["TUREEN_THREAD sets nothing; did you mean TUREEN_THREADS?"]);
    }

    #[test]
    fn counts_have_a_largest_and_a_least_value_each() {
        let check = |key: &str, text: &str, is_fit: bool| {
            let read = resolved(&[(key, text)], &[], "");
            assert_eq!(read.is_ok(), is_fit, "{key} {text}");
            assert!(read.err().is_none_or(|error| error.is::<Misused>()), "{key}");
        };
        check("draft_tokens_max", "0", true);
        for (key, text) in [
            ("connections_max", "9999999999999999999"),
            ("drain_max", "18446744073709551615"),
            ("step_tokens_max", "9223372036854775808"),
            ("threads", "1000000000"),
            ("context", "9223372036854775808"),
            ("sequences_max", "1000000000"),
            ("queue_max", "18446744073709551615"),
            ("draft_tokens_max", "65"),
        ] {
            check(key, text, false);
        }
    }

    #[test]
    fn an_empty_variable_names_no_file() {
        let check = |flag: Option<&str>, variable: &str, expected: Option<&str>| {
            let named = named_file(&|_| flag.map(str::to_string), &map(&[("TUREEN_CONFIG", variable)]));
            assert_eq!(named.as_deref(), expected.map(Path::new));
        };
        check(None, "", None);
        check(None, "b.toml", Some("b.toml"));
        check(Some("a.toml"), "b.toml", Some("a.toml"));
        check(Some("a.toml"), "", Some("a.toml"));
    }

    #[test]
    fn a_file_in_the_place_of_the_settings_folder_has_no_settings() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tureen"), "").unwrap();
        let path = folder.path().join("tureen/config.toml");
        assert!(read_file(&path, false).unwrap().is_none());
        assert!(read_file(&path, true).is_err(), "named, it must be there");
    }
}
