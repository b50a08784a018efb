//! What is simpler than it was written: known numbers, neutral elements, and constants worked out ahead.

use std::collections::HashMap;

use super::reference::{self, Values};
use super::{Function, Graph, Id, Op};
use crate::error::Result;

/// Elements of a constant that is worked out ahead, at most.
const FOLDED_MAX: usize = 1 << 20;

impl Graph {
    /// A simpler node for `function(a, b)`, both of one shape.
    pub(super) fn simplified(&mut self, function: Function, a: Id, b: Id) -> Option<Id> {
        let shape = self.shape(a).to_vec();
        let (left, right) = (self.known_value(a), self.known_value(b));
        if let (Some(x), Some(y)) = (left, right) {
            let value = reference::function(function, [x as f64, y as f64, 0.0]) as f32;
            return Some(self.full(value, &shape));
        }
        match (function, left, right) {
            (Function::Add, Some(0.0), _) | (Function::Mul, Some(1.0), _) => Some(b),
            (Function::Add | Function::Sub, _, Some(0.0)) => Some(a),
            (Function::Mul | Function::Div | Function::Pow, _, Some(1.0)) => Some(a),
            (Function::Mul, Some(0.0), _) | (Function::Mul, _, Some(0.0)) => Some(self.full(0.0, &shape)),
            (Function::Sub, Some(0.0), _) => Some(self.map(Function::Neg, b)),
            _ => None,
        }
    }

    /// A graph of only what `wanted` needs, with whatever depends on constants alone worked out; and where `wanted` is
    /// in it.
    pub fn reduced(&self, wanted: &[Id]) -> Result<(Graph, Vec<Id>)> {
        self.reduced_except(wanted, |_| false)
    }

    /// As [`Graph::reduced`], where a constant broadcast to a shape of which `open` says so isn't known.
    pub(crate) fn reduced_except(
        &self,
        wanted: &[Id],
        open: impl Fn(&[usize]) -> bool,
    ) -> Result<(Graph, Vec<Id>)> {
        // A broadcast of a constant is a view of it and stays one, but what is computed from it is folded.
        let mut constant = vec![false; self.len()];
        let mut folds = vec![false; self.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            let known = !node.inputs.is_empty()
                && node.inputs.iter().all(|input| constant[input.index()])
                && node.shape.iter().product::<usize>() <= FOLDED_MAX
                && !matches!(node.op, Op::Map(Function::Uniform(_)))
                && !(node.op == Op::Broadcast && open(&node.shape));
            constant[index] = known || matches!(node.op, Op::Constant(_));
            folds[index] = known && !matches!(node.op, Op::Broadcast | Op::Reshape);
        }
        let mut needed = vec![false; self.len()];
        wanted.iter().for_each(|id| needed[id.index()] = true);
        for index in (0..self.len()).rev() {
            if needed[index] && !folds[index] {
                self.nodes[index].inputs.iter().for_each(|input| needed[input.index()] = true);
            }
        }
        let mut graph = Graph { streams: self.streams, ..Graph::default() };
        let mut moved: HashMap<Id, Id> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
            let id = if folds[index] {
                let id = Id(index as u32);
                let values = Values::new().of(self, &[id])?.remove(0);
                let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
                graph.constant(&values, &node.shape)?
            } else {
                let inputs = node.inputs.iter().map(|input| moved[input]).collect();
                graph.push(node.op.clone(), inputs, node.shape.clone())
            };
            moved.insert(Id(index as u32), id);
        }
        Ok((graph, wanted.iter().map(|id| moved[id]).collect()))
    }
}
