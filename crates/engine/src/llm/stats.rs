//! What an engine counts, read by whoever reports it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of an engine's gauges and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that hold a place now.
    pub running: u64,
    /// Requests that wait for one.
    pub waiting: u64,
    /// Places.
    pub slots: u64,
    pub kv_pages_total: u64,
    pub kv_pages_used: u64,
    /// Prompt tokens evaluated since the start.
    pub prompt_tokens_total: u64,
    /// Prompt tokens found in the cache instead.
    pub cached_tokens_total: u64,
    pub generated_tokens_total: u64,
    /// Tokens guessed ahead, and those of them that were right.
    pub drafted_tokens_total: u64,
    pub accepted_drafts_total: u64,
    pub requests_finished_total: u64,
    /// Requests whose caller went away before their end.
    pub requests_cancelled_total: u64,
    /// Forward passes.
    pub steps_total: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// The same, as the engine's thread writes them.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub $name: AtomicU64,)*
        }

        impl Counters {
            pub fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters!(
    running,
    waiting,
    slots,
    kv_pages_total,
    kv_pages_used,
    prompt_tokens_total,
    cached_tokens_total,
    generated_tokens_total,
    drafted_tokens_total,
    accepted_drafts_total,
    requests_finished_total,
    requests_cancelled_total,
    steps_total
);
