//! One request's entry in the books: made when it comes in, written when it is dropped, whatever happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use engine::llm::request::Usage;

use super::{Metrics, Times};
use crate::gate::Permit;

/// How a request ended, with the HTTP status that its client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// It could not be taken.
    Refused(u16),
    /// It was taken and broke; a stream has begun with 200 by then.
    Failed(u16),
    /// The client went away.
    Cancelled,
}

impl Outcome {
    pub(super) fn labels(self) -> (&'static str, u16) {
        match self {
            Outcome::Answered => ("answered", 200),
            Outcome::Refused(status) => ("refused", status),
            Outcome::Failed(status) => ("failed", status),
            // No status was seen; 499 is what other servers write for it.
            Outcome::Cancelled => ("cancelled", 499),
        }
    }
}

/// Calls without tokens, logged by their endpoint.
const TENSOR_ENDPOINTS: [&str; 5] = ["infer", "grpc_infer", "predict", "classify", "regress"];

/// Marks the response to a request that has a record, which is logged when the record ends.
#[derive(Clone, Copy)]
pub struct Recorded;

/// What the log's line says of a request and the metrics don't: anybody may make it as various as they like.
#[derive(Debug, Default)]
pub struct Facts {
    pub peer: Option<SocketAddr>,
    /// The model that was asked for, shortened.
    pub asked: String,
    /// The name of the answer.
    pub id: Option<String>,
    /// Why the request was refused, and which of its parameters that is about.
    pub error: Option<&'static str>,
    pub param: Option<String>,
}

/// Until told otherwise, the request counts as cancelled: nobody tells when a client goes away.
pub struct Record {
    metrics: Arc<Metrics>,
    endpoint: &'static str,
    model: String,
    facts: Facts,
    times: Option<Arc<Times>>,
    begun: Instant,
    first_token: Option<Instant>,
    /// Of the prompts, known at the end.
    prompt_tokens: Option<usize>,
    tokens: usize,
    outcome: Outcome,
    _permit: Option<Permit>,
}

impl Record {
    /// `permit` is held until the request's end; `None` where it is to be refused.
    pub fn begin(metrics: &Arc<Metrics>, endpoint: &'static str, permit: Option<Permit>) -> Record {
        Record {
            metrics: metrics.clone(),
            endpoint,
            model: String::new(),
            facts: Facts::default(),
            times: None,
            begun: Instant::now(),
            first_token: None,
            prompt_tokens: None,
            tokens: 0,
            outcome: Outcome::Cancelled,
            _permit: permit,
        }
    }

    pub fn facts(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// Tells which of the served models it is for.
    pub fn set_model(&mut self, model: &str) {
        self.model = model.to_owned();
        self.times = Some(self.metrics.times(model));
    }

    /// A token came, of a choice whose token before that came at `previous`. Returns now, the next one's `previous`.
    pub fn token(&mut self, previous: Option<Instant>) -> Instant {
        let now = Instant::now();
        self.tokens += 1;
        if let Some(times) = &self.times {
            if self.first_token.is_none() {
                self.first_token = Some(now);
                times.first_token.observe(now - self.begun);
            }
            if let Some(previous) = previous {
                times.inter_token.observe(now - previous);
            }
        }
        now
    }

    pub fn answered(&mut self, usage: Usage) {
        self.prompt_tokens = Some(usage.prompt_tokens);
        self.outcome = Outcome::Answered;
    }

    pub fn end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.count(self.endpoint, &self.model, self.outcome);
        if let (Some(times), Outcome::Answered) = (&self.times, self.outcome) {
            times.whole.observe(self.begun.elapsed());
        }
        let (outcome, status) = self.outcome.labels();
        let Facts { peer, asked, id, error, param } = &self.facts;
        let model = if self.model.is_empty() { asked } else { &self.model };
        let peer = peer.map(tracing::field::display);
        if TENSOR_ENDPOINTS.contains(&self.endpoint) {
            let us = self.begun.elapsed().as_micros();
            tracing::info!(status, outcome, error, model, peer, us, "{}", self.endpoint);
            return;
        }
        let first_token_ms = self.first_token.map(|at| (at - self.begun).as_millis());
        tracing::info!(
            status,
            outcome,
            error,
            param,
            model,
            id,
            peer,
            prompt_tokens = self.prompt_tokens,
            tokens = self.tokens,
            first_token_ms,
            ms = self.begun.elapsed().as_millis(),
            // An endpoint is called as its URL ends.
            "POST /v1/{}",
            self.endpoint.replace('_', "/")
        );
    }
}
