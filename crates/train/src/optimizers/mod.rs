//! Optimisers, with Keras's names, arguments and defaults.
//!
//! All trainable weights stand in one vector, and so do their gradients and an optimiser's slots: a step is one fused
//! pass over them. Only rules that look at a weight as a whole (LAMB, Muon, clipping by a weight's norm) take
//! the vector apart.
//!
//! **Where Keras on TensorFlow takes other steps.** It hands an optimiser the gradient of an `Embedding` as a part
//! for each token (`IndexedSlices`) and squares, bounds and clips the parts one by one. Where a batch repeats a
//! token, its second moment there is a sum of squares, not the square of the sum, so that Adam, Adamax, Nadam,
//! RMSprop, Adagrad, Adadelta, Lamb and every clipping differ from what their papers say; SGD and Lion don't, nor
//! does a batch without repeats (`fixtures/training/sparse.py` shows it; Keras 3.15.1, TensorFlow 2.21). Here parts
//! are added up first, as Keras does when it is given the same gradient dense.

mod adafactor;
mod check;
mod gathered;
mod matrices;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::{Function, Graph, Id};
use crate::schedules::Schedule;
pub use matrices::MuonRule;

/// How a step follows from gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    SGD { momentum: f32, nesterov: bool },
    RMSprop { rho: f32, momentum: f32, epsilon: f32, centered: bool },
    Adam { beta_1: f32, beta_2: f32, epsilon: f32, amsgrad: bool },
    Nadam { beta_1: f32, beta_2: f32, epsilon: f32 },
    Adamax { beta_1: f32, beta_2: f32, epsilon: f32 },
    Adagrad { initial_accumulator_value: f32, epsilon: f32 },
    Adadelta { rho: f32, epsilon: f32 },
    Adafactor { beta_2_decay: f32, epsilon_1: f32, epsilon_2: f32, clip_threshold: f32, relative_step: bool },
    Lion { beta_1: f32, beta_2: f32 },
    Lamb { beta_1: f32, beta_2: f32, epsilon: f32 },
    Muon(MuonRule),
}

/// An optimiser: a rule, a learning rate, and what all rules take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimizer {
    pub rule: Rule,
    pub learning_rate: Schedule,
    /// Decoupled: weights shrink by this times the learning rate.
    pub weight_decay: Option<f32>,
    pub clipnorm: Option<f32>,
    pub clipvalue: Option<f32>,
    pub global_clipnorm: Option<f32>,
    /// Whether a moving average of the weights is kept, which they become when a fit has ended.
    #[serde(default)]
    pub use_ema: bool,
    /// What an average keeps of itself in a step.
    #[serde(default = "ema_momentum")]
    pub ema_momentum: f32,
    /// Steps after which weights become their averages in the middle of a fit.
    #[serde(default)]
    pub ema_overwrite_frequency: Option<u32>,
    /// Batches whose gradients are averaged for one step.
    #[serde(default)]
    pub gradient_accumulation_steps: Option<u32>,
}

fn ema_momentum() -> f32 {
    0.99
}

impl Optimizer {
    pub fn new(rule: Rule, learning_rate: impl Into<Schedule>) -> Optimizer {
        Optimizer {
            rule,
            learning_rate: learning_rate.into(),
            weight_decay: None,
            clipnorm: None,
            clipvalue: None,
            global_clipnorm: None,
            use_ema: false,
            ema_momentum: ema_momentum(),
            ema_overwrite_frequency: None,
            gradient_accumulation_steps: None,
        }
    }
}

/// What can be set of any optimiser, also of one that is only named: `Adam.learning_rate(0.01)`.
pub trait Settings: Into<Optimizer> {
    fn learning_rate(self, learning_rate: impl Into<Schedule>) -> Optimizer {
        Optimizer { learning_rate: learning_rate.into(), ..self.into() }
    }

    fn weight_decay(self, weight_decay: f32) -> Optimizer {
        Optimizer { weight_decay: Some(weight_decay), ..self.into() }
    }

