//! Compiling, fitting, evaluating and predicting.

use kernels::fused::{random_key, random_uniform};
use kernels::workspace::Workspace;

use super::Model;
use super::data::{Array, Arrays};
use super::programs::{Compiled, ITERATION, Key, Mode, RATE, SEED};
use crate::compile::Program;
use crate::error::{Result, TrainError};
use crate::losses::{Loss, check_ctc};
use crate::metrics::Metric;
use crate::optimizers::Optimizer;

/// How a fit goes.
#[derive(Clone, Debug)]
pub struct Fit {
    pub epochs: usize,
    pub batch_size: usize,
    pub shuffle: bool,
    pub validation: Option<(Arrays, Arrays)>,
    pub sample_weight: Option<Vec<f32>>,
    /// What each sample of the validation counts in its loss.
    pub validation_sample_weight: Option<Vec<f32>>,
}

impl Default for Fit {
    fn default() -> Fit {
        Fit {
            epochs: 1,
            batch_size: 32,
            shuffle: true,
            validation: None,
            sample_weight: None,
            validation_sample_weight: None,
        }
    }
}

impl Fit {
    pub fn epochs(epochs: usize) -> Fit {
        Fit { epochs, ..Fit::default() }
    }

    pub fn batch_size(mut self, batch_size: usize) -> Fit {
        self.batch_size = batch_size;
        self
    }

    pub fn shuffle(mut self, shuffle: bool) -> Fit {
        self.shuffle = shuffle;
        self
    }

    pub fn validation(mut self, x: impl Into<Arrays>, y: impl Into<Arrays>) -> Fit {
        self.validation = Some((x.into(), y.into()));
        self
    }

    pub fn sample_weight(mut self, weights: Vec<f32>) -> Fit {
        self.sample_weight = Some(weights);
        self
    }

    pub fn validation_sample_weight(mut self, weights: Vec<f32>) -> Fit {
        self.validation_sample_weight = Some(weights);
        self
    }
}

/// Figures by name, for each epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub epochs: Vec<Vec<(String, f64)>>,
}

impl History {
    /// A figure over the epochs.
    pub fn of(&self, name: &str) -> Vec<f64> {
        let figures = self.epochs.iter().flatten();
        figures.filter(|(other, _)| other == name).map(|(_, figure)| *figure).collect()
    }
}

/// The running sums of an epoch or an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub loss: f64,
    pub samples: usize,
    pub metrics: Vec<Vec<f64>>,
}

impl Sums {
    /// Adds those of samples that follow.
    pub fn add(&mut self, more: &Sums) {
        self.loss += more.loss;
        self.samples += more.samples;
        for (all, more) in self.metrics.iter_mut().zip(&more.metrics) {
            all.resize(more.len(), 0.0);
            all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        }
    }
}

impl Model {
    /// Sets the optimiser, a loss for each output, and the metrics of each output. The optimiser begins anew.
    ///
    /// # Errors
    /// When losses and outputs differ in number.
    pub fn compile<L: Into<Loss>, M: Into<Metric>>(
        &mut self,
        optimizer: impl Into<Optimizer>,
        losses: impl IntoLosses<L>,
        metrics: impl IntoIterator<Item = M>,
    ) -> Result<()> {
        let metrics: Vec<Metric> = metrics.into_iter().map(Into::into).collect();
        self.compile_each(optimizer, losses, vec![metrics; self.outputs.len()])
    }

    /// As [`Model::compile`], with metrics of each output alone.
    ///
    /// # Errors
    /// When losses or lists of metrics and outputs differ in number, or the optimiser has an argument that makes no sense.
    pub fn compile_each<L: Into<Loss>>(
        &mut self,
        optimizer: impl Into<Optimizer>,
        losses: impl IntoLosses<L>,
        metrics: Vec<Vec<Metric>>,
    ) -> Result<()> {
        let losses = losses.losses();
        if metrics.len() != self.outputs.len() {
            let expected = format!("{} lists of metrics, one for each output", self.outputs.len());
            return Err(wrong("compile", "metrics", expected, metrics.len().to_string()));
        }
        if losses.len() != self.outputs.len() {
            return Err(TrainError::Argument {
                place: "compile".to_owned(),
                argument: "loss",
                expected: format!("{} losses, one for each output", self.outputs.len()),
                received: losses.len().to_string(),
            });
        }
        let optimizer = optimizer.into();
        optimizer.check()?;
        metrics.iter().flatten().try_for_each(Metric::check)?;
        let begins = optimizer.slots();
        self.programs.retain(|key, _| key.mode == Mode::Predict);
        let mut variables = crate::compile::Variables::default();
        variables.add(self.trainable_len);
        for placed in self.weights.iter().filter(|placed| !placed.weight.trainable) {
            variables.add(placed.range.len());
        }
        let slots: Vec<usize> = begins.iter().map(|_| variables.add(self.trainable_len)).collect();
        self.programs.clear();
        self.resident = None;
        self.variables = variables;
        self.workspace.grow(self.variables.end());
        for (&slot, &value) in slots.iter().zip(&begins) {
            let start = self.variables.offset(slot);
            self.workspace.values_mut()[start..start + self.trainable_len].fill(value);
        }
        self.compiled = Some(Compiled { optimizer, losses, metrics, slots });
        self.iterations = 0;
        Ok(())
    }

