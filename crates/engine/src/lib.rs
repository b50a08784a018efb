//! A model version in, answers out.

pub mod llm;
pub mod onnx;
