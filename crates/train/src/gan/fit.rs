//! Fitting adversaries, and samples of what they have learned.

use super::programs::{DRAWS, ITERATION, Key, LABELS, RATE, Role, SAMPLES, SEED};
use super::{Gan, normals, wrong};
use crate::error::{Result, TrainError};
use crate::model::{Array, Fit, History};

/// The stream of noise of samples that somebody asks for.
const SHOWN: u32 = 0x5a17;

/// The running sums of an epoch: the discriminator's loss, mean scores of real and of made samples, penalties, and the
/// generator's loss, each times the samples that it is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub sums: [f64; 5],
    /// Samples of the discriminator's steps, and of the generator's.
    pub samples: [usize; 2],
}

impl Totals {
    /// Means by name; NaN where there was no step.
    pub fn figures(&self, has_penalty: bool) -> Vec<(String, f64)> {
        let names = [
            "discriminator_loss",
            "real_score",
            "generated_score",
            "discriminator_penalty",
            "generator_loss",
        ];
        let each = names.into_iter().enumerate().filter(|(index, _)| *index != 3 || has_penalty);
        let mean = |index: usize| self.sums[index] / self.samples[(index == 4) as usize] as f64;
        each.map(|(index, name)| (name.to_owned(), mean(index))).collect()
    }
}

impl Gan {
    /// Fits both to samples `x`, with the class of each where classes are given. The history has the means of an epoch:
    /// `discriminator_loss`, `real_score`, `generated_score`, `discriminator_penalty` where there is one, `generator_loss`.
    ///
    /// # Errors
    /// When shapes don't go together, or a loss is no finite number.
    pub fn fit(&mut self, x: &Array, classes: Option<&[usize]>, fit: &Fit) -> Result<History> {
        self.check_samples(x)?;
        let labels = self.labels(x.samples(), classes)?;
        let mut history = History::default();
        for epoch in 0..fit.epochs {
            let order = self.order(x.samples(), epoch, fit.shuffle, self.scores.iterations);
            let mut totals = Totals::default();
            for batch in order.chunks(fit.batch_size.max(1)) {
                self.step(x, labels.as_ref(), batch, &mut totals)?;
            }
            history.epochs.push(totals.figures(self.has_penalty()));
        }
        Ok(history)
    }

    /// `count` samples, made of noise that the seed decides, of these classes where classes are given.
    ///
    /// # Errors
    /// When classes are given to the networks and not here, or the other way round.
    pub fn generate(&mut self, count: usize, classes: Option<&[usize]>, seed: u64) -> Result<Array> {
        let noise = normals(seed, SHOWN, count * self.noise_len());
        self.made_of(&noise, classes)
    }

    /// What is made of this noise.
    pub(crate) fn made_of(&mut self, noise: &[f32], classes: Option<&[usize]>) -> Result<Array> {
        const BATCH: usize = 64;
        let count = noise.len() / self.noise_len().max(1);
        let noise = Array::new(self.noise_shape(count), noise.to_vec())?;
        let labels = self.labels(count, classes)?;
        let mut inputs = vec![noise];
        if let (Some(labels), Some(at)) = (labels, self.makes.inputs.label) {
            inputs.insert(at, labels);
        }
        Ok(self.generator().predict(inputs, BATCH)?.swap_remove(0))
    }

    /// Classes as the networks are given them; nothing where they are given none.
    ///
    /// # Errors
    /// When classes are given to the networks and not here, the other way round, or there are more classes than places.
    pub(crate) fn labels(&self, samples: usize, classes: Option<&[usize]>) -> Result<Option<Array>> {
        let (len, classes) = match (self.label_len(), classes) {
            (None, None) => return Ok(None),
            (Some(len), Some(classes)) if classes.len() == samples => (len, classes),
            (Some(_), Some(classes)) => {
                return Err(wrong(format!(
                    "{samples} samples have a class each; received {}",
                    classes.len()
                )));
            }
            (Some(_), None) => {
                return Err(wrong("the networks have an input label, and no classes are given".to_owned()));
            }
            (None, Some(_)) => {
                return Err(wrong("classes are given, and the networks have no input label".to_owned()));
            }
        };
        if len == 1 {
            let numbers = classes.iter().map(|&class| class as f32).collect();
            return Array::new([samples, 1], numbers).map(Some);
        }
        let mut rows = vec![0.0; samples * len];
        for (sample, &class) in classes.iter().enumerate() {
            if class >= len {
                return Err(wrong(format!(
                    "the class {class} of sample {sample} is beyond the input label, which takes {len} classes"
                )));
            }
            rows[sample * len + class] = 1.0;
        }
        Array::new([samples, len], rows).map(Some)
    }

