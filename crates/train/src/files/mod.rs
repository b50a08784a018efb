//! Models in files of other programs.

pub mod onnx;
