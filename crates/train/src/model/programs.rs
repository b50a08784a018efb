//! The programs of a model: a step of training, an evaluation and a prediction, each for one size of batch.

use super::within::{Passed, Weights, When};
use super::{Array, Model, Origin, PROBE};
use crate::compile::{Program, compile};
use crate::error::{Result, TrainError};
use crate::graph::{Graph, Id};
use crate::layers::masks::expanded;
use crate::losses::Loss;
use crate::metrics::Metric;
use crate::optimizers::Optimizer;

/// Numbers of inputs that aren't data. Targets follow the model's inputs, weights of samples follow targets.
pub(super) const RATE: usize = 1_000_000;
pub(super) const ITERATION: usize = 1_000_001;
pub(super) const SEED: usize = 1_000_002;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    Train,
    Evaluate,
    Predict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub mode: Mode,
    pub batch: usize,
    /// Whether samples have weights.
    pub weighted: bool,
    /// Labels of a sample where the loss takes sequences of them; 0 otherwise.
    pub labels: usize,
}

pub(super) struct Entry {
    pub program: Program,
}

/// What `compile` was given.
pub(super) struct Compiled {
    pub optimizer: Optimizer,
    pub losses: Vec<Loss>,
    /// Of each output.
    pub metrics: Vec<Vec<Metric>>,
    /// Variables of the optimiser's slots.
    pub slots: Vec<usize>,
}

/// A graph of the model's forward pass.
pub(super) struct Forward {
    pub graph: Graph,
    weights: Weights,
    outputs: Vec<Id>,
    masks: Vec<Option<Id>>,
    /// What each step yields.
    pub every: Vec<Vec<Id>>,
    updates: Vec<(Id, Id)>,
}

impl Model {
    pub(super) fn forward(&self, batch: usize, training: bool) -> Result<Forward> {
        let mut graph = Graph::new();
        let mut weights = self.weight_nodes(&mut graph, 0)?;
        self.seen(&mut graph, &mut weights)?;
        let (seed, step) = (graph.input(SEED, &[]), graph.input(ITERATION, &[]));
        let inputs: Vec<Id> = (0..self.inputs.len())
            .map(|i| graph.input(i, &[&[batch], &self.inputs[i].1[..]].concat()))
            .collect();
        let Passed { outputs, masks, every, updates, changed } =
            self.passed(&mut graph, &weights.each, &inputs, When { training, seed, step })?;
        self.begin_with(&mut graph, &mut weights, &changed)?;
        Ok(Forward { graph, weights, outputs, masks, every, updates })
    }

    /// The shape of a sample of output `index`.
    pub(crate) fn output_shape(&self, index: usize) -> Vec<usize> {
        match self.outputs[index] {
            Origin::Input(number) => self.inputs[number].1.clone(),
            Origin::Step(step, output) => self.steps[step].shapes[output][1..].to_vec(),
        }
    }

    /// Labels of a sample of the first target that is sequences of labels; 0 if none is.
    pub(super) fn labels(&self, y: &[Array]) -> usize {
        let losses = self.compiled.as_ref().map_or(&[][..], |compiled| &compiled.losses);
        let mut sequences = losses.iter().zip(y).filter(|(loss, _)| **loss == (Loss::CTC {}));
        sequences.next().map_or(0, |(_, y)| y.sample_len())
    }

    /// The shape of a sample of the targets of output `index`.
    pub(super) fn target_shape(&self, index: usize, loss: &Loss, labels: usize) -> Vec<usize> {
        if *loss == (Loss::CTC {}) {
            return vec![labels];
        }
        let mut shape = self.output_shape(index);
        if matches!(loss, Loss::SparseCategoricalCrossentropy { .. }) {
            shape.pop();
        }
        shape
    }

    /// The loss with penalties, and the sums of each metric of each output.
    fn loss(&self, forward: &mut Forward, compiled: &Compiled, key: Key) -> Result<(Id, Vec<Id>)> {
        let Forward { graph, outputs, masks, weights, .. } = forward;
        graph.set_scope("loss");
        let mut total = graph.scalar(0.0);
        let mut sums = vec![];
        for (index, (&y, loss)) in outputs.iter().zip(&compiled.losses).enumerate() {
            let shape = [&[key.batch], &self.target_shape(index, loss, key.labels)[..]].concat();
            let t = graph.input(self.inputs.len() + index, &shape);
            let mut values = loss.values(graph, t, y)?;
            if let Some(mask) = masks[index] {
                values = counted_only(graph, values, mask)?;
            }
            if key.weighted {
                let mut shape = vec![1; graph.shape(values).len()];
                shape[0] = key.batch;
                let of_samples = graph.input(self.inputs.len() + self.outputs.len(), &[key.batch]);
                let of_samples = graph.reshape(of_samples, &shape)?;
                values = graph.mul(values, of_samples)?;
            }
            let count = graph.shape(values).iter().product::<usize>();
            let sum = graph.sum_all(values)?;
            let mean = graph.scale(sum, 1.0 / count as f32)?;
            total = graph.add(total, mean)?;
            for metric in &compiled.metrics[index] {
                sums.push(metric.sums(graph, [t, y], masks[index], loss)?);
            }
        }
        Ok((self.regularized(graph, weights, total)?, sums))
    }

