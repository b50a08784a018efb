//! A smaller model of the same tokeniser, which guesses what the served one will say.
//!
//! Its keys and values lie in pages of the same numbers as the served model's, so that they come and go with those: they
//! are shared where beginnings are, and given up where a sequence is pushed out. `Pages` knows how far each is filled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use formats::model::{Decoder, ModelFiles};
use kernels::attention::{KvCache, KvLayout};
use kernels::compute::Compute;

use super::draft_worth::{Turn, Worth};
use super::drafts::Costs;
use super::fingerprint::hash;
use super::forward::{Forward, Span, StepSizes};
use super::handle::{LoadError, ModelFacts};
use super::packed;
use super::pages::Pages;
use super::sequence::Sequence;
use super::settings::Settings;
use super::tokenizer::Tokenizer;
use super::weights::DecoderWeights;

/// Answers that it guesses for at once.
pub(super) const SEQUENCES_MAX: usize = 2;
/// Rows of its steps: more are taken in turns.
pub(super) const ROWS_MAX: usize = 256;
/// Tokens that an answer is expected to have yet, at least; else as many as it has.
const EXPECTED_TOKENS_MIN: usize = 64;

/// Tokens that the one model's vocabulary may have beyond the other's: files round it up in different ways.
const PADDING_TOKENS_MAX: usize = 512;

/// A draft model's files.
pub(super) struct DraftFiles {
    pub files: ModelFiles,
}

impl DraftFiles {
    /// Those that `settings` name, if any; where nothing is guessed, none is needed.
    pub fn open(settings: &Settings) -> Result<Option<DraftFiles>, LoadError> {
        let path = settings.draft_model.as_deref().filter(|_| settings.draft_tokens_max > 0);
        let files = path.map(ModelFiles::open).transpose();
        let files = files.map_err(|error| LoadError::Draft(Box::new(error.into())))?;
        Ok(files.map(|files| DraftFiles { files }))
    }

    /// What memory is planned by: its description and the bytes of its files.
    pub fn size(&self) -> (&Decoder, u64) {
        (self.files.decoder(), self.files.facts().file_bytes)
    }

    /// Loads it, to guess only the `vocabulary` tokens that both have, and says so in the served model's `facts`.
    pub fn load(
        self,
        compute: Arc<Compute>,
        vocabulary: usize,
        (layout, sizes): (KvLayout, StepSizes),
        settings: &Settings,
        progress: &mut dyn FnMut(usize, usize),
        facts: &mut ModelFacts,
    ) -> Result<DraftModel, LoadError> {
        let files = &self.files;
        let folder = settings
            .packed
            .as_ref()
            .map(|folder| (folder, hash(&compute, files.bytes(), &mut || files.forget())));
        let weights = packed::load(&compute, files, folder, progress, &mut facts.packed_troubles);
        let weights = weights.map_err(|error| LoadError::Draft(Box::new(error.into())))?;
        let forward = Forward::new(compute, files, weights, sizes);
        facts.draft = Some(files.facts().name.clone());
        Ok(DraftModel {
            forward,
            cache: KvCache::new(layout).map_err(LoadError::Cache)?,
            context: sizes.context_tokens,
            vocabulary,
            worth: Worth::new(settings.step_beside_answers_max),
            spans: Vec::new(),
        })
    }
}

/// How many tokens both have; each must mean the same in both, by its bytes.
pub(super) fn common_tokens(served: &Tokenizer, draft: &Tokenizer) -> Result<usize, LoadError> {
    let vocabularies = (served.vocabulary(), draft.vocabulary());
    let common = vocabularies.0.min(vocabularies.1);
    let differs = |id: &u32| served.token_bytes_with_special(*id) != draft.token_bytes_with_special(*id);
    if let Some(id) = (0..common as u32).find(differs) {
        let (served, draft) = (served.token_text(id), draft.token_text(id));
        return Err(LoadError::DraftToken { id, served, draft });
    }
    if vocabularies.0.abs_diff(vocabularies.1) > PADDING_TOKENS_MAX {
        return Err(LoadError::DraftVocabulary { served: vocabularies.0, draft: vocabularies.1 });
    }
    Ok(common)
}

pub(super) struct DraftModel {
    forward: Forward,
    cache: KvCache,
    /// Positions that it can take.
    context: usize,
    /// Tokens that it and the served model have in common, from 0 on.
    vocabulary: usize,
    pub worth: Worth,
    spans: Vec<Span>,
}

