//! Rules that look at a weight as a whole.

use serde::{Deserialize, Serialize};

use super::{Part, Step};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// The arguments of Muon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MuonRule {
    pub adam_beta_1: f32,
    pub adam_beta_2: f32,
    pub epsilon: f32,
    /// Coefficients of Newton and Schulz's iteration.
    pub muon_a: f32,
    pub muon_b: f32,
    pub muon_c: f32,
    /// The rate of weights that are no matrices, as a share of that of matrices.
    pub adam_lr_ratio: f32,
    pub momentum: f32,
    pub ns_steps: usize,
    pub nesterov: bool,
    /// Whether tables of embeddings step as in Adam.
    pub exclude_embeddings: bool,
    pub adam_weight_decay: Option<f32>,
    /// A matrix's step is this times the root of its longer side; none is 1.
    pub rms_rate: Option<f32>,
}

impl Default for MuonRule {
    fn default() -> MuonRule {
        MuonRule {
            adam_beta_1: 0.9,
            adam_beta_2: 0.999,
            epsilon: 1e-7,
            muon_a: 3.4445,
            muon_b: -4.775,
            muon_c: 2.0315,
            adam_lr_ratio: 1.0,
            momentum: 0.95,
            ns_steps: 5,
            nesterov: true,
            exclude_embeddings: true,
            adam_weight_decay: Some(0.004),
            rms_rate: Some(0.2),
        }
    }
}

impl MuonRule {
    /// Whether a weight is a matrix that steps along its momentum.
    pub(crate) fn is_for(&self, part: &Part) -> bool {
        part.shape.len() == 2 && !(self.exclude_embeddings && part.is_embedding)
    }
}

impl Step<'_> {
    /// Applies `change` to each weight's part of a vector over all.
    pub(super) fn each_part(
        &mut self,
        vector: Id,
        mut change: impl FnMut(&mut Graph, Id, &Part) -> Result<Id>,
    ) -> Result<Id> {
        let mut changed = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            let slice = self.graph.slice_axis(vector, 0, part.range.start, part.range.len())?;
            changed.push(change(self.graph, slice, part)?);
        }
        self.graph.concat(&changed, 0)
    }

    pub(super) fn lamb(
        &mut self,
        beta_1: f32,
        beta_2: f32,
        epsilon: f32,
        slots: &[Id],
    ) -> Result<(Id, Vec<Id>)> {
        let (m, v) = self.moments(beta_1, beta_2, slots)?;
        let [m_hat, v_hat] = [(m, beta_1), (v, beta_2)].map(|(moment, beta)| {
            let power = self.power(beta, 0.0)?;
            let rest = self.graph.scalar_sub(1.0, power)?;
            self.graph.div(moment, rest)
        });
        let direction = self.over_root(m_hat?, v_hat?, epsilon)?;
        let p = self.p;
        let scaled = self.each_part(direction, |graph, direction, part| {
            let weight = graph.slice_axis(p, 0, part.range.start, part.range.len())?;
            let [weight_norm, norm] = [weight, direction].map(|x| norm(graph, x));
            let (weight_norm, norm) = (weight_norm?, norm?);
            let zero = graph.scalar(0.0);
            let one = graph.scalar(1.0);
            let ratio = graph.div(weight_norm, norm)?;
            let has_length = graph.less(zero, norm)?;
            let ratio = graph.select(has_length, ratio, one)?;
            let has_weight = graph.less(zero, weight_norm)?;
            let ratio = graph.select(has_weight, ratio, one)?;
            graph.mul(direction, ratio)
        })?;
        Ok((self.descend(scaled)?, vec![m, v]))
    }

    /// Matrices step along their momentum made orthogonal; other weights as in Adam.
    pub(super) fn muon(
        &mut self,
        rule: &MuonRule,
        weight_decay: Option<f32>,
        slots: &[Id],
    ) -> Result<(Id, Vec<Id>)> {
        let (p, g, rate) = (self.p, self.g, self.rate);
        let slice = |graph: &mut Graph, of: Id, part: &Part| {
            graph.slice_axis(of, 0, part.range.start, part.range.len())
        };
        let shrunk = self.each_part(p, |graph, p, part| {
            let decay = if rule.is_for(part) { weight_decay } else { rule.adam_weight_decay };
            let share = graph.scale(rate, decay.unwrap_or(0.0))?;
            let kept = graph.scalar_sub(1.0, share)?;
            graph.mul(p, kept)
        })?;
        self.p = shrunk;
        self.rate = self.graph.scale(rate, rule.adam_lr_ratio)?;
        let (adam_p, adam_slots) =
            self.adam(rule.adam_beta_1, rule.adam_beta_2, rule.epsilon, false, slots)?;
        let m = self.each_part(slots[0], |graph, m, part| {
            if !rule.is_for(part) {
                return slice(graph, adam_slots[0], part);
            }
            let kept = graph.scale(m, rule.momentum)?;
            let g = slice(graph, g, part)?;
            graph.add(kept, g)
        })?;
        let new_p = self.each_part(adam_p, |graph, adam_p, part| {
            if !rule.is_for(part) {
                return Ok(adam_p);
            }
            let mut direction = slice(graph, m, part)?;
            if rule.nesterov {
                let kept = graph.scale(direction, rule.momentum)?;
                let g = slice(graph, g, part)?;
                direction = graph.add(kept, g)?;
            }
            let matrix = graph.reshape(direction, &part.shape)?;
            let matrix = orthogonal(graph, matrix, rule)?;
            let longest = part.shape.iter().copied().max().unwrap_or(1) as f32;
            let matrix = graph.scale(matrix, rule.rms_rate.map_or(1.0, |rate| rate * longest.sqrt()))?;
            let flat = graph.reshape(matrix, &[part.range.len()])?;
            let change = graph.mul(flat, rate)?;
            let p = slice(graph, shrunk, part)?;
            graph.sub(p, change)
        })?;
        Ok((new_p, vec![m, adam_slots[1]]))
    }
}

fn norm(graph: &mut Graph, x: Id) -> Result<Id> {
    let square = graph.square(x)?;
    let sum = graph.sum_all(square)?;
    Ok(graph.map(Function::Sqrt, sum))
}

/// A matrix whose singular values are near 1, by Newton and Schulz's iteration.
fn orthogonal(graph: &mut Graph, matrix: Id, rule: &MuonRule) -> Result<Id> {
    let tall = graph.shape(matrix)[0] > graph.shape(matrix)[1];
    let x = if tall { graph.transposed(matrix)? } else { matrix };
    let length = norm(graph, x)?;
    let length = graph.add_scalar(length, 1e-7)?;
    let mut x = graph.div(x, length)?;
    for _ in 0..rule.ns_steps {
        let turned = graph.transposed(x)?;
        let gram = graph.matmul(x, turned)?;
        let square = graph.matmul(gram, gram)?;
        let linear = graph.scale(gram, rule.muon_b)?;
        let square = graph.scale(square, rule.muon_c)?;
        let mixed = graph.add(linear, square)?;
        let mixed = graph.matmul(mixed, x)?;
        let kept = graph.scale(x, rule.muon_a)?;
        x = graph.add(kept, mixed)?;
    }
    if tall { graph.transposed(x) } else { Ok(x) }
}
