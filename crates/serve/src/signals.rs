//! From the system's signals to the two steps of stopping.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::ServeError;

/// Each message is one request to stop: the first drains, the second ends at once. When all senders are gone
/// without one, the server runs on.
pub type Shutdown = mpsc::Receiver<()>;

/// SIGTERM and SIGINT (Ctrl-C) from now on, as requests to stop.
///
/// # Errors
/// Where the system refuses to tell of signals.
pub fn shutdown_signals() -> Result<Shutdown, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
