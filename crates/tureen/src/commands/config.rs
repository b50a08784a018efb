//! `tureen config`: every setting with its value and who said so.

use clap::Args;
use serde_json::json;

use super::Context;
use crate::settings::{Origin, Setting, TABLE};
use crate::terminal::print;

/// Show every setting, its value, and where that came from
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Print a file with every setting, commented out, to begin a config.toml with
    #[arg(long)]
    template: bool,
    /// Print JSON: each setting's value, where it comes from and what it means
    #[arg(long, conflicts_with = "template")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen config                              what is in force here
  tureen config --context 4096               what would be, with this flag
  tureen config --template > config.toml     a file to begin with

A setting `queue_max` is the flag --queue-max, the variable TUREEN_QUEUE_MAX, and the key
queue_max in the file. The first of these that is there counts. Keys in the file that are no
setting are errors.";

impl Arguments {
    /// Asked for a file to begin with, which helps whoever's own is broken.
    pub fn wants_template(&self) -> bool {
        self.template
    }
}

pub fn print_template() -> anyhow::Result<()> {
    Ok(print(template())?)
}

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let resolved = &context.resolved;
    let rows =
        TABLE.iter().zip(&resolved.said_by).map(|(setting, (_, shown, origin))| (setting, shown, origin));
    if arguments.json {
        let value = |(setting, shown, origin): (&Setting, &String, &Origin)| {
            let value = Some(shown).filter(|shown| !shown.is_empty());
            let fields = json!({"value": value, "from": origin.to_string(), "meaning": setting.help});
            (setting.key.to_string(), fields)
        };
        let all: serde_json::Map<String, serde_json::Value> = rows.map(value).collect();
        return Ok(print(serde_json::to_string_pretty(&all)? + "\n")?);
    }
    let mut text = match &resolved.file {
        Some(file) if resolved.file_found => format!("file: {}\n", file.display()),
        Some(file) => format!("file: {} (not there)\n", file.display()),
        None => "file: none\n".to_string(),
    };
    for (setting, shown, origin) in rows {
        let value = if shown.is_empty() { format!("({})", setting.unset) } else { shown.clone() };
        text.push_str(&format!("\n{} = {value}   [{origin}]\n    {}\n", setting.key, setting.help));
    }
    Ok(print(text)?)
}

/// Every setting as a comment, with its meaning and its default, or an example where it has none.
fn template() -> String {
    let mut text = String::from("# Settings of tureen. Flags and TUREEN_* variables go before this file.\n");
    for setting in TABLE {
        let default = Some((setting.default)()).filter(|default| !default.is_empty());
        let value = default.unwrap_or_else(|| setting.example.to_string());
        let number = value.parse::<u64>().is_ok();
        let value = if number { value } else { format!("{value:?}") };
        let unset =
            if setting.unset.is_empty() { String::new() } else { format!(" (unset: {})", setting.unset) };
        text.push_str(&format!(
            "\n# {}. {}{unset}\n# {} = {value}\n",
            setting.help, setting.unit, setting.key
        ));
    }
    text
}

#[test]
fn the_template_is_a_file_of_settings() {
    let uncommented: String = template()
        .lines()
        .filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")))
        .map(|line| format!("{line}\n"))
        .collect();
    let table: toml::Table = uncommented.parse().unwrap();
    assert_eq!(table.len(), TABLE.len());
    assert!(table["context"].is_integer(), "an example is a value of its kind");
    assert!(table.values().all(|value| value.as_str() != Some("")), "{table}");
}
