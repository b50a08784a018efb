//! Bounds how many prompts are rendered and tokenised at once: each takes a core, and memory many times its size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::access::Caller;

/// Prompts prepared at once.
const AT_ONCE_MAX: usize = 2;
/// Prompts that may wait for that, in memory.
const WAITING_MAX: usize = 128;
/// Those of one caller, who leaves room for others.
const WAITING_OF_CALLER_MAX: usize = WAITING_MAX / 2;

pub struct Preparing {
    places: Arc<Semaphore>,
    /// How many prompts of each caller wait; who has none isn't there.
    waiting: Mutex<HashMap<Caller, usize>>,
}

/// Why a prompt was not prepared.
#[derive(Debug, PartialEq, Eq)]
pub enum Unprepared {
    /// So many wait already: of this caller, or of all.
    Full { waiting: usize },
    /// The work panicked.
    BrokeOff,
}

impl Preparing {
    pub fn new() -> Preparing {
        Preparing { places: Arc::new(Semaphore::new(AT_ONCE_MAX)), waiting: Mutex::default() }
    }

    /// Does `work` where it holds up no other connection, when its turn has come. Dropped before that, as where a caller
    /// hangs up, it is not begun; dropped later, its place is taken until it ends.
    pub async fn run<T: Send + 'static>(
        &self,
        caller: Caller,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unprepared> {
        let waiting = self.wait(caller)?;
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await;
        drop(waiting);
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.map_err(|_| Unprepared::BrokeOff)
    }

    fn wait(&self, caller: Caller) -> Result<Waiting<'_>, Unprepared> {
        let mut waiting = self.waiting();
        let all: usize = waiting.values().sum();
        let own = waiting.get(&caller).copied().unwrap_or(0);
        if own >= WAITING_OF_CALLER_MAX || all >= WAITING_MAX {
            return Err(Unprepared::Full { waiting: if own >= WAITING_OF_CALLER_MAX { own } else { all } });
        }
        waiting.insert(caller, own + 1);
        Ok(Waiting { preparing: self, caller })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted while it lives.
struct Waiting<'a> {
    preparing: &'a Preparing,
    caller: Caller,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.preparing.waiting();
        match waiting.get_mut(&self.caller) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(waiting.remove(&self.caller)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn few_are_prepared_at_once_few_wait_of_each_and_who_left_is_not_begun() {
        let preparing = Arc::new(Preparing::new());
        let begun = Arc::new(AtomicUsize::new(0));
        let (release, held) = channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let start = |key| {
            let (preparing, begun, held) = (preparing.clone(), begun.clone(), held.clone());
            tokio::spawn(async move {
                let work = move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    held.lock().map(|held| held.recv().is_ok()).unwrap_or(false)
                };
                preparing.run(Caller::Key(key), work).await
            })
        };
        let settle = || tokio::time::sleep(Duration::from_millis(50));
        let running: Vec<_> = (0..AT_ONCE_MAX).map(|_| start(1)).collect();
        settle().await;
        let waiting: Vec<_> = (0..WAITING_OF_CALLER_MAX).map(|_| start(1)).collect();
        settle().await;
        assert_eq!(begun.load(Ordering::SeqCst), AT_ONCE_MAX);
        assert_eq!(start(1).await.unwrap(), Err(Unprepared::Full { waiting: WAITING_OF_CALLER_MAX }));
        let others: Vec<_> = (0..WAITING_OF_CALLER_MAX).map(|number| start(2 + number as u32 % 3)).collect();
        settle().await;
        assert!(others.iter().all(|task| !task.is_finished()), "one caller's prompts leave room for others'");
        assert_eq!(start(9).await.unwrap(), Err(Unprepared::Full { waiting: WAITING_MAX }));
        for task in waiting[1..].iter().chain(&others) {
            task.abort();
        }
        settle().await;
        // One for each that runs, and one for the one that still waits.
        (0..AT_ONCE_MAX + 1).for_each(|_| release.send(()).unwrap());
        for task in running {
            assert_eq!(task.await.unwrap(), Ok(true));
        }
        assert_eq!(waiting.into_iter().next().unwrap().await.unwrap(), Ok(true));
        assert_eq!(begun.load(Ordering::SeqCst), AT_ONCE_MAX + 1);
        assert!(preparing.waiting().is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        let preparing = Preparing::new();
        for _ in 0..AT_ONCE_MAX + 1 {
            let broke = preparing.run(Caller::Anyone, || panic!("as tested")).await;
            assert_eq!(broke, Err::<(), _>(Unprepared::BrokeOff));
        }
        assert_eq!(preparing.run(Caller::Anyone, || 1).await, Ok(1));
    }
}
