//! One running request: its tokens so far, its pages, and how its next token is chosen and reported.

use std::time::Instant;

use kernels::compute::Isa;

use super::detokenizer::Detokenizer;
use super::drafts::Drafts;
use super::events::Events;
use super::forward::Span;
use super::pages::{Lease, Pages};
use super::queue::AccountId;
use super::request::{Event, Failure, FinishReason, GenerateRequest, Terms, Token, TokenLogprob, Usage};
use super::sampling::{self, Sampler};
use super::tokenizer::Tokenizer;

/// A request that was accepted, on its way to the engine's thread.
pub(super) struct Accepted {
    pub request: GenerateRequest,
    pub terms: Terms,
    /// The request's own limit, cut to what the context leaves.
    pub tokens_max: usize,
    pub events: Events,
    pub submitted: Instant,
    /// Whether it counts against the queue's limit.
    pub queued: bool,
}

impl Accepted {
    /// The beginning of the prompt that may be found in the cache: none where every row's logits are asked for.
    pub fn reusable_prompt(&self) -> &[u32] {
        if reports_prompt(&self.request) { &[] } else { &self.request.prompt }
    }

    /// Whether it waits in vain by `now`.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.terms.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Ends it without an answer.
    pub fn fail(self, failure: Failure) {
        self.events.send(Event::Failed(failure));
    }
}

/// What one step brought a sequence, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Advanced {
    /// Of the prompt, evaluated for the first time.
    pub prompt: usize,
    /// Evaluated again after the sequence had given up its pages.
    pub recomputed: usize,
    /// That the answer has more.
    pub generated: usize,
    /// Guessed ahead, and those of them that were right.
    pub drafted: usize,
    pub right: usize,
    /// Whether the draft model guessed them.
    pub by_model: bool,
}

/// Where a sequence stands in line: the more urgent first, then who had a place first. It keeps that when it is pushed
/// out, so whoever is first in line ends some day.
pub(super) type Rank = (i32, u64);

pub(super) struct Sequence {
    /// But for its prompt, which is in `tokens`.
    request: GenerateRequest,
    terms: Terms,
    pub account: AccountId,
    pub rank: Rank,
    tokens_max: usize,
    events: Events,
    lease: Lease,
    /// The prompt, then what was generated.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// Tokens, from the prompt's first, whose keys and values are in the cache.
    cached: usize,
    /// The most that `cached` has been.
    reached: usize,
    /// Tokens of the prompt that others had evaluated.
    found: usize,
    sampler: Sampler,
    detokenizer: Detokenizer,
    /// How good guesses are that it makes itself.
    pub drafts: Drafts,
    /// Guesses at what comes after `tokens`, for the next step, and who made them.
    guesses: Vec<u32>,
    guessed_by_model: bool,
    /// Where log-probabilities of the prompt are still to be told, those known by now.
    prompt_logprobs: Option<Vec<TokenLogprob>>,
    finished: bool,
}

impl Sequence {
    /// One that got its place as the `turn`th.
    pub fn new(
        mut accepted: Accepted,
        account: AccountId,
        turn: u64,
        lease: Lease,
        isa: Isa,
        vocabulary: usize,
    ) -> Sequence {
        let prompt_logprobs = reports_prompt(&accepted.request).then(Vec::new);
        let stop = std::mem::take(&mut accepted.request.stop);
        let mut tokens = std::mem::take(&mut accepted.request.prompt);
        let prompt_tokens = tokens.len();
        tokens.reserve_exact(accepted.tokens_max);
        let request = accepted.request;
        Sequence {
            sampler: Sampler::new(isa, &request.sampling, vocabulary, &tokens),
            detokenizer: Detokenizer::new(stop),
            drafts: Drafts::new(),
            guesses: Vec::new(),
            guessed_by_model: false,
            tokens_max: accepted.tokens_max,
            events: accepted.events,
            rank: (accepted.terms.priority, turn),
            terms: accepted.terms,
            account,
            tokens,
            prompt_tokens,
            cached: lease.cached_tokens,
            reached: lease.cached_tokens,
            found: lease.cached_tokens,
            lease,
            prompt_logprobs,
            finished: false,
            request,
        }
    }

