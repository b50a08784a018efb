//! Networks made smaller: ours, and anybody's in ONNX.
//!
//! What is done to a file (fewer bits, products of fewer bits, thinner products) is a rewrite of its [`Document`]; what
//! needs training again is a rewrite of a definition and its weights. [`compress`] does one of them, and measures what it cost.

mod calibrate;
mod changes;
mod coding;
mod compressing;
mod defined;
mod distilling;
mod document;
mod error;
mod integers;
mod low_rank;
mod measure;
mod pruning;
mod report;
mod searching;

pub use calibrate::{Calibration, calibrate};
pub use changes::Change;
pub use coding::{Coding, codable, code};
pub use compressing::{Method, Outcome, Request, compress};
pub use defined::Network;
pub use distilling::Teaching;
pub use document::{Document, Node, Weight};
pub use error::{Listener, NetworkError, Result};
pub use integers::{Form, Range, activations, rewrite};
pub use low_rank::{Budget, factorise};
pub use measure::{Figures, Samples, Task, Truth};
pub use report::{Report, Worst};
pub use searching::{Choice, Sensitivity, search};

pub use crate::trade::Wish;
