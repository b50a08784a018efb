//! What an engine counts, read by whoever reports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::durations::{DurationCounts, Durations};

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
    /// Pages whose contents gave way to others'.
    pub kv_pages_evicted_total: u64,
    /// Prompt tokens evaluated since the start, each once.
    pub prompt_tokens_total: u64,
    /// Prompt tokens looked up in the cache, and those of them that were there.
    pub prefix_cache_queries_total: u64,
    pub cached_tokens_total: u64,
    pub generated_tokens_total: u64,
    /// Tokens guessed ahead, and those of them that were right.
    pub drafted_tokens_total: u64,
    pub accepted_drafts_total: u64,
    /// Of both, what a draft model guessed.
    pub model_drafted_tokens_total: u64,
    pub model_accepted_drafts_total: u64,
    pub requests_finished_total: u64,
    /// Requests whose caller went away before their end.
    pub requests_cancelled_total: u64,
    /// Requests that ended by their deadline, begun or not.
    pub requests_timed_out_total: u64,
    /// Times that a running request gave its place and pages up, and tokens that it had to evaluate again for that.
    pub preemptions_total: u64,
    pub recomputed_tokens_total: u64,
    /// Forward passes.
    pub steps_total: u64,
    /// From a request's submission to its place.
    pub queue_time: DurationCounts,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// The same, as the engine's thread writes them.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub $name: AtomicU64,)*
            /// Of those that wait, the ones that count against the queue's limit.
            pub queued: AtomicU64,
            /// Of events that were sent and not yet read.
            pub unread_bytes: Arc<AtomicU64>,
            pub queue_time: Durations,
            pub departures: Departures,
        }

        impl Counters {
            pub fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)* queue_time: self.queue_time.read() }
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
    kv_pages_evicted_total,
    prompt_tokens_total,
    prefix_cache_queries_total,
    cached_tokens_total,
    generated_tokens_total,
    drafted_tokens_total,
    accepted_drafts_total,
    model_drafted_tokens_total,
    model_accepted_drafts_total,
    requests_finished_total,
    requests_cancelled_total,
    requests_timed_out_total,
    preemptions_total,
    recomputed_tokens_total,
    steps_total
);

/// Share of the newest interval in the mean.
const NEWEST: f64 = 0.1;

/// How often a place became free of late. Written by the engine's thread alone, in microseconds since `begun`.
pub(super) struct Departures {
    begun: Instant,
    /// When the last request ended, or work began after a pause.
    since: AtomicU64,
    /// The mean time from one end to the next while there was work; 0 before the first.
    mean: AtomicU64,
}

impl Default for Departures {
    fn default() -> Departures {
        Departures { begun: Instant::now(), since: AtomicU64::new(0), mean: AtomicU64::new(0) }
    }
}

impl Departures {
    /// Work begins after there was none.
    pub fn resume(&self, now: Instant) {
        self.since.store(self.micros(now), Ordering::Relaxed);
    }

    /// `count` requests ended together.
    pub fn ended(&self, count: usize, now: Instant) {
        let (since, mean) =
            (self.since.swap(self.micros(now), Ordering::Relaxed), self.mean.load(Ordering::Relaxed));
        let interval = self.micros(now).saturating_sub(since) as f64 / count.max(1) as f64;
        let mut mean_micros = mean as f64;
        for _ in 0..count {
            let first = mean_micros == 0.0;
            mean_micros = if first { interval } else { mean_micros + NEWEST * (interval - mean_micros) };
        }
        self.mean.store((mean_micros as u64).max(1), Ordering::Relaxed);
    }

    /// How long until the next end, as of late: at least as long as none has come by now. `None` before any.
    pub fn expected(&self, now: Instant) -> Option<Duration> {
        let (since, mean) = (self.since.load(Ordering::Relaxed), self.mean.load(Ordering::Relaxed));
        let waited = self.micros(now).saturating_sub(since);
        (mean > 0).then(|| Duration::from_micros(mean.max(waited)))
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_place_is_expected_by_how_often_they_became_free_of_late() {
        let departures = Departures::default();
        let at = |seconds: f64| departures.begun + Duration::from_secs_f64(seconds);
        let expected = |seconds: f64| departures.expected(at(seconds)).map(|time| time.as_secs_f64().round());
        assert_eq!(expected(5.0), None);
        departures.ended(1, at(10.0));
        assert_eq!(expected(10.0), Some(10.0));
        for end in 0..50 {
            departures.ended(2, at(12.0 + 4.0 * f64::from(end)));
        }
        assert_eq!(expected(208.0), Some(2.0));
        // None came for long: the next may take as long again.
        assert_eq!(expected(238.0), Some(30.0));
        // But nobody was there.
        departures.resume(at(1000.0));
        departures.ended(1, at(1002.0));
        assert_eq!(expected(1002.0), Some(2.0));
    }
}
