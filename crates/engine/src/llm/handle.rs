//! The handle to a running model: what the rest of the program sees of the engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::batch::StepLimits;
use super::draft_model::{DraftFiles, DraftModel};
use super::events::{Generation, answer};
use super::fingerprint::{described, fingerprint, hash};
use super::forward::Forward;
use super::guessing::Guessing;
use super::pace::Pace;
use super::packed;
use super::pages::Pages;
use super::plan::{Plan, PlanError, plan};
use super::request::{GenerateRequest, SubmitError, Terms};
use super::scheduler::{Lines, Scheduler};
use super::sequence::Accepted;
use super::settings::{MemoryPlan, Settings};
use super::stats::{Counters, Stats};
use super::template::{ChatTemplate, TemplateError};
use super::tokenizer::{Tokenizer, TokenizerError};
use super::weights::{DecoderWeights, WeightsError};
use super::words::{Sources, Words};
use formats::error::FormatError;
use formats::model::ModelFiles;
use kernels::attention::KvCache;
use kernels::compute::{Compute, Isa};
use xxhash_rust::xxh3::Xxh3;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("the tokeniser: {0}")]
    Tokenizer(TokenizerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("this machine has no {asked}; it has {available}")]
    Isa { asked: Isa, available: String },
    #[error(
        "the vocabulary has {tokenizer} entries in the tokeniser and {embedding} in the embedding: they must be the same model's"
    )]
    Vocabulary { tokenizer: usize, embedding: usize },
    #[error("the draft model: {0}")]
    Draft(Box<LoadError>),
    #[error(
        "the served model has {served} tokens and the draft model {draft}: a draft model must have the same tokeniser; \
         choose another --draft-model, or none for this model"
    )]
    DraftVocabulary { served: usize, draft: usize },
    #[error(
        "token {id} is {served:?} in the served model and {draft:?} in the draft model, which must have the same \
         tokeniser; choose another --draft-model, or none for this model"
    )]
    DraftToken { id: u32, served: String, draft: String },
    #[error("making room for keys and values: {0}; ask for a shorter context or fewer sequences")]
    Cache(std::io::Error),
    #[error("starting the engine's thread")]
    Thread(#[from] std::io::Error),
}

/// What a loaded model says of itself.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    pub name: String,
    pub family: String,
    pub parameters: u64,
    /// Positions a sequence may have here.
    pub context: usize,
    /// Positions that the model was made for.
    pub context_trained: usize,
    pub vocabulary: usize,
    pub quantisation: String,
    pub licence: Option<String>,
    /// The name of the model that guesses ahead for it, where there is one.
    pub draft: Option<String>,
    /// What kept packed weights from being mapped or kept, where they were to be.
    pub packed_troubles: Vec<String>,
    /// Names model, settings and instruction set: the same fingerprint means the same bits.
    pub fingerprint: String,
    pub memory: MemoryPlan,
}

/// A loaded model; clones share it. When the last one is dropped, its thread ends what runs and waits, and then itself.
#[derive(Clone)]
pub struct Llm {
    shared: Arc<Shared>,
}

struct Shared {
    facts: ModelFacts,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    queue_max: usize,
    counters: Arc<Counters>,
    inbox: Sender<Box<Accepted>>,
    thread: JoinHandle<()>,
}

