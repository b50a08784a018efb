//! A step of the discriminator and one of the generator, as graphs and as programs.

use std::sync::Arc;

use super::losses::{gradient_penalty, mean, r1};
use super::noise::normal;
use super::{Gan, Inputs};
use crate::activations::clip;
use crate::compile::{Program, compile};
use crate::error::{Result, TrainError};
use crate::graph::{Graph, Id};
use crate::model::{Passed, Weights, When};

/// Numbers of inputs. Draws are what random numbers of a step depend on besides the seed.
pub(super) const SAMPLES: usize = 0;
pub(super) const LABELS: usize = 1;
pub(super) const RATE: usize = 2;
pub(super) const ITERATION: usize = 3;
pub(super) const SEED: usize = 4;
pub(super) const DRAWS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Discriminator,
    Generator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub role: Role,
    pub batch: usize,
}

/// A graph with the weights of both, before anything is computed.
pub(super) struct Begun {
    pub graph: Graph,
    pub makes: Weights,
    pub scores: Weights,
    pub when: When,
    /// Real samples, and labels where they are given.
    pub real: Id,
    pub labels: Option<Id>,
}

/// What is computed before gradients: a loss, what is shown beside it, and what layers keep.
pub(super) struct Loss {
    pub total: Id,
    pub shown: Vec<Id>,
    pub updates: Vec<(Id, Id)>,
}

impl Gan {
    pub(super) fn begun(&self, batch: usize) -> Result<Begun> {
        let mut graph = Graph::new();
        let makes = self.generator.weight_nodes(&mut graph, self.makes.first)?;
        let scores = self.discriminator.weight_nodes(&mut graph, self.scores.first)?;
        let when = When { training: true, seed: graph.input(SEED, &[]), step: graph.input(DRAWS, &[]) };
        let real = graph.input(SAMPLES, &[&[batch], self.sample_shape()].concat());
        let labels = self.label_len().map(|len| graph.input(LABELS, &[batch, len]));
        Ok(Begun { graph, makes, scores, when, real, labels })
    }

    /// The shape of the noise of a batch.
    pub(super) fn noise_shape(&self, batch: usize) -> Vec<usize> {
        [&[batch], &self.generator.inputs[self.makes.inputs.main].1[..]].concat()
    }

    /// What the generator makes of noise, and what its layers keep.
    fn made(&self, begun: &mut Begun, noise: Id) -> Result<(Id, Vec<(Id, Id)>)> {
        let inputs = arranged(&self.makes.inputs, noise, begun.labels);
        let passed = self.generator.passed(&mut begun.graph, &begun.makes.each, &inputs, begun.when)?;
        unchanged(&passed)?;
        Ok((passed.outputs[0], passed.updates))
    }

    /// The discriminator's scores, and its weights as they are after what its layers keep.
    fn scored(&self, begun: &mut Begun, weights: &[Id], samples: Id) -> Result<(Id, Vec<(Id, Id)>)> {
        let inputs = arranged(&self.scores.inputs, samples, begun.labels);
        let passed = self.discriminator.passed(&mut begun.graph, weights, &inputs, begun.when)?;
        unchanged(&passed)?;
        Ok((passed.outputs[0], passed.updates))
    }

    /// The discriminator's loss, where samples are made of `noise`. `mix` `[batch, 1, ..]` is the share of real samples in
    /// what the gradient penalty looks at. Shown are the mean scores of real and of made samples, and the penalties.
    pub(super) fn discriminator_loss(&self, begun: &mut Begun, noise: Id, mix: Id) -> Result<Loss> {
        let (made, _) = self.made(begun, noise)?;
        let mut weights = begun.scores.each.clone();
        let (of_real, kept) = self.scored(begun, &weights, begun.real)?;
        // The second pass goes on from what the first has left, as two calls would.
        for weight in &mut weights {
            *weight = kept.iter().find(|(old, _)| old == weight).map_or(*weight, |(_, new)| *new);
        }
        let (of_made, kept_last) = self.scored(begun, &weights, made)?;
        let updates = kept.iter().map(|&(old, new)| {
            let last = kept_last.iter().find(|(before, _)| *before == new);
            (old, last.map_or(new, |(_, last)| *last))
        });
        let updates = updates.collect();
        begun.graph.set_scope("loss");
        let loss = self.settings.loss.of_discriminator(&mut begun.graph, of_real, of_made)?;
        let mut shown = vec![mean(&mut begun.graph, of_real)?, mean(&mut begun.graph, of_made)?];
        let mut total = loss;
        let mut penalties = begun.graph.scalar(0.0);
        if let Some(weight) = self.settings.loss.gradient_penalty() {
            let between = between(&mut begun.graph, begun.real, made, mix)?;
            let own = begun.scores.each.clone();
            let (scores, _) = self.scored(begun, &own, between)?;
            let penalty = gradient_penalty(&mut begun.graph, scores, between)?;
            let penalty = begun.graph.scale(penalty, weight)?;
            penalties = begun.graph.add(penalties, penalty)?;
        }
        if self.settings.r1 > 0.0 {
            let penalty = r1(&mut begun.graph, of_real, begun.real)?;
            let penalty = begun.graph.scale(penalty, self.settings.r1)?;
            penalties = begun.graph.add(penalties, penalty)?;
        }
        if self.has_penalty() {
            total = begun.graph.add(total, penalties)?;
            shown.push(penalties);
        }
        let total = self.discriminator.regularized(&mut begun.graph, &begun.scores, total)?;
        Ok(Loss { total, shown, updates })
    }

