//! A tiny Llama (`fixtures/decoders/llama`) and what tests need to compress it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use compress::Progress;
use kernels::compute::{Compute, Isa};

pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders/llama/model.gguf")
}

pub fn compute() -> Arc<Compute> {
    Arc::new(Compute::new(Isa::detect(), 2))
}

pub fn go(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Of the bytes that its tokeniser knows.
pub fn text(sentences: usize) -> String {
    (0..sentences).map(|i| format!("{} and {} make {}. ", i, i * 7 % 13, i + i * 7 % 13)).collect()
}