    /// Fits the model to the data.
    ///
    /// # Errors
    /// When shapes don't go together, or the loss is no finite number.
    pub fn fit(&mut self, x: impl Into<Arrays>, y: impl Into<Arrays>, fit: &Fit) -> Result<History> {
        let (x, y) = (x.into().0, y.into().0);
        let samples = self.check_data(&x, Some(&y))?;
        check_weights("sample_weight", fit.sample_weight.as_deref(), samples)?;
        let mut history = History::default();
        for epoch in 0..fit.epochs {
            let order = self.order(samples, epoch, fit.shuffle, self.iterations);
            let mut sums = self.no_sums();
            for batch in order.chunks(fit.batch_size.max(1)) {
                let loss = self.step(&x, &y, fit.sample_weight.as_deref(), batch, Mode::Train, &mut sums)?;
                if !loss.is_finite() {
                    return Err(TrainError::NotFinite { loss, step: self.iterations, first: String::new() });
                }
            }
            let mut figures = self.figures(&sums, "");
            if let Some((x, y)) = &fit.validation {
                let weights = fit.validation_sample_weight.as_deref();
                let sums = self.evaluated(&x.0, &y.0, weights, fit.batch_size)?;
                figures.extend(self.figures(&sums, "val_"));
            }
            history.epochs.push(figures);
        }
        self.finish();
        Ok(history)
    }

    /// One step on one batch; the loss before it.
    pub fn train_on_batch(&mut self, x: impl Into<Arrays>, y: impl Into<Arrays>) -> Result<f32> {
        let (x, y) = (x.into().0, y.into().0);
        let samples = self.check_data(&x, Some(&y))?;
        let order: Vec<usize> = (0..samples).collect();
        let mut sums = self.no_sums();
        self.step(&x, &y, None, &order, Mode::Train, &mut sums)
    }

    /// Loss and metrics over the data.
    pub fn evaluate(
        &mut self,
        x: impl Into<Arrays>,
        y: impl Into<Arrays>,
        batch_size: usize,
    ) -> Result<Vec<(String, f64)>> {
        let sums = self.evaluated(&x.into().0, &y.into().0, None, batch_size)?;
        Ok(self.figures(&sums, ""))
    }

    /// The outputs for the data.
    pub fn predict(&mut self, x: impl Into<Arrays>, batch_size: usize) -> Result<Vec<Array>> {
        let x = x.into().0;
        let samples = self.check_data(&x, None)?;
        let mut results: Vec<Array> = (0..self.outputs.len())
            .map(|output| {
                let shape = [&[samples], &self.output_shape(output)[..]].concat();
                Array { values: Vec::with_capacity(shape.iter().product()), shape }
            })
            .collect();
        let order: Vec<usize> = (0..samples).collect();
        for batch in order.chunks(batch_size.max(1)) {
            let key = Key { mode: Mode::Predict, batch: batch.len(), weighted: false, labels: 0 };
            self.ensure(key)?;
            let Some(entry) = self.programs.get(&key) else { continue };
            for (number, array) in x.iter().enumerate() {
                if let Some(to) = entry.program.input(&mut self.workspace, number) {
                    array.gather(batch, to);
                }
            }
            entry.program.run(&self.compute, &mut self.workspace);
            for (output, result) in results.iter_mut().enumerate() {
                result.values.extend_from_slice(entry.program.output(&self.workspace, output));
            }
        }
        Ok(results)
    }

    /// Where the time of the last program goes, over `runs` further runs of it; weights and slots move on.
    pub fn profile(&mut self, runs: usize) -> Result<String> {
        let entry = self.resident.and_then(|key| self.programs.get(&key));
        let entry =
            entry.ok_or_else(|| TrainError::Order("fit the model before it is profiled".to_owned()))?;
        Ok(entry.program.profile(&self.compute, &mut self.workspace, runs))
    }

    pub(crate) fn no_sums(&self) -> Sums {
        let metrics = self.compiled.iter().flat_map(|compiled| &compiled.metrics).flatten().count();
        Sums { loss: 0.0, samples: 0, metrics: vec![vec![]; metrics] }
    }