    /// Each weight's gradient to at most this length.
    fn clipnorm(self, clipnorm: f32) -> Optimizer {
        Optimizer { clipnorm: Some(clipnorm), ..self.into() }
    }

    /// Each gradient's elements to at most this size.
    fn clipvalue(self, clipvalue: f32) -> Optimizer {
        Optimizer { clipvalue: Some(clipvalue), ..self.into() }
    }

    /// All gradients together to at most this length.
    fn global_clipnorm(self, global_clipnorm: f32) -> Optimizer {
        Optimizer { global_clipnorm: Some(global_clipnorm), ..self.into() }
    }

    /// Keeps a moving average of the weights, which they become when a fit has ended.
    fn use_ema(self, ema_momentum: f32) -> Optimizer {
        Optimizer { use_ema: true, ema_momentum, ..self.into() }
    }

    /// Weights become their averages after each so many steps too.
    fn ema_overwrite_frequency(self, steps: u32) -> Optimizer {
        Optimizer { ema_overwrite_frequency: Some(steps), ..self.into() }
    }

    /// A step for each so many batches, with the mean of their gradients.
    fn gradient_accumulation_steps(self, batches: u32) -> Optimizer {
        Optimizer { gradient_accumulation_steps: Some(batches), ..self.into() }
    }
}

impl<T: Into<Optimizer>> Settings for T {}

macro_rules! named {
    ($($name:ident => $rate:literal, $rule:expr;)*) => {$(
        /// The optimiser of this name with Keras's defaults.
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl From<$name> for Optimizer {
            fn from(_: $name) -> Optimizer {
                Optimizer::new($rule, $rate)
            }
        }
    )*};
}

named! {
    SGD => 0.01, Rule::SGD { momentum: 0.0, nesterov: false };
    RMSprop => 0.001, Rule::RMSprop { rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false };
    Adam => 0.001, Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, amsgrad: false };
    Nadam => 0.001, Rule::Nadam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 };
    Adamax => 0.001, Rule::Adamax { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 };
    Adagrad => 0.001, Rule::Adagrad { initial_accumulator_value: 0.1, epsilon: 1e-7 };
    Adadelta => 0.001, Rule::Adadelta { rho: 0.95, epsilon: 1e-7 };
    Adafactor => 0.001, Rule::Adafactor {
        beta_2_decay: -0.8, epsilon_1: 1e-30, epsilon_2: 1e-3, clip_threshold: 1.0, relative_step: true,
    };
    Lion => 0.001, Rule::Lion { beta_1: 0.9, beta_2: 0.99 };
    Lamb => 0.001, Rule::Lamb { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 };
}

/// Adam with decoupled weight decay.
#[derive(Clone, Copy, Debug)]
pub struct AdamW;

impl From<AdamW> for Optimizer {
    fn from(_: AdamW) -> Optimizer {
        Adam.weight_decay(0.004)
    }
}

/// Steps of matrices along their momentum made orthogonal, and Adam's for all other weights.
#[derive(Clone, Copy, Debug)]
pub struct Muon;

impl From<Muon> for Optimizer {
    fn from(_: Muon) -> Optimizer {
        Optimizer { weight_decay: Some(0.004), ..Optimizer::new(Rule::Muon(MuonRule::default()), 0.001) }
    }
}

/// A weight within the vector of all.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Whether it is a table of embeddings.
    pub is_embedding: bool,
    pub range: Range<usize>,
    pub shape: Vec<usize>,
}

/// What a step's rule is computed from: vectors over all weights, and scalars.
pub(crate) struct Step<'a> {
    pub graph: &'a mut Graph,
    pub parts: &'a [Part],
    pub p: Id,
    pub g: Id,
    pub rate: Id,
    /// The number of this step, from 1.
    pub t: Id,
}

