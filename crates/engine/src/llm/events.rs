//! An answer's events on their way from the engine's thread to the caller, and the bound on those that nobody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::request::{Event, Failure, TokenLogprob};

/// Memory that events which wait to be read may take, over all answers of a model. Beyond it, answers end whose callers
/// are behind by more than [`BEHIND_BYTES_MAX`].
const UNREAD_BYTES_MAX: u64 = 64 << 20;
/// What a caller may be behind by in any case: some ten thousand tokens, or five hundred with the twenty likeliest of each.
const BEHIND_BYTES_MAX: u64 = 1 << 20;

/// The two ends of an answer. `unread` counts the bytes of all answers of a model.
pub(super) fn answer(unread: &Arc<AtomicU64>) -> (Events, Generation) {
    let (sender, receiver) = unbounded_channel();
    let behind = Behind { own: Arc::default(), all: unread.clone() };
    (Events { sender, behind: behind.clone() }, Generation { receiver, behind, ended: false })
}

/// Bytes that were sent and not yet read: of one answer, and of all.
#[derive(Clone)]
struct Behind {
    own: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
}

impl Behind {
    /// False where it was too much, and does not count.
    fn send(&self, bytes: u64) -> bool {
        let own = self.own.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = all <= UNREAD_BYTES_MAX || own <= BEHIND_BYTES_MAX;
        if !fits {
            self.read(bytes);
        }
        fits
    }

    fn read(&self, bytes: u64) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The engine's end.
pub(super) struct Events {
    sender: UnboundedSender<Event>,
    behind: Behind,
}

impl Events {
    /// False where the answer is over: its caller is too far behind, and was told so. One that is gone is noticed by
    /// [`Events::is_closed`] before the next step.
    pub fn send(&self, event: Event) -> bool {
        let fits = self.behind.send(bytes(&event));
        let event = if fits { event } else { Event::Failed(Failure::Unread) };
        // Whoever has gone away doesn't miss it.
        if let Err(unsent) = self.sender.send(event) {
            self.behind.read(bytes(&unsent.0));
        }
        fits
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// A request under way. Dropping it cancels the request within one step.
pub struct Generation {
    receiver: UnboundedReceiver<Event>,
    behind: Behind,
    ended: bool,
}

impl Generation {
    /// The next event, in order; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.receiver.recv().await;
        Some(self.checked(event))
    }

    /// The same, for callers outside an asynchronous runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.receiver.blocking_recv();
        Some(self.checked(event))
    }

    /// An engine that ends midway is an event too.
    fn checked(&mut self, event: Option<Event>) -> Event {
        let event = event.unwrap_or(Event::Failed(Failure::Stopped));
        self.behind.read(bytes(&event));
        self.ended = matches!(event, Event::Done { .. } | Event::Failed(_));
        event
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // Nothing gets in after this, so what is read here is all that was not.
        self.receiver.close();
        while let Ok(event) = self.receiver.try_recv() {
            self.checked(Some(event));
        }
    }
}

/// Memory that an event takes, about; failures are too few to count.
fn bytes(event: &Event) -> u64 {
    let text = match event {
        Event::Prompt(logprobs) => logprobs.iter().map(logprob_bytes).sum(),
        Event::Token(token) => token.text.len() + token.logprob.as_ref().map_or(0, logprob_bytes),
        Event::Done { text, .. } => text.len(),
        Event::Failed(_) => return 0,
    };
    (size_of::<Event>() + text) as u64
}

fn logprob_bytes(logprob: &TokenLogprob) -> usize {
    let top = logprob.top.iter().map(|(_, bytes, _)| size_of::<(u32, Vec<u8>, f32)>() + bytes.len());
    size_of::<TokenLogprob>() + logprob.bytes.len() + top.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::super::request::Token;
    use super::*;

    fn token(bytes: usize) -> Event {
        Event::Token(Token { id: 1, text: "x".repeat(bytes), logprob: None })
    }

    #[test]
    fn who_is_far_behind_is_ended_where_too_much_is_unread_and_nobody_else() {
        let unread = Arc::default();
        let (lagging, mut its_caller) = answer(&unread);
        let (followed, mut reader) = answer(&unread);
        let mut taken = 0;
        while lagging.send(token(1 << 20)) {
            taken += 1;
            assert!(followed.send(token(1 << 10)), "a caller that reads goes on");
            assert!(matches!(reader.blocking_next(), Some(Event::Token(_))));
            assert!(taken < 100);
        }
        assert_eq!(taken, 63);
        assert!(followed.send(token(1 << 10)));
        for _ in 0..taken {
            assert!(matches!(its_caller.blocking_next(), Some(Event::Token(_))));
        }
        assert_eq!(its_caller.blocking_next(), Some(Event::Failed(Failure::Unread)));
        assert_eq!(its_caller.blocking_next(), None);
        drop(reader);
        assert_eq!(unread.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_never_read_counts_no_longer_once_its_caller_is_gone() {
        let unread = Arc::default();
        let (events, caller) = answer(&unread);
        assert!(events.send(token(100)) && events.send(token(100)));
        assert!(unread.load(Ordering::Relaxed) > 200);
        drop(caller);
        assert_eq!(unread.load(Ordering::Relaxed), 0);
        assert!(events.is_closed() && events.send(token(100)));
        assert_eq!(unread.load(Ordering::Relaxed), 0);
    }
}
