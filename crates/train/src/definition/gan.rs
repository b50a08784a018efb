//! The definition of a GAN: two networks, their data, and how they are trained against each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::compile::{gan_losses, optimizer};
use super::named::Named;
use super::{Data, Fitting, Network, Normalize};
use crate::error::{Result, TrainError};
use crate::gan::{Gan, GanSettings, LABEL};
use crate::layers::Rescaling;
use crate::model::Model;

/// What `tureen train` takes for a GAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GanDefinition {
    /// Makes samples of noise: its input. Where it is told which class to make, it has a second input named `label`:
    /// [10] for a row of 0 and 1 over ten classes, [1] for a class's number.
    pub generator: Network,
    /// Scores samples, the higher the more real, without bounds. It has the generator's input `label` too.
    pub discriminator: Network,
    /// Where samples come from: x is the discriminator's input, y the class of each, where classes are known.
    pub data: Data,
    /// How the two are trained against each other.
    #[serde(default)]
    pub gan: Adversaries,
    /// How the fit goes.
    #[serde(default)]
    pub fit: Fitting,
}

/// How a generator and a discriminator are trained against each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adversaries {
    /// non_saturating, least_squares, hinge, wasserstein (with a gradient_penalty) or wasserstein_clipped (with a clip).
    pub loss: Named,
    /// What half the squared slope of the discriminator at real samples is multiplied by and added to its loss.
    pub r1: f32,
    /// Steps of the discriminator for one of the generator.
    pub critic_steps: usize,
    /// Adam with a learning rate of 0.0002 and beta_1 of 0.5 otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_optimizer: Option<Named>,
    /// Adam with a learning rate of 0.0002 and beta_1 of 0.5 otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discriminator_optimizer: Option<Named>,
    /// How much of the moving average of the generator's weights stays in a step; 0 for none. The average is what makes
    /// samples and is published.
    pub moving_average: f64,
    /// The least and the greatest value in the data, such as [0, 255]: both networks see them as -1 and 1, and the
    /// published generator gives them back. Left out, values are taken and given as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// Rows and columns of the picture of samples that is written after each epoch; a column is a class where there are
    /// classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<[usize; 2]>,
    /// How samples are measured, where the data has classes.
    pub figure: Figure,
}

/// The Fréchet distance of features of a classifier, which is trained on the same data before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Figure {
    /// Samples that are made for it after each epoch, and as many real ones at most.
    pub samples: usize,
    /// Epochs that the classifier is trained for.
    pub epochs: usize,
}

impl Default for Figure {
    fn default() -> Figure {
        Figure { samples: 10_000, epochs: 10 }
    }
}

impl Default for Adversaries {
    fn default() -> Adversaries {
        let GanSettings { r1, critic_steps, .. } = GanSettings::default();
        Adversaries {
            loss: Named::Name("non_saturating".to_owned()),
            r1,
            critic_steps,
            generator_optimizer: None,
            discriminator_optimizer: None,
            moving_average: 0.999,
            range: None,
            grid: None,
            figure: Figure::default(),
        }
    }
}

/// Pictures on a side of a grid.
const GRID_MAX: usize = 64;
/// Samples that the figure is worked out from.
const FIGURE_SAMPLES_MAX: usize = 1_000_000;

impl Adversaries {
    /// The settings, with optimisers and loss by name.
    ///
    /// # Errors
    /// When something named isn't known, or has an argument that isn't.
    pub fn settings(&self) -> Result<GanSettings> {
        let defaults = GanSettings::default();
        let chosen = |given: &Option<Named>, default| given.as_ref().map_or(Ok(default), optimizer);
        Ok(GanSettings {
            loss: gan_losses().read(&self.loss)?,
            r1: self.r1,
            critic_steps: self.critic_steps,
            generator_optimizer: chosen(&self.generator_optimizer, defaults.generator_optimizer)?,
            discriminator_optimizer: chosen(&self.discriminator_optimizer, defaults.discriminator_optimizer)?,
            moving_average: self.moving_average as f32,
        })
    }

