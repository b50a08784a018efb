//! Checkpoints of a GAN: weights and slots of both, the moving average, the classifier that measures, and how far it is.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::checkpoint::{self, Figures, Identity, VERSION};
use super::measure::Measure;
use crate::error::Result;
use crate::gan::{Gan, Totals};

/// Names of the classifier's weights begin with it.
const CLASSIFIER: &str = "classifier:";

/// How far a fit is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// Epochs that have ended.
    pub epoch: usize,
    /// Batches of the next that have been trained on.
    pub batch: usize,
    /// The discriminator's steps in all before that epoch, on which its order depends.
    pub before: u64,
    pub totals: Totals,
    /// Figures of the epochs that have ended.
    pub history: Vec<Figures>,
}

/// As it is written: numbers as their bits, which no reader rounds.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    definition: Value,
    data: u64,
    iterations: [u64; 2],
    epoch: usize,
    batch: usize,
    before: u64,
    sums: [u64; 5],
    samples: [usize; 2],
    history: Vec<Vec<(String, u64)>>,
    /// Paths of the classifier's weights.
    classifier: Vec<String>,
}

/// The weights of the classifier, by path.
pub(super) type Classifier = Vec<(String, Vec<f32>)>;

pub(super) fn save(
    folder: &Path,
    identity: &Identity,
    gan: &Gan,
    measure: Option<&Measure>,
    progress: &Progress,
) -> Result<()> {
    let figures =
        |figures: &Figures| figures.iter().map(|(name, value)| (name.clone(), value.to_bits())).collect();
    let mut tensors: Vec<(String, Vec<usize>, &[f32])> =
        gan.state().into_iter().map(|(name, values)| (name, vec![values.len()], values)).collect();
    let mut classifier = vec![];
    for (path, shape, values) in measure.into_iter().flat_map(|measure| measure.extractor.weights()) {
        classifier.push(path.to_owned());
        tensors.push((format!("{CLASSIFIER}{path}"), shape.to_vec(), values));
    }
    let state = State {
        version: VERSION,
        definition: identity.definition.clone(),
        data: identity.data,
        iterations: gan.iterations(),
        epoch: progress.epoch,
        batch: progress.batch,
        before: progress.before,
        sums: progress.totals.sums.map(f64::to_bits),
        samples: progress.totals.samples,
        history: progress.history.iter().map(figures).collect(),
        classifier,
    };
    checkpoint::write(folder, &state, &tensors)
}

/// Reads the checkpoint of `folder` into `gan`, and the classifier's weights out of it; the beginning where there is none.
///
/// # Errors
/// When it is of another definition or other data, or can't be read.
pub(super) fn load(
    folder: &Path,
    identity: &Identity,
    gan: &mut Gan,
) -> Result<(Progress, Option<Classifier>)> {
    let Some(kept) = checkpoint::read(folder, identity)? else { return Ok((Progress::default(), None)) };
    let state: State = kept.state()?;
    gan.set_state(&|name| kept.values(name))?;
    gan.set_iterations(state.iterations);
    let classifier: Classifier = state
        .classifier
        .into_iter()
        .map(|path| Ok((path.clone(), kept.values(&format!("{CLASSIFIER}{path}"))?)))
        .collect::<Result<_>>()?;
    let figures = |figures: Vec<(String, u64)>| {
        figures.into_iter().map(|(name, bits)| (name, f64::from_bits(bits))).collect()
    };
    let progress = Progress {
        epoch: state.epoch,
        batch: state.batch,
        before: state.before,
        totals: Totals { sums: state.sums.map(f64::from_bits), samples: state.samples },
        history: state.history.into_iter().map(figures).collect(),
    };
    Ok((progress, Some(classifier).filter(|classifier| !classifier.is_empty())))
}
