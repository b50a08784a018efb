//! Networks made smaller: ours, and anybody's in ONNX.
//!
//! What is done to a file (fewer bits, fewer products' bits) is a rewrite of [`Document`]; what needs training again is a
//! rewrite of a definition and its weights. Each is measured on data, and what it cost is in the [`report`].

mod calibrate;
mod coding;
mod document;
mod error;
mod integers;
mod measure;
mod wire;

pub use calibrate::{Calibration, calibrate};
pub use coding::{Coding, codable, code};
pub use document::{Document, Node, Weight};
pub use error::{NetworkError, Result};
pub use integers::{Form, Range, activations, multiplied, rewrite};
pub use measure::{Figures, Samples, Task, Truth};
