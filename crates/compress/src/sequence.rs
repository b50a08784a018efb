//! A model that reads windows of a text, one after the other, and says what it expects after each token.

use std::path::Path;
use std::sync::Arc;

use engine::llm::forward::{Forward, Span, StepSizes};
use engine::llm::tokenizer::Tokenizer;
use formats::model::ModelFiles;
use kernels::attention::{KvCache, KvElement, KvLayout, PAGE_TOKENS};
use kernels::compute::Compute;

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
        let (layers, element) = (decoder.layers.len(), KvElement::I16);
        let layout = KvLayout::new(layers, decoder.kv_heads, decoder.head_dim, pages, element)?;
        let cache = KvCache::new(layout).map_err(CompressError::Memory)?;
        Ok(Reader { files, forward, cache, pages: (0..pages).collect() })
    }

    /// The text in tokens, without any that begin or end it.
    ///
    /// # Errors
    /// A tokeniser that can't be read; fewer than two windows.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, CompressError> {
        let tokens = Tokenizer::new(self.files.tokenizer())?.encode(text, false, false)?;
        if tokens.len() < WINDOW {
            return Err(CompressError::ShortText { found: tokens.len(), needed: WINDOW });
        }
        Ok(tokens)
    }

    /// The logits after each of `tokens`, at most [`STEP`], that stand at `first` in their window: `[tokens, v]`.
    pub fn logits(&mut self, tokens: &[u32], first: usize) -> &mut [f32] {
        let span = Span {
            tokens: tokens.to_vec(),
            first_position: first,
            pages: self.pages.clone(),
            logits: 0..tokens.len(),
        };
        let (_, logits) = self.forward.run(&[span], &mut self.cache);
        logits
    }
}
