//! What happens in a run, for whoever watches or keeps it, and what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something that happened. As JSON, `event` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The fit begins, or goes on after `step` steps. `memory_bytes` are those of weights, the optimiser's slots and a step;
    /// samples come on top.
    Started {
        parameters: usize,
        samples: usize,
        steps_per_epoch: usize,
        epochs: usize,
        step: u64,
        #[serde(default)]
        memory_bytes: u64,
    },
    /// Now and then: figures over the epoch so far. Epochs and steps count from 1.
    Step {
        epoch: usize,
        step: usize,
        steps: usize,
        #[serde(deserialize_with = "number")]
        loss: f64,
        #[serde(deserialize_with = "numbers")]
        metrics: BTreeMap<String, f64>,
        samples_per_second: f64,
    },
    /// An epoch's figures; those of validation begin with `val_`.
    Epoch {
        epoch: usize,
        #[serde(deserialize_with = "numbers")]
        metrics: BTreeMap<String, f64>,
    },
    /// From the epoch after `epoch` on, steps are taken at `learning_rate`: the figure `monitor` no longer got better.
    LearningRate { epoch: usize, monitor: String, learning_rate: f32 },
    /// Early stopping ends the fit after `epoch`; the weights of `kept_epoch` are published. `best` is the figure that was
    /// not bettered, null where there was no finite one.
    EarlyStopped { epoch: usize, monitor: String, best: Option<f64>, kept_epoch: usize },
    /// What is so far is kept, after `step` steps in all.
    Checkpoint { step: u64 },
    Finished {
        #[serde(deserialize_with = "numbers")]
        metrics: BTreeMap<String, f64>,
    },
}

/// JSON has null for what is no finite number.
fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

fn numbers<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let numbers = BTreeMap::<String, Option<f64>>::deserialize(from)?;
    Ok(numbers.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[test]
fn events_are_read_back_from_json() {
    let metrics = BTreeMap::from([("loss".to_owned(), 0.5), ("val_loss".to_owned(), f64::NAN)]);
    let line = serde_json::to_string(&Event::Epoch { epoch: 2, metrics }).unwrap();
    assert_eq!(line, "{\"event\":\"epoch\",\"epoch\":2,\"metrics\":{\"loss\":0.5,\"val_loss\":null}}");
    match serde_json::from_str(&line).unwrap() {
        Event::Epoch { epoch: 2, metrics } => {
            assert!(metrics["loss"] == 0.5 && metrics["val_loss"].is_nan());
        }
        other => panic!("{other:?}"),
    }
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
