//! How far work is: the same for language models and networks, for a bar and for the events of a job.

use serde::{Deserialize, Serialize};

/// `done` of `all`, counted in what [`Phase`] says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    pub done: u64,
    pub all: u64,
    /// Of the epoch that has just ended, on the data that epochs are judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// What is being done, and what is counted meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Finds out what matters: windows of the text.
    Calibrating,
    /// Bytes of the language model that is read.
    Quantising,
    /// Finds out what costs least: codings of a network's weights, windows of the text without a layer.
    Choosing,
    /// Weights of a network get fewer bits or thinner products: weights, or the network as one.
    Coding,
    /// Epochs.
    Training,
    /// Windows of the text that both language models read; of a network, the two that are measured.
    Measuring,
}

impl Progress {
    pub fn new(phase: Phase, done: usize, all: usize) -> Progress {
        Progress { phase, done: done as u64, all: all as u64, loss: None }
    }
}