    /// Gives its pages up, to be evaluated again later: all else stays, so the answer goes on as if nothing had been.
    pub fn preempt(&mut self, pages: &mut Pages) {
        self.release(pages);
        self.cached = 0;
        self.prompt_logprobs.iter_mut().for_each(Vec::clear);
    }

    /// Goes on with new pages.
    pub fn resume(&mut self, lease: Lease) {
        self.cached = lease.cached_tokens;
        self.reached = self.reached.max(self.cached);
        self.lease = lease;
    }

    /// What of its tokens may be found in the cache: none where every row's logits are still to be told.
    pub fn reusable(&self) -> &[u32] {
        if self.prompt_logprobs.is_some() { &[] } else { &self.tokens }
    }

    /// Tokens so far, of prompt and answer.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Makes room for the next `rows` tokens. False where there is none.
    pub fn grow(&mut self, rows: usize, pages: &mut Pages) -> bool {
        pages.grow(&mut self.lease, self.cached + rows)
    }

    /// Takes what others have evaluated of its prompt since it got its place. Returns how many tokens that was.
    pub fn adopt(&mut self, pages: &mut Pages) -> usize {
        if self.prompt_logprobs.is_some() {
            return 0;
        }
        let adopted = pages.adopt(&mut self.lease, &self.tokens);
        let first_time = adopted.min(self.prompt_tokens).saturating_sub(self.reached);
        self.cached = self.cached.max(adopted);
        self.reached = self.reached.max(adopted);
        self.found += first_time;
        first_time
    }

    /// Whether it may wait for what `other` is about to evaluate.
    pub fn can_follow(&self, other: &Sequence) -> bool {
        // The last token it evaluates itself.
        let tokens = &self.tokens[..self.tokens.len() - 1];
        self.prompt_logprobs.is_none() && self.lease.fills_the_same(tokens, &other.lease, &other.tokens)
    }

    /// Lets others find the pages that it has filled.
    pub fn publish(&mut self, pages: &mut Pages) {
        pages.cut_draft(&self.lease, self.cached);
        let tokens = &self.tokens;
        pages.publish(&mut self.lease, |range| tokens[range].into(), self.cached);
    }

    /// Ends its use of its pages.
    pub fn release(&mut self, pages: &mut Pages) {
        pages.give_back(std::mem::take(&mut self.lease));
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether its caller has gone away.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether its deadline has passed by `now`.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.terms.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether all but its last token is evaluated, so that each step yields a token.
    pub fn is_answering(&self) -> bool {
        self.generated() > 0 && self.pending() == 1
    }

    /// Tokens that wait to be evaluated: many of a prompt, one of a running answer.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.cached
    }

    /// Tokens of the answer so far.
    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Makes `span` the next `rows` pending tokens, or fewer, asking for at most `logit_rows_max` logits, of which there
    /// is one at least.
    pub fn fill(&self, span: &mut Span, rows: usize, logit_rows_max: usize) {
        let every_row = self.prompt_logprobs.is_some();
        let mut rows = rows.min(self.pending());
        if every_row {
            rows = rows.min(logit_rows_max);
        }
        span.logits = match (every_row, rows == self.pending()) {
            (true, _) => 0..rows,
            (false, true) => rows - 1..rows,
            (false, false) => 0..0,
        };
        span.first_position = self.cached;
        span.tokens.clear();
        span.tokens.extend_from_slice(&self.tokens[self.cached..][..rows]);
        span.pages.clear();
        span.pages.extend_from_slice(&self.lease.pages);
    }

    /// Makes `span` the last token of a running answer with the guesses at what follows, all with logits.
    pub fn fill_answer(&self, span: &mut Span) {
        self.fill(span, 1, 1);
        span.tokens.extend_from_slice(&self.guesses);
        span.logits = 0..span.tokens.len();
    }

