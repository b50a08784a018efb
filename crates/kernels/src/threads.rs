//! A pool of threads that meet at barriers: one fork and one join for each operation.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Looks at the epoch before a waiting worker goes to sleep: some tens of microseconds.
const SPINS_BEFORE_SLEEP: u32 = 20_000;
/// Looks at the join counter before the caller lets others have its core between looks.
const SPINS_BEFORE_YIELD: u32 = 10_000;

/// Threads that run one task at a time together; the caller is worker 0.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a task: callers on several threads take turns.
    turn: Mutex<()>,
}

/// A task's address, valid from the epoch's rise until every worker has counted down.
type Task = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Rises by one for each task.
    epoch: AtomicU64,
    task: UnsafeCell<Option<Task>>,
    /// Workers that are not done with the task.
    unfinished: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `task` is written only by the caller that holds `turn`, before the epoch rises, and read by the workers
// after they saw it rise; the pointer is to a closure that is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` workers, of which the caller is one; 0 counts as 1.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            unfinished: AtomicUsize::new(0),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let spawn = |worker: usize| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("kernels-{worker}"))
                .spawn(move || shared.work(worker))
                .ok()
        };
        // A machine that gives fewer threads gives a smaller pool, and the same results.
        let workers = (1..threads).map_while(spawn).collect();
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    /// Workers, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(worker)` once on each worker and returns when all are done.
    ///
    /// # Panics
    /// When the task does, after all workers are done. A task must not run another on the same pool.
    pub fn run(&self, task: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            return task(0);
        }
        let turn = lock(&self.turn);
        let task: &(dyn Fn(usize) + Sync) = &task;
        // SAFETY: only the lifetime is dropped; this function outlives every use, since it waits for `unfinished`.
        let erased: Task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Task>(task) };
        let shared = &*self.shared;
        // SAFETY: all workers are waiting for the epoch to rise, and `turn` keeps other callers out.
        unsafe { *shared.task.get() = Some(erased) };
        shared.unfinished.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        let mine = catch_unwind(AssertUnwindSafe(|| task(0)));
        let mut spins = 0u32;
        while shared.unfinished.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let theirs = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Runs `task(item)` once for each of `items`, as [`Pool::share_out`].
    pub fn for_each(&self, items: usize, task: impl Fn(usize) + Sync) {
        self.share_out(items, |_, item| task(item));
    }

    /// Runs `task(worker, item)` once for each of `items`. A worker begins with its share of them, in order: parts of a tensor
    /// stay in the caches of whoever works on them from one call to the next. When it is through, it takes the last ones
    /// of others' shares.
    pub fn share_out(&self, items: usize, task: impl Fn(usize, usize) + Sync) {
        if items <= 1 || self.workers.is_empty() {
            return (0..items).for_each(|item| task(0, item));
        }
        self.share_out_then(items, task, |_| {});
    }

    /// As [`Pool::share_out`]; each worker runs `then(worker)` when no item is left for it.
    pub fn share_out_then(
        &self,
        items: usize,
        task: impl Fn(usize, usize) + Sync,
        then: impl Fn(usize) + Sync,
    ) {
        assert!(u32::try_from(items).is_ok(), "{items} items");
        let shares = [const { Share::empty() }; SHARES_MAX];
        let shares = &shares[..self.threads().min(SHARES_MAX)];
        for (worker, share) in shares.iter().enumerate() {
            share.fill(self.share(items, worker));
        }
        self.run(|worker| {
            while let Some(item) = shares.get(worker).and_then(Share::first) {
                task(worker, item);
            }
            for other in 1..=shares.len() {
                while let Some(item) = shares[(worker + other) % shares.len()].last() {
                    task(worker, item);
                }
            }
            then(worker);
        });
    }

    /// The items of `items` that a worker begins with.
    pub(crate) fn share(&self, items: usize, worker: usize) -> Range<usize> {
        let count = self.threads().min(SHARES_MAX);
        let start = |worker: usize| items * worker.min(count) / count;
        start(worker)..start(worker + 1)
    }

    /// Splits `data` into rows of `row_len` and runs `task(row_index, row)` for each, in parallel.
    ///
    /// # Panics
    /// When `data` is no whole number of rows.
    pub fn for_each_row<T: Send>(
        &self,
        data: &mut [T],
        row_len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        assert!(
            row_len > 0 && data.len().is_multiple_of(row_len),
            "{} is no multiple of {row_len}",
            data.len()
        );
        let rows = data.len() / row_len;
        let shared = DisjointMut::new(data);
        let share = rows.div_ceil(self.threads());
        self.for_each(rows.div_ceil(share.max(1)), |part| {
            for row in part * share..((part + 1) * share).min(rows) {
                // SAFETY: each row is visited once, by one worker.
                task(row, unsafe { shared.slice(row * row_len, row_len) });
            }
        });
    }
}