impl Llm {
    /// Opens the model at `path`, a `.gguf` file or a Hugging Face folder, plans its memory, packs its weights
    /// and starts its thread. `progress` hears how many of how many layers are packed.
    ///
    /// # Errors
    /// A file that can't be read or isn't supported, or settings that don't fit this machine.
    pub fn load(
        path: &Path,
        settings: &Settings,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Llm, LoadError> {
        let mut files = ModelFiles::open(path)?;
        let settings = &settings.for_model(files.facts());
        let mut draft = DraftFiles::open(settings)?;
        let draft_size = draft.as_ref().map(DraftFiles::size);
        let plan = plan(files.decoder(), files.facts().file_bytes, draft_size, settings)?;
        let Plan { layout, sizes, draft: draft_sizes, memory } = plan;
        let end_tokens = files.end_tokens().to_vec();
        let compute = Arc::new(compute(settings)?);
        let described = described(&files, sizes.context_tokens);
        let sources = Sources::take(&mut files, draft.as_mut());
        // Not beside packing: a third thread on two cores costs more than it saves.
        let words = Words::read(sources)?;
        let (fingerprint, troubles, weights) = pack(&compute, &files, described, settings, progress)?;
        let Words { tokenizer, template, draft_tokens } = words;
        let forward = Forward::new(compute.clone(), &files, weights, sizes);
        let mut facts = facts(&files, fingerprint, troubles, sizes.context_tokens);
        let draft = draft.zip(draft_tokens).zip(draft_sizes);
        let draft = draft.map(|((draft, tokens), sizes)| {
            draft.load(compute, tokens, sizes, settings, progress, &mut facts)
        });
        let draft = draft.transpose()?;
        let weights = [Some(forward.weights()), draft.as_ref().map(DraftModel::weights)];
        facts.memory = taken(memory, weights.into_iter().flatten());

        let counters = Arc::new(Counters::default());
        counters.slots.store(settings.sequences_max as u64, Ordering::Relaxed);
        counters.kv_pages_total.store(u64::from(layout.pages()), Ordering::Relaxed);
        let (inbox, receiver) = channel();
        let scheduler = Scheduler {
            pages: Pages::new(layout.pages()),
            cache: KvCache::new(layout).map_err(LoadError::Cache)?,
            vocabulary: forward.decoder().vocabulary,
            forward,
            tokenizer: tokenizer.clone(),
            end_tokens,
            sequences_max: settings.sequences_max,
            limits: StepLimits { tokens: settings.step_tokens_max, logit_rows: sizes.logit_rows_max },
            pace: Pace::new(settings.step_beside_answers_max),
            guessing: Guessing::new(settings.draft_tokens_max, draft),
            inbox: receiver,
            counters: counters.clone(),
            lines: Lines::default(),
        };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(|| scheduler.run())?;
        let queue_max = settings.queue_max;
        let shared = Shared { facts, tokenizer, template, queue_max, counters, inbox, thread };
        Ok(Llm { shared: Arc::new(shared) })
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.shared.facts
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// The model's own chat template, where its files have one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.shared.template.as_ref()
    }

    /// Whether the engine can serve a request at all.
    ///
    /// # Errors
    /// An empty prompt, one beyond the context, a token that the model doesn't have.
    pub fn check(&self, request: &GenerateRequest) -> Result<(), SubmitError> {
        let facts = &self.shared.facts;
        let (prompt, context) = (request.prompt.len(), facts.context);
        if prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if prompt > context || (prompt == context && request.tokens_max > 0) {
            let extensible = context < facts.context_trained;
            return Err(SubmitError::PromptTooLong { prompt, context, extensible });
        }
        let vocabulary = facts.vocabulary;
        let biased = request.sampling.logit_bias.iter().map(|(token, _)| token);
        if let Some(token) = request.prompt.iter().chain(biased).find(|token| **token as usize >= vocabulary)
        {
            return Err(SubmitError::UnknownToken { token: *token, vocabulary });
        }
        Ok(())
    }

    /// Queues a request on the plainest terms. Its answer comes from the [`Generation`]; dropping that cancels the
    /// request.
    ///
    /// # Errors
    /// At once, where the request can't be served: see [`SubmitError`].
    pub fn submit(&self, request: GenerateRequest) -> Result<Generation, SubmitError> {
        self.submit_on(&Terms::default(), request)
    }

    /// The same on the caller's own terms.
    ///
    /// # Errors
    /// As [`Llm::submit`].
    pub fn submit_on(&self, terms: &Terms, request: GenerateRequest) -> Result<Generation, SubmitError> {
        let queued = &self.shared.counters.queued;
        let places = self.places();
        let taken = queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, |queued| {
            (queued < places).then_some(queued + 1)
        });
        taken.map_err(|queued| SubmitError::QueueFull { waiting: queued as usize })?;
        self.enqueue(terms, request, true).inspect_err(|_| {
            queued.fetch_sub(1, Ordering::AcqRel);
        })
    }

    /// The same for a further answer to what a caller asked that was let in by [`Llm::submit_on`]: a full queue doesn't
    /// refuse it, and it takes no place in the queue. Callers bound how many they keep under way.
    ///
    /// # Errors
    /// As [`Llm::submit`], but for a full queue.
    pub fn submit_further(&self, terms: &Terms, request: GenerateRequest) -> Result<Generation, SubmitError> {
        self.enqueue(terms, request, false)
    }

