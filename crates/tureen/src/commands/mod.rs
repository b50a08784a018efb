//! The command line: what can be typed, and where each command is.

mod answer;
mod chat;
mod compress;
mod compress_job;
mod config;
mod diff;
mod epochs;
mod gc;
mod history;
mod job;
mod jobs;
mod limits;
mod list;
mod model;
mod phases;
mod pull;
mod push;
mod registry;
mod remote;
mod rm;
mod run;
mod serve;
mod show;
mod table;
mod tag;
mod train;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::settings::{self, Misused, Resolved, Settings};
use crate::terminal::say;
use store::Store;

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
  tureen train network.toml         train a network of your own
  tureen compress model.gguf --to Q4_K_M    make a model smaller, with a report

MODEL is a .gguf or .onnx file, a folder with config.json and safetensors, or what is in the
store: NAME, NAME:TAG or NAME@NUMBER.
Settings come from flags, TUREEN_* variables, a file, defaults, in this order: see tureen config.";

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Run(Box<run::Arguments>),
    Pull(pull::Arguments),
    Push(push::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Tag(tag::Arguments),
    History(history::Arguments),
    Diff(diff::Arguments),
    Verify(verify::Arguments),
    Rm(rm::Arguments),
    Gc(gc::Arguments),
    Train(train::Arguments),
    Compress(compress::Arguments),
    Jobs(jobs::Arguments),
    Job(job::Arguments),
    Config(config::Arguments),
}

/// What every command gets: settings, and the models folder that they name.
pub struct Context {
    pub resolved: Resolved,
    pub store: Store,
}

/// What shells say of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// What clap exits with, and so we, where a command was called wrongly.
const MISUSED: u8 = 2;

/// Exit codes: 0 all is well, 1 it failed, 2 it was called wrongly, 130 it was ended by Ctrl-C.
pub fn main() -> ExitCode {
    let matches = command().try_get_matches().unwrap_or_else(|error| with_tip(error).exit());
    match dispatch(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<run::Interrupted>() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            say(format!("error: {error:#}"));
            if error.is::<Misused>() { ExitCode::from(MISUSED) } else { ExitCode::FAILURE }
        }
    }
}

/// What others call a flag, and how to say it here.
const TIPS: [(&str, &str); 12] = [
    ("--port", "it is part of --listen ADDRESS:PORT, such as --listen 127.0.0.1:9000, or --listen 9000"),
    ("--host", "it is part of --listen ADDRESS:PORT, such as --listen 0.0.0.0:8080"),
    (
        "--keys",
        "keys have no flag, since lists of processes show flags: TUREEN_KEYS=..., or --keys-file FILE",
    ),
    (
        "--api-key",
        "keys have no flag, since lists of processes show flags: TUREEN_KEYS=..., or --keys-file FILE",
    ),
    ("--model", "a MODEL is given without a flag: a .gguf file, a folder, or a pulled name"),
    ("--ctx-size", "it is called --context here"),
    ("-c", "it is called --context here"),
    ("--max-tokens", "it is called --tokens-max here"),
    ("--max_tokens", "it is called --tokens-max here"),
    ("-n", "it is called --tokens-max here"),
    ("-m", "a MODEL is given without a flag: a .gguf file, a folder, or a pulled name"),
    ("-t", "it is called --threads here"),
];

/// The same error with a tip for flags that other programs have.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return error };
    let given = given.split(['=', ' ']).next().unwrap_or_default();
    if let Some((_, tip)) = TIPS.iter().find(|(flag, _)| *flag == given) {
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(*tip)]));
    }
    error
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
    if let Command::Config(arguments) = &cli.command
        && arguments.wants_template()
    {
        return config::print_template();
    }
    if let Command::Train(arguments) = &cli.command
        && arguments.wants_text()
    {
        return train::print_text(arguments);
    }
    let resolved = settings::resolve(sub)?;
    start_log(&resolved);
    let Settings { models, database, .. } = &resolved.settings;
    let context = Context { store: Store::with_database(models, database.clone()), resolved };
    match cli.command {
        Command::Serve(arguments) => serve::run(&context, &arguments),
        Command::Run(arguments) => run::run(&context, &arguments),
        Command::Pull(arguments) => pull::run(&context, &arguments),
        Command::Push(arguments) => push::run(&context, &arguments),
        Command::Gc(arguments) => gc::run(&context, &arguments),
        Command::List(arguments) => list::run(&context, &arguments),
        Command::Show(arguments) => show::run(&context, &arguments),
        Command::Tag(arguments) => tag::run(&context, &arguments),
        Command::History(arguments) => history::run(&context, &arguments),
        Command::Diff(arguments) => diff::run(&context, &arguments),
        Command::Verify(arguments) => verify::run(&context, &arguments),
        Command::Rm(arguments) => rm::run(&context, &arguments),
        Command::Train(arguments) => train::run(&context, &arguments),
        Command::Compress(arguments) => compress::run(&context, &arguments),
        Command::Jobs(arguments) => jobs::run(&context, &arguments),
        Command::Job(arguments) => job::run(&context, &arguments),
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
    fn flags_of_other_programs_are_answered_with_ours() {
        let check = |flag: &str, expected: &str| {
            let error = command().try_get_matches_from(["tureen", "serve", flag, "m"]).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(MISUSED));
            let text = with_tip(error).to_string();
            assert!(text.contains(expected), "{text}");
        };
        check("--port=80", "--listen ADDRESS:PORT");
        check("--keys", "TUREEN_KEYS");
        check("--model", "without a flag");
        check("--treads", "--threads");
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
