//! What an optimiser carries from step to step, to be written to files and set from them.

use super::Model;
use crate::error::{Result, TrainError};
use crate::losses::Loss;
use crate::optimizers::Optimizer;
use crate::schedules::Schedule;

/// What a compiled model was compiled with, and what its optimiser carries.
pub(crate) struct OptimizerState<'a> {
    pub optimizer: &'a Optimizer,
    pub losses: &'a [Loss],
    pub iterations: u64,
    /// Each a vector like that of all trainable weights.
    pub slots: Vec<&'a [f32]>,
}

impl Model {
    /// Nothing before the model is compiled.
    pub(crate) fn optimizer_state(&self) -> Option<OptimizerState<'_>> {
        let compiled = self.compiled.as_ref()?;
        let slot = |&slot: &usize| {
            let start = self.variables.offset(slot);
            &self.workspace.values()[start..start + self.trainable_len]
        };
        Some(OptimizerState {
            optimizer: &compiled.optimizer,
            losses: &compiled.losses,
            iterations: self.iterations,
            slots: compiled.slots.iter().map(slot).collect(),
        })
    }

    /// The optimiser's learning rate, where it is no schedule.
    pub(crate) fn learning_rate(&self) -> Option<f32> {
        match self.compiled.as_ref()?.optimizer.learning_rate {
            Schedule::Constant { learning_rate } => Some(learning_rate),
            _ => None,
        }
    }

    /// The rate of the steps that follow.
    pub(crate) fn set_learning_rate(&mut self, rate: f32) {
        if let Some(compiled) = &mut self.compiled {
            compiled.optimizer.learning_rate = Schedule::from(rate);
        }
    }

    /// # Errors
    /// When the model isn't compiled, or its optimiser carries something else.
    pub(crate) fn set_optimizer_state(&mut self, iterations: u64, slots: &[Vec<f32>]) -> Result<()> {
        let places = self.compiled.as_ref().map(|compiled| compiled.slots.clone()).unwrap_or_default();
        let fits = places.len() == slots.len() && slots.iter().all(|slot| slot.len() == self.trainable_len);
        if self.compiled.is_none() || !fits {
            return Err(TrainError::Order("this state is not that of the model's optimiser".to_owned()));
        }
        for (place, values) in places.into_iter().zip(slots) {
            let start = self.variables.offset(place);
            self.workspace.values_mut()[start..start + values.len()].copy_from_slice(values);
        }
        self.iterations = iterations;
        Ok(())
    }
}