    /// Sums over the data, of which each sample counts its weight in the loss, and the same in metrics, as in Keras.
    pub(crate) fn evaluated(
        &mut self,
        x: &[Array],
        y: &[Array],
        weights: Option<&[f32]>,
        batch_size: usize,
    ) -> Result<Sums> {
        let samples = self.check_data(x, Some(y))?;
        check_weights("validation_sample_weight", weights, samples)?;
        let order: Vec<usize> = (0..samples).collect();
        let mut sums = self.no_sums();
        for batch in order.chunks(batch_size.max(1)) {
            self.step(x, y, weights, batch, Mode::Evaluate, &mut sums)?;
        }
        Ok(sums)
    }

    /// Runs a program on the samples of `batch`, adds to the sums, and returns the batch's loss.
    pub(super) fn step(
        &mut self,
        x: &[Array],
        y: &[Array],
        weights: Option<&[f32]>,
        batch: &[usize],
        mode: Mode,
        sums: &mut Sums,
    ) -> Result<f32> {
        let key = Key { mode, batch: batch.len(), weighted: weights.is_some(), labels: self.labels(y) };
        self.ensure(key)?;
        let (Some(entry), Some(compiled)) = (self.programs.get(&key), &self.compiled) else {
            return Err(TrainError::Order("compile the model before it is fitted or evaluated".to_owned()));
        };
        for (number, array) in x.iter().chain(y).enumerate() {
            if let Some(to) = entry.program.input(&mut self.workspace, number) {
                array.gather(batch, to);
            }
        }
        let weights_at = self.inputs.len() + self.outputs.len();
        if let (Some(weights), Some(to)) = (weights, entry.program.input(&mut self.workspace, weights_at)) {
            to.iter_mut().zip(batch).for_each(|(to, &sample)| *to = weights[sample]);
        }
        let rate = compiled.optimizer.learning_rate.at(self.iterations);
        if mode == Mode::Train {
            self.iterations += 1;
        }
        write_scalars(
            &entry.program,
            &mut self.workspace,
            [rate, self.iterations as f32, seed_at(self.seed, self.iterations)],
        );
        entry.program.run(&self.compute, &mut self.workspace);
        let loss = entry.program.output(&self.workspace, 0)[0];
        sums.loss += loss as f64 * batch.len() as f64;
        sums.samples += batch.len();
        for (metric, sums) in sums.metrics.iter_mut().enumerate() {
            let added = entry.program.output(&self.workspace, metric + 1);
            sums.resize(added.len(), 0.0);
            sums.iter_mut().zip(added).for_each(|(sum, &x)| *sum += x as f64);
        }
        Ok(loss)
    }

    pub(crate) fn figures(&self, sums: &Sums, prefix: &str) -> Vec<(String, f64)> {
        let mut figures = vec![(format!("{prefix}loss"), sums.loss / sums.samples.max(1) as f64)];
        let Some(compiled) = &self.compiled else { return figures };
        let names = self.figure_names(prefix).into_iter().skip(1);
        let metrics = compiled.metrics.iter().flatten().zip(&sums.metrics);
        figures.extend(names.zip(metrics.flat_map(|(metric, sums)| metric.results(sums))));
        figures
    }

    /// Names of the figures.
    pub(crate) fn figure_names(&self, prefix: &str) -> Vec<String> {
        let several = self.outputs.len() > 1;
        let metrics = self.compiled.as_ref().map_or(&[][..], |compiled| &compiled.metrics);
        let mut names = vec![format!("{prefix}loss")];
        for (index, metrics) in metrics.iter().enumerate() {
            let output = if several { format!("output_{index}_") } else { String::new() };
            let classes = self.output_shape(index).last().copied().unwrap_or(1);
            let each = metrics.iter().flat_map(|metric| metric.names(classes));
            names.extend(each.map(|name| format!("{prefix}{output}{name}")));
        }
        names
    }