/// Workers that have shares; more than these only take from others.
const SHARES_MAX: usize = 64;

/// Items that are left of a share: the first in the low half, the end in the high one.
struct Share(AtomicU64);

impl Share {
    const fn empty() -> Share {
        Share(AtomicU64::new(0))
    }

    fn fill(&self, items: Range<usize>) {
        self.0.store(items.start as u64 | (items.end as u64) << 32, Ordering::Relaxed);
    }

    fn first(&self) -> Option<usize> {
        self.take(|first, end| (first + 1, end)).map(|(first, _)| first as usize)
    }

    fn last(&self) -> Option<usize> {
        self.take(|first, end| (first, end - 1)).map(|(_, end)| end as usize - 1)
    }

    /// What was left before one was taken.
    fn take(&self, left: impl Fn(u64, u64) -> (u64, u64)) -> Option<(u64, u64)> {
        let halves = |value: u64| (value & u64::from(u32::MAX), value >> 32);
        let update = |value: u64| {
            let (first, end) = halves(value);
            let (first, end) = if first < end { left(first, end) } else { return None };
            Some(first | end << 32)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).ok().map(halves)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // Panics of tasks were caught and handed to their callers.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_epoch(seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            // SAFETY: the epoch rose, so the caller has written the task and waits for `unfinished`.
            let task = unsafe { (*self.task.get()).map(|task| &*task) };
            let result = catch_unwind(AssertUnwindSafe(|| task.map(|task| task(worker))));
            if let Err(panic) = result {
                *lock(&self.panic) = Some(panic);
            }
            self.unfinished.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until the epoch is past `seen`: a while awake, then asleep.
    fn next_epoch(&self, seen: u64) -> u64 {
        for _ in 0..SPINS_BEFORE_SLEEP {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let epoch = loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                break epoch;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        epoch
    }
}

/// A slice of which several workers write parts that don't overlap.
pub(crate) struct DisjointMut<'a, T> {
    start: *mut T,
    length: usize,
    borrowed: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: what is shared are the parts, each used by one thread as the contract of `slice` says.
unsafe impl<T: Send> Sync for DisjointMut<'_, T> {}

impl<'a, T> DisjointMut<'a, T> {
    pub fn new(slice: &'a mut [T]) -> DisjointMut<'a, T> {
        let length = slice.len();
        DisjointMut { start: slice.as_mut_ptr(), length, borrowed: std::marker::PhantomData }
    }

    /// The part of `length` from `start` on.
    ///
    /// # Safety
    /// No two parts that live at the same time overlap.
    #[allow(clippy::mut_from_ref)] // disjointness is the caller's promise
    pub unsafe fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start, "part outside the slice");
        // SAFETY: inside the slice by the assertion, and not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_runs_each_task_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            let counts: Vec<AtomicUsize> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..200 {
                pool.run(|worker| {
                    counts[worker].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 200));
        }
    }

    #[test]
    fn every_item_is_shared_out_once() {
        for (threads, items) in [(1, 3), (2, 1), (3, 0), (3, 2), (2, 1000), (SHARES_MAX + 3, 150)] {
            let pool = Pool::new(threads);
            for slow in 0..threads.min(3) {
                let taken: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                let then = AtomicUsize::new(0);
                let task = |worker: usize, item: usize| {
                    assert!(worker < pool.threads());
                    taken[item].fetch_add(1, Ordering::Relaxed);
                    // Others take what one of them leaves.
                    if worker == slow {
                        std::thread::sleep(std::time::Duration::from_micros(200));
                    }
                };
                pool.share_out_then(items, task, |_| {
                    then.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(then.into_inner(), pool.threads());
                assert!(taken.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {items}");
            }
        }
    }

    #[test]
    fn every_row_is_visited_once() {
        for (threads, rows) in [(1, 5), (3, 0), (3, 1), (3, 2), (3, 10), (2, 7)] {
            let mut data = vec![0u32; rows * 4];
            Pool::new(threads).for_each_row(&mut data, 4, |index, row| {
                row.iter_mut().for_each(|x| *x += index as u32 + 1);
            });
            let expected: Vec<u32> = (0..rows * 4).map(|i| i as u32 / 4 + 1).collect();
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(|worker| assert!(worker != 1, "worker 1"))));
        assert!(result.is_err());
        pool.run(|_| {});
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.for_each(10, |_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4000);
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(2);
        std::thread::sleep(std::time::Duration::from_millis(30));
        pool.run(|_| {});
    }
}
