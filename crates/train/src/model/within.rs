//! A model as a part of a graph: its weights as nodes, its layers called on what is there, and a step of an optimiser on
//! it. A fit has one model in its graph, adversaries are two.

use super::{Model, Node, at, mask_at};
use crate::error::Result;
use crate::graph::{Graph, Id};
use crate::layers::Call;
use crate::optimizers::{Optimizer, Step};

/// A model's weights in a graph.
pub(crate) struct Weights {
    /// The vector of all trainable weights.
    pub vector: Id,
    /// Each weight's node.
    pub each: Vec<Id>,
    /// Each trainable weight's part of the vector, or the value that a layer began the step with. Gradients are taken for these: a layer may see a weight under another
    /// shape, and a reshape of a reshape is one, which passes the weight's own node by.
    pub slices: Vec<Id>,
}

/// What layers are told besides their inputs: whether they are trained, and scalars that random numbers depend on.
#[derive(Clone, Copy)]
pub(crate) struct When {
    pub training: bool,
    pub seed: Id,
    pub step: Id,
}

/// What came of a pass through the layers.
pub(crate) struct Passed {
    pub outputs: Vec<Id>,
    /// Of each output: which of its steps count.
    pub masks: Vec<Option<Id>>,
    /// What each step yields.
    pub every: Vec<Vec<Id>>,
    /// New values of weights that no gradient reaches.
    pub updates: Vec<(Id, Id)>,
    /// Numbers of trainable weights that a layer began the step with another value of.
    pub changed: Vec<(usize, Id)>,
}

fn flattened(graph: &mut Graph, x: Id) -> Result<Id> {
    let elements = graph.shape(x).iter().product();
    graph.reshape(x, &[elements])
}

impl Model {
    /// The weights as nodes, where the model's variables have the numbers from `first` on.
    pub(crate) fn weight_nodes(&self, graph: &mut Graph, first: usize) -> Result<Weights> {
        let vector = graph.variable(first, &[self.trainable_len]);
        let mut each = Vec::with_capacity(self.weights.len());
        let mut slices = vec![];
        for placed in &self.weights {
            let shape = &placed.weight.shape;
            each.push(if placed.weight.trainable {
                let slice = graph.slice_axis(vector, 0, placed.range.start, placed.range.len())?;
                slices.push(slice);
                graph.reshape(slice, shape)?
            } else {
                graph.variable(first + placed.variable, shape)
            });
        }
        Ok(Weights { vector, each, slices })
    }

    /// What the layers yield for `inputs`, with the weights' nodes.
    pub(crate) fn passed(
        &self,
        graph: &mut Graph,
        weights: &[Id],
        inputs: &[Id],
        when: When,
    ) -> Result<Passed> {
        let When { training, seed, step } = when;
        let mut every: Vec<Vec<Id>> = Vec::new();
        let mut masks = Vec::new();
        let (mut updates, mut changed) = (vec![], vec![]);
        let mut weights = weights.to_vec();
        for called in &self.steps {
            let given: Vec<Id> = called.inputs.iter().map(|&source| at(source, inputs, &every)).collect();
            let Node { name, layer, weights: own, .. } = &self.nodes[called.node];
            graph.set_scope(name);
            let training = training && !layer.is_frozen_with_statistics();
            let given_masks = called.inputs.iter().map(|&source| mask_at(source, &masks)).collect();
            let mut call =
                Call { graph: &mut *graph, training, seed, step, updates: vec![], masks: given_masks };
            masks.push(layer.0.layer.mask(&mut call, &given)?);
            let outputs = layer.0.layer.call(&mut call, &given, &weights[own.clone()])?;
            for (weight, value) in call.updates {
                match own.clone().find(|&which| weights[which] == weight) {
                    Some(which) if self.weights[which].weight.trainable => {
                        weights[which] = value;
                        changed.push((which, value));
                    }
                    _ => updates.push((weight, value)),
                }
            }
            every.push(outputs);
        }
        let outputs = self.outputs.iter().map(|&source| at(source, inputs, &every)).collect();
        let masks = self.outputs.iter().map(|&source| mask_at(source, &masks)).collect();
        Ok(Passed { outputs, masks, every, updates, changed })
    }

