//! A network with its definition and its data: what is trained again after it was made smaller.

use std::path::{Path, PathBuf};

use serde_json::Value;
use train::definition::{Defined, Definition};
use train::losses::Loss;
use train::model::Fit;
use train::run::{self, Prepared};

use super::error::{Listener, NetworkError, Result, tell, told};
use super::measure::{Samples, Task, Truth};
use crate::progress::{Phase, Progress};

/// A weight's path, shape and values.
pub(super) type Named = (String, Vec<usize>, Vec<f32>);

/// A network that can be trained.
pub struct Network {
    pub session: Prepared,
    /// Where paths of the definition begin.
    base: PathBuf,
}

impl Network {
    /// The network that the file `definition` says, with weights drawn at random, and its data.
    ///
    /// # Errors
    /// When the definition or its data isn't right, or it is of a GAN.
    pub fn read(definition: &Path) -> Result<Network> {
        let base = definition.parent().unwrap_or(Path::new("")).to_owned();
        match Defined::read(definition)? {
            Defined::Model(read) => Network::new(*read, base),
            Defined::Gan(_) => {
                let problem = "it defines a GAN; networks with data and targets can be trained again";
                Err(NetworkError::model(definition.display().to_string(), problem))
            }
        }
    }

    pub(super) fn new(definition: Definition, base: PathBuf) -> Result<Network> {
        Ok(Network { session: Prepared::new(definition, &base)?, base })
    }

    /// The same data with another network.
    pub(super) fn redefined(&self, definition: Definition) -> Result<Network> {
        Network::new(definition, self.base.clone())
    }

    /// Takes the weights of the file `weights` (`model.safetensors` of a run).
    ///
    /// # Errors
    /// When the file isn't one, or its weights aren't those of the definition.
    pub fn load(&mut self, weights: &Path) -> Result<()> {
        let bytes = std::fs::read(weights).map_err(NetworkError::io(weights, "read"))?;
        let entries = formats::safetensors::read(&bytes)?;
        let place = || weights.display().to_string();
        let count = self.session.model.weights().count();
        if entries.len() != count {
            let problem = format!("it has {} weights, and the definition {count}", entries.len());
            return Err(NetworkError::model(place(), problem));
        }
        for entry in entries {
            let float = kernels::elements::ElementType::F32;
            if entry.element_type.as_ref().ok() != Some(&float) {
                return Err(NetworkError::model(place(), format!("{} isn't of 32-bit floats", entry.name)));
            }
            let values = bytes[entry.bytes].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            self.session.model.set_weight(&entry.name, &values.collect::<Vec<f32>>())?;
        }
        Ok(())
    }

    /// All weights.
    pub(super) fn weights(&self) -> Vec<Named> {
        let weights = self.session.model.weights();
        weights.map(|(path, shape, values)| (path.to_owned(), shape.to_vec(), values.to_vec())).collect()
    }

    /// Trains for `epochs`, and keeps the weights of the epoch with the least loss of the validation part (of the training
    /// part where there is none), those before the first among them. `on` is told of each epoch, with that loss.
    ///
    /// # Errors
    /// When training goes to NaN or infinity, or `on` asked to stop.
    pub fn train(&mut self, epochs: usize, on: &mut Listener<'_>) -> Result<()> {
        tell(on, Phase::Training, 0, epochs)?;
        let Prepared { model, training, validation, definition, .. } = &mut self.session;
        let judges = validation.as_ref().unwrap_or(training);
        let batch = definition.fit.batch_size;
        let mut fit = Fit::epochs(1).batch_size(batch).shuffle(definition.fit.shuffle);
        if let Some(weights) = &training.weights {
            fit = fit.sample_weight(weights.clone());
        }
        let loss = |figures: Vec<(String, f64)>| figures.first().map_or(f64::INFINITY, |(_, loss)| *loss);
        let mut best = loss(model.evaluate(judges.x.clone(), judges.y.clone(), batch)?);
        let now = |model: &train::model::Model| -> Vec<(String, Vec<f32>)> {
            model.weights().map(|(path, _, values)| (path.to_owned(), values.to_vec())).collect()
        };
        let mut kept = now(model);
        for epoch in 1..=epochs {
            model.fit(training.x.clone(), training.y.clone(), &fit)?;
            let figure = loss(model.evaluate(judges.x.clone(), judges.y.clone(), batch)?);
            let progress = Progress::new(Phase::Training, epoch, epochs);
            told(on(Progress { loss: Some(figure), ..progress }))?;
            if figure < best || !best.is_finite() {
                (best, kept) = (figure, now(model));
            }
        }
        for (path, values) in kept {
            model.set_weight(&path, &values)?;
        }
        Ok(())
    }

    /// The network as ONNX.
    ///
    /// # Errors
    /// When what it computes depends on the size of a batch.
    pub fn onnx(&self) -> Result<Vec<u8>> {
        Ok(train::files::onnx::write(&self.session.model)?)
    }

    /// What the network was trained on, and what it is judged by.
    pub fn samples(&self) -> (Samples, Samples) {
        (self.of(&self.session.training), self.of(self.session.judged_by()))
    }

    /// What choices are made by: the validation part if there is one.
    pub(super) fn choosing(&self) -> Samples {
        self.of(self.session.validation.as_ref().unwrap_or(&self.session.training))
    }

    fn of(&self, samples: &run::Samples) -> Samples {
        let names = self.session.model.input_names();
        let inputs = names.into_iter().zip(samples.x.iter().cloned()).collect();
        let task = self.session.losses.first().map(task);
        let truth = samples.y.first().zip(task).map(|(target, task)| Truth { task, target: target.clone() });
        Samples { inputs, truth }
    }

    /// The definition as TOML.
    pub(super) fn definition_text(&self) -> Result<String> {
        let text = toml::to_string(&self.session.definition);
        text.map_err(|error| NetworkError::model("the definition", error.to_string()))
    }
}

/// What a loss asks of answers.
fn task(loss: &Loss) -> Task {
    match loss {
        Loss::CategoricalCrossentropy { .. }
        | Loss::SparseCategoricalCrossentropy { .. }
        | Loss::CategoricalFocalCrossentropy { .. }
        | Loss::CategoricalHinge {} => Task::Classes,
        Loss::BinaryCrossentropy { .. } | Loss::BinaryFocalCrossentropy { .. } => Task::YesOrNo,
        _ => Task::Numbers,
    }
}

/// The value of a table's argument as a size.
pub(super) fn size(value: Option<&Value>) -> Option<usize> {
    usize::try_from(value?.as_u64()?).ok()
}