    /// The prompt, and the answer so far.
    pub fn said(&self) -> &[u32] {
        &self.tokens
    }

    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Tokens that its answer may have yet, and is expected to: as many as it has, and no fewer than `least`.
    pub fn expected_tokens(&self, least: usize) -> usize {
        self.generated().max(least).min(self.tokens_max - self.generated())
    }

    /// How many tokens can be guessed, of at most `most`. Guesses get the pages that they need where nobody has to give
    /// any up for them.
    pub fn make_room_for_guesses(&mut self, most: usize, pages: &mut Pages) -> usize {
        // The last token of an answer needs no guess after it.
        let most = most.min(self.tokens_max.saturating_sub(self.generated() + 1));
        if self.grow(1 + most, pages) { most } else { most.min(self.lease.positions() - self.cached - 1) }
    }

    pub fn guesses(&self) -> &[u32] {
        &self.guesses
    }

    pub fn add_guess(&mut self, token: u32) {
        self.guesses.push(token);
    }

    /// What is guessed for the next step is the draft model's.
    pub fn set_guessed_by_model(&mut self) {
        self.guessed_by_model = true;
    }

    /// Takes the logits of a span, `[span.logits, v]`: reports prompt tokens, or chooses the next token.
    /// Of guesses, it goes on to the first that is not what it chooses itself.
    pub fn advance(
        &mut self,
        span: &Span,
        logits: &mut [f32],
        tokenizer: &Tokenizer,
        ends: &[u32],
    ) -> Advanced {
        let before = self.generated();
        let drafted = span.tokens.len().saturating_sub(self.pending());
        let known = span.tokens.len() - drafted;
        let recomputed = self.reached.saturating_sub(self.cached).min(known);
        let prompt = self.prompt_tokens.saturating_sub(self.cached).min(known).saturating_sub(recomputed);
        let by_model = std::mem::take(&mut self.guessed_by_model);
        let mut advanced = Advanced { prompt, recomputed, drafted, by_model, ..Advanced::default() };
        self.cached += span.tokens.len();
        let vocabulary = logits.len().checked_div(span.logits.len()).unwrap_or(0);
        for (row, logits) in span.logits.clone().zip(logits.chunks_exact_mut(vocabulary.max(1))) {
            let next = span.first_position + row + 1;
            if !self.sampler.accepts(logits) {
                self.send(Event::Failed(Failure::NotFinite));
                self.finished = true;
                // Guesses after this row were never said.
                self.cached = next;
                break;
            }
            if next < self.prompt_tokens {
                let logprob = self.logprob(logits, self.tokens[next], tokenizer);
                if let Some(known) = &mut self.prompt_logprobs {
                    known.extend(logprob);
                }
                continue;
            }
            self.generate(logits, tokenizer, ends);
            let guess = span.tokens.get(row + 1);
            if self.finished || guess != self.tokens.last() {
                // What was guessed beyond is not said: its keys and values are written over.
                self.cached = next;
                advanced.right = (row + 1).saturating_sub(known);
                break;
            }
        }
        self.guesses.clear();
        if drafted > 0 && !by_model {
            self.drafts.learn(drafted, advanced.right);
        }
        self.reached = self.reached.max(self.cached);
        advanced.generated = self.generated() - before;
        advanced
    }

    fn generate(&mut self, logits: &mut [f32], tokenizer: &Tokenizer, ends: &[u32]) {
        if let Some(mut logprobs) = self.prompt_logprobs.take() {
            let id = self.tokens[0];
            let bytes = tokenizer.token_bytes_with_special(id).to_vec();
            let is_control = tokenizer.is_special(id);
            let first = TokenLogprob { id, bytes, is_control, logprob: f32::NAN, top: Vec::new() };
            logprobs.insert(0, first);
            self.send(Event::Prompt(logprobs));
            if self.finished {
                return;
            }
        }
        if self.tokens_max == 0 {
            self.finish(FinishReason::Length);
            return;
        }
        let unbiased = self.request.logprobs.map(|_| logits.to_vec());
        let id = self.sampler.sample(logits);
        if ends.contains(&id) && !self.request.ignore_end {
            self.finish(FinishReason::Stop);
            return;
        }
        self.tokens.push(id);
        let logprob = unbiased.and_then(|logits| self.logprob(&logits, id, tokenizer));
        let pushed = self.detokenizer.push(tokenizer.token_bytes(id));
        self.send(Event::Token(Token { id, text: pushed.text, logprob }));
        if self.finished {
            // Its caller was told.
        } else if pushed.stopped {
            self.finish(FinishReason::Stop);
        } else if self.generated() >= self.tokens_max {
            self.finish(FinishReason::Length);
        }
    }

