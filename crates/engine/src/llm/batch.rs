//! What takes part in a step: a token of each running answer, with guesses where these may pay, then prompts as far as
//! they fit.

use super::forward::Span;
use super::sequence::Sequence;

/// How large a step may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepLimits {
    /// Tokens in all.
    pub tokens: usize,
    pub logit_rows: usize,
}

impl StepLimits {
    /// Tokens and rows of logits for guesses and prompts, beside one token of each answer.
    fn left(&self, running: usize, answering: usize) -> (usize, usize) {
        // One row of logits is kept for each sequence, so that reports on prompts hold up nobody's answer.
        (self.tokens.saturating_sub(answering), self.logit_rows.saturating_sub(running))
    }

    /// Tokens that may be guessed in all.
    pub fn guesses(&self, running: usize, answering: usize) -> usize {
        let (tokens, logits) = self.left(running, answering);
        tokens.min(logits)
    }
}

/// One step's rows. It is used again for the next, so that nothing is allocated.
#[derive(Default)]
pub(super) struct Batch {
    /// Of which the first `members.len()` count.
    spans: Vec<Span>,
    /// Whose they are, by index into the running sequences.
    members: Vec<usize>,
    /// Tokens of its prompt that each running sequence has been given, by the same index.
    grants: Vec<usize>,
    /// The accounts among which a step's rows are shared out.
    accounts: Vec<usize>,
    prompt_tokens: usize,
}

impl Batch {
    /// Chooses the rows of the next step: beside the `answering` of the sequences, at most so many tokens of prompts.
    /// `running` stands in order of rank.
    pub fn choose(
        &mut self,
        running: &[Sequence],
        limits: &StepLimits,
        answering: usize,
        prompt_tokens_beside_answers: usize,
    ) {
        self.members.clear();
        let (mut tokens_left, mut logits_left) = limits.left(running.len(), answering);
        for (index, sequence) in running.iter().enumerate().filter(|(_, sequence)| sequence.is_answering()) {
            let span = self.add(index);
            sequence.fill_answer(span);
            let guessed = span.tokens.len() - 1;
            tokens_left -= guessed;
            logits_left -= guessed;
        }
        if answering > 0 {
            tokens_left = tokens_left.min(prompt_tokens_beside_answers);
        }
        self.prompt_tokens = 0;
        self.grant(running, tokens_left);
        for (index, sequence) in running.iter().enumerate() {
            let granted = self.grants[index];
            if granted == 0 {
                continue;
            }
            let span = self.add(index);
            sequence.fill(span, granted, logits_left + 1);
            let (tokens, logits) = (span.tokens.len(), span.logits.len());
            logits_left -= logits.saturating_sub(1);
            self.prompt_tokens += tokens;
        }
    }

    pub fn spans(&self) -> &[Span] {
        &self.spans[..self.members.len()]
    }

    /// Each span with its sequence's index.
    pub fn members(&self) -> impl Iterator<Item = (usize, &Span)> {
        self.members.iter().copied().zip(&self.spans)
    }

    pub fn tokens(&self) -> usize {
        self.spans().iter().map(|span| span.tokens.len()).sum()
    }

    /// Tokens that wait to be evaluated before an answer begins or goes on.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    fn add(&mut self, index: usize) -> &mut Span {
        let at = self.members.len();
        self.members.push(index);
        if at == self.spans.len() {
            self.spans.push(Span { tokens: Vec::new(), first_position: 0, pages: Vec::new(), logits: 0..0 });
        }
        &mut self.spans[at]
    }

    /// Shares `tokens` out among the prompts: the more urgent first, equally among the accounts of the same urgency,
    /// and within an account in order, since a prompt that is done sooner delays no other's end.
    fn grant(&mut self, running: &[Sequence], mut tokens: usize) {
        self.grants.clear();
        self.grants.resize(running.len(), 0);
        while tokens > 0 {
            // The most urgent of those who can use more.
            let first = (0..running.len()).find(|index| self.wants(running, *index) > 0);
            let Some(priority) = first.map(|index| running[index].rank.0) else { return };
            self.accounts.clear();
            for (index, sequence) in running.iter().enumerate() {
                let same = sequence.rank.0 == priority && !self.accounts.contains(&sequence.account);
                if same && self.wants(running, index) > 0 {
                    self.accounts.push(sequence.account);
                }
            }
            // Each round ends with no tokens left, or with an account that wants no more.
            let share = (tokens / self.accounts.len()).max(1);
            for turn in 0..self.accounts.len() {
                let mut left = share.min(tokens);
                tokens -= left;
                for (index, sequence) in running.iter().enumerate() {
                    if sequence.rank.0 == priority && sequence.account == self.accounts[turn] {
                        let more = self.wants(running, index).min(left);
                        self.grants[index] += more;
                        left -= more;
                    }
                }
                tokens += left;
            }
        }
    }

    /// How many more tokens of its prompt a sequence could be given. None where another is about to evaluate the same
    /// ones: they are taken over from there before the next step.
    fn wants(&self, running: &[Sequence], index: usize) -> usize {
        let sequence = &running[index];
        if sequence.is_answering() {
            return 0;
        }
        let granted = self.grants[index];
        let is_done_for =
            |other: usize| other != index && self.grants[other] > 0 && sequence.can_follow(&running[other]);
        if granted == 0 && (0..running.len()).any(is_done_for) {
            return 0;
        }
        sequence.pending() - granted
    }
}
