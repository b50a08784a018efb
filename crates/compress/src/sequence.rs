//! A model that reads windows of a text, one after the other, and says what it expects after each token.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use engine::llm::forward::{Forward, Span, StepSizes};
use engine::llm::tokenizer::Tokenizer;
use formats::model::ModelFiles;
use kernels::attention::{KvCache, KvElement, KvLayout, PAGE_TOKENS};
use kernels::compute::Compute;
use kernels::softmax::softmax;

use crate::error::CompressError;

/// Tokens of a window. Each is read from an empty cache.
pub const WINDOW: usize = 512;
/// Tokens of one step, and rows of logits kept at a time.
pub const STEP: usize = 128;

pub struct Reader {
    pub files: ModelFiles,
    pub forward: Forward,
    cache: KvCache,
    pages: Vec<u32>,
}

impl Reader {
    /// # Errors
    /// A model that can't be run, or memory that there isn't.
    pub fn open(path: &Path, compute: &Arc<Compute>) -> Result<Reader, CompressError> {
        let files = ModelFiles::open(path)?;
        let sizes = StepSizes { context_tokens: WINDOW, rows_max: STEP, logit_rows_max: STEP };
        let forward = Forward::load(compute.clone(), &files, sizes, &mut |_, _| {})?;
        let decoder = files.decoder();
        let pages = WINDOW.div_ceil(PAGE_TOKENS) as u32;
        let (layers, element) = (decoder.layers.len(), files.facts().kv_element.unwrap_or(KvElement::I16));
        let layout = KvLayout::new(layers, decoder.kv_heads, decoder.head_dim, pages, element)?;
        let cache = KvCache::new(layout).map_err(CompressError::Memory)?;
        Ok(Reader { files, forward, cache, pages: (0..pages).collect() })
    }

    /// The text in tokens, without any that begin or end it.
    ///
    /// # Errors
    /// A tokeniser that can't be read; fewer than a window.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, CompressError> {
        tokens_of(&self.files, text)
    }

    /// Reads a window for what is gathered on the way.
    pub fn read(&mut self, window: &[u32]) {
        for (step, tokens) in window.chunks(STEP).enumerate() {
            self.run(tokens, step * STEP, 0);
        }
    }

    /// The mean of `-ln p` of each token of a window but the first.
    pub fn surprise(&mut self, window: &[u32]) -> f64 {
        let compute = self.forward.compute.clone();
        let v = self.forward.decoder().vocabulary;
        let mut sum = 0.0;
        for (step, tokens) in window.chunks(STEP).enumerate() {
            let first = step * STEP;
            let following = &window[first + 1..(first + 1 + tokens.len()).min(window.len())];
            let logits = self.logits(tokens, first);
            let rows: Vec<_> =
                logits.chunks_mut(v).zip(following).map(|row| Mutex::new((row, 0.0))).collect();
            compute.pool().for_each(rows.len(), |row| {
                let mut row = rows[row].lock().unwrap_or_else(PoisonError::into_inner);
                let ((logits, next), surprise) = &mut *row;
                *surprise = surprise_of(&compute, logits, **next as usize);
            });
            let each = rows.into_iter().map(|row| row.into_inner().unwrap_or_else(PoisonError::into_inner).1);
            sum += each.sum::<f64>();
        }
        sum / (window.len() - 1) as f64
    }

    /// The logits after each of `tokens`, at most [`STEP`], that stand at `first` in their window: `[tokens, v]`.
    pub fn logits(&mut self, tokens: &[u32], first: usize) -> &mut [f32] {
        self.run(tokens, first, tokens.len())
    }

    /// The logits after the first `logits` of `tokens`.
    fn run(&mut self, tokens: &[u32], first: usize, logits: usize) -> &mut [f32] {
        let span = Span {
            tokens: tokens.to_vec(),
            first_position: first,
            pages: self.pages.clone(),
            logits: 0..logits,
        };
        self.forward.run(&[span], &mut self.cache).1
    }
}

/// See [`Reader::tokens`].
pub fn tokens_of(files: &ModelFiles, text: &str) -> Result<Vec<u32>, CompressError> {
    let tokens = Tokenizer::new(files.tokenizer())?.encode(text, false, false)?;
    if tokens.len() < WINDOW {
        return Err(CompressError::ShortText { found: tokens.len(), needed: WINDOW });
    }
    Ok(tokens)
}

/// `-ln p` of the token `next`; `logits` are probabilities afterwards.
fn surprise_of(compute: &Compute, logits: &mut [f32], next: usize) -> f64 {
    let peak = likeliest(logits);
    let (height, raised) = (f64::from(logits[peak]), f64::from(logits[next]));
    softmax(compute.isa(), logits);
    height - f64::from(logits[peak]).ln() - raised
}

/// The index of the largest value.
pub fn likeliest(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// At most so many windows, spread over the text.
pub fn spread(tokens: &[u32], windows: usize) -> Vec<&[u32]> {
    let there = tokens.len() / WINDOW;
    let chosen = there.min(windows);
    (0..chosen).map(|index| &tokens[index * there / chosen * WINDOW..][..WINDOW]).collect()
}
