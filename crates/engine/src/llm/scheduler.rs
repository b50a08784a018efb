//! The engine's thread: admit, forward, sample, emit, step after step.
//!
//! A request has a place once the pages for its prompt are there; its answer takes more as it grows. Where none are left,
//! the last in rank gives up its place and pages, and is evaluated again later. From then on nobody as little urgent gets
//! a place before a running one has ended, so that places don't go to and fro; and the first in rank is never pushed out,
//! so that some answer always ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use kernels::attention::KvCache;

use super::batch::{Batch, StepLimits};
use super::forward::{Forward, Span};
use super::guessing::Guessing;
use super::pace::Pace;
use super::pages::Pages;
use super::queue::{GENERATED_TOKEN_WEIGHT, PROMPT_TOKEN_WEIGHT, Queue};
use super::request::{Failure, FinishReason};
use super::sequence::{Accepted, Advanced, Sequence};
use super::stats::Counters;
use super::tokenizer::Tokenizer;

pub(super) struct Scheduler {
    pub forward: Forward,
    pub vocabulary: usize,
    pub cache: KvCache,
    pub pages: Pages,
    pub tokenizer: Arc<Tokenizer>,
    pub end_tokens: Vec<u32>,
    pub sequences_max: usize,
    pub limits: StepLimits,
    pub pace: Pace,
    pub guessing: Guessing,
    pub inbox: Receiver<Box<Accepted>>,
    pub counters: Arc<Counters>,
    pub lines: Lines,
}

/// Who waits, who runs and who was pushed out.
#[derive(Default)]
pub(super) struct Lines {
    waiting: Queue<Box<Accepted>>,
    /// In order of rank.
    running: Vec<Sequence>,
    /// Those that gave up their places, in order of rank.
    preempted: Vec<Sequence>,
    /// Places given so far.
    turns: u64,
    /// Of this priority and beyond, nobody gets a place until a running sequence has ended.
    closed_from: Option<i32>,
    batch: Batch,
}

impl Scheduler {
    /// Serves until nobody can submit any more.
    pub fn run(mut self) {
        while self.receive() {
            let now = Instant::now();
            self.end_abandoned();
            self.end_overdue(now);
            while self.admit(now) {}
            // Before the step, which may be long: whoever submits counts the free places.
            self.set_gauges();
            self.step();
            self.set_gauges();
        }
    }

    /// Takes what has come in; waits where there is nothing else to do. False when the work is over.
    fn receive(&mut self) -> bool {
        let mut idled = false;
        loop {
            let idle = self.lines.is_empty();
            let accepted = match self.inbox.try_recv() {
                Err(TryRecvError::Empty) if !idle => return true,
                Err(TryRecvError::Empty) => {
                    idled = true;
                    self.inbox.recv().ok()
                }
                Err(TryRecvError::Disconnected) => None,
                Ok(accepted) => Some(accepted),
            };
            let Some(accepted) = accepted else { return !idle };
            if std::mem::take(&mut idled) {
                self.counters.departures.resume(Instant::now());
            }
            let (owner, priority) = (accepted.terms.owner.clone(), accepted.terms.priority);
            self.lines.waiting.push(&owner, priority, accepted);
        }
    }

    /// Frees the places of callers that went away.
    fn end_abandoned(&mut self) {
        let waited = self.lines.waiting.take_out(|accepted| accepted.events.is_closed());
        waited.iter().for_each(|accepted| self.leave_queue(accepted));
        let had_places = self.end_where(|sequence| sequence.is_abandoned());
        let ended = (waited.len() + had_places) as u64;
        self.counters.requests_cancelled_total.fetch_add(ended, Ordering::Relaxed);
    }

    /// Ends what has reached its deadline: who has a place keeps what was said by then.
    fn end_overdue(&mut self, now: Instant) {
        let waited = self.lines.waiting.take_out(|accepted| accepted.is_overdue(now));
        self.counters.requests_timed_out_total.fetch_add(waited.len() as u64, Ordering::Relaxed);
        for accepted in waited {
            self.leave_queue(&accepted);
            let waited = now.saturating_duration_since(accepted.submitted);
            accepted.fail(Failure::Deadline { waited });
        }
        let ended = self.end_where(|sequence| {
            let overdue = sequence.is_overdue(now);
            if overdue {
                sequence.finish(FinishReason::Deadline);
            }
            overdue
        });
        self.counters.requests_timed_out_total.fetch_add(ended as u64, Ordering::Relaxed);
    }

    /// It waits no longer.
    fn leave_queue(&self, accepted: &Accepted) {
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        self.counters.queued.fetch_sub(u64::from(accepted.queued), Ordering::Relaxed);
    }

