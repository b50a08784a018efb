//! Bounds how many prompts are rendered and tokenised at once: each takes a core, and memory many times its size.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// Prompts prepared at once.
const AT_ONCE_MAX: usize = 2;
/// Prompts that may wait for that, in memory.
const WAITING_MAX: usize = 64;

pub struct Preparing {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Why a prompt was not prepared.
#[derive(Debug, PartialEq, Eq)]
pub enum Unprepared {
    /// So many wait already.
    Full { waiting: usize },
    /// The work panicked.
    BrokeOff,
}

impl Preparing {
    pub fn new() -> Preparing {
        Preparing { places: Arc::new(Semaphore::new(AT_ONCE_MAX)), waiting: AtomicUsize::new(0) }
    }

    /// Does `work` where it holds up no other connection, when its turn has come. Dropped before that, as where a caller
    /// hangs up, it is not begun; dropped later, its place is taken until it ends.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unprepared> {
        let waiting = self.wait()?;
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await;
        drop(waiting);
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.map_err(|_| Unprepared::BrokeOff)
    }

    fn wait(&self) -> Result<Waiting<'_>, Unprepared> {
        let more = |waiting| (waiting < WAITING_MAX).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Waiting(&self.waiting)),
            Err(waiting) => Err(Unprepared::Full { waiting }),
        }
    }
}

/// Counted while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn few_are_prepared_at_once_few_wait_and_who_left_is_not_begun() {
        let preparing = Arc::new(Preparing::new());
        let begun = Arc::new(AtomicUsize::new(0));
        let (release, held) = channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let start = || {
            let (preparing, begun, held) = (preparing.clone(), begun.clone(), held.clone());
            tokio::spawn(async move {
                let work = move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    held.lock().map(|held| held.recv().is_ok()).unwrap_or(false)
                };
                preparing.run(work).await
            })
        };
        let settle = || tokio::time::sleep(Duration::from_millis(50));
        let running: Vec<_> = (0..AT_ONCE_MAX).map(|_| start()).collect();
        settle().await;
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| start()).collect();
        settle().await;
        assert_eq!(begun.load(Ordering::SeqCst), AT_ONCE_MAX);
        assert_eq!(start().await.unwrap(), Err(Unprepared::Full { waiting: WAITING_MAX }));
        for task in &waiting[1..] {
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
        assert_eq!(preparing.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        let preparing = Preparing::new();
        for _ in 0..AT_ONCE_MAX + 1 {
            assert_eq!(preparing.run(|| panic!("as tested")).await, Err::<(), _>(Unprepared::BrokeOff));
        }
        assert_eq!(preparing.run(|| 1).await, Ok(1));
    }
}
