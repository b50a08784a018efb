//! Generative adversarial networks: a generator makes samples out of noise, a discriminator scores them beside real ones,
//! and each is trained against the other.
//!
//! Both are models; while they are trained, their weights lie in one workspace, and a step of either is one program. A
//! discriminator's step takes the generator's batch statistics as they are, and leaves its moving ones alone; likewise
//! the other way round.
//!
//! ```
//! use train::prelude::*;
//!
//! # fn main() -> train::Result<()> {
//! let noise = Input::new([8]);
//! let x = Dense::new(32).activation(Relu).on(&noise);
//! let generator = Model::new(&noise, Dense::new(2).on(&x))?;
//! let points = Input::new([2]);
//! let x = Dense::new(32).activation(LeakyRelu).on(&points);
//! let discriminator = Model::new(&points, Dense::new(1).on(&x))?;
//!
//! let loss = GanLoss::Wasserstein { gradient_penalty: 10.0 };
//! let settings = GanSettings { loss, critic_steps: 5, ..GanSettings::default() };
//! let mut gan = Gan::new(generator, discriminator, settings)?;
//! let x = Array::new([64, 2], (0..128).map(|i| (i % 7) as f32).collect())?;
//! gan.fit(&x, None, &Fit::epochs(2))?;
//! assert_eq!(gan.generate(10, None, 1)?.shape, [10, 2]);
//! # Ok(())
//! # }
//! ```

mod fit;
mod frechet;
mod losses;
mod noise;
mod programs;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use kernels::compute::{Compute, Isa};
use kernels::workspace::Workspace;

pub(crate) use fit::{Labels, Totals};
pub(crate) use frechet::{Statistics, frechet_distance};
pub use losses::GanLoss;
pub(crate) use noise::normals;

use crate::compile::{Program, Variables};
use crate::error::{Result, TrainError};
use crate::model::Model;
use crate::optimizers::{Adam, Optimizer, Rule, Settings};
use programs::Key;

/// The input that a class is given to, of both networks.
pub const LABEL: &str = "label";

/// How adversaries are trained.
#[derive(Clone, Debug, PartialEq)]
pub struct GanSettings {
    pub loss: GanLoss,
    /// What half the squared slope of the discriminator at real samples is multiplied by and added to its loss; 0 for
    /// nothing.
    pub r1: f32,
    /// Steps of the discriminator for one of the generator.
    pub critic_steps: usize,
    pub generator_optimizer: Optimizer,
    pub discriminator_optimizer: Optimizer,
    /// How much of the generator's moving average of weights stays in a step; 0 for none. It begins at a tenth and grows
    /// with the steps, so that the first weights are soon forgotten. Samples are made with the average.
    pub moving_average: f32,
}

impl Default for GanSettings {
    fn default() -> GanSettings {
        GanSettings {
            loss: GanLoss::NonSaturating {},
            r1: 0.0,
            critic_steps: 1,
            generator_optimizer: adam(),
            discriminator_optimizer: adam(),
            moving_average: 0.999,
        }
    }
}

/// Adam as GANs take it. Source: Radford et al. 2015, section 4.
fn adam() -> Optimizer {
    let rule = Rule::Adam { beta_1: 0.5, beta_2: 0.999, epsilon: 1e-7, amsgrad: false };
    Optimizer { rule, ..Adam.learning_rate(0.0002) }
}

/// Inputs of a network: the one of noise or of samples, and that of labels where there is one.
#[derive(Clone, Debug)]
struct Inputs {
    main: usize,
    label: Option<usize>,
}

/// One of the two in the workspace.
struct Side {
    /// Its first variable. Those of its model follow in the model's order.
    first: usize,
    /// Where the values of its weights are.
    place: Range<usize>,
    slots: Vec<usize>,
    inputs: Inputs,
    /// Steps of its optimiser.
    iterations: u64,
}

/// A generator and a discriminator.
pub struct Gan {
    generator: Model,
    discriminator: Model,
    settings: GanSettings,
    makes: Side,
    scores: Side,
    /// The variable of the moving average of the generator's trainable weights.
    averaged: Option<usize>,
    variables: Variables,
    compute: Compute,
    workspace: Workspace,
    programs: HashMap<Key, Arc<Program>>,
    /// Whose constants are in the workspace.
    resident: Option<Key>,
}

