//! Published files, read as hostile bytes into typed contents.

pub mod decoder;
pub mod error;
mod files;
pub mod gguf;
pub mod model;
mod storage;
pub mod tokenizer;
