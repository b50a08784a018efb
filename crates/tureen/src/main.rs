//! The `tureen` program: command line, configuration and glue.

mod commands;
mod models;
mod nearest;
mod plain;
mod settings;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::main()
}
