//! What goes beyond one batch: gradients gathered over several, and moving averages of the weights.

use super::{Optimizer, Step};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

impl Optimizer {
    /// What each slot begins with: averages, gathered gradients, then what the rule keeps. Keras has them in this order.
    pub(crate) fn slots(&self) -> Vec<f32> {
        let own = usize::from(self.use_ema) + usize::from(self.gathers());
        [vec![0.0; own], self.rule.slots()].concat()
    }

    /// The slot of the weights' averages.
    pub(crate) fn average_slot(&self) -> Option<usize> {
        self.use_ema.then_some(0)
    }

    fn gathers(&self) -> bool {
        self.gradient_accumulation_steps.is_some()
    }

    /// The new weights and slots after a batch.
    pub(crate) fn apply(&self, mut step: Step<'_>, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        let (own, slots) = slots.split_at(slots.len() - self.rule.slots().len());
        let gathered = if self.gathers() { own.last().copied() } else { None };
        let (mut new, mut first) = (vec![], vec![]);
        let mut p;
        if let (Some(gathered), Some(batches)) = (gathered, self.gradient_accumulation_steps) {
            let before = step.p;
            let steps = whole_steps(step.graph, step.t, batches)?;
            let product = step.graph.scale(steps, batches as f32)?;
            let is_step = step.graph.map2(Function::Equal, product, step.t)?;
            // Counted in steps, the one that these batches are for.
            let earlier = step.graph.add_scalar(step.t, -1.0)?;
            let earlier = whole_steps(step.graph, earlier, batches)?;
            step.t = step.graph.add_scalar(earlier, 1.0)?;
            let sum = step.graph.add(step.g, gathered)?;
            step.g = step.graph.scale(sum, 1.0 / batches as f32)?;
            let (stepped, changed) = self.step(&mut step, slots)?;
            p = step.graph.select(is_step, stepped, before)?;
            for (&old, changed) in slots.iter().zip(changed) {
                new.push(step.graph.select(is_step, changed, old)?);
            }
            let nothing = step.graph.full_like(0.0, sum);
            first.push(step.graph.select(is_step, nothing, sum)?);
        } else {
            (p, new) = self.step(&mut step, slots)?;
        }
        if self.use_ema {
            let one = step.graph.scalar(1.0);
            let is_first = step.graph.map2(Function::Equal, step.t, one)?;
            let zero = step.graph.scalar(0.0);
            let momentum = step.graph.scalar(self.ema_momentum);
            let momentum = step.graph.select(is_first, zero, momentum)?;
            let kept = step.graph.mul(own[0], momentum)?;
            let rest = step.graph.scalar_sub(1.0, momentum)?;
            let added = step.graph.mul(p, rest)?;
            let average = step.graph.add(kept, added)?;
            if let Some(every) = self.ema_overwrite_frequency {
                let times = whole_steps(step.graph, step.t, every)?;
                let product = step.graph.scale(times, every as f32)?;
                let is_due = step.graph.map2(Function::Equal, product, step.t)?;
                p = step.graph.select(is_due, average, p)?;
            }
            first.insert(0, average);
        }
        first.extend(new);
        Ok((p, first))
    }
}

/// How many times `every` batches there were among `t`.
fn whole_steps(graph: &mut Graph, t: Id, every: u32) -> Result<Id> {
    let every = graph.scalar(every as f32);
    let ratio = graph.div(t, every)?;
    Ok(graph.map(Function::Floor, ratio))
}