impl Gan {
    /// Adversaries with the weights that the models have. The generator takes noise, the discriminator takes samples of
    /// the shape that the generator gives; where labels are given to both, each has an input named `label`, which takes
    /// a row of 0 and 1, or the number of a class if its shape is `[1]`.
    ///
    /// # Errors
    /// When the two don't go together, or a setting makes no sense; the error names both.
    pub fn new(generator: Model, discriminator: Model, settings: GanSettings) -> Result<Gan> {
        check_settings(&settings)?;
        settings.generator_optimizer.check()?;
        settings.discriminator_optimizer.check()?;
        let (makes, scores) = (inputs("generator", &generator)?, inputs("discriminator", &discriminator)?);
        check_together(&generator, &makes, &discriminator, &scores)?;
        check_mixing(&discriminator, &settings)?;
        let mut variables = Variables::default();
        let mut side = |model: &Model, optimizer: &Optimizer, inputs: Inputs| {
            let first = variables.add(model.trainable_len);
            for placed in model.weights.iter().filter(|placed| !placed.weight.trainable) {
                variables.add(placed.range.len());
            }
            let start = variables.offset(first);
            let place = start..variables.end();
            let slots = optimizer.slots().iter().map(|_| variables.add(model.trainable_len)).collect();
            Side { first, place, slots, inputs, iterations: 0 }
        };
        let makes = side(&generator, &settings.generator_optimizer, makes);
        let scores = side(&discriminator, &settings.discriminator_optimizer, scores);
        let averaged = (settings.moving_average > 0.0).then(|| variables.add(generator.trainable_len));
        let threads = generator.machine().1;
        let mut workspace = Workspace::new(0, threads);
        workspace.grow(variables.end());
        let values = workspace.values_mut();
        let sides = [
            (&makes, &generator, &settings.generator_optimizer),
            (&scores, &discriminator, &settings.discriminator_optimizer),
        ];
        for (side, model, optimizer) in sides {
            values[side.place.clone()].copy_from_slice(&model.variables()[..side.place.len()]);
            for (&slot, begins) in side.slots.iter().zip(optimizer.slots()) {
                values[variables.offset(slot)..][..model.trainable_len].fill(begins);
            }
        }
        if let Some(averaged) = averaged {
            let first = generator.variables()[..generator.trainable_len].to_vec();
            values[variables.offset(averaged)..][..first.len()].copy_from_slice(&first);
        }
        Ok(Gan {
            generator,
            discriminator,
            settings,
            makes,
            scores,
            averaged,
            variables,
            compute: Compute::new(Isa::detect(), threads),
            workspace,
            programs: HashMap::new(),
            resident: None,
        })
    }

    /// The generator with the weights that it makes samples with: the moving average, where there is one.
    pub fn generator(&mut self) -> &mut Model {
        let values = self.workspace.values();
        self.generator.set_variables(&values[self.makes.place.clone()]);
        if let Some(averaged) = self.averaged {
            let at = self.variables.offset(averaged);
            self.generator.set_variables(&values[at..at + self.generator.trainable_len]);
        }
        &mut self.generator
    }

    /// The discriminator as it is now.
    pub fn discriminator(&mut self) -> &mut Model {
        self.discriminator.set_variables(&self.workspace.values()[self.scores.place.clone()]);
        &mut self.discriminator
    }

    /// Both, for what doesn't depend on their weights.
    pub(crate) fn models(&self) -> [&Model; 2] {
        [&self.generator, &self.discriminator]
    }

    /// Threads that it computes with.
    pub(crate) fn threads(&self) -> usize {
        self.compute.pool().threads()
    }

    pub fn settings(&self) -> &GanSettings {
        &self.settings
    }

    /// The shape of a sample.
    pub fn sample_shape(&self) -> &[usize] {
        &self.discriminator.inputs[self.scores.inputs.main].1
    }

    /// Values of noise for a sample.
    pub fn noise_len(&self) -> usize {
        self.generator.inputs[self.makes.inputs.main].1.iter().product()
    }

    /// Values of a label, where labels are given: classes, or 1 where it is a class's number.
    pub fn label_len(&self) -> Option<usize> {
        Some(self.generator.inputs[self.makes.inputs.label?].1.iter().product())
    }

    /// All that a fit goes on from, by name: weights, slots and the moving average.
    pub(crate) fn state(&self) -> Vec<(String, &[f32])> {
        let values = self.workspace.values();
        self.places().into_iter().map(|(name, place)| (name, &values[place])).collect()
    }

    /// Takes the state over that `values` gives by name.
    ///
    /// # Errors
    /// Those of `values`, and when one has another length.
    pub(crate) fn set_state(&mut self, values: &dyn Fn(&str) -> Result<Vec<f32>>) -> Result<()> {
        for (name, place) in self.places() {
            let new = values(&name)?;
            if new.len() != place.len() {
                let problem = format!("it has {} values, and {} are expected", new.len(), place.len());
                return Err(TrainError::Data { place: name, problem });
            }
            self.workspace.values_mut()[place].copy_from_slice(&new);
        }
        Ok(())
    }

    fn places(&self) -> Vec<(String, Range<usize>)> {
        let vector = |variable: usize, len: usize| {
            let start = self.variables.offset(variable);
            start..start + len
        };
        let mut places = vec![];
        let sides = [
            ("generator", &self.generator, &self.makes),
            ("discriminator", &self.discriminator, &self.scores),
        ];
        for (name, model, side) in sides {
            for placed in &model.weights {
                let start = self.variables.offset(side.first + placed.variable) + placed.range.start;
                places.push((format!("{name}:{}", placed.path), start..start + placed.range.len()));
            }
            for (number, &slot) in side.slots.iter().enumerate() {
                places.push((format!("{name}_slot:{number}"), vector(slot, model.trainable_len)));
            }
        }
        let averaged = self.averaged.map(|variable| vector(variable, self.generator.trainable_len));
        places.extend(averaged.map(|place| ("averaged".to_owned(), place)));
        places
    }

