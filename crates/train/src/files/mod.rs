//! Models in files of other programs.

pub mod keras;
pub mod onnx;
