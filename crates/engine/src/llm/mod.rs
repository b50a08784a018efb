//! Text generation by decoder-only transformers.

pub mod detokenizer;
pub mod request;
pub mod sampling;
pub mod template;
pub mod tokenizer;
