//! What happens in a run, for whoever watches or keeps it, and what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something that happened. As JSON, `event` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The fit begins, or goes on after `step` steps.
    Started {
        parameters: usize,
        samples: usize,
        steps_per_epoch: usize,
        epochs: usize,
        step: u64,
    },
    /// Now and then: figures over the epoch so far. Epochs and steps count from 1.
    Step {
        epoch: usize,
        step: usize,
        steps: usize,
        loss: f64,
        metrics: BTreeMap<String, f64>,
        samples_per_second: f64,
    },
    /// An epoch's figures; those of validation begin with `val_`.
    Epoch {
        epoch: usize,
        metrics: BTreeMap<String, f64>,
    },
    /// What is so far is kept, after `step` steps in all.
    Checkpoint {
        step: u64,
    },
    Warning {
        text: String,
    },
    Finished {
        metrics: BTreeMap<String, f64>,
    },
}

/// What comes of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Whether it was stopped before its end; it goes on from its checkpoint.
    pub stopped: bool,
    /// The figures of the published weights; those of the test data begin with `test_`.
    pub metrics: BTreeMap<String, f64>,
    /// What is published.
    pub files: Vec<PathBuf>,
}