impl Rule {
    /// What each slot begins with.
    pub(crate) fn slots(&self) -> Vec<f32> {
        match *self {
            Rule::SGD { momentum, .. } => vec![0.0; (momentum != 0.0) as usize],
            Rule::RMSprop { momentum, centered, .. } => {
                vec![0.0; 1 + (momentum > 0.0) as usize + centered as usize]
            }
            Rule::Adam { amsgrad, .. } => vec![0.0; 2 + amsgrad as usize],
            Rule::Adagrad { initial_accumulator_value, .. } => vec![initial_accumulator_value],
            Rule::Lion { .. } => vec![0.0],
            // The last is the product of all momentum factors.
            Rule::Nadam { .. } => vec![0.0, 0.0, 1.0],
            _ => vec![0.0; 2],
        }
    }
}

impl Optimizer {
    /// The new weights and slots.
    fn step(&self, step: &mut Step<'_>, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        step.g = self.clipped(step)?;
        // Muon lets matrices and other weights shrink apart.
        let decay = self.weight_decay.filter(|_| !matches!(self.rule, Rule::Muon(_)));
        if let Some(decay) = decay {
            let shrunk = step.graph.scale(step.rate, decay)?;
            let kept = step.graph.scalar_sub(1.0, shrunk)?;
            step.p = step.graph.mul(step.p, kept)?;
        }
        match self.rule.clone() {
            Rule::SGD { momentum, nesterov } => step.sgd(momentum, nesterov, slots),
            Rule::RMSprop { rho, momentum, epsilon, centered } => {
                step.rmsprop(rho, momentum, epsilon, centered, slots)
            }
            Rule::Adam { beta_1, beta_2, epsilon, amsgrad } => {
                step.adam(beta_1, beta_2, epsilon, amsgrad, slots)
            }
            Rule::Nadam { beta_1, beta_2, epsilon } => step.nadam(beta_1, beta_2, epsilon, slots),
            Rule::Adamax { beta_1, beta_2, epsilon } => step.adamax(beta_1, beta_2, epsilon, slots),
            Rule::Adagrad { epsilon, .. } => step.adagrad(epsilon, slots),
            Rule::Adadelta { rho, epsilon } => step.adadelta(rho, epsilon, slots),
            Rule::Adafactor { beta_2_decay, epsilon_1, epsilon_2, clip_threshold, relative_step: _ } => {
                step.adafactor(beta_2_decay, [epsilon_1, epsilon_2], clip_threshold, slots)
            }
            Rule::Lion { beta_1, beta_2 } => step.lion(beta_1, beta_2, slots),
            Rule::Lamb { beta_1, beta_2, epsilon } => step.lamb(beta_1, beta_2, epsilon, slots),
            Rule::Muon(muon) => step.muon(&muon, self.weight_decay, slots),
        }
    }

    fn clipped(&self, step: &mut Step<'_>) -> Result<Id> {
        if let Some(limit) = self.clipnorm {
            return step.each_part(step.g, |graph, g, _| shortened(graph, g, limit));
        }
        if let Some(limit) = self.global_clipnorm {
            return shortened(step.graph, step.g, limit);
        }
        match self.clipvalue {
            Some(limit) => crate::activations::clip(step.graph, step.g, -limit, limit),
            None => Ok(step.g),
        }
    }
}

/// `g` at most `limit` long.
fn shortened(graph: &mut Graph, g: Id, limit: f32) -> Result<Id> {
    let square = graph.square(g)?;
    let sum = graph.sum_all(square)?;
    let norm = graph.map(Function::Sqrt, sum);
    let limit = graph.scalar(limit);
    let longer = graph.max(norm, limit)?;
    let factor = graph.div(limit, longer)?;
    graph.mul(g, factor)
}