    /// Whether a request could be queued now, for whoever would have to prepare one first.
    ///
    /// # Errors
    /// The queue is full, or the engine has stopped.
    pub fn check_queue(&self) -> Result<(), SubmitError> {
        if !self.is_alive() {
            return Err(SubmitError::Stopped);
        }
        let queued = self.shared.counters.queued.load(Ordering::Acquire);
        if queued < self.places() { Ok(()) } else { Err(SubmitError::QueueFull { waiting: queued as usize }) }
    }

    /// How long until a place becomes free, going by how often they did of late; `None` where none did yet.
    pub fn next_place(&self) -> Option<Duration> {
        let stats = self.stats();
        if stats.running + stats.waiting < stats.slots {
            return Some(Duration::ZERO);
        }
        self.shared.counters.departures.expected(Instant::now())
    }

    fn places(&self) -> u64 {
        places(&self.stats(), self.shared.queue_max)
    }

    fn enqueue(
        &self,
        terms: &Terms,
        request: GenerateRequest,
        queued: bool,
    ) -> Result<Generation, SubmitError> {
        self.check(&request)?;
        let shared = &*self.shared;
        let (events, generation) = answer(&shared.counters.unread_bytes);
        let tokens_max = request.tokens_max.min(shared.facts.context - request.prompt.len());
        let (terms, submitted) = (terms.clone(), Instant::now());
        let accepted = Box::new(Accepted { request, terms, tokens_max, events, submitted, queued });
        shared.counters.waiting.fetch_add(1, Ordering::AcqRel);
        if shared.inbox.send(accepted).is_err() {
            shared.counters.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(SubmitError::Stopped);
        }
        Ok(generation)
    }

    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Whether the engine's thread runs: false after a failure that ended it.
    pub fn is_alive(&self) -> bool {
        !self.shared.thread.is_finished()
    }
}

/// How many requests may wait: those for whom a slot is free, which wait for the next step only, and the queue.
fn places(stats: &Stats, queue_max: usize) -> u64 {
    stats.slots.saturating_sub(stats.running) + queue_max as u64
}

/// What was planned, with what the weights take instead of what they may take.
fn taken<'a>(planned: MemoryPlan, weights: impl Iterator<Item = &'a DecoderWeights>) -> MemoryPlan {
    let mut memory = MemoryPlan { weights_bytes: 0, ..planned };
    for weights in weights {
        memory.weights_bytes += weights.bytes() as u64;
        memory.mapped_bytes += weights.mapped_bytes() as u64;
    }
    memory
}

/// The model's fingerprint, what kept packed weights from being used, and its weights.
fn pack(
    compute: &Compute,
    files: &ModelFiles,
    described: Xxh3,
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(String, Vec<String>, DecoderWeights), LoadError> {
    let content = hash(compute, files.bytes(), &mut || files.forget());
    let fingerprint = fingerprint(files.facts(), described, content, settings);
    let folder = settings.packed.as_ref().map(|folder| (folder, content));
    let mut troubles = Vec::new();
    let weights = packed::load(compute, files, folder, progress, &mut troubles)?;
    Ok((fingerprint, troubles, weights))
}

fn compute(settings: &Settings) -> Result<Compute, LoadError> {
    let available = Isa::available();
    if !available.contains(&settings.isa) {
        let available = available.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
        return Err(LoadError::Isa { asked: settings.isa, available });
    }
    Ok(Compute::new(settings.isa, settings.threads))
}

fn facts(files: &ModelFiles, fingerprint: String, troubles: Vec<String>, context: usize) -> ModelFacts {
    let (facts, decoder) = (files.facts(), files.decoder());
    ModelFacts {
        name: facts.name.clone(),
        family: decoder.family.clone(),
        parameters: facts.parameters,
        context,
        context_trained: decoder.context,
        vocabulary: decoder.vocabulary,
        quantisation: facts.quantisation.clone(),
        licence: facts.licence.clone(),
        draft: None,
        packed_troubles: troubles,
        fingerprint,
        memory: MemoryPlan::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_slots_are_no_queue() {
        let check = |running: u64, queue_max: usize, expected: u64| {
            let stats = Stats { slots: 8, running, ..Stats::default() };
            assert_eq!(places(&stats, queue_max), expected);
        };
        check(0, 4, 12);
        check(7, 4, 5);
        check(8, 4, 4);
        check(3, 0, 5);
        check(8, 0, 0);
    }
}
