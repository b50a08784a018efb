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
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What a library gives up over is reported as an error of the file.
        if !engine::is_guarded() {
            tell(panic);
        }
    }));
    commands::main()
}
