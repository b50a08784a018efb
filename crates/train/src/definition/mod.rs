//! A network, its data and its training as one TOML file: the definition that `tureen train` takes.
//!
//! Its words are Keras's: layers, losses, optimisers and metrics by class (`Dense`) or identifier (`"adam"`), with
//! Keras's arguments and defaults. What isn't known is an error that names the nearest.

mod compile;
mod gan;
mod layer;
mod named;
mod network;
mod schema;

pub(crate) use named::nearest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use compile::Compiling;
pub use gan::{Adversaries, Figure, GanDefinition};
pub use layer::LayerEntry;
pub use network::Network;
pub(crate) use network::normalization_of;
pub use schema::schema;

use crate::error::{Result, TrainError};

/// A commented example, which trains as it stands once there is its CSV file.
pub const TEMPLATE: &str = include_str!("template.toml");
/// Bytes of a definition file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What `tureen train` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The network: its inputs and layers.
    pub model: Network,
    /// Where samples come from.
    pub data: Data,
    /// Optimiser, loss and metrics.
    pub compile: Compiling,
    /// How the fit goes.
    #[serde(default)]
    pub fit: Fitting,
}

/// What a definition file holds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Defined {
    Model(Box<Definition>),
    Gan(Box<GanDefinition>),
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

/// What stands for an input or a target: columns of a table, a name within a file, or a file; by input where there are
/// several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Selection {
    Plain(OneOrMany<String>),
    ByName(BTreeMap<String, OneOrMany<String>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Csv,
    Jsonl,
    Parquet,
    Npz,
    Npy,
    Idx,
    Images,
    Text,
}

/// What is learned on the training part and becomes the model's first layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    #[default]
    None,
    /// To mean 0 and deviation 1, each value of a sample by itself.
    Standard,
    /// To 0..1, each value of a sample by itself.
    MinMax,
}

/// Where samples come from. Paths are relative to the definition file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// A .csv, .jsonl, .parquet or .npz file, a .txt file (or a folder of texts, with format = "text"), or a folder of images with a
    /// folder for each class. Not needed where `x` and `y` are .npy or IDX files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// What the files are; found by their ending otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The model's input: columns (CSV and Parquet: all others where it is left out), keys (JSON lines, NPZ) or a file (NPY, IDX). A
    /// table where there are several inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<Selection>,
    /// The target, in the same way. Left out, the target is the input, as for autoencoders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<Selection>,
    /// The column or key of the samples' weights, or a file of them (NPY, IDX): what each counts in the loss, of training and of
    /// validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// What separates values of a CSV file; a comma otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Text is cut into windows as long as the model's input: bytes from the beginning of one to that of the next; as many
    /// as a window has otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Whether samples are read once into a file in the run's folder, and each batch from there, for data that memory
    /// can't hold. Bits are the same either way.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// Whether inputs are brought to a common scale, learned on the training part and published within the model.
    pub normalize: Normalize,
    /// Samples that are only validated with. What it leaves out is as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Part>,
    /// Samples that the finished model is measured with. What it leaves out is as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Part>,
}

impl Data {
    /// Whether the samples are windows of text.
    pub(crate) fn is_text(&self, part: Option<&Part>) -> bool {
        let path = part.and_then(|part| part.path.as_ref()).or(self.path.as_ref());
        let ends = |path: &PathBuf| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("txt"));
        match self.format {
            Some(format) => format == Format::Text,
            None => path.is_some_and(ends),
        }
    }
}

/// A further set of samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Part {
    /// As in [data].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// As in [data].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<Selection>,
    /// As in [data].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<Selection>,
    /// As in [data]; where inputs are files of their own (NPY, IDX), left out means that each sample counts the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// How the fit goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fitting {
    pub epochs: usize,
    pub batch_size: usize,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Decides weights, splits, orders and random numbers.
    pub seed: u64,
    /// The share of samples, chosen by the seed, that is only validated with.
    pub validation_split: f64,
    /// What a sample of a class counts, by the class's name or number; or "balanced".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weight: Option<ClassWeight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduce_lr_on_plateau: Option<ReduceLrOnPlateau>,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: f64,
    /// A checkpoint after each so many steps too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<u64>,
    /// Threads to compute with; a thread for each core otherwise. The weights don't depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}

