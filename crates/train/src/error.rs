//! What can go wrong while a network is described, compiled or fitted.

use std::path::Path;

/// An error that says where, what was expected, what came, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// Two shapes that don't go together, or one that an operation doesn't take.
    #[error("{layer}: {operation} takes {expected}; received {}", shapes(.received))]
    Shape { layer: String, operation: &'static str, expected: String, received: Vec<Vec<usize>> },
    /// An argument of a layer, loss, optimiser or call that makes no sense.
    #[error("{place}: {argument} takes {expected}; received {received}")]
    Argument { place: String, argument: &'static str, expected: String, received: String },
    /// A name that isn't known here.
    #[error("{kind} {name:?} is not supported; there are: {known}")]
    Unknown { kind: &'static str, name: String, known: String },
    /// Something was asked for in the wrong order.
    #[error("{0}")]
    Order(String),
    /// A file that can't be read or written.
    #[error("{file}: {problem}")]
    File { file: String, problem: String },
    /// Training went to NaN or infinity; `first` says where, if that is known.
    #[error(
        "the loss became {loss} at step {step}{first}: lower the learning rate, clip gradients, or look for NaN in the \
         data"
    )]
    NotFinite { loss: f32, step: u64, first: String },
    /// Something in a definition.
    #[error("{place}: {problem}")]
    Definition { place: String, problem: String },
    /// Something in data: the file, and the line or sample.
    #[error("{place}: {problem}")]
    Data { place: String, problem: String },
}

impl TrainError {
    /// `operation` is what was done to the file: read, written, ...
    pub(crate) fn file(path: &Path, operation: &'static str, error: &std::io::Error) -> TrainError {
        let problem = format!("it can't be {operation}: {error}");
        TrainError::File { file: path.display().to_string(), problem }
    }

    pub(crate) fn data(place: impl Into<String>, problem: impl Into<String>) -> TrainError {
        TrainError::Data { place: place.into(), problem: problem.into() }
    }
}

fn shapes(shapes: &[Vec<usize>]) -> String {
    let each: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
    each.join(" and ")
}

pub type Result<T> = std::result::Result<T, TrainError>;
