//! Tensors in, tensors out: any ONNX model, run by `rten`.
//!
//! One thread owns a model and answers calls from a bounded queue; calls that fit together become one run of the model
//! (see [`batch`]). `rten` computes in four element types: what a model declares as `int64` or `bool` is `int32` inside,
//! `float16` and `double` are `float`. So an `int64` input beyond 32 bits is refused, and a `double` has a float's
//! precision.
//!
//! A batched row's result is the single row's within rounding, not to the bit: `rten` multiplies one row in another
//! order than several.

mod batch;
mod check;
mod handle;
mod probe;
mod runner;
mod tensor;
mod worker;

pub use check::InputError;
pub use formats::onnx::{Dimension, ElementType, OnnxFacts, Signature, TensorSpec};
pub use handle::{Onnx, OnnxStats, Settings};
pub use probe::Batching;
pub use runner::LoadError;
pub use tensor::{Elements, Storage, Tensor};
pub use worker::CallError;
