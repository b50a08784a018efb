//! The programs of a model: a step of training, an evaluation and a prediction, each for one size of batch.

use super::{Array, Model, Node, Origin, PROBE, at};
use crate::compile::{Program, compile};
use crate::error::{Result, TrainError};
use crate::graph::{Graph, Id};
use crate::layers::Call;
use crate::losses::Loss;
use crate::metrics::Metric;
use crate::optimizers::{Optimizer, Step};

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
    /// The vector of all trainable weights.
    vector: Id,
    /// Each weight's node.
    weights: Vec<Id>,
    /// Each trainable weight's part of the vector, or the value that a layer began the step with. Gradients are taken for
    /// these: a layer may see a weight under another shape, and a reshape of a reshape is one, which passes the weight's
    /// own node by.
    slices: Vec<Id>,
    outputs: Vec<Id>,
    /// What each step yields.
    pub every: Vec<Vec<Id>>,
    updates: Vec<(Id, Id)>,
}

fn flattened(graph: &mut Graph, x: Id) -> Result<Id> {
    let elements = graph.shape(x).iter().product();
    graph.reshape(x, &[elements])
}

impl Model {
    pub(super) fn forward(&self, batch: usize, training: bool) -> Result<Forward> {
        let mut graph = Graph::new();
        let mut vector = graph.variable(0, &[self.trainable_len]);
        let mut weights = Vec::with_capacity(self.weights.len());
        let mut slices = vec![];
        for placed in &self.weights {
            let shape = &placed.weight.shape;
            weights.push(if placed.weight.trainable {
                let slice = graph.slice_axis(vector, 0, placed.range.start, placed.range.len())?;
                slices.push(slice);
                graph.reshape(slice, shape)?
            } else {
                graph.variable(placed.variable, shape)
            });
        }
        let (seed, step) = (graph.input(SEED, &[]), graph.input(ITERATION, &[]));
        let inputs: Vec<Id> = (0..self.inputs.len())
            .map(|i| graph.input(i, &[&[batch], &self.inputs[i].1[..]].concat()))
            .collect();
        let mut ids: Vec<Vec<Id>> = Vec::new();
        let mut updates = vec![];
        let mut changed = vec![];
        for called in &self.steps {
            let given: Vec<Id> = called.inputs.iter().map(|&source| at(source, &inputs, &ids)).collect();
            let Node { name, layer, weights: own, .. } = &self.nodes[called.node];
            graph.set_scope(name);
            let training = training && !(layer.is_frozen_with_statistics());
            let mut call = Call { graph: &mut graph, training, seed, step, updates: vec![] };
            let outputs = layer.0.layer.call(&mut call, &given, &weights[own.clone()])?;
            for (weight, value) in call.updates {
                match own.clone().find(|&which| weights[which] == weight) {
                    // From here on the step is taken with this value.
                    Some(which) if self.weights[which].weight.trainable => {
                        weights[which] = value;
                        changed.push(which);
                    }
                    _ => updates.push((weight, value)),
                }
            }
            ids.push(outputs);
        }
        let trainable = (0..self.weights.len()).filter(|&which| self.weights[which].weight.trainable);
        for (which, slice) in trainable.zip(&mut slices).filter(|(which, _)| changed.contains(which)) {
            *slice = weights[which];
        }
        if !changed.is_empty() {
            let flat: Result<Vec<Id>> = slices.iter().map(|&slice| flattened(&mut graph, slice)).collect();
            vector = graph.concat(&flat?, 0)?;
        }
        let outputs = self.outputs.iter().map(|&source| at(source, &inputs, &ids)).collect();
        Ok(Forward { graph, vector, weights, slices, outputs, every: ids, updates })
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
        let Forward { graph, outputs, weights, .. } = forward;
        graph.set_scope("loss");
        let mut total = graph.scalar(0.0);
        let mut sums = vec![];
        for (index, (&y, loss)) in outputs.iter().zip(&compiled.losses).enumerate() {
            let shape = [&[key.batch], &self.target_shape(index, loss, key.labels)[..]].concat();
            let t = graph.input(self.inputs.len() + index, &shape);
            let mut values = loss.values(graph, t, y)?;
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
                sums.push(metric.sums(graph, t, y, loss)?);
            }
        }
        for (placed, &weight) in self.weights.iter().zip(weights.iter()) {
            if let Some(regularizer) = &placed.weight.regularizer {
                let penalty = regularizer.penalty(graph, weight)?;
                total = graph.add(total, penalty)?;
            }
        }
        Ok((total, sums))
    }

    /// A step of the optimiser: new values of variables.
    fn training(&self, forward: &mut Forward, compiled: &Compiled, loss: Id) -> Result<Vec<(usize, Id)>> {
        let trainable: Vec<usize> =
            (0..self.weights.len()).filter(|&i| self.weights[i].weight.trainable).collect();
        let gradients = forward.graph.gradients(loss, &forward.slices)?;
        let graph = &mut forward.graph;
        let gradients: Vec<Id> =
            gradients.into_iter().map(|gradient| flattened(graph, gradient)).collect::<Result<_>>()?;
        graph.set_scope("optimizer");
        let mut updates = vec![];
        if !gradients.is_empty() {
            let g = graph.concat(&gradients, 0)?;
            let (rate, t) = (graph.input(RATE, &[]), graph.input(ITERATION, &[]));
            let slots: Vec<Id> =
                compiled.slots.iter().map(|&slot| graph.variable(slot, &[self.trainable_len])).collect();
            let parts = self.parts();
            let step = Step { graph, parts: &parts, p: forward.vector, g, rate, t };
            let (p, new_slots) = compiled.optimizer.apply(step, &slots)?;
            updates.push((0, self.constrained(&mut forward.graph, p, &trainable)?));
            updates.extend(compiled.slots.iter().copied().zip(new_slots));
        }
        for (weight, value) in &forward.updates {
            if let Some(which) = forward.weights.iter().position(|id| id == weight) {
                updates.push((self.weights[which].variable, *value));
            }
        }
        Ok(updates)
    }

    fn constrained(&self, graph: &mut Graph, p: Id, trainable: &[usize]) -> Result<Id> {
        if trainable.iter().all(|&which| self.weights[which].weight.constraint.is_none()) {
            return Ok(p);
        }
        let mut parts = vec![];
        for &which in trainable {
            let placed = &self.weights[which];
            let mut part = graph.slice_axis(p, 0, placed.range.start, placed.range.len())?;
            if let Some(constraint) = &placed.weight.constraint {
                part = graph.reshape(part, &placed.weight.shape)?;
                part = constraint.applied(graph, part)?;
                part = graph.reshape(part, &[placed.range.len()])?;
            }
            parts.push(part);
        }
        graph.concat(&parts, 0)
    }

    /// Makes the program of `key`, unless there is one.
    pub(super) fn ensure(&mut self, key: Key) -> Result<()> {
        if !self.programs.contains_key(&key) {
            let mut forward = self.forward(key.batch, key.mode == Mode::Train)?;
            let (outputs, updates) = match (key.mode, &self.compiled) {
                (Mode::Predict, _) => (forward.outputs.clone(), vec![]),
                (_, None) => {
                    return Err(TrainError::Order(
                        "compile the model before it is fitted or evaluated".to_owned(),
                    ));
                }
                (mode, Some(compiled)) => {
                    let (loss, mut sums) = self.loss(&mut forward, compiled, key)?;
                    let training = mode == Mode::Train;
                    let updates =
                        if training { self.training(&mut forward, compiled, loss)? } else { vec![] };
                    sums.insert(0, loss);
                    (sums, updates)
                }
            };
            let program = compile(&forward.graph, &outputs, &updates, &self.variables, self.compute.isa())?;
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
