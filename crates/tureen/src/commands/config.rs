//! `tureen config`: every setting with its value and who said so.

use clap::Args;

use super::Context;
use super::table::columns;
use crate::settings::{Origin, TABLE};

/// Show every setting, its value, and where that came from
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Print a file with every setting, commented out, to begin a config.toml with
    #[arg(long)]
    template: bool,
}

const EXAMPLES: &str = "\
Examples:
  tureen config                              what is in force here
  tureen config --context 4096               what would be, with this flag
  tureen config --template > config.toml     a file to begin with

A setting `queue_max` is the flag --queue-max, the variable TUREEN_QUEUE_MAX, and the key
queue_max in the file. The first of these that is there counts. Keys in the file that are no
setting are errors.";

pub fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.template {
        print!("{}", template());
        return Ok(());
    }
    let resolved = &context.resolved;
    match &resolved.file {
        Some(file) if resolved.file_found => println!("file: {}\n", file.display()),
        Some(file) => println!("file: {} (not there)\n", file.display()),
        None => println!("file: none\n"),
    }
    let mut rows = vec![["SETTING", "VALUE", "FROM", "MEANING"].map(str::to_string).to_vec()];
    for (setting, (_, shown, origin)) in TABLE.iter().zip(&resolved.origins) {
        let value = if shown.is_empty() { format!("({})", setting.unset) } else { shown.clone() };
        let meaning = if *origin == Origin::Default { setting.help } else { "" };
        rows.push(vec![setting.key.to_string(), value, origin.to_string(), meaning.to_string()]);
    }
    print!("{}", columns(&rows));
    Ok(())
}

/// Every setting as a comment, with its meaning and default.
fn template() -> String {
    let mut text = String::from("# Settings of tureen. Flags and TUREEN_* variables go before this file.\n");
    for setting in TABLE {
        let default = (setting.default)();
        let number = default.parse::<u64>().is_ok();
        let value = if number { default } else { format!("{default:?}") };
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
}
