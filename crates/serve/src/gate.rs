//! Lets work in, counts what is inside, and closes for good when the server stops.

use std::sync::Arc;

use tokio::sync::watch;

/// Clones share it.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    closed: watch::Sender<bool>,
    inside: watch::Sender<usize>,
}

/// Held while a request is worked on; dropping it lets a waiting drain go on.
pub struct Permit {
    shared: Arc<Shared>,
}

impl Gate {
    pub fn open() -> Gate {
        Gate { shared: Arc::new(Shared { closed: watch::Sender::new(false), inside: watch::Sender::new(0) }) }
    }

    /// `None` where the gate is closed.
    pub fn enter(&self) -> Option<Permit> {
        // Counted before the look at `closed`, so that whoever closes the gate sees all that got in.
        self.shared.inside.send_modify(|inside| *inside += 1);
        let permit = Permit { shared: self.shared.clone() };
        (!self.is_closed()).then_some(permit)
    }

    pub fn close(&self) {
        self.shared.closed.send_replace(true);
    }

    pub fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }

    /// Waits until it is closed.
    pub async fn closing(&self) {
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub fn inside(&self) -> usize {
        *self.shared.inside.borrow()
    }

    /// Waits until nothing is inside.
    pub async fn empty(&self) {
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = self.shared.inside.subscribe().wait_for(|inside| *inside == 0).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.inside.send_modify(|inside| *inside -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_gate_lets_nobody_in_and_tells_when_it_is_empty() {
        let gate = Gate::open();
        let first = gate.enter().unwrap();
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 1);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }
}
