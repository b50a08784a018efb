//! Text generation by decoder-only transformers.

pub mod request;
