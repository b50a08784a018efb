//! A fit step by step, for whoever keeps its state: weights, slots and counters out and in, and where numbers went bad.

use super::fit::{Sums, seed_at, write_scalars};
use super::programs::{Key, Mode};
use super::{Array, Model};
use crate::compile::compile;
use crate::error::{Result, TrainError};
use crate::losses::Loss;

impl Model {
    /// Steps of the optimiser so far.
    pub fn iterations(&self) -> u64 {
        self.iterations
    }

    pub(crate) fn set_iterations(&mut self, iterations: u64) {
        self.iterations = iterations;
    }

    /// What weights and random numbers were drawn from.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Values of all weights.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|placed| placed.range.len()).sum()
    }

    /// Bytes of weights, the optimiser's slots and what programs so far need beside them.
    pub(crate) fn memory_bytes(&self) -> u64 {
        size_of_val(self.workspace.values()) as u64
    }

    /// The instruction set and the number of threads that it computes with.
    pub(crate) fn machine(&self) -> (String, usize) {
        (self.compute.isa().name().to_owned(), self.compute.pool().threads())
    }

    /// One step of the optimiser on the samples `batch`; the loss before it.
    pub(crate) fn train_step(
        &mut self,
        x: &[Array],
        y: &[Array],
        weights: Option<&[f32]>,
        batch: &[usize],
        sums: &mut Sums,
    ) -> Result<f32> {
        self.step(x, y, weights, batch, Mode::Train, sums)
    }

    /// The optimiser's slots: vectors over all trainable weights.
    pub(crate) fn slots(&self) -> Vec<&[f32]> {
        let slots = self.compiled.as_ref().map_or(&[][..], |compiled| &compiled.slots);
        let values = self.workspace.values();
        slots.iter().map(|&slot| &values[self.variables.offset(slot)..][..self.trainable_len]).collect()
    }

    pub(crate) fn set_slot(&mut self, number: usize, new: &[f32]) -> Result<()> {
        let slot = self.compiled.as_ref().and_then(|compiled| compiled.slots.get(number)).copied();
        match slot {
            Some(slot) if new.len() == self.trainable_len => {
                let start = self.variables.offset(slot);
                self.workspace.values_mut()[start..start + new.len()].copy_from_slice(new);
                Ok(())
            }
            _ => {
                Err(TrainError::Order(format!("the optimiser has no slot {number} of {} values", new.len())))
            }
        }
    }

    /// What is done when a fit has ended: weights become their moving averages, if the optimiser keeps these.
    pub(crate) fn finish(&mut self) {
        let averages = self.compiled.as_ref().and_then(|compiled| {
            compiled.optimizer.average_slot().map(|slot| self.variables.offset(compiled.slots[slot]))
        });
        if let Some(start) = averages.filter(|_| self.iterations > 0) {
            let weights = self.variables.offset(0);
            self.workspace.values_mut().copy_within(start..start + self.trainable_len, weights);
        }
    }

    /// All variables as they are now, weights and slots.
    pub(crate) fn variables(&self) -> &[f32] {
        &self.workspace.values()[..self.variables.end()]
    }

    pub(crate) fn set_variables(&mut self, values: &[f32]) {
        self.workspace.values_mut()[..values.len()].copy_from_slice(values);
    }

    /// Whether all weights are finite numbers; the first that isn't otherwise.
    fn broken_weight(&self) -> Option<&str> {
        let mut weights = self.weights();
        weights.find(|(_, _, values)| values.iter().any(|x| !x.is_finite())).map(|(path, ..)| path)
    }

    /// What is the first that is no finite number when the samples `batch` go through the model as it trains: a weight,
    /// or the output of a layer.
    pub(crate) fn first_not_finite(&mut self, x: &[Array], batch: &[usize]) -> Result<String> {
        if let Some(path) = self.broken_weight() {
            return Ok(format!(", where the weight {path} was no finite number any more"));
        }
        let mut forward = self.forward(batch.len(), true)?;
        let outputs: Vec<_> = forward.every.iter().flatten().copied().collect();
        // A layer may yield what another does (a reshape of nothing); each counts alone.
        let flat: Vec<_> = outputs
            .iter()
            .map(|&id| {
                let n = forward.graph.shape(id).iter().product();
                forward.graph.reshape(id, &[n])
            })
            .collect::<Result<_>>()?;
        let program = compile(&forward.graph, &flat, &[], &self.variables, self.compute.isa())?;
        self.workspace.grow(program.floats());
        program.prepare(&mut self.workspace);
        // Its constants took the place of another program's.
        self.resident = None;
        for (number, array) in x.iter().enumerate() {
            if let Some(to) = program.input(&mut self.workspace, number) {
                array.gather(batch, to);
            }
        }
        // As the step that goes wrong would have them: dropout draws by the step.
        let step = self.iterations + 1;
        let scalars = [0.0, step as f32, seed_at(self.seed, step)];
        write_scalars(&program, &mut self.workspace, scalars);
        program.run(&self.compute, &mut self.workspace);
        let mut index = 0;
        for (step, outputs) in self.steps.iter().zip(&forward.every) {
            for _ in outputs {
                if program.output(&self.workspace, index).iter().any(|x| !x.is_finite()) {
                    return Ok(format!(", first in what layer {} yields", self.nodes[step.node].name));
                }
                index += 1;
            }
        }
        Ok(", first in the loss itself".to_owned())
    }

    /// Makes the programs of a fit, so that what doesn't go together is found before it begins.
    pub(crate) fn prepare(&mut self, batch: usize, weighted: bool) -> Result<()> {
        let losses = self.compiled.as_ref().map_or(&[][..], |compiled| &compiled.losses);
        if losses.contains(&Loss::CTC {}) {
            // How many labels there are is known with the first batch.
            return Ok(());
        }
        self.ensure(Key { mode: Mode::Train, batch, weighted, labels: 0 })
    }
}
