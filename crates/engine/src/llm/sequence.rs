//! One running request: its tokens so far, its pages, and how its next token is chosen and reported.

use kernels::compute::Isa;
use tokio::sync::mpsc::UnboundedSender;

use super::detokenizer::Detokenizer;
use super::drafts::Drafts;
use super::forward::Span;
use super::pages::{Lease, Pages};
use super::request::{Event, FinishReason, GenerateRequest, Token, TokenLogprob, Usage};
use super::sampling::{self, Sampler};
use super::tokenizer::Tokenizer;

/// Said to a caller instead of an answer made of nothing.
const NOT_FINITE: &str = "the model computed logits that are infinite or no numbers; its weights are damaged, or \
                          overflow for this prompt";

/// A request that was accepted, on its way to the engine's thread.
pub(super) struct Accepted {
    pub request: GenerateRequest,
    /// The request's own limit, cut to what the context leaves.
    pub tokens_max: usize,
    pub events: UnboundedSender<Event>,
}

impl Accepted {
    /// Positions that the request may come to fill.
    pub fn positions_max(&self) -> usize {
        self.request.prompt.len() + self.tokens_max
    }

    /// The beginning of the prompt that may be found in the cache: none where every row's logits are asked for.
    pub fn reusable_prompt(&self) -> &[u32] {
        if reports_prompt(&self.request) { &[] } else { &self.request.prompt }
    }
}

/// What one step brought a sequence.
pub(super) struct Advanced {
    /// Tokens that the answer has more.
    pub generated: usize,
    /// Guesses that were right.
    pub right: usize,
}

pub(super) struct Sequence {
    /// But for its prompt, which is in `tokens`.
    request: GenerateRequest,
    tokens_max: usize,
    events: UnboundedSender<Event>,
    lease: Lease,
    /// The prompt, then what was generated.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// Tokens, from the prompt's first, whose keys and values are in the cache.
    cached: usize,
    sampler: Sampler,
    detokenizer: Detokenizer,
    drafts: Drafts,
    prompt_logprobs: Vec<TokenLogprob>,
    finished: bool,
}

impl Sequence {
    pub fn new(mut accepted: Accepted, lease: Lease, isa: Isa, vocabulary: usize) -> Sequence {
        let stop = std::mem::take(&mut accepted.request.stop);
        let mut tokens = std::mem::take(&mut accepted.request.prompt);
        let prompt_tokens = tokens.len();
        tokens.reserve_exact(accepted.tokens_max);
        let request = accepted.request;
        Sequence {
            sampler: Sampler::new(isa, &request.sampling, vocabulary, &tokens),
            detokenizer: Detokenizer::new(stop),
            drafts: Drafts::new(),
            tokens_max: accepted.tokens_max,
            events: accepted.events,
            tokens,
            prompt_tokens,
            cached: lease.cached_tokens,
            lease,
            prompt_logprobs: Vec::new(),
            finished: false,
            request,
        }
    }

    /// Lets others find the pages that it has filled.
    pub fn publish(&mut self, pages: &mut Pages) {
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

    /// Whether its prompt is done, so that each step yields a token.
    pub fn is_answering(&self) -> bool {
        self.generated() > 0
    }

    /// Tokens that wait to be evaluated: many of a prompt, one of a running answer.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.cached
    }

    /// Tokens of the answer so far.
    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// The next `rows` pending tokens as part of a batch, asking for at most `logit_rows_max` logits.
    /// May be shorter than asked, and empty where no logits can be had.
    pub fn span(&self, rows: usize, logit_rows_max: usize) -> Span {
        let every_row = reports_prompt(&self.request);
        let mut rows = rows.min(self.pending());
        if every_row {
            rows = rows.min(logit_rows_max);
        } else if rows == self.pending() && logit_rows_max == 0 {
            rows -= 1;
        }
        let logits = match (every_row, rows == self.pending()) {
            (true, _) => 0..rows,
            (false, true) => rows - 1..rows,
            (false, false) => 0..0,
        };
        Span {
            tokens: self.tokens[self.cached..][..rows].to_vec(),
            first_position: self.cached,
            pages: self.lease.pages.clone(),
            logits,
        }
    }

    /// The last token of a running answer with at most `draft_tokens_max` guesses at what follows, all with logits.
    pub fn answer_span(&mut self, draft_tokens_max: usize) -> Span {
        let mut span = self.span(1, 1);
        // The last token of an answer needs no guess after it.
        let left = self.tokens_max.saturating_sub(self.generated() + 1);
        span.tokens.extend(self.drafts.guess(&self.tokens, draft_tokens_max.min(left)));
        span.logits = 0..span.tokens.len();
        span
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
        let mut right = 0;
        self.cached += span.tokens.len();
        let vocabulary = logits.len().checked_div(span.logits.len()).unwrap_or(0);
        for (row, logits) in span.logits.clone().zip(logits.chunks_exact_mut(vocabulary.max(1))) {
            let next = span.first_position + row + 1;
            if next < self.prompt_tokens {
                let logprob = self.logprob(logits, self.tokens[next], tokenizer);
                self.prompt_logprobs.extend(logprob);
                continue;
            }
            self.generate(logits, tokenizer, ends);
            let guess = span.tokens.get(row + 1);
            if self.finished || guess != self.tokens.last() {
                // What was guessed beyond is not said: its keys and values are written over.
                self.cached = next;
                if before > 0 {
                    right = row;
                    self.drafts.learn(span.tokens.len() - 1, right);
                }
                break;
            }
        }
        Advanced { generated: self.generated() - before, right }
    }

    fn generate(&mut self, logits: &mut [f32], tokenizer: &Tokenizer, ends: &[u32]) {
        if !self.is_answering() && reports_prompt(&self.request) {
            let id = self.tokens[0];
            let bytes = tokenizer.token_bytes_with_special(id).to_vec();
            let is_control = tokenizer.is_special(id);
            let first = TokenLogprob { id, bytes, is_control, logprob: f32::NAN, top: Vec::new() };
            self.prompt_logprobs.insert(0, first);
            let logprobs = std::mem::take(&mut self.prompt_logprobs);
            self.send(Event::Prompt(logprobs));
        }
        if self.tokens_max == 0 {
            self.finish(FinishReason::Length);
            return;
        }
        if !self.sampler.accepts(logits) {
            self.send(Event::Failed(NOT_FINITE.to_owned()));
            self.finished = true;
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
        if pushed.stopped {
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

    fn finish(&mut self, reason: FinishReason) {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.lease.cached_tokens,
            completion_tokens: self.generated(),
        };
        let text = self.detokenizer.finish();
        self.send(Event::Done { text, reason, usage });
        self.finished = true;
    }

    /// A caller that is gone is noticed by [`Sequence::is_abandoned`] before the next step.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// Whether log-probabilities of the prompt's own tokens are asked for.
fn reports_prompt(request: &GenerateRequest) -> bool {
    request.prompt_logprobs && request.logprobs.is_some()
}