    /// Ends the sequences, running or pushed out, of which `is_over` says so. Returns how many.
    fn end_where(&mut self, mut is_over: impl FnMut(&mut Sequence) -> bool) -> usize {
        let Lines { waiting, running, preempted, closed_from, .. } = &mut self.lines;
        let (ran, were_out) = (running.len(), preempted.len());
        let pages = &mut self.pages;
        let mut stays = |sequence: &mut Sequence| {
            let over = is_over(sequence);
            if over {
                sequence.release(pages);
                waiting.end(sequence.account);
            }
            !over
        };
        running.retain_mut(&mut stays);
        preempted.retain_mut(&mut stays);
        if running.len() < ran {
            *closed_from = None;
            self.counters.departures.ended(ran - running.len(), Instant::now());
        }
        let were_out = were_out - preempted.len();
        self.counters.waiting.fetch_sub(were_out as u64, Ordering::Relaxed);
        ran - running.len() + were_out
    }

    /// Gives a place to the next in line: first to who had one, then as the queue says. True as long as there is more to
    /// try.
    fn admit(&mut self, now: Instant) -> bool {
        let lines = &mut self.lines;
        let returning = lines.preempted.first().map(|sequence| sequence.rank.0);
        let new = lines.waiting.peek();
        let Some(priority) = returning.into_iter().chain(new.map(|(priority, _)| priority)).min() else {
            return false;
        };
        if lines.closed_from.is_some_and(|closed| priority >= closed) && !lines.running.is_empty() {
            return false;
        }
        let (reusable, tokens) = match (lines.preempted.first(), new) {
            (Some(sequence), _) if returning == Some(priority) => (sequence.reusable(), sequence.tokens()),
            (_, Some((_, accepted))) => (accepted.reusable_prompt(), accepted.request.prompt.len()),
            _ => return false,
        };
        // A page is left for each answer that runs, so that the next step does not push out who comes in.
        let spare = lines.running.len();
        let lease = if spare < self.sequences_max { self.pages.take(reusable, tokens, spare) } else { None };
        let Some(lease) = lease else { return self.make_way(priority) };
        if returning == Some(priority) {
            self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            let mut sequence = lines.preempted.remove(0);
            sequence.resume(lease);
            lines.run(sequence);
        } else if let Some((account, accepted)) = lines.waiting.pop() {
            let (looked_up, found) = (accepted.reusable_prompt().len(), lease.cached_tokens);
            let prompt = accepted.request.prompt.len() - found;
            lines.waiting.charge(account, prompt as u64 * PROMPT_TOKEN_WEIGHT);
            self.counters.prefix_cache_queries_total.fetch_add(looked_up as u64, Ordering::Relaxed);
            self.counters.cached_tokens_total.fetch_add(found as u64, Ordering::Relaxed);
            self.counters.queue_time.observe(now.saturating_duration_since(accepted.submitted));
            lines.turns += 1;
            let (isa, vocabulary) = (self.forward.compute.isa(), self.vocabulary);
            let queued = u64::from(accepted.queued);
            self.counters.queued.fetch_sub(queued, Ordering::Relaxed);
            self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            lines.run(Sequence::new(*accepted, account, lines.turns, lease, isa, vocabulary));
        }
        true
    }

    /// Pushes out the last in rank where it is less urgent than `priority`. False where nobody is.
    fn make_way(&mut self, priority: i32) -> bool {
        let less_urgent = self.lines.running.last().is_some_and(|last| last.rank.0 > priority);
        if less_urgent {
            self.preempt_last();
        }
        less_urgent
    }

