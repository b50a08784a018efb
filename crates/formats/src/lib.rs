//! Published files, read as hostile bytes into typed contents.

pub mod calendar;
pub mod decoder;
pub mod error;
mod files;
pub mod gguf;
pub mod hdf5;
pub mod hugging_face;
pub mod model;
pub mod onnx;
pub mod safetensors;
pub mod storage;
pub mod to_gguf;
pub mod tokenizer;
