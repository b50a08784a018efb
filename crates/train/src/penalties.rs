//! Regularisers and constraints of weights, with Keras's names and arguments.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::{Function, Graph, Id};

/// What is added to the loss for a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
pub enum Regularizer {
    L1 { l1: f32 },
    L2 { l2: f32 },
    L1L2 { l1: f32, l2: f32 },
}

impl Regularizer {
    pub(crate) fn penalty(&self, graph: &mut Graph, weight: Id) -> Result<Id> {
        let (l1, l2) = match *self {
            Regularizer::L1 { l1 } => (l1, 0.0),
            Regularizer::L2 { l2 } => (0.0, l2),
            Regularizer::L1L2 { l1, l2 } => (l1, l2),
        };
        let sizes = graph.map(Function::Abs, weight);
        let sizes = graph.scale(sizes, l1)?;
        let squares = graph.square(weight)?;
        let squares = graph.scale(squares, l2)?;
        let both = graph.add(sizes, squares)?;
        graph.sum_all(both)
    }
}

/// What a weight is brought back to after each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
pub enum Constraint {
    MaxNorm { max_value: f32, axis: usize },
    NonNeg {},
    UnitNorm { axis: usize },
    MinMaxNorm { min_value: f32, max_value: f32, rate: f32, axis: usize },
}

/// Keras's epsilon.
const EPSILON: f32 = 1e-7;

impl Constraint {
    pub(crate) fn applied(&self, graph: &mut Graph, weight: Id) -> Result<Id> {
        let norm = |graph: &mut Graph, axis: usize| {
            let square = graph.square(weight)?;
            let sum = graph.sum(square, &[axis])?;
            Ok(graph.map(Function::Sqrt, sum))
        };
        match *self {
            Constraint::NonNeg {} => {
                let zero = graph.scalar(0.0);
                graph.max(weight, zero)
            }
            Constraint::MaxNorm { max_value, axis } => {
                let norm = norm(graph, axis)?;
                let limit = graph.scalar(max_value);
                let wanted = graph.min(norm, limit)?;
                rescaled(graph, weight, wanted, norm)
            }
            Constraint::UnitNorm { axis } => {
                let norm = norm(graph, axis)?;
                let one = graph.scalar(1.0);
                rescaled(graph, weight, one, norm)
            }
            Constraint::MinMaxNorm { min_value, max_value, rate, axis } => {
                let norm = norm(graph, axis)?;
                let (low, high) = (graph.scalar(min_value), graph.scalar(max_value));
                let within = graph.max(norm, low)?;
                let within = graph.min(within, high)?;
                let within = graph.scale(within, rate)?;
                let kept = graph.scale(norm, 1.0 - rate)?;
                let wanted = graph.add(within, kept)?;
                rescaled(graph, weight, wanted, norm)
            }
        }
    }
}

fn rescaled(graph: &mut Graph, weight: Id, wanted: Id, norm: Id) -> Result<Id> {
    let norm = graph.add_scalar(norm, EPSILON)?;
    let ratio = graph.div(wanted, norm)?;
    graph.mul(weight, ratio)
}
