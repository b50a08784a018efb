//! Why a server can't start or didn't stop well, each with the way out.

use std::net::SocketAddr;

/// What ends [`crate::Server::bind`] or [`crate::Server::run`].
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "listening on {listen} lets the network in, and no key is set: set a key, or listen on 127.0.0.1:{}",
        listen.port()
    )]
    KeyNeeded { listen: SocketAddr },
    #[error("key {number} can't be used: a key is one or more visible ASCII characters without spaces")]
    KeyUnusable { number: usize },
    #[error(
        "the origin {origin:?} can't be used: write scheme and host without a path, as https://chat.example, or *"
    )]
    OriginUnusable { origin: String },
    #[error("two models would be served as {name:?}: give one of them another name")]
    NameTwice { name: String },
    #[error(
        "cannot listen on {listen}: another program uses port {}; stop it, or choose another port (0 takes a free one)",
        listen.port()
    )]
    PortInUse { listen: SocketAddr },
    #[error(
        "cannot listen on {listen}: {cause}; choose an address of this machine and a port that you may open"
    )]
    Bind { listen: SocketAddr, cause: std::io::Error },
    #[error("listening for signals: {0}")]
    Signals(std::io::Error),
    #[error("{running} answers still ran {seconds} seconds after the server was told to stop, and were cut")]
    DrainTimeout { running: usize, seconds: u64 },
    #[error("stopped at once, by a second signal, while {running} answers ran")]
    Interrupted { running: usize },
}
