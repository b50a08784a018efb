//! A pool of threads that meet at barriers: one fork and one join for each operation.

/// Threads that run one task at a time together; the caller is worker 0.
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads` workers, of which the caller is one; 0 counts as 1.
    pub fn new(threads: usize) -> Pool {
        Pool { threads: threads.max(1) }
    }

    /// Workers, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task(worker)` once on each worker and returns when all are done.
    pub fn run(&self, task: impl Fn(usize) + Sync) {
        (0..self.threads).for_each(task);
    }

    /// Runs `task(item)` once for each of `items`, handed to whichever worker is free.
    pub fn for_each(&self, items: usize, task: impl Fn(usize) + Sync) {
        (0..items).for_each(task);
    }

    /// Splits `data` into rows of `row_len` and runs `task(row_index, row)` for each, in parallel.
    pub fn for_each_row<T: Send>(&self, data: &mut [T], row_len: usize, task: impl Fn(usize, &mut [T]) + Sync) {
        data.chunks_mut(row_len).enumerate().for_each(|(index, row)| task(index, row));
    }
}
