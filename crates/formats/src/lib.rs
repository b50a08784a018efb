//! Published files, read as hostile bytes into typed contents.

pub mod model;
pub mod tokenizer;