    /// Makes the step one from these values of trainable weights: gradients are taken for them, and they are changed.
    pub(super) fn begin_with(
        &self,
        graph: &mut Graph,
        weights: &mut Weights,
        changed: &[(usize, Id)],
    ) -> Result<()> {
        if changed.is_empty() {
            return Ok(());
        }
        changed.iter().for_each(|&(which, value)| weights.each[which] = value);
        let trainable = (0..self.weights.len()).filter(|&which| self.weights[which].weight.trainable);
        for (which, slice) in trainable.zip(&mut weights.slices) {
            if changed.iter().any(|&(other, _)| other == which) {
                *slice = weights.each[which];
            }
        }
        let flat: Result<Vec<Id>> = weights.slices.iter().map(|&slice| flattened(graph, slice)).collect();
        weights.vector = graph.concat(&flat?, 0)?;
        Ok(())
    }

    /// `loss` with the penalties of regularised weights.
    pub(crate) fn regularized(&self, graph: &mut Graph, weights: &Weights, loss: Id) -> Result<Id> {
        let mut total = loss;
        for (placed, &weight) in self.weights.iter().zip(&weights.each) {
            if let Some(regularizer) = &placed.weight.regularizer {
                let penalty = regularizer.penalty(graph, weight)?;
                total = graph.add(total, penalty)?;
            }
        }
        Ok(total)
    }

    /// New values of the vector of trainable weights (variable 0 of the model) and of the optimiser's slots, which are the
    /// variables with these numbers. `scalars` are the learning rate and the number of the step, from 1.
    pub(crate) fn optimized(
        &self,
        graph: &mut Graph,
        weights: &Weights,
        loss: Id,
        (optimizer, slots): (&Optimizer, &[usize]),
        [rate, t]: [Id; 2],
    ) -> Result<Vec<(usize, Id)>> {
        let gradients = graph.gradients(loss, &weights.slices)?;
        let gradients: Vec<Id> =
            gradients.into_iter().map(|gradient| flattened(graph, gradient)).collect::<Result<_>>()?;
        graph.set_scope("optimizer");
        if gradients.is_empty() {
            return Ok(vec![]);
        }
        let g = graph.concat(&gradients, 0)?;
        let slot_nodes: Vec<Id> =
            slots.iter().map(|&slot| graph.variable(slot, &[self.trainable_len])).collect();
        let parts = self.parts();
        let step = Step { graph: &mut *graph, parts: &parts, p: weights.vector, g, rate, t };
        let (p, new_slots) = optimizer.apply(step, &slot_nodes)?;
        let mut updates = vec![(0, self.constrained(graph, p)?)];
        updates.extend(slots.iter().copied().zip(new_slots));
        Ok(updates)
    }

    /// The variables of the weights that layers gave new values, where the model's variables begin with `first`.
    pub(crate) fn placed_updates(
        &self,
        weights: &Weights,
        updates: &[(Id, Id)],
        first: usize,
    ) -> Vec<(usize, Id)> {
        let place = |(weight, value): &(Id, Id)| {
            let which = weights.each.iter().position(|id| id == weight)?;
            Some((first + self.weights[which].variable, *value))
        };
        updates.iter().filter_map(place).collect()
    }

    fn constrained(&self, graph: &mut Graph, p: Id) -> Result<Id> {
        let trainable = || self.weights.iter().filter(|placed| placed.weight.trainable);
        if trainable().all(|placed| placed.weight.constraint.is_none()) {
            return Ok(p);
        }
        let mut parts = vec![];
        for placed in trainable() {
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
}