    pub(crate) fn has_penalty(&self) -> bool {
        self.settings.r1 > 0.0 || self.settings.loss.gradient_penalty().is_some()
    }

    /// The generator's loss, where samples are made of `noise`.
    pub(super) fn generator_loss(&self, begun: &mut Begun, noise: Id) -> Result<Loss> {
        let (made, updates) = self.made(begun, noise)?;
        let weights = begun.scores.each.clone();
        let (scores, _) = self.scored(begun, &weights, made)?;
        begun.graph.set_scope("loss");
        let loss = self.settings.loss.of_generator(&mut begun.graph, scores)?;
        let total = self.generator.regularized(&mut begun.graph, &begun.makes, loss)?;
        Ok(Loss { total, shown: vec![], updates })
    }

    /// New values of variables after a step of the optimiser of `role`.
    pub(super) fn updates(&self, begun: &mut Begun, role: Role, loss: &Loss) -> Result<Vec<(usize, Id)>> {
        let Begun { graph, makes, scores, .. } = begun;
        let (model, side, weights, optimizer) = match role {
            Role::Generator => (&self.generator, &self.makes, &*makes, &self.settings.generator_optimizer),
            Role::Discriminator => {
                (&self.discriminator, &self.scores, &*scores, &self.settings.discriminator_optimizer)
            }
        };
        let (rate, t) = (graph.input(RATE, &[]), graph.input(ITERATION, &[]));
        let mut updates = model.optimized(graph, weights, loss.total, (optimizer, &side.slots), [rate, t])?;
        if let Some((variable, new)) = updates.first_mut() {
            // The model's own first variable.
            *variable = side.first;
            if let (Role::Discriminator, Some(limit)) = (role, self.settings.loss.clip()) {
                *new = clip(graph, *new, -limit, limit)?;
            }
            let new = *new;
            if let (Role::Generator, Some(averaged)) = (role, self.averaged) {
                let old = graph.variable(averaged, &[model.trainable_len]);
                updates.push((averaged, self.average(graph, old, new, t)?));
            }
        }
        updates.extend(model.placed_updates(weights, &loss.updates, side.first));
        Ok(updates)
    }

    /// The moving average after step `t`: of `old`, the lesser of `moving_average` and `(1 + t) / (10 + t)` stays.
    fn average(&self, graph: &mut Graph, old: Id, new: Id, t: Id) -> Result<Id> {
        let (above, below) = (graph.add_scalar(t, 1.0)?, graph.add_scalar(t, 10.0)?);
        let early = graph.div(above, below)?;
        let late = graph.scalar(self.settings.moving_average);
        let kept = graph.min(early, late)?;
        let taken = graph.scalar_sub(1.0, kept)?;
        let change = graph.sub(new, old)?;
        let change = graph.mul(change, taken)?;
        graph.add(old, change)
    }

    /// The program of `key`, made unless there is one, with its constants in the workspace.
    pub(super) fn program_of(&mut self, key: Key) -> Result<Arc<Program>> {
        let program = match self.programs.get(&key) {
            Some(program) => Arc::clone(program),
            None => {
                let program = Arc::new(self.program(key)?);
                self.workspace.grow(program.floats());
                self.programs.insert(key, Arc::clone(&program));
                program
            }
        };
        if self.resident != Some(key) {
            program.prepare(&mut self.workspace);
            self.resident = Some(key);
        }
        Ok(program)
    }

    fn program(&self, key: Key) -> Result<Program> {
        let mut begun = self.begun(key.batch)?;
        let shape = self.noise_shape(key.batch);
        let When { seed, step, .. } = begun.when;
        let noise = normal(&mut begun.graph, seed, step, &shape)?;
        let loss = match key.role {
            Role::Generator => self.generator_loss(&mut begun, noise)?,
            Role::Discriminator => {
                let mut shape = vec![1; self.sample_shape().len() + 1];
                shape[0] = key.batch;
                let mix = begun.graph.uniform(seed, step, &shape);
                self.discriminator_loss(&mut begun, noise, mix)?
            }
        };
        let updates = self.updates(&mut begun, key.role, &loss)?;
        let outputs: Vec<Id> = std::iter::once(loss.total).chain(loss.shown).collect();
        compile(&begun.graph, &outputs, &updates, &self.variables, self.compute.isa())
    }
}

/// A network is passed through several times a step, and would begin each with other weights.
fn unchanged(passed: &Passed) -> Result<()> {
    if passed.changed.is_empty() {
        return Ok(());
    }
    Err(TrainError::Argument {
        place: "the networks of a GAN".to_owned(),
        argument: "layers",
        expected: "layers whose weights only the optimiser changes".to_owned(),
        received: "one that changes its own, as SpectralNormalization does".to_owned(),
    })
}

/// What a network is called with, in the order of its inputs.
fn arranged(inputs: &Inputs, main: Id, label: Option<Id>) -> Vec<Id> {
    match (inputs.label, label) {
        (Some(at), Some(label)) if at < inputs.main => vec![label, main],
        (Some(_), Some(label)) => vec![main, label],
        _ => vec![main],
    }
}

/// `mix` of the real samples and the rest of what was made.
fn between(graph: &mut Graph, real: Id, made: Id, mix: Id) -> Result<Id> {
    let apart = graph.sub(real, made)?;
    let part = graph.mul(apart, mix)?;
    graph.add(made, part)
}
