//! What long work does, apart from who asked for it: a command in the foreground or a job.

pub mod compress;
mod compress_network;
mod compress_request;
pub mod train;