    pub(crate) fn check_samples(&self, x: &Array) -> Result<()> {
        if x.shape[1..] == *self.sample_shape() {
            return Ok(());
        }
        Err(wrong(format!(
            "samples have the shape {:?}, and the networks make and take {:?}",
            &x.shape[1..],
            self.sample_shape()
        )))
    }

    pub(crate) fn order(&self, samples: usize, epoch: usize, shuffle: bool, before: u64) -> Vec<usize> {
        self.discriminator.order(samples, epoch, shuffle, before)
    }

    /// Makes the programs of a fit, so that what doesn't go together is found before it begins.
    pub(crate) fn prepare(&mut self, batch: usize) -> Result<()> {
        self.ensure(Key { role: Role::Generator, batch })?;
        self.ensure(Key { role: Role::Discriminator, batch })
    }

    /// A step of the discriminator on the samples `batch` and, after each `critic_steps` of them, one of the generator with
    /// as many samples and the same labels.
    ///
    /// # Errors
    /// When a loss is no finite number.
    pub(crate) fn step(
        &mut self,
        x: &Array,
        labels: Option<&Array>,
        batch: &[usize],
        totals: &mut Totals,
    ) -> Result<()> {
        let count = batch.len() as f64;
        let shown = self.run(Role::Discriminator, x, labels, batch)?;
        totals.samples[0] += batch.len();
        for (sum, value) in totals.sums.iter_mut().zip(shown) {
            *sum += value as f64 * count;
        }
        if self.scores.iterations.is_multiple_of(self.settings.critic_steps as u64) {
            let shown = self.run(Role::Generator, x, labels, batch)?;
            totals.samples[1] += batch.len();
            totals.sums[4] += shown[0] as f64 * count;
        }
        Ok(())
    }

    fn run(&mut self, role: Role, x: &Array, labels: Option<&Array>, batch: &[usize]) -> Result<Vec<f32>> {
        let key = Key { role, batch: batch.len() };
        self.ensure(key)?;
        // Each step of either draws its own numbers.
        let draws = self.makes.iterations + self.scores.iterations;
        let (side, optimizer, outputs) = match role {
            Role::Generator => (&mut self.makes, &self.settings.generator_optimizer, 1),
            Role::Discriminator => (&mut self.scores, &self.settings.discriminator_optimizer, 3),
        };
        let rate = optimizer.learning_rate.at(side.iterations);
        side.iterations += 1;
        let scalars = [rate, side.iterations as f32, self.generator.seed() as u32 as f32, draws as f32];
        let outputs = outputs + (role == Role::Discriminator && self.has_penalty()) as usize;
        let Some(program) = self.programs.get(&key) else { return Ok(vec![]) };
        for (number, array) in [(SAMPLES, Some(x)), (LABELS, labels)] {
            if let (Some(array), Some(to)) = (array, program.input(&mut self.workspace, number)) {
                array.gather(batch, to);
            }
        }
        for (number, value) in [RATE, ITERATION, SEED, DRAWS].into_iter().zip(scalars) {
            if let Some(to) = program.input(&mut self.workspace, number) {
                to[0] = value;
            }
        }
        program.run(&self.compute, &mut self.workspace);
        let shown: Vec<f32> = (0..outputs).map(|index| program.output(&self.workspace, index)[0]).collect();
        if shown[0].is_finite() {
            return Ok(shown);
        }
        let first = match role {
            Role::Generator => ", in the generator's loss",
            Role::Discriminator => ", in the discriminator's loss",
        };
        Err(TrainError::NotFinite { loss: shown[0], step: self.scores.iterations, first: first.to_owned() })
    }
}
