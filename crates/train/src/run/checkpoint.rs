//! Checkpoints: everything that a fit needs to go on as if it had never been interrupted, in one safetensors file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plateau::{Plateau, PlateauBits};
use super::session::Hasher;
use crate::error::{Result, TrainError};
use crate::files::write_whole;
use crate::model::{Model, Sums};

/// The version of what [`Progress`] says.
pub(super) const VERSION: u32 = 2;
const STATE: &str = "tureen.training";
/// The hash of the state and of all tensors.
const HASH: &str = "tureen.xxh3";
pub(super) const FILE_NAME: &str = "checkpoint.safetensors";
/// Names of tensors begin with what they are.
const WEIGHT: &str = "weight:";
const BEST: &str = "best:";
const SLOT: &str = "slot:";

/// Figures by name, in their order.
pub(super) type Figures = Vec<(String, f64)>;

/// How far a fit is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// Epochs that have ended.
    pub epoch: usize,
    /// Batches of the next that have been trained on.
    pub batch: usize,
    /// Steps in all before that epoch, on which its order depends.
    pub before: u64,
    /// Figures of that epoch so far.
    pub sums: Sums,
    /// Figures of the epochs that have ended.
    pub history: Vec<Figures>,
    pub best: Option<Best>,
    /// Epochs since the best.
    pub waited: usize,
    /// None was better for so long that the fit is over.
    pub done: bool,
    pub plateau: Plateau,
}

impl Progress {
    /// The epoch whose weights are published, from 1: the best, if it is kept and there is one, or the last.
    pub fn kept_epoch(&self, restores_best: bool) -> usize {
        self.best.as_ref().filter(|_| restores_best).map_or(self.history.len(), |best| best.epoch)
    }
}

/// The epoch with the best figure so far, and its weights, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Best {
    pub epoch: usize,
    pub figure: f64,
    pub weights: Vec<f32>,
}

/// As it is written: numbers as their bits, which no reader rounds.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    definition: Value,
    data: u64,
    iterations: u64,
    epoch: usize,
    batch: usize,
    before: u64,
    sums_loss: u64,
    sums_samples: usize,
    sums_metrics: Vec<Vec<u64>>,
    history: Vec<Vec<(String, u64)>>,
    best: Option<(usize, u64)>,
    waited: usize,
    done: bool,
    /// With a learning rate that figures lower.
    #[serde(default)]
    plateau: Option<PlateauBits>,
}

/// What a checkpoint belongs to: a definition, and data by their hash.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub definition: Value,
    pub data: u64,
}

/// Writes the checkpoint of `model` to `folder`.
pub(super) fn save(folder: &Path, identity: &Identity, model: &Model, progress: &Progress) -> Result<()> {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<u64>>();
    let figures =
        |figures: &Figures| figures.iter().map(|(name, value)| (name.clone(), value.to_bits())).collect();
    let state = State {
        version: VERSION,
        definition: identity.definition.clone(),
        data: identity.data,
        iterations: model.iterations(),
        epoch: progress.epoch,
        batch: progress.batch,
        before: progress.before,
        sums_loss: progress.sums.loss.to_bits(),
        sums_samples: progress.sums.samples,
        sums_metrics: progress.sums.metrics.iter().map(|sums| bits(sums)).collect(),
        history: progress.history.iter().map(figures).collect(),
        best: progress.best.as_ref().map(|best| (best.epoch, best.figure.to_bits())),
        waited: progress.waited,
        done: progress.done,
        plateau: model.learning_rate().map(|rate| progress.plateau.bits(rate)),
    };
    let mut tensors: Vec<(String, Vec<usize>, &[f32])> = vec![];
    let mut at = 0;
    for (path, shape, values) in model.weights() {
        tensors.push((format!("{WEIGHT}{path}"), shape.to_vec(), values));
        if let Some(best) = &progress.best {
            let values = &best.weights[at..at + values.len()];
            tensors.push((format!("{BEST}{path}"), shape.to_vec(), values));
        }
        at += values.len();
    }
    for (number, slot) in model.slots().into_iter().enumerate() {
        tensors.push((format!("{SLOT}{number}"), vec![slot.len()], slot));
    }
    write(folder, &state, &tensors)
}

/// Writes a checkpoint's file: tensors, and the state beside them.
pub(super) fn write(
    folder: &Path,
    state: &impl Serialize,
    tensors: &[(String, Vec<usize>, &[f32])],
) -> Result<()> {
    let state = serde_json::to_string(state)
        .map_err(|error| TrainError::data(folder.display().to_string(), error.to_string()))?;
    let mut hasher = Hasher::default();
    hasher.0.update(state.as_bytes());
    tensors.iter().for_each(|(.., values)| hasher.add(values));
    let hash = format!("{:016x}", hasher.0.digest());
    let metadata = BTreeMap::from([(STATE.to_owned(), state), (HASH.to_owned(), hash)]);
    write_whole(&folder.join(FILE_NAME), |file| formats::safetensors::write(file, tensors, &metadata))
}

