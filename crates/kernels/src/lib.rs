//! Arithmetic, memory mapping and threads: the only crate with `unsafe`.

pub mod compute;
pub mod elements;
pub mod threads;
