//! Whoever names keys wants the door locked: an empty name, as of a variable that was never set, must not open it. And
//! what opens a door is no flag, which everybody on the machine sees in the list of processes.

use std::collections::BTreeMap;

use anyhow::bail;
use store::DatabaseUrl;

use super::Misused;

const LOCKS: [&str; 2] = ["keys", "keys_file"];

/// # Errors
/// Where keys, or a file of them, are said to be nothing.
pub fn refuse_empty(
    flag: &dyn Fn(&str) -> Option<String>,
    environment: &BTreeMap<String, String>,
    from_file: Option<&BTreeMap<String, String>>,
) -> anyhow::Result<()> {
    for key in LOCKS {
        let variable = format!("TUREEN_{}", key.to_ascii_uppercase());
        let said = [
            (format!("--{}", key.replace('_', "-")), flag(key)),
            (variable.clone(), environment.get(&variable).cloned()),
            (format!("{key} in the settings file"), from_file.and_then(|file| file.get(key).cloned())),
        ];
        for (place, text) in said {
            if text.is_some_and(|text| text.trim().is_empty()) {
                bail!(
                    "{place} is empty, which would leave the service without a key: give it one, or take it away"
                );
            }
        }
    }
    Ok(())
}

/// # Errors
/// Where the database's password stands in a flag.
pub fn refuse_shown(flag: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let said = flag("database").and_then(|text| DatabaseUrl::parse(&text).ok());
    if said.is_some_and(|url| url.has_password()) {
        let message = "--database: a password in a flag is seen by everybody in the list of processes; put the URL into \
                       TUREEN_DATABASE or the settings file, or the password into PGPASSWORD or ~/.pgpass";
        return Err(Misused(message.to_owned()).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_flag_is_refused() {
        let check = |url: &str| refuse_shown(&|key| (key == "database").then(|| url.to_owned()));
        let error = check("postgres://me:hush@db/store").unwrap_err();
        assert!(error.is::<Misused>() && !error.to_string().contains("hush"), "{error}");
        check("postgres://me@db/store").unwrap();
    }

    #[test]
    fn keys_that_are_said_to_be_nothing_are_refused() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let check = |flags: &[(&str, &str)],
                     environment: &[(&str, &str)],
                     file: &[(&str, &str)],
                     expected: &str| {
            let flags = map(flags);
            let refused = refuse_empty(&|key| flags.get(key).cloned(), &map(environment), Some(&map(file)));
            let message = refused.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(message.starts_with(expected) && message.is_empty() == expected.is_empty(), "{message}");
        };
        check(&[], &[("TUREEN_KEYS", "")], &[], "TUREEN_KEYS is empty");
        check(&[], &[("TUREEN_KEYS_FILE", " ")], &[], "TUREEN_KEYS_FILE is empty");
        check(&[("keys_file", "")], &[("TUREEN_KEYS", "secret")], &[], "--keys-file is empty");
        check(&[], &[], &[("keys", "")], "keys in the settings file is empty");
        check(&[], &[("TUREEN_KEYS", "secret"), ("TUREEN_ORIGINS", "")], &[("keys_file", "keys")], "");
        check(&[], &[], &[], "");
    }
}