    /// A step of the optimiser: new values of variables.
    fn training(&self, forward: &mut Forward, compiled: &Compiled, loss: Id) -> Result<Vec<(usize, Id)>> {
        let Forward { graph, weights, .. } = forward;
        let (rate, t) = (graph.input(RATE, &[]), graph.input(ITERATION, &[]));
        let optimizer = (&compiled.optimizer, &compiled.slots[..]);
        let mut updates = self.optimized(graph, weights, loss, optimizer, [rate, t])?;
        updates.extend(self.placed_updates(weights, &forward.updates, 0));
        Ok(updates)
    }

    /// Chooses whether training steps keep what layers yield for the gradient, or a part of it and compute the rest again:
    /// less memory for a tenth to a quarter more time.
    pub fn set_checkpoint_activations(&mut self, checkpoint: bool) {
        if checkpoint != self.checkpoint_activations {
            self.checkpoint_activations = checkpoint;
            self.programs.retain(|key, _| key.mode != Mode::Train);
            self.resident = None;
        }
    }

    /// Bytes that a training step on `batch` samples takes beside weights and the optimiser's slots.
    ///
    /// # Errors
    /// When the model isn't compiled, or shapes don't go together.
    pub fn step_bytes(&mut self, batch: usize) -> Result<usize> {
        let key = Key { mode: Mode::Train, batch, weighted: false, labels: 0 };
        self.ensure(key)?;
        let floats = self.programs.get(&key).map_or(0, |entry| entry.program.floats());
        Ok((floats - self.variables.end()) * size_of::<f32>())
    }

    /// Makes the program of `key`, unless there is one.
    pub(super) fn ensure(&mut self, key: Key) -> Result<()> {
        if !self.programs.contains_key(&key) {
            let mut forward = self.forward(key.batch, key.mode == Mode::Train)?;
            let mut forward_len = None;
            let (outputs, updates) = match (key.mode, &self.compiled) {
                (Mode::Predict, _) => (forward.outputs.clone(), vec![]),
                (_, None) => {
                    return Err(TrainError::Order(
                        "compile the model before it is fitted or evaluated".to_owned(),
                    ));
                }
                (mode, Some(compiled)) => {
                    let (loss, mut sums) = self.loss(&mut forward, compiled, key)?;
                    let updates = match mode {
                        Mode::Train => {
                            forward_len = Some(forward.graph.len());
                            self.training(&mut forward, compiled, loss)?
                        }
                        _ => vec![],
                    };
                    sums.insert(0, loss);
                    (sums, updates)
                }
            };
            let arithmetic = self.arithmetic(key.mode);
            let (graph, outputs, updates) = match forward_len {
                Some(len) if self.checkpoint_activations => {
                    forgetful(&forward.graph, len, &outputs, &updates)
                }
                _ => (forward.graph, outputs, updates),
            };
            let program = compile(&graph, &outputs, &updates, &self.variables, arithmetic)?;
            self.workspace.grow(program.floats());
            self.programs.insert(key, Entry { program });
        }
        if self.resident != Some(key) {
            if let Some(entry) = self.programs.get(&key) {
                entry.program.prepare(&mut self.workspace);
            }
            self.resident = Some(key);
        }
        Ok(())
    }

    /// Sizes of a shape found with [`PROBE`] samples, of which none follow the batch.
    pub(super) fn shown(shape: &[usize]) -> String {
        let sizes: Vec<String> = shape[1..].iter().map(|size| size.to_string()).collect();
        debug_assert_eq!(shape.first(), Some(&PROBE));
        format!("(None{}{})", if sizes.is_empty() { "" } else { ", " }, sizes.join(", "))
    }
}

/// The graph of a step whose forward pass is the first `len` nodes, with activation checkpointing, and what it yields.
fn forgetful(
    graph: &Graph,
    len: usize,
    outputs: &[Id],
    updates: &[(usize, Id)],
) -> (Graph, Vec<Id>, Vec<(usize, Id)>) {
    let new_values = updates.iter().map(|(_, id)| *id);
    let wanted: Vec<Id> = outputs.iter().copied().chain(new_values).collect();
    let (graph, mut moved) = graph.recomputed(len, &wanted);
    let new_values = moved.split_off(outputs.len());
    let variables = updates.iter().map(|(variable, _)| *variable);
    (graph, moved, variables.zip(new_values).collect())
}

/// Losses `[batch, ..]` where what is masked is 0 and the rest so much more that the mean of all is the mean of what counts
/// (Keras's `apply_mask`).
fn counted_only(graph: &mut Graph, values: Id, mask: Id) -> Result<Id> {
    let all = graph.shape(mask).iter().product::<usize>() as f32;
    let rank = graph.shape(values).len();
    let counts = graph.sum_all(mask)?;
    // Where nothing counts, all is 0 in any case.
    let one = graph.scalar(1.0);
    let counts = graph.max(counts, one)?;
    let mask = expanded(graph, mask, rank)?;
    let kept = graph.mul(values, mask)?;
    if graph.shape(kept) != graph.shape(values) {
        return Err(graph.shape_error("loss", "a mask of the output's steps", &[values, mask]));
    }
    let all = graph.scalar(all);
    let share = graph.div(all, counts)?;
    graph.mul(kept, share)
}