    fn logprob(&self, logits: &[f32], id: u32, tokenizer: &Tokenizer) -> Option<TokenLogprob> {
        let bytes = |id| tokenizer.token_bytes_with_special(id).to_vec();
        let (logprob, top) = sampling::logprobs(logits, id, self.request.logprobs?);
        let top = top.into_iter().map(|(id, logprob)| (id, bytes(id), logprob)).collect();
        Some(TokenLogprob { id, bytes: bytes(id), is_control: tokenizer.is_special(id), logprob, top })
    }

    /// Ends the answer with what there is of it.
    pub fn finish(&mut self, reason: FinishReason) {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.found,
            completion_tokens: self.generated(),
        };
        let text = self.detokenizer.finish();
        self.send(Event::Done { text, reason, usage });
        self.finished = true;
    }

    /// Ends the answer where its caller is too far behind.
    fn send(&mut self, event: Event) {
        self.finished |= !self.events.send(event);
    }
}

/// Whether log-probabilities of the prompt's own tokens are asked for.
fn reports_prompt(request: &GenerateRequest) -> bool {
    request.prompt_logprobs && request.logprobs.is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a fixture that isn't there fails the test

    use std::path::Path;
    use std::sync::Arc;

    use formats::model::ModelFiles;
    use kernels::attention::PAGE_TOKENS;

    use super::super::events::answer;
    use super::super::request::Sampling;
    use super::*;

    #[test]
    fn guesses_behind_logits_that_are_no_numbers_are_not_published() {
        const VOCABULARY: usize = 64;
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders/llama");
        let tokenizer = Tokenizer::new(ModelFiles::open(&fixture).unwrap().tokenizer()).unwrap();
        let prompt: Vec<u32> = (5..5 + PAGE_TOKENS as u32 - 2).collect();
        let request = GenerateRequest {
            prompt: prompt.clone(),
            tokens_max: 20,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
            ignore_end: true,
        };
        let (events, _generation) = answer(&Arc::default());
        let (terms, submitted) = (Terms::default(), Instant::now());
        let accepted = Accepted { request, terms, tokens_max: 20, events, submitted, queued: true };
        let mut pages = Pages::new(4);
        let lease = pages.take(&prompt, prompt.len(), 0).unwrap();
        let mut sequence = Sequence::new(accepted, 0, 1, lease, Isa::Portable, VOCABULARY);
        let mut span = Span { tokens: Vec::new(), first_position: 0, pages: Vec::new(), logits: 0..0 };
        sequence.fill(&mut span, prompt.len(), 1);
        let mut logits = vec![0.0; VOCABULARY];
        logits[7] = 1.0;
        sequence.advance(&span, &mut logits, &tokenizer, &[]);
        assert_eq!((sequence.said().len(), sequence.is_finished()), (prompt.len() + 1, false));

        // Guesses beyond the page's end; the first row's logits say nothing.
        assert_eq!(sequence.make_room_for_guesses(4, &mut pages), 4);
        (1..5).for_each(|guess| sequence.add_guess(guess));
        sequence.fill_answer(&mut span);
        let advanced = sequence.advance(&span, &mut [f32::NAN; 5 * VOCABULARY], &tokenizer, &[]);
        assert_eq!((advanced.generated, advanced.right, sequence.is_finished()), (0, 0, true));
        sequence.publish(&mut pages);
        sequence.release(&mut pages);
        let guessed = [&prompt[..], &[7, 1, 2, 3, 4]].concat();
        assert_eq!(pages.take(&guessed, guessed.len(), 0).unwrap().cached_tokens, 0);
    }
}
