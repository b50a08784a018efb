//! Fitting adversaries, and samples of what they have learned.

use super::programs::{DRAWS, ITERATION, Key, LABELS, RATE, Role, SAMPLES, SEED};
use super::{Gan, normals, wrong};
use crate::error::{Result, TrainError};
use crate::model::{Array, Fit, History, seed_at};

/// The stream of noise of samples that somebody asks for.
const SHOWN: u32 = 0x5a17;

/// The class of each sample, as the networks are given it: its number, or a row of 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Labels {
    classes: Vec<usize>,
    /// Values of a label.
    len: usize,
}

impl Labels {
    /// Writes the labels of the samples `batch` one after the other.
    fn gather(&self, batch: impl IntoIterator<Item = usize>, to: &mut [f32]) {
        for (row, sample) in to.chunks_exact_mut(self.len).zip(batch) {
            match self.len {
                1 => row[0] = self.classes[sample] as f32,
                _ => {
                    row.fill(0.0);
                    row[self.classes[sample]] = 1.0;
                }
            }
        }
    }
}

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
            let mut rows = vec![0.0; count * labels.len];
            labels.gather(0..count, &mut rows);
            inputs.insert(at, Array::new([count, labels.len], rows)?);
        }
        Ok(self.generator().predict(inputs, BATCH)?.swap_remove(0))
    }

    /// Classes as the networks are given them; nothing where they are given none.
    ///
    /// # Errors
    /// When classes are given to the networks and not here, the other way round, or there are more classes than places.
    pub(crate) fn labels(&self, samples: usize, classes: Option<&[usize]>) -> Result<Option<Labels>> {
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
        match classes.iter().position(|&class| len > 1 && class >= len) {
            Some(sample) => Err(wrong(format!(
                "the class {} of sample {sample} is beyond the input label, which takes {len} classes",
                classes[sample]
            ))),
            None => Ok(Some(Labels { classes: classes.to_vec(), len })),
        }
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
        self.program_of(Key { role: Role::Generator, batch })?;
        self.program_of(Key { role: Role::Discriminator, batch })?;
        Ok(())
    }

    /// A step of the discriminator on the samples `batch` and, after each `critic_steps` of them, one of the generator with
    /// as many samples and the same labels.
    ///
    /// # Errors
    /// When a loss is no finite number.
    pub(crate) fn step(
        &mut self,
        x: &Array,
        labels: Option<&Labels>,
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

    fn run(&mut self, role: Role, x: &Array, labels: Option<&Labels>, batch: &[usize]) -> Result<Vec<f32>> {
        // Each step of either draws its own numbers.
        let draws = self.makes.iterations + self.scores.iterations;
        let (side, optimizer, outputs) = match role {
            Role::Generator => (&mut self.makes, &self.settings.generator_optimizer, 1),
            Role::Discriminator => (&mut self.scores, &self.settings.discriminator_optimizer, 3),
        };
        let rate = optimizer.learning_rate.at(side.iterations);
        side.iterations += 1;
        let seed = seed_at(self.generator.seed(), draws);
        let scalars = [rate, side.iterations as f32, seed, draws as f32];
        let outputs = outputs + (role == Role::Discriminator && self.has_penalty()) as usize;
        let program = self.program_of(Key { role, batch: batch.len() })?;
        if let Some(to) = program.input(&mut self.workspace, SAMPLES) {
            x.gather(batch, to);
        }
        if let (Some(labels), Some(to)) = (labels, program.input(&mut self.workspace, LABELS)) {
            labels.gather(batch.iter().copied(), to);
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