    /// The last in rank gives up its place and its pages, and waits.
    fn preempt_last(&mut self) {
        let Some(mut sequence) = self.lines.running.pop() else { return };
        sequence.preempt(&mut self.pages);
        let closed = self.lines.closed_from.unwrap_or(i32::MAX).min(sequence.rank.0);
        self.lines.closed_from = Some(closed);
        insert(&mut self.lines.preempted, sequence);
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        self.counters.preemptions_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Sees to it that every running answer has a page for its next token; who is last in rank gives way to the others.
    fn make_room(&mut self) {
        let mut index = 0;
        while let Some(sequence) = self.lines.running.get_mut(index) {
            if !sequence.is_answering() || sequence.grow(1, &mut self.pages) {
                index += 1;
            } else {
                // The plan has room for one whole context at least.
                assert!(self.lines.running.len() > 1, "one sequence alone finds too few pages");
                self.preempt_last();
            }
        }
    }

    /// One forward pass over the running sequences: a token of each answer, then prompts as far as they fit.
    fn step(&mut self) {
        self.make_room();
        let Lines { running, batch, waiting, closed_from, .. } = &mut self.lines;
        if running.is_empty() {
            return;
        }
        let answering = running.iter().filter(|sequence| sequence.is_answering()).count();
        for sequence in running.iter_mut().filter(|sequence| !sequence.is_answering()) {
            let adopted = sequence.adopt(&mut self.pages) as u64;
            waiting.refund(sequence.account, adopted * PROMPT_TOKEN_WEIGHT);
            self.counters.cached_tokens_total.fetch_add(adopted, Ordering::Relaxed);
        }
        let prompt_tokens_beside_answers = self.pace.prompt_tokens(answering);
        let guesses_max = self.limits.guesses(running.len(), answering);
        self.guessing.guess(running, &mut self.pages, answering, guesses_max);
        batch.choose(running, &self.limits, answering, prompt_tokens_beside_answers);
        let evaluated_from = Instant::now();
        self.counters.steps_total.fetch_add(1, Ordering::Relaxed);
        let (compute, mut logits) = self.forward.run(batch.spans(), &mut self.cache);
        let vocabulary = self.vocabulary;
        let mut free: Vec<Option<&mut Sequence>> = running.iter_mut().map(Some).collect();
        let mut turns = Vec::with_capacity(free.len());
        for (index, span) in batch.members() {
            let (mine, rest) = logits.split_at_mut(span.logits.len() * vocabulary);
            logits = rest;
            turns.extend(free[index].take().map(|sequence| Turn {
                sequence,
                span,
                logits: mine,
                advanced: None,
            }));
        }
        compute.pool().for_each_row(&mut turns, 1, |_, turn| {
            let Turn { sequence, span, logits, advanced } = &mut turn[0];
            *advanced = Some(sequence.advance(span, logits, &self.tokenizer, &self.end_tokens));
        });
        for Turn { sequence, advanced, .. } in turns {
            let Some(advanced) = advanced else { continue };
            waiting.charge(sequence.account, advanced.generated as u64 * GENERATED_TOKEN_WEIGHT);
            self.guessing.learn(&advanced);
            count(&self.counters, &advanced);
        }
        let (now, ran, pages) = (Instant::now(), running.len(), &mut self.pages);
        if batch.prompt_tokens() > 0 {
            self.pace.learn(batch.tokens(), now - evaluated_from);
        } else {
            let guessed = batch.tokens() - answering;
            self.guessing.learn_step(answering, guessed, now - evaluated_from);
        }
        running.retain_mut(|sequence| {
            sequence.publish(pages);
            if sequence.is_finished() {
                sequence.release(pages);
                waiting.end(sequence.account);
            }
            !sequence.is_finished()
        });
        let ended = ran - running.len();
        if ended > 0 {
            *closed_from = None;
            self.counters.requests_finished_total.fetch_add(ended as u64, Ordering::Relaxed);
            self.counters.departures.ended(ended, now);
        }
    }

    fn set_gauges(&self) {
        let set = |gauge: &AtomicU64, value: u64| gauge.store(value, Ordering::Relaxed);
        set(&self.counters.running, self.lines.running.len() as u64);
        set(&self.counters.kv_pages_used, self.pages.used() as u64);
        set(&self.counters.kv_pages_evicted_total, self.pages.evicted());
    }
}

/// What one sequence makes of a step; sequences do so side by side.
struct Turn<'a> {
    sequence: &'a mut Sequence,
    span: &'a Span,
    logits: &'a mut [f32],
    advanced: Option<Advanced>,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.preempted.is_empty() && self.waiting.len() == 0
    }

    fn run(&mut self, sequence: Sequence) {
        insert(&mut self.running, sequence);
    }
}

/// Where its rank puts it.
fn insert(line: &mut Vec<Sequence>, sequence: Sequence) {
    let at = line.partition_point(|other| other.rank < sequence.rank);
    line.insert(at, sequence);
}

fn count(counters: &Counters, advanced: &Advanced) {
    for (counter, count) in [
        (&counters.prompt_tokens_total, advanced.prompt),
        (&counters.recomputed_tokens_total, advanced.recomputed),
        (&counters.generated_tokens_total, advanced.generated),
        (&counters.drafted_tokens_total, advanced.drafted),
        (&counters.accepted_drafts_total, advanced.right),
        (&counters.model_drafted_tokens_total, if advanced.by_model { advanced.drafted } else { 0 }),
        (&counters.model_accepted_drafts_total, if advanced.by_model { advanced.right } else { 0 }),
    ] {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Drop for Scheduler {
    /// Whatever ended the thread, nobody waits for ever.
    fn drop(&mut self) {
        let waiting = self.lines.waiting.take_out(|_| true);
        for accepted in self.inbox.try_iter().chain(waiting) {
            self.leave_queue(&accepted);
            accepted.fail(Failure::Stopped);
        }
    }
}