impl Step<'_> {
    /// `old * kept + new * (1 - kept)`.
    fn blend(&mut self, old: Id, new: Id, kept: f32) -> Result<Id> {
        let change = self.graph.sub(new, old)?;
        let change = self.graph.scale(change, 1.0 - kept)?;
        self.graph.add(old, change)
    }

    /// `base` to the power of the step's number and `more`.
    fn power(&mut self, base: f32, more: f32) -> Result<Id> {
        let base = self.graph.scalar(base);
        let t = self.graph.add_scalar(self.t, more)?;
        self.graph.map2(Function::Pow, base, t)
    }

    /// `p - rate * direction`.
    fn descend(&mut self, direction: Id) -> Result<Id> {
        let change = self.graph.mul(direction, self.rate)?;
        self.graph.sub(self.p, change)
    }

    /// `a / (sqrt(b) + epsilon)`.
    fn over_root(&mut self, a: Id, b: Id, epsilon: f32) -> Result<Id> {
        let root = self.graph.map(Function::Sqrt, b);
        let divisor = self.graph.add_scalar(root, epsilon)?;
        self.graph.div(a, divisor)
    }

    fn sgd(&mut self, momentum: f32, nesterov: bool, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        if slots.is_empty() {
            return Ok((self.descend(self.g)?, vec![]));
        }
        let change = self.graph.mul(self.g, self.rate)?;
        let kept = self.graph.scale(slots[0], momentum)?;
        let m = self.graph.sub(kept, change)?;
        let moved = if nesterov {
            let ahead = self.graph.scale(m, momentum)?;
            self.graph.sub(ahead, change)?
        } else {
            m
        };
        Ok((self.graph.add(self.p, moved)?, vec![m]))
    }

    fn rmsprop(
        &mut self,
        rho: f32,
        momentum: f32,
        epsilon: f32,
        centered: bool,
        slots: &[Id],
    ) -> Result<(Id, Vec<Id>)> {
        let square = self.graph.square(self.g)?;
        let v = self.blend(slots[0], square, rho)?;
        let mut new = vec![v];
        let mut spread = v;
        if centered {
            let mean = self.blend(slots[slots.len() - 1], self.g, rho)?;
            let mean_square = self.graph.square(mean)?;
            spread = self.graph.sub(v, mean_square)?;
            new.push(mean);
        }
        let spread = self.graph.add_scalar(spread, epsilon)?;
        let root = self.graph.map(Function::Sqrt, spread);
        let change = self.graph.mul(self.g, self.rate)?;
        let mut change = self.graph.div(change, root)?;
        if momentum > 0.0 {
            let kept = self.graph.scale(slots[1], momentum)?;
            change = self.graph.add(kept, change)?;
            new.insert(1, change);
        }
        Ok((self.graph.sub(self.p, change)?, new))
    }

    /// New first and second moments.
    fn moments(&mut self, beta_1: f32, beta_2: f32, slots: &[Id]) -> Result<(Id, Id)> {
        let m = self.blend(slots[0], self.g, beta_1)?;
        let square = self.graph.square(self.g)?;
        Ok((m, self.blend(slots[1], square, beta_2)?))
    }

    /// `sqrt(1 - beta_2^t) / (1 - beta_1^t)`.
    fn correction(&mut self, beta_1: f32, beta_2: f32) -> Result<Id> {
        let [first, second] = [beta_1, beta_2].map(|beta| {
            let power = self.power(beta, 0.0)?;
            self.graph.scalar_sub(1.0, power)
        });
        let root = self.graph.map(Function::Sqrt, second?);
        self.graph.div(root, first?)
    }

    fn adam(
        &mut self,
        beta_1: f32,
        beta_2: f32,
        epsilon: f32,
        amsgrad: bool,
        slots: &[Id],
    ) -> Result<(Id, Vec<Id>)> {
        let (m, v) = self.moments(beta_1, beta_2, slots)?;
        let mut new = vec![m, v];
        let mut spread = v;
        if amsgrad {
            spread = self.graph.max(slots[2], v)?;
            new.push(spread);
        }
        let correction = self.correction(beta_1, beta_2)?;
        let rate = self.graph.mul(self.rate, correction)?;
        let change = self.graph.mul(m, rate)?;
        let change = self.over_root(change, spread, epsilon)?;
        Ok((self.graph.sub(self.p, change)?, new))
    }

    fn nadam(&mut self, beta_1: f32, beta_2: f32, epsilon: f32, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        // u_t = beta_1 (1 - 0.96^t / 2); their product over all steps is the last slot.
        let u = |step: &mut Self, more: f32| {
            let power = step.power(0.96, more)?;
            let half = step.graph.scale(power, -0.5 * beta_1)?;
            step.graph.add_scalar(half, beta_1)
        };
        let (u_now, u_next) = (u(self, 0.0)?, u(self, 1.0)?);
        let (m, v) = self.moments(beta_1, beta_2, slots)?;
        let product = self.graph.mul(slots[2], u_now)?;
        let product_next = self.graph.mul(product, u_next)?;
        let ahead = self.graph.mul(m, u_next)?;
        let rest = self.graph.scalar_sub(1.0, product_next)?;
        let ahead = self.graph.div(ahead, rest)?;
        let share = self.graph.scalar_sub(1.0, u_now)?;
        let now = self.graph.mul(self.g, share)?;
        let rest = self.graph.scalar_sub(1.0, product)?;
        let now = self.graph.div(now, rest)?;
        let m_hat = self.graph.add(ahead, now)?;
        let power = self.power(beta_2, 0.0)?;
        let rest = self.graph.scalar_sub(1.0, power)?;
        let v_hat = self.graph.div(v, rest)?;
        let change = self.graph.mul(m_hat, self.rate)?;
        let change = self.over_root(change, v_hat, epsilon)?;
        Ok((self.graph.sub(self.p, change)?, vec![m, v, product]))
    }

    fn adamax(&mut self, beta_1: f32, beta_2: f32, epsilon: f32, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        let m = self.blend(slots[0], self.g, beta_1)?;
        let kept = self.graph.scale(slots[1], beta_2)?;
        let size = self.graph.map(Function::Abs, self.g);
        let u = self.graph.max(kept, size)?;
        let power = self.power(beta_1, 0.0)?;
        let rest = self.graph.scalar_sub(1.0, power)?;
        let rate = self.graph.div(self.rate, rest)?;
        let change = self.graph.mul(m, rate)?;
        let divisor = self.graph.add_scalar(u, epsilon)?;
        let change = self.graph.div(change, divisor)?;
        Ok((self.graph.sub(self.p, change)?, vec![m, u]))
    }

    fn adagrad(&mut self, epsilon: f32, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        let square = self.graph.square(self.g)?;
        let sum = self.graph.add(slots[0], square)?;
        let grown = self.graph.add_scalar(sum, epsilon)?;
        let root = self.graph.map(Function::Sqrt, grown);
        let change = self.graph.mul(self.g, self.rate)?;
        let change = self.graph.div(change, root)?;
        Ok((self.graph.sub(self.p, change)?, vec![sum]))
    }

    fn adadelta(&mut self, rho: f32, epsilon: f32, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        let square = self.graph.square(self.g)?;
        let v = self.blend(slots[0], square, rho)?;
        let [root_change, root_v] = [slots[1], v].map(|x| {
            let grown = self.graph.add_scalar(x, epsilon)?;
            Ok(self.graph.map(Function::Sqrt, grown))
        });
        let ratio = self.graph.div(root_change?, root_v?)?;
        let change = self.graph.mul(ratio, self.g)?;
        let change_square = self.graph.square(change)?;
        let d = self.blend(slots[1], change_square, rho)?;
        Ok((self.descend(change)?, vec![v, d]))
    }

    fn lion(&mut self, beta_1: f32, beta_2: f32, slots: &[Id]) -> Result<(Id, Vec<Id>)> {
        let kept = self.graph.scale(slots[0], beta_1)?;
        let new = self.graph.scale(self.g, 1.0 - beta_1)?;
        let direction = self.graph.add(kept, new)?;
        let direction = self.graph.map(Function::Sign, direction);
        let kept = self.graph.scale(slots[0], beta_2)?;
        let new = self.graph.scale(self.g, 1.0 - beta_2)?;
        let m = self.graph.add(kept, new)?;
        Ok((self.descend(direction)?, vec![m]))
    }
}