impl DraftModel {
    pub fn weights(&self) -> &DecoderWeights {
        self.forward.weights()
    }

    /// What is worth while for an answer, of which at most `most` tokens may be guessed.
    pub fn choose(&mut self, sequence: &Sequence, pages: &Pages, costs: &Costs, most: usize) -> Turn {
        let said = sequence.said();
        let most = most.min(self.context.saturating_sub(said.len()));
        let missing = &said[pages.drafted(sequence.lease()).min(said.len() - 1)..];
        if missing.iter().any(|token| *token as usize >= self.vocabulary) {
            return Turn::Nothing;
        }
        self.worth.turn(costs, most, missing.len(), sequence.expected_tokens(EXPECTED_TOKENS_MIN))
    }

    /// Evaluates some of what it is behind, as much as answers that run can wait for.
    pub fn catch_up(&mut self, sequence: &Sequence, pages: &mut Pages) {
        let started = Instant::now();
        let (said, first) = (sequence.said(), pages.drafted(sequence.lease()));
        // The last token is evaluated for what comes after it.
        let rows = (said.len() - 1 - first).min(ROWS_MAX).min(self.worth.catch_up_tokens());
        let span = span(&mut self.spans, 0);
        set(span, &said[first..first + rows], first, &sequence.lease().pages, false);
        self.forward.run(&self.spans[..1], &mut self.cache);
        pages.fill_draft(sequence.lease(), first + rows);
        self.worth.learn_behind(rows, started.elapsed());
    }

    /// Guesses as many tokens as each of `asked` says, from the likeliest to the likeliest.
    pub fn guess(&mut self, asked: &mut [(&mut Sequence, usize)], pages: &mut Pages) {
        let started = Instant::now();
        let mut last = Duration::ZERO;
        let longest = asked.iter().map(|(_, length)| *length).max().unwrap_or(0);
        for pass in 0..longest {
            let pass_started = Instant::now();
            let (mut spans, mut rows) = (0, 0);
            for (sequence, _) in asked.iter().filter(|(_, length)| pass < *length) {
                let (said, guesses) = (sequence.said(), sequence.guesses());
                let first = pages.drafted(sequence.lease()).min(said.len() - 1);
                let (tokens, first) = match guesses.len().checked_sub(1) {
                    None => (&said[first..], first),
                    Some(last) => (&guesses[last..], said.len() + last),
                };
                set(span(&mut self.spans, spans), tokens, first, &sequence.lease().pages, true);
                (spans, rows) = (spans + 1, rows + tokens.len());
            }
            let vocabulary = self.forward.decoder().vocabulary;
            let (_, logits) = self.forward.run(&self.spans[..spans], &mut self.cache);
            let waiting = asked.iter_mut().filter(|(_, length)| pass < *length);
            for ((sequence, _), logits) in waiting.zip(logits.chunks_exact(vocabulary)) {
                sequence.add_guess(likeliest(&logits[..self.vocabulary]));
            }
            last = pass_started.elapsed() / spans.max(1) as u32;
            self.worth.learn_behind(rows, pass_started.elapsed());
        }
        let guesses = asked.iter().map(|(_, length)| *length).sum();
        self.worth.learn_guesses(guesses, started.elapsed(), last);
        for (sequence, length) in asked.iter() {
            pages.fill_draft(sequence.lease(), sequence.said().len() + length - 1);
        }
    }
}

/// Number `index` of `spans`, which are used again from step to step.
fn span(spans: &mut Vec<Span>, index: usize) -> &mut Span {
    if index == spans.len() {
        spans.push(Span { tokens: Vec::new(), first_position: 0, pages: Vec::new(), logits: 0..0 });
    }
    &mut spans[index]
}

/// Makes `span` so many tokens, of which the last has logits or none.
fn set(span: &mut Span, tokens: &[u32], first: usize, pages: &[u32], logits: bool) {
    span.tokens.clear();
    span.tokens.extend_from_slice(tokens);
    span.pages.clear();
    span.pages.extend_from_slice(pages);
    span.first_position = first;
    span.logits = tokens.len() - usize::from(logits)..tokens.len();
}

/// The first of the greatest; of logits that are no numbers, any.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0 as u32
}