impl Default for Fitting {
    fn default() -> Fitting {
        Fitting {
            epochs: 10,
            batch_size: 32,
            shuffle: true,
            seed: 1234,
            validation_split: 0.0,
            class_weight: None,
            early_stopping: None,
            reduce_lr_on_plateau: None,
            checkpoint_seconds: 30.0,
            checkpoint_steps: None,
            threads: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClassWeight {
    /// "balanced": classes count alike, however many samples each has.
    Named(Balanced),
    Given(BTreeMap<String, f32>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balanced {
    Balanced,
}

/// Ends the fit where a figure no longer gets better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStopping {
    /// The figure, such as `val_loss` or `accuracy`.
    pub monitor: String,
    /// Epochs without a better figure.
    pub patience: usize,
    /// What a figure must be better by.
    pub min_delta: f64,
    /// Whether less or more is better; by the figure's name otherwise.
    pub mode: Better,
    /// Whether the weights of the best epoch are published, not those of the last.
    pub restore_best_weights: bool,
}

/// Lowers the learning rate where a figure no longer gets better, as Keras's callback of that name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReduceLrOnPlateau {
    /// The figure, such as `val_loss` or `accuracy`.
    pub monitor: String,
    /// What the learning rate is multiplied with.
    pub factor: f64,
    /// Epochs without a better figure.
    pub patience: usize,
    /// Whether less or more is better; by the figure's name otherwise.
    pub mode: Better,
    /// What a figure must be better by.
    pub min_delta: f64,
    /// Epochs after a change in which none is counted.
    pub cooldown: usize,
    /// The least learning rate.
    pub min_lr: f64,
}

impl Default for ReduceLrOnPlateau {
    fn default() -> ReduceLrOnPlateau {
        ReduceLrOnPlateau {
            monitor: "val_loss".to_owned(),
            factor: 0.1,
            patience: 10,
            mode: Better::Auto,
            min_delta: 1e-4,
            cooldown: 0,
            min_lr: 0.0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    #[default]
    Auto,
    Min,
    Max,
}

/// Parts of the names of figures of which more is better.
const MORE_IS_BETTER: [&str; 12] = [
    "acc",
    "auc",
    "precision",
    "recall",
    "sensitivity",
    "f1",
    "fbeta",
    "r2",
    "true_",
    "io_u",
    "correlation",
    "specificity",
];

impl Better {
    /// Whether more of the figure `monitor` is better.
    pub(crate) fn is_more(self, monitor: &str) -> bool {
        match self {
            Better::Max => true,
            Better::Min => false,
            Better::Auto => MORE_IS_BETTER.iter().any(|part| monitor.contains(part)),
        }
    }
}

impl Default for EarlyStopping {
    fn default() -> EarlyStopping {
        EarlyStopping {
            monitor: "val_loss".to_owned(),
            patience: 5,
            min_delta: 0.0,
            mode: Better::Auto,
            restore_best_weights: true,
        }
    }
}

impl Defined {
    /// Reads the definition file at `path`.
    ///
    /// # Errors
    /// When it can't be read, isn't TOML, or has a key or a value that isn't known.
    pub fn read(path: &Path) -> Result<Defined> {
        let name = path.display().to_string();
        let bytes = std::fs::metadata(path).map_err(|error| TrainError::file(path, "read", &error))?.len();
        if bytes > FILE_BYTES_MAX {
            let problem = format!("it has {bytes} bytes, and a definition has {FILE_BYTES_MAX} at most");
            return Err(TrainError::Definition { place: name, problem });
        }
        let bytes = crate::files::read(path).map_err(|error| TrainError::file(path, "read", &error))?;
        let text = String::from_utf8(bytes).map_err(|_| {
            TrainError::data(path.display().to_string(), "it isn't UTF-8: a definition is a text, in TOML")
        })?;
        Defined::parse(&text).map_err(|error| match error {
            TrainError::Definition { place, problem } if place.is_empty() => {
                TrainError::Definition { place: name, problem }
            }
            TrainError::Definition { place, problem } => {
                TrainError::Definition { place: format!("{name}: {place}"), problem }
            }
            other => other,
        })
    }

    /// Reads a definition's text: of a GAN, if it has a generator or a discriminator.
    ///
    /// # Errors
    /// As [`Defined::read`].
    pub fn parse(text: &str) -> Result<Defined> {
        let table: toml::Table = toml_of(text)?;
        let has = |key: &str| table.contains_key(key);
        if !["generator", "discriminator", "gan"].into_iter().any(has) {
            return Definition::parse(text).map(|definition| Defined::Model(Box::new(definition)));
        }
        if let Some(other) = ["model", "compile"].into_iter().find(|key| has(key)) {
            let problem = format!(
                "[{other}] stands beside the networks of a GAN; a definition has [model] and [compile], or [generator] and \
                 [discriminator]"
            );
            return Err(TrainError::Definition { place: String::new(), problem });
        }
        let definition: GanDefinition = toml_of(text)?;
        definition.check()?;
        Ok(Defined::Gan(Box::new(definition)))
    }
}

impl Definition {
    /// Reads the text of a model's definition.
    ///
    /// # Errors
    /// As [`Defined::read`].
    pub fn parse(text: &str) -> Result<Definition> {
        let definition: Definition = toml_of(text)?;
        definition.fit.check()?;
        Ok(definition)
    }

    /// What a checkpoint must agree with to be gone on with: all but how long the fit goes and how it is kept.
    pub fn identity(&self) -> Value {
        let mut same = self.clone();
        same.fit = same.fit.identity();
        serde_json::to_value(&same).unwrap_or_default()
    }
}

fn toml_of<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let problem = named::with_nearest(error.message());
        let place = error.span().map(|span| line_of(text, span.start)).unwrap_or_default();
        TrainError::Definition { place, problem }
    })
}

fn line_of(text: &str, at: usize) -> String {
    let before = text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count();
    format!("line {}", before + 1)
}

impl Fitting {
    /// What decides the bits of a fit.
    fn identity(&self) -> Fitting {
        Fitting { epochs: 0, checkpoint_seconds: 0.0, checkpoint_steps: None, threads: None, ..self.clone() }
    }

    fn check(&self) -> Result<()> {
        let wrong = |argument: &'static str, expected: &str, received: String| {
            Err(TrainError::Argument {
                place: "[fit]".to_owned(),
                argument,
                expected: expected.to_owned(),
                received,
            })
        };
        if self.batch_size == 0 {
            return wrong("batch_size", "1 or more", "0".to_owned());
        }
        if !(0.0..1.0).contains(&self.validation_split) {
            return wrong(
                "validation_split",
                "a share from 0 to less than 1",
                self.validation_split.to_string(),
            );
        }
        if self.checkpoint_seconds.is_nan() || self.checkpoint_seconds < 0.0 {
            return wrong("checkpoint_seconds", "0 or more", self.checkpoint_seconds.to_string());
        }
        if self.checkpoint_steps == Some(0) {
            return wrong("checkpoint_steps", "1 or more", "0".to_owned());
        }
        if let Some(plateau) = &self.reduce_lr_on_plateau {
            if !(plateau.factor > 0.0 && plateau.factor < 1.0) {
                let factor = plateau.factor.to_string();
                return wrong("reduce_lr_on_plateau.factor", "a number between 0 and 1", factor);
            }
            if !(plateau.min_lr >= 0.0 && plateau.min_lr.is_finite()) {
                return wrong("reduce_lr_on_plateau.min_lr", "0 or more", plateau.min_lr.to_string());
            }
        }
        if let Some(threads @ (0 | 1025..)) = self.threads {
            return wrong("threads", "1 to 1024", threads.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
