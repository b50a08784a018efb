//! What is counted of requests, once each, when their outcome is known; and how it is told to Prometheus.

mod histogram;
mod record;
mod render;
mod vllm;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use engine::llm::Durations;

pub use record::{Outcome, Record, Recorded};

/// Counters of a server.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, u64>>,
    /// By model; only names that are served get here, so there are few.
    times: Mutex<BTreeMap<String, Arc<Times>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    /// Empty where a request was refused before that.
    endpoint: &'static str,
    /// Empty where the request names no model that is served.
    model: String,
    outcome: &'static str,
    status: u16,
}

/// How long one model's requests take.
#[derive(Default)]
struct Times {
    first_token: Durations,
    inter_token: Durations,
    whole: Durations,
}

impl Metrics {
    /// Counts a request that no endpoint saw.
    pub fn count_refused(&self, status: StatusCode) {
        self.count("", "", Outcome::Refused(status.as_u16()));
    }

    fn count(&self, endpoint: &'static str, model: &str, outcome: Outcome) {
        let (outcome, status) = outcome.labels();
        let labels = Labels { endpoint, model: model.to_owned(), outcome, status };
        *lock(&self.requests).entry(labels).or_default() += 1;
    }

    fn times(&self, model: &str) -> Arc<Times> {
        lock(&self.times).entry(model.to_owned()).or_default().clone()
    }
}

/// Counters stay right even where a thread panicked while it held them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