/// A checkpoint's file, read.
pub(super) struct Kept {
    place: String,
    file: Vec<u8>,
    tensors: Vec<(String, Range<usize>)>,
    state: Value,
}

/// The checkpoint's file in `folder`; none where there is none.
///
/// # Errors
/// When it is of another definition or other data, or can't be read.
pub(super) fn read(folder: &Path, identity: &Identity) -> Result<Option<Kept>> {
    let path = folder.join(FILE_NAME);
    let file = match crate::files::read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::file(&path, "read", &error)),
    };
    let place = path.display().to_string();
    let broken = |problem: String| TrainError::data(place.clone(), problem);
    let metadata = formats::safetensors::metadata(&file).map_err(|error| broken(error.to_string()))?;
    let text = metadata.get(STATE).ok_or_else(|| broken("it isn't a checkpoint of a fit".to_owned()))?;
    let state: Value = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
    if state["version"] != VERSION {
        return Err(broken(format!(
            "it is of version {}, and this program reads {VERSION}",
            state["version"]
        )));
    }
    let other = |what: &str| {
        broken(format!("the checkpoint is of {what}; give another folder, or remove this file to begin anew"))
    };
    // Through text as the checkpoint's, which may round the last bit of a number.
    let definition: Value =
        serde_json::from_str(&identity.definition.to_string()).map_err(|error| broken(error.to_string()))?;
    if state["definition"] != definition {
        return Err(other("another definition"));
    }
    if state["data"] != identity.data {
        return Err(other("other data: what the definition names has changed"));
    }
    let tensors = formats::safetensors::read(&file).map_err(|error| broken(error.to_string()))?;
    let mut hasher = Hasher::default();
    hasher.0.update(text.as_bytes());
    let mut places: Vec<&Range<usize>> = tensors.iter().map(|tensor| &tensor.bytes).collect();
    places.sort_unstable_by_key(|place| place.start);
    places.into_iter().for_each(|place| hasher.0.update(&file[place.clone()]));
    if metadata.get(HASH) != Some(&format!("{:016x}", hasher.0.digest())) {
        return Err(broken("it is damaged: its hash is another; remove this file to begin anew".to_owned()));
    }
    let tensors = tensors.iter().map(|tensor| (tensor.name.to_string(), tensor.bytes.clone())).collect();
    Ok(Some(Kept { place, file, tensors, state }))
}

impl Kept {
    pub fn state<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.state).map_err(|error| TrainError::data(self.place.clone(), error.to_string()))
    }

    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.iter().find(|(other, _)| other == name);
        let (_, bytes) =
            tensor.ok_or_else(|| TrainError::data(self.place.clone(), format!("it lacks {name}")))?;
        Ok(self.file[bytes.clone()].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// Reads the checkpoint of `folder` into `model`; none where there is none.
///
/// # Errors
/// When it is of another definition or other data, or can't be read.
pub(super) fn load(folder: &Path, identity: &Identity, model: &mut Model) -> Result<Option<Progress>> {
    let Some(kept) = read(folder, identity)? else { return Ok(None) };
    let state: State = kept.state()?;
    let values = |name: &str| kept.values(name);
    let paths: Vec<String> = model.weights().map(|(path, ..)| path.to_owned()).collect();
    let mut best_weights = vec![];
    for path in &paths {
        model.set_weight(path, &values(&format!("{WEIGHT}{path}"))?)?;
        if state.best.is_some() {
            best_weights.extend(values(&format!("{BEST}{path}"))?);
        }
    }
    for number in 0..model.slots().len() {
        model.set_slot(number, &values(&format!("{SLOT}{number}"))?)?;
    }
    model.set_iterations(state.iterations);
    if state.sums_metrics.len() > model.no_sums().metrics.len() {
        return Err(TrainError::data(kept.place, "its figures aren't those of the definition's metrics"));
    }
    let (plateau, rate) = state.plateau.as_ref().map(PlateauBits::read).unzip();
    if let (Some(rate), Some(_)) = (rate, model.learning_rate()) {
        model.set_learning_rate(rate);
    }
    let floats = |bits: Vec<u64>| bits.into_iter().map(f64::from_bits).collect();
    let figures = |figures: Vec<(String, u64)>| {
        figures.into_iter().map(|(name, bits)| (name, f64::from_bits(bits))).collect()
    };
    Ok(Some(Progress {
        epoch: state.epoch,
        batch: state.batch,
        before: state.before,
        sums: Sums {
            loss: f64::from_bits(state.sums_loss),
            samples: state.sums_samples,
            metrics: state.sums_metrics.into_iter().map(floats).collect(),
        },
        history: state.history.into_iter().map(figures).collect(),
        best: state.best.map(|(epoch, figure)| Best {
            epoch,
            figure: f64::from_bits(figure),
            weights: best_weights,
        }),
        waited: state.waited,
        done: state.done,
        plateau: plateau.unwrap_or_default(),
    }))
}
