//! A model version in, answers out.

mod guarded;
pub mod llm;
pub mod onnx;

pub use guarded::is_guarded;
