//! What can go wrong while a network is made smaller.

use std::ops::ControlFlow;
use std::path::Path;

use engine::onnx::{CallError, LoadError};
use formats::error::FormatError;
use train::TrainError;

use crate::progress::{Phase, Progress};

/// An error that says where, what was expected, what came, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error("loading what was compressed: {0}")]
    Load(#[from] LoadError),
    #[error("running a model: {0}")]
    Run(String),
    #[error("{}: it can't be {operation}: {cause}", path.display())]
    Io { path: std::path::PathBuf, operation: &'static str, cause: std::io::Error },
    /// A file that is ONNX and has something that a rewrite doesn't take.
    #[error("{place}: {problem}")]
    Model { place: String, problem: String },
    /// A setting that makes no sense, or can't be reached.
    #[error("{setting} takes {expected}; received {received}")]
    Setting { setting: &'static str, expected: String, received: String },
    /// Whoever was told of the progress asked for it.
    #[error("stopped")]
    Stopped,
}

impl From<CallError> for NetworkError {
    fn from(error: CallError) -> NetworkError {
        NetworkError::Run(error.to_string())
    }
}

impl NetworkError {
    pub(super) fn model(place: impl Into<String>, problem: impl Into<String>) -> NetworkError {
        NetworkError::Model { place: place.into(), problem: problem.into() }
    }

    pub(super) fn io(path: &Path, operation: &'static str) -> impl FnOnce(std::io::Error) -> NetworkError {
        let path = path.to_owned();
        move |cause| NetworkError::Io { path, operation, cause }
    }
}

/// Who is told how far it is, and may ask to stop.
pub type Listener<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Tells that `done` of `all` is done.
pub(super) fn tell(on: &mut Listener<'_>, phase: Phase, done: usize, all: usize) -> Result<()> {
    told(on(Progress::new(phase, done, all)))
}

pub(super) fn told(answer: ControlFlow<()>) -> Result<()> {
    if answer.is_break() { Err(NetworkError::Stopped) } else { Ok(()) }
}

pub type Result<T> = std::result::Result<T, NetworkError>;
