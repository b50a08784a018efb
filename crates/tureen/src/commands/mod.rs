//! The command line: what can be typed, and where each command is.

mod answer;
mod chat;
mod config;
mod list;
mod model;
mod pull;
mod rm;
mod run;
mod serve;
mod show;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::models::store::Store;
use crate::settings::{self, Resolved};
use crate::terminal::say;

/// Large models as a service, in one program.
#[derive(Parser)]
#[command(name = "tureen", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Begin with:
  tureen pull smollm2:135m          fetch a small model
  tureen run smollm2:135m           chat with it here
  tureen serve smollm2:135m         answer others over the OpenAI API, at http://127.0.0.1:8080/v1

MODEL is a .gguf or .onnx file, a folder with config.json and safetensors, or a name that was
pulled.
Settings come from flags, TUREEN_* variables, a file, defaults, in this order: see tureen config.";

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Run(Box<run::Arguments>),
    Pull(pull::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Rm(rm::Arguments),
    Config(config::Arguments),
}

/// What every command gets: settings, and the models folder that they name.
pub struct Context {
    pub resolved: Resolved,
    pub store: Store,
}

/// What shells say of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Exit codes: 0 all is well, 1 it failed, 2 it was called wrongly (clap's own), 130 it was ended by Ctrl-C.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    match dispatch(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<run::Interrupted>() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The derived command line with each command's settings from the table.
fn command() -> clap::Command {
    let mut command = Cli::command();
    for name in settings::ALL {
        if command.find_subcommand(name).is_some() {
            command = command.mut_subcommand(name, |sub| sub.args(settings::arguments(name)));
        }
    }
    command
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<()> {
    let cli = Cli::from_arg_matches(matches)?;
    let (_, sub) = matches.subcommand().unwrap_or(("", matches));
    let resolved = settings::resolve(sub)?;
    start_log(&resolved);
    let context = Context { store: Store::new(&resolved.settings.models), resolved };
    match cli.command {
        Command::Serve(arguments) => serve::run(&context, &arguments),
        Command::Run(arguments) => run::run(&context, &arguments),
        Command::Pull(arguments) => pull::run(&context, &arguments),
        Command::List(arguments) => list::run(&context, &arguments),
        Command::Show(arguments) => show::run(&context, &arguments),
        Command::Rm(arguments) => rm::run(&context, &arguments),
        Command::Config(arguments) => config::run(&context, &arguments),
    }
}

/// Logs go to standard error; standard output is for what was asked for.
fn start_log(resolved: &Resolved) {
    tracing_subscriber::fmt()
        .with_max_level(resolved.settings.log.0)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help_and_the_commands_have_examples() {
        for sub in command().get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                after.contains(&format!("tureen {}", sub.get_name())),
                "{} has no example",
                sub.get_name()
            );
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", sub.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn help_fits_a_terminal_of_100_columns() {
        for sub in command().get_subcommands().chain([&command()]) {
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            let long = after.lines().find(|line| line.chars().count() > 98);
            assert_eq!(long, None, "{}", sub.get_name());
        }
    }

    #[test]
    fn every_setting_is_a_flag_of_some_command_unless_it_is_secret() {
        for setting in settings::TABLE {
            let shown = command().get_subcommands().any(|sub| {
                sub.get_arguments().any(|argument| argument.get_long() == Some(setting.flag().as_str()))
            });
            assert_eq!(shown, setting.key != "keys", "{}", setting.key);
        }
    }
}