    fn check(&self) -> Result<()> {
        let wrong = |argument, expected: String, received: String| {
            Err(TrainError::Argument { place: "[gan]".to_owned(), argument, expected, received })
        };
        if let Some([low, high]) = self.range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return wrong("range", "the least and the greatest value".to_owned(), format!("[{low}, {high}]"));
        }
        if let Some([rows, columns]) = self.grid
            && !((1..=GRID_MAX).contains(&rows) && (1..=GRID_MAX).contains(&columns))
        {
            let expected = format!("rows and columns, 1 to {GRID_MAX} each");
            return wrong("grid", expected, format!("[{rows}, {columns}]"));
        }
        if !(2..=FIGURE_SAMPLES_MAX).contains(&self.figure.samples) {
            let expected = format!("samples = 2 to {FIGURE_SAMPLES_MAX}");
            return wrong("figure", expected, self.figure.samples.to_string());
        }
        if self.figure.epochs == 0 {
            return wrong("figure", "epochs = 1 or more".to_owned(), "0".to_owned());
        }
        Ok(())
    }
}

impl GanDefinition {
    pub(super) fn check(&self) -> Result<()> {
        self.fit.check()?;
        self.gan.check()?;
        let absent = [
            (self.fit.validation_split != 0.0, "[fit]", "validation_split"),
            (self.fit.class_weight.is_some(), "[fit]", "class_weight"),
            (self.fit.early_stopping.is_some(), "[fit]", "early_stopping"),
            (self.fit.reduce_lr_on_plateau.is_some(), "[fit]", "reduce_lr_on_plateau"),
            (self.data.weights.is_some(), "[data]", "weights"),
            (self.data.validation.is_some(), "[data]", "validation"),
        ];
        if let Some((_, place, key)) = absent.into_iter().find(|(is_there, ..)| *is_there) {
            let problem = format!("{key} has no meaning for a GAN; leave it out");
            return Err(TrainError::Definition { place: place.to_owned(), problem });
        }
        if self.data.normalize != Normalize::None {
            let problem =
                "normalize has no meaning for a GAN; say range = [least, greatest] in [gan]".to_owned();
            return Err(TrainError::Definition { place: "[data]".to_owned(), problem });
        }
        Ok(())
    }

    /// The two, with weights drawn from the seed of the fit.
    ///
    /// # Errors
    /// When a layer isn't known or doesn't fit, or the two don't go together; the error names the network or both.
    pub fn build(&self, threads: usize) -> Result<Gan> {
        let seed = self.fit.seed;
        let of = |name: &'static str, network: &Network, seed: u64| {
            network.build(Normalize::None, seed, threads).map_err(|error| of_network(name, error))
        };
        let generator = of("generator", &self.generator, seed)?;
        // Other weights than the generator's, where both have layers of one shape.
        let discriminator = of("discriminator", &self.discriminator, seed.wrapping_add(1))?;
        Gan::new(generator, discriminator, self.gan.settings()?)
    }

    /// The generator as it is published: with `range`, it ends in what brings samples into that range. Its weights are yet
    /// to be set.
    ///
    /// # Errors
    /// As [`GanDefinition::build`].
    pub fn published(&self, threads: usize) -> Result<Model> {
        let last = self.gan.range.map(|[low, high]| Rescaling::new((high - low) / 2.0, (high + low) / 2.0));
        let model = self.generator.build_with(Normalize::None, last, self.fit.seed, threads);
        model.map_err(|error| of_network("generator", error))
    }

    /// Name and shape of the discriminator's input of samples.
    pub fn samples(&self) -> Result<(String, Vec<usize>)> {
        let inputs = self.discriminator.inputs().map_err(|error| of_network("discriminator", error))?;
        inputs.into_iter().find(|(name, _)| name != LABEL).ok_or_else(|| TrainError::Definition {
            place: "[discriminator]".to_owned(),
            problem: format!("it has no input but {LABEL}; it needs one for samples"),
        })
    }

    /// What a checkpoint must agree with to be gone on with.
    pub fn identity(&self) -> Value {
        let mut same = self.clone();
        same.fit = same.fit.identity();
        serde_json::to_value(&same).unwrap_or_default()
    }
}

/// An error of one of the two, which says of which.
fn of_network(name: &str, error: TrainError) -> TrainError {
    match error {
        TrainError::Definition { place, problem } if place == "[model]" => {
            TrainError::Definition { place: format!("[{name}]"), problem }
        }
        TrainError::Definition { place, problem } => {
            TrainError::Definition { place: format!("[{name}] {place}"), problem }
        }
        TrainError::Shape { layer, operation, expected, received } => {
            TrainError::Shape { layer: format!("[{name}] {layer}"), operation, expected, received }
        }
        TrainError::Argument { place, argument, expected, received } => {
            TrainError::Argument { place: format!("[{name}] {place}"), argument, expected, received }
        }
        TrainError::Order(problem) => TrainError::Definition { place: format!("[{name}]"), problem },
        other => other,
    }
}
