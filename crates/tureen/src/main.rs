//! The `tureen` program: command line, configuration and glue.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod commands;
mod models;
mod nearest;
mod recipes;
mod settings;
mod terminal;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: kernels::thread_bound::Bounded<mimalloc::MiMalloc> =
    kernels::thread_bound::Bounded(mimalloc::MiMalloc);

fn main() -> ExitCode {
    commands::main()
}