    /// The order of samples in an epoch, which the seed and the steps before it decide.
    pub(crate) fn order(&self, samples: usize, epoch: usize, shuffle: bool, before: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..samples).collect();
        if shuffle {
            let key = random_key(epoch as u32, self.seed as u32 as f32, before as f32);
            for i in (1..samples).rev() {
                let draw = random_uniform(key, 2 * i as u32) as f64
                    + random_uniform(key, 2 * i as u32 + 1) as f64 / 16_777_216.0;
                order.swap(i, (draw * (i + 1) as f64) as usize);
            }
        }
        order
    }

    /// The number of samples, if all arrays are shaped as the model takes them.
    pub(crate) fn check_data(&self, x: &[Array], y: Option<&[Array]>) -> Result<usize> {
        if x.len() != self.inputs.len() {
            return Err(wrong(
                "data",
                "x",
                format!("{} arrays, one for each input", self.inputs.len()),
                x.len().to_string(),
            ));
        }
        let samples = x.first().map_or(0, Array::samples);
        for (array, (name, shape)) in x.iter().zip(&self.inputs) {
            if array.shape[1..] != shape[..] || array.samples() != samples {
                return Err(wrong(
                    name,
                    "x",
                    format!("{samples} samples of {shape:?}"),
                    format!("{:?}", array.shape),
                ));
            }
        }
        let (Some(y), Some(compiled)) = (y, &self.compiled) else { return Ok(samples) };
        if y.len() != self.outputs.len() {
            return Err(wrong(
                "data",
                "y",
                format!("{} arrays, one for each output", self.outputs.len()),
                y.len().to_string(),
            ));
        }
        let labels = self.labels(y);
        for (index, (array, loss)) in y.iter().zip(&compiled.losses).enumerate() {
            let shape = self.target_shape(index, loss, labels);
            let len: usize = shape.iter().product();
            if array.sample_len() != len || array.samples() != samples {
                return Err(wrong(
                    "data",
                    "y",
                    format!("{samples} samples of {shape:?}"),
                    format!("{:?}", array.shape),
                ));
            }
            if let (Loss::CTC {}, &[steps, classes]) = (loss, &self.output_shape(index)[..])
                && let Some((sample, problem)) = check_ctc(&array.values, len, steps, classes)
            {
                let expected = "labels that go with the output".to_owned();
                return Err(wrong("data", "y", expected, format!("in sample {sample} {problem}")));
            }
            if let Loss::SparseCategoricalCrossentropy { .. } = loss {
                let classes = self.output_shape(index).last().copied().unwrap_or(0);
                let is_class = |&label: &f32| label >= 0.0 && label < classes as f32 && label.fract() == 0.0;
                if let Some(at) = array.values.iter().position(|label| !is_class(label)) {
                    let expected = format!("classes 0 to {}", classes.saturating_sub(1));
                    return Err(wrong(
                        "data",
                        "y",
                        expected,
                        format!("{} in sample {}", array.values[at], at / len.max(1)),
                    ));
                }
            }
        }
        Ok(samples)
    }
}

/// The seed of the random numbers of a step, which are drawn by it and by the step, both as `f32`. Steps beyond 2^24 share
/// their `f32` with others; these have another seed each.
pub(crate) fn seed_at(seed: u64, step: u64) -> f32 {
    let lost = step.wrapping_sub(step as f32 as u64) as u32;
    (seed as u32 ^ lost.wrapping_mul(0x9e37_79b9)) as f32
}

#[test]
fn steps_beyond_what_an_f32_counts_draw_numbers_of_their_own() {
    let near = |first: u64| {
        let keys = (first..first + 1000).map(|step| random_key(1, seed_at(7, step), step as f32));
        keys.collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!((near(0), near((1 << 24) - 500), near(1 << 30), near(1 << 40)), (1000, 1000, 1000, 1000));
    assert_eq!(seed_at(7, 1 << 24), 7.0);
}

/// Writes learning rate, step and seed.
pub(super) fn write_scalars(program: &Program, workspace: &mut Workspace, scalars: [f32; 3]) {
    for (number, value) in [RATE, ITERATION, SEED].into_iter().zip(scalars) {
        if let Some(to) = program.input(workspace, number) {
            to[0] = value;
        }
    }
}

fn wrong(place: &str, argument: &'static str, expected: String, received: String) -> TrainError {
    TrainError::Argument { place: place.to_owned(), argument, expected, received }
}

fn check_weights(argument: &'static str, weights: Option<&[f32]>, samples: usize) -> Result<()> {
    match weights.filter(|weights| weights.len() != samples) {
        None => Ok(()),
        Some(weights) => {
            let expected = format!("{samples} weights, one a sample");
            Err(wrong("fit", argument, expected, weights.len().to_string()))
        }
    }
}

/// A loss, or one for each output.
pub trait IntoLosses<L: Into<Loss>> {
    fn losses(self) -> Vec<Loss>;
}

impl<L: Into<Loss>> IntoLosses<L> for L {
    fn losses(self) -> Vec<Loss> {
        vec![self.into()]
    }
}

impl<L: Into<Loss>> IntoLosses<L> for Vec<L> {
    fn losses(self) -> Vec<Loss> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<L: Into<Loss>, const N: usize> IntoLosses<L> for [L; N] {
    fn losses(self) -> Vec<Loss> {
        self.into_iter().map(Into::into).collect()
    }
}