    /// Bytes of weights, the optimisers' slots and what programs so far need beside them.
    pub(crate) fn memory_bytes(&self) -> u64 {
        size_of_val(self.workspace.values()) as u64
    }

    /// Steps of the generator's and of the discriminator's optimiser so far.
    pub fn iterations(&self) -> [u64; 2] {
        [self.makes.iterations, self.scores.iterations]
    }

    pub(crate) fn set_iterations(&mut self, [generator, discriminator]: [u64; 2]) {
        self.makes.iterations = generator;
        self.scores.iterations = discriminator;
    }
}

fn wrong(problem: String) -> TrainError {
    TrainError::Definition { place: "gan".to_owned(), problem }
}

fn inputs(which: &str, model: &Model) -> Result<Inputs> {
    let label = model.inputs.iter().position(|(name, _)| name == LABEL);
    let main: Vec<usize> = (0..model.inputs.len()).filter(|&number| Some(number) != label).collect();
    let names: Vec<&str> = model.inputs.iter().map(|(name, _)| name.as_str()).collect();
    let takes = if which == "generator" { "noise" } else { "samples" };
    let &[main] = &main[..] else {
        return Err(wrong(format!(
            "the {which} takes one input of {takes}, and one named {LABEL} where classes are given; it has: {}",
            names.join(", ")
        )));
    };
    if model.outputs.len() != 1 {
        return Err(wrong(format!("the {which} gives one output; it has {}", model.outputs.len())));
    }
    Ok(Inputs { main, label })
}

fn check_together(generator: &Model, makes: &Inputs, discriminator: &Model, scores: &Inputs) -> Result<()> {
    let (made, (name, taken)) = (generator.output_shape(0), &discriminator.inputs[scores.main]);
    if made != *taken {
        return Err(wrong(format!(
            "the generator gives {made:?}, and the discriminator's input {name} takes {taken:?}; they are one shape, that \
             of the data"
        )));
    }
    let shape = |model: &Model, inputs: &Inputs| inputs.label.map(|number| model.inputs[number].1.clone());
    let said = |shape: &Option<Vec<usize>>| match shape {
        Some(shape) => format!("takes {shape:?} as its input {LABEL}"),
        None => format!("has no input {LABEL}"),
    };
    let (of_generator, of_discriminator) = (shape(generator, makes), shape(discriminator, scores));
    if of_generator != of_discriminator {
        return Err(wrong(format!(
            "classes are given to both or to neither: the generator {}, and the discriminator {}",
            said(&of_generator),
            said(&of_discriminator)
        )));
    }
    match of_generator {
        Some(shape) if shape.len() != 1 => Err(wrong(format!(
            "the input {LABEL} takes a row of 0 and 1, one for each class, as [10] does, or the number of a class as [1] \
             does; it is {shape:?}"
        ))),
        _ => Ok(()),
    }
}

/// A penalty looks at each sample's own slope, which there is none where samples see each other.
fn check_mixing(discriminator: &Model, settings: &GanSettings) -> Result<()> {
    let penalty = match (settings.loss.gradient_penalty(), settings.r1) {
        (Some(_), _) => "gradient_penalty",
        (None, r1) if r1 > 0.0 => "r1",
        _ => return Ok(()),
    };
    match discriminator.layers().find(|(_, layer)| layer.class_name() == "BatchNormalization") {
        Some((name, _)) => Err(wrong(format!(
            "{penalty} is of each sample's own slope, and the discriminator's layer {name} (BatchNormalization) mixes \
             samples; take LayerNormalization or none"
        ))),
        None => Ok(()),
    }
}

fn check_settings(settings: &GanSettings) -> Result<()> {
    let GanSettings { loss, r1, critic_steps, moving_average, .. } = settings;
    let refuse = |what: &str, takes: &str, received: String| {
        Err(wrong(format!("{what} takes {takes}; received {received}")))
    };
    let is_size = |value: f32| value.is_finite() && value >= 0.0;
    if !is_size(*r1) {
        return refuse("r1", "0 or more", r1.to_string());
    }
    if let Some(weight) = loss.gradient_penalty().filter(|weight| !is_size(*weight) || *weight == 0.0) {
        return refuse("gradient_penalty", "more than 0", weight.to_string());
    }
    if let Some(clip) = loss.clip().filter(|clip| !is_size(*clip) || *clip == 0.0) {
        return refuse("clip", "more than 0", clip.to_string());
    }
    if *critic_steps == 0 {
        return refuse("critic_steps", "1 or more", "0".to_owned());
    }
    if !(0.0..1.0).contains(moving_average) {
        return refuse("moving_average", "0 to less than 1", moving_average.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
