//! The engine's thread: admit, forward, sample, emit, step after step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use kernels::attention::KvCache;

use super::forward::{Forward, Span};
use super::pages::Pages;
use super::request::Event;
use super::sequence::{Accepted, Sequence};
use super::stats::Counters;
use super::tokenizer::Tokenizer;

/// Prompt tokens of a step while other sequences are answering, so that these don't wait long.
const PROMPT_TOKENS_BESIDE_ANSWERS: usize = 128;

/// Answers that run together, at most, for guesses at their next tokens to be worth the rows that they take.
const DRAFTING_SEQUENCES_MAX: usize = 2;

/// What reaches the engine's thread from outside.
pub(super) enum Message {
    Submit(Box<Accepted>),
    /// Take nothing more, and end when the running answers have.
    Drain,
}

pub(super) struct Scheduler {
    pub forward: Forward,
    pub cache: KvCache,
    pub pages: Pages,
    pub tokenizer: Arc<Tokenizer>,
    pub end_tokens: Vec<u32>,
    pub sequences_max: usize,
    pub step_tokens_max: usize,
    pub draft_tokens_max: usize,
    pub logit_rows_max: usize,
    pub inbox: Receiver<Message>,
    pub counters: Arc<Counters>,
    pub draining: Arc<AtomicBool>,
    pub waiting: VecDeque<Accepted>,
    pub running: Vec<Sequence>,
}

impl Scheduler {
    /// Serves until told to drain, or until nobody can submit any more.
    pub fn run(mut self) {
        while self.receive() {
            self.drop_abandoned();
            self.admit();
            // Before the step, which may be long: whoever submits counts the free places.
            self.set_gauges();
            self.step();
            self.set_gauges();
        }
    }

    /// Takes what has come in; waits where there is nothing else to do. False when the work is over.
    fn receive(&mut self) -> bool {
        loop {
            let idle = self.running.is_empty() && self.waiting.is_empty();
            let message = match self.inbox.try_recv() {
                Err(TryRecvError::Empty) if !idle => return true,
                Err(TryRecvError::Empty) if self.draining.load(Ordering::Acquire) => return false,
                Err(TryRecvError::Empty) => self.inbox.recv().ok(),
                Err(TryRecvError::Disconnected) => None,
                Ok(message) => Some(message),
            };
            match message {
                Some(Message::Submit(accepted)) => self.waiting.push_back(*accepted),
                Some(Message::Drain) => {}
                None => return !idle,
            }
        }
    }

    /// Frees the places of callers that went away.
    fn drop_abandoned(&mut self) {
        let (running, waiting) = (self.running.len(), self.waiting.len());
        self.waiting.retain(|accepted| !accepted.events.is_closed());
        let left_queue = (waiting - self.waiting.len()) as u64;
        self.counters.waiting.fetch_sub(left_queue, Ordering::Relaxed);
        let pages = &mut self.pages;
        self.running.retain_mut(|sequence| {
            let abandoned = sequence.is_abandoned();
            if abandoned {
                sequence.release(pages);
            }
            !abandoned
        });
        let gone = left_queue + (running - self.running.len()) as u64;
        self.counters.requests_cancelled_total.fetch_add(gone, Ordering::Relaxed);
    }

    /// Gives places to those who wait, first come first served, while there are places and pages.
    fn admit(&mut self) {
        while self.running.len() < self.sequences_max {
            let Some(next) = self.waiting.front() else { return };
            let Some(lease) = self.pages.take(next.reusable_prompt(), next.positions_max()) else { return };
            let Some(next) = self.waiting.pop_front() else { return };
            self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counters.cached_tokens_total.fetch_add(lease.cached_tokens as u64, Ordering::Relaxed);
            let isa = self.forward.compute.isa();
            self.running.push(Sequence::new(next, lease, isa, self.forward.decoder().vocabulary));
        }
    }

    /// One forward pass over the running sequences: a token of each answer, then prompts as far as they fit.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (members, spans) = self.batch();
        let mut logits = self.forward.run(&spans, &mut self.cache);
        let vocabulary =
            logits.len().checked_div(spans.iter().map(|span| span.logits.len()).sum()).unwrap_or(0);
        let counters = &self.counters;
        counters.steps_total.fetch_add(1, Ordering::Relaxed);
        for (index, span) in members.iter().zip(&spans) {
            let (mine, rest) = logits.split_at_mut(span.logits.len() * vocabulary);
            logits = rest;
            let sequence = &mut self.running[*index];
            let tokens = span.tokens.len();
            let (prompt, drafted) = if sequence.is_answering() { (0, tokens - 1) } else { (tokens, 0) };
            let advanced = sequence.advance(span, mine, &self.tokenizer, &self.end_tokens);
            for (counter, count) in [
                (&counters.prompt_tokens_total, prompt),
                (&counters.generated_tokens_total, advanced.generated),
                (&counters.drafted_tokens_total, drafted),
                (&counters.accepted_drafts_total, advanced.right),
            ] {
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        let pages = &mut self.pages;
        self.running.retain_mut(|sequence| {
            sequence.publish(pages);
            if sequence.is_finished() {
                sequence.release(pages);
                counters.requests_finished_total.fetch_add(1, Ordering::Relaxed);
            }
            !sequence.is_finished()
        });
    }

    /// The sequences that take part in the next step, by index into `running`, and their tokens.
    fn batch(&mut self) -> (Vec<usize>, Vec<Span>) {
        let answering = self.running.iter().filter(|sequence| sequence.is_answering()).count();
        let mut rows_left = self.step_tokens_max.saturating_sub(answering);
        // One row of logits is kept for each sequence, so that reports on prompts hold up nobody's answer.
        let mut logits_left = self.logit_rows_max.saturating_sub(self.running.len());
        let (mut members, mut spans) = (Vec::new(), Vec::new());
        for (index, sequence) in self.running.iter_mut().enumerate() {
            if sequence.is_answering() {
                let few = answering <= DRAFTING_SEQUENCES_MAX;
                let drafts = if few { self.draft_tokens_max.min(rows_left).min(logits_left) } else { 0 };
                let span = sequence.answer_span(drafts);
                rows_left -= span.tokens.len() - 1;
                logits_left -= span.tokens.len() - 1;
                members.push(index);
                spans.push(span);
            }
        }
        if answering > 0 {
            rows_left = rows_left.min(PROMPT_TOKENS_BESIDE_ANSWERS);
        }
        for (index, sequence) in self.running.iter().enumerate() {
            if sequence.is_answering() {
                continue;
            }
            let span = sequence.span(rows_left, logits_left + 1);
            rows_left -= span.tokens.len();
            logits_left -= span.logits.len().saturating_sub(1);
            if !span.tokens.is_empty() {
                members.push(index);
                spans.push(span);
            }
        }
        (members, spans)
    }

    fn set_gauges(&self) {
        let set = |gauge: &std::sync::atomic::AtomicU64, value: usize| {
            gauge.store(value as u64, Ordering::Relaxed);
        };
        set(&self.counters.running, self.running.len());
        set(&self.counters.kv_pages_used, self.pages.used());
    }
}

impl Drop for Scheduler {
    /// Whatever ended the thread, nobody waits for ever.
    fn drop(&mut self) {
        self.draining.store(true, Ordering::Release);
        self.inbox.try_iter().for_each(|message| match message {
            Message::Submit(accepted) => self.waiting.push_back(*accepted),
            Message::Drain => {}
        });
        for accepted in self.waiting.drain(..) {
            let _ = accepted.events.send(Event::Failed("the engine stopped".to_owned()));
        }
    }
}
