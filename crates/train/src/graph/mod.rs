//! The graph of primitive operations that everything becomes: layers and losses build it, differentiation extends it
//! by the same operations, and the compiler turns it into passes over memory.
//!
//! A node's shape is static. Equal nodes are one node. Reductions keep their axes with size 1.

mod build;
mod gradient;
mod movement;
mod recompute;
pub mod reference;
mod simplify;
mod spatial;
mod vjp;

use std::collections::HashMap;
use std::sync::Arc;

use kernels::convolution::pooling::Pooling;
use kernels::convolution::{Geometry, Target};
pub use kernels::fused::Function;

use crate::error::{Result, TrainError};
pub use spatial::Windows;

/// A node of a graph. Inputs of a node have smaller numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub(crate) u32);

impl Id {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A primitive operation. What it yields has the node's shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// What a run is given, by number.
    Input(usize),
    /// What stays between runs, by number.
    Variable(usize),
    /// The bits of f32 values.
    Constant(Arc<[u32]>),
    /// A function of each element of operands with one shape; of the node's shape for random numbers, whose operands are
    /// scalars.
    Map(Function),
    Reshape,
    Transpose(Vec<usize>),
    /// From sizes of 1.
    Broadcast,
    /// Elements `start + i * step` of each axis.
    Slice {
        start: Vec<usize>,
        step: Vec<usize>,
    },
    /// Zeros, with the operand at `start + i * step` of each axis.
    Pad {
        start: Vec<usize>,
        step: Vec<usize>,
    },
    Reverse(Vec<usize>),
    /// The operand: what is computed from this isn't what was computed from that, but computed again.
    Again,
    Concat(usize),
    Sum(Vec<usize>),
    Max(Vec<usize>),
    ArgMax(usize),
    /// `[.., m, k]` times `[.., k, n]`.
    MatMul,
    /// Operands are the two of `x`, `w`, `y` that aren't the target, in this order.
    Convolution {
        target: Target,
        geometry: Geometry,
    },
    /// Sum: values. Spread: y. Take: x, values. Put: x, y.
    Pool {
        pooling: Pooling,
        geometry: Geometry,
    },
    /// Rows of a `[rows, width]` table by the numbers `[count]`.
    Take,
    /// Numbers `[count]`, values `[count, width]`, added up in a table.
    Put,
}

impl Op {
    /// Whether it only shows its operand's values in another way: strides may say which.
    pub(crate) fn is_movement(&self) -> bool {
        matches!(
            self,
            Op::Reshape | Op::Transpose(_) | Op::Broadcast | Op::Slice { .. } | Op::Reverse(_) | Op::Again
        )
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<Id>,
    pub shape: Vec<usize>,
}

/// A graph under construction.
#[derive(Default, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    known: HashMap<(Op, Vec<Id>, Vec<usize>), Id>,
    /// The layer that is being built, for errors.
    scope: String,
    /// Softmax and sigmoid results with what they were computed from, so that losses can be taken from logits.
    pub(crate) logits: HashMap<Id, Id>,
    /// Streams of random numbers handed out.
    pub(crate) streams: u32,
}

impl Graph {
    pub fn new() -> Graph {
        Graph::default()
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.index()]
    }

    pub fn shape(&self, id: Id) -> &[usize] {
        &self.node(id).shape
    }

    /// Names the layer that is being built, for errors; returns the one before.
    pub fn set_scope(&mut self, scope: &str) -> String {
        std::mem::replace(&mut self.scope, scope.to_owned())
    }

    /// The node of this operation: one that exists, or a new one.
    pub(crate) fn push(&mut self, op: Op, inputs: Vec<Id>, shape: Vec<usize>) -> Id {
        let key = (op, inputs, shape);
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(Node { op: key.0.clone(), inputs: key.1.clone(), shape: key.2.clone() });
        self.known.insert(key, id);
        id
    }

    pub(crate) fn shape_error(
        &self,
        operation: &'static str,
        expected: impl Into<String>,
        ids: &[Id],
    ) -> TrainError {
        TrainError::Shape {
            layer: if self.scope.is_empty() { "graph".to_owned() } else { self.scope.clone() },
            operation,
            expected: expected.into(),
            received: ids.iter().map(|&id| self.shape(id).to_vec()).collect(),
        }
    }

    pub fn input(&mut self, number: usize, shape: &[usize]) -> Id {
        self.push(Op::Input(number), vec![], shape.to_vec())
    }

    pub fn variable(&mut self, number: usize, shape: &[usize]) -> Id {
        self.push(Op::Variable(number), vec![], shape.to_vec())
    }

    /// A constant of the given shape.
    pub fn constant(&mut self, values: &[f32], shape: &[usize]) -> Result<Id> {
        let bits: Arc<[u32]> = values.iter().map(|x| x.to_bits()).collect();
        let id = self.push(Op::Constant(bits), vec![], shape.to_vec());
        if shape.iter().product::<usize>() == values.len() {
            Ok(id)
        } else {
            Err(self.shape_error("constant", format!("{} values", values.len()), &[id]))
        }
    }

    /// A constant without dimensions.
    pub fn scalar(&mut self, value: f32) -> Id {
        self.push(Op::Constant([value.to_bits()].into()), vec![], vec![])
    }

    /// `shape` filled with one value.
    pub fn full(&mut self, value: f32, shape: &[usize]) -> Id {
        let scalar = self.scalar(value);
        self.broadcast_unchecked(scalar, shape)
    }

    /// One value in the shape of `like`.
    pub fn full_like(&mut self, value: f32, like: Id) -> Id {
        let shape = self.shape(like).to_vec();
        self.full(value, &shape)
    }

    /// 0, 1, 2, .. along the last axis: `[n]`.
    pub fn iota(&mut self, n: usize) -> Id {
        let bits: Arc<[u32]> = (0..n).map(|i| (i as f32).to_bits()).collect();
        self.push(Op::Constant(bits), vec![], vec![n])
    }

    /// Whether a value is one that is kept between runs, or a part of it.
    pub(crate) fn is_kept(&self, mut id: Id) -> bool {
        loop {
            match &self.node(id).op {
                Op::Variable(_) => return true,
                Op::Slice { .. } | Op::Reshape => id = self.node(id).inputs[0],
                _ => return false,
            }
        }
    }

    /// The value of all elements, if they are one known number.
    pub(crate) fn known_value(&self, mut id: Id) -> Option<f32> {
        loop {
            let node = self.node(id);
            match &node.op {
                Op::Constant(bits) if bits.len() == 1 => return Some(f32::from_bits(bits[0])),
                Op::Broadcast | Op::Reshape => id = node.inputs[0],
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
