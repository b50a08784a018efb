//! What a model computes when it isn't trained, as a graph whose weights are constants: what is written for runtimes.

use super::{Model, Node, Origin, PROBE, Placed, When};
use crate::error::{Result, TrainError};
use crate::graph::{Graph, Id};
use crate::layers::Layer;

/// Values of a layer's result for a sample, and weights of a model: 1 and 4 GiB.
const SAMPLE_MAX: usize = 1 << 28;
const WEIGHTS_MAX: usize = 1 << 30;

/// That results and weights can be counted, and that samples stay apart.
///
/// # Errors
/// Names the layer.
pub(super) fn check(layer: &str, shapes: &[Vec<usize>], weights: &[Placed]) -> Result<()> {
    let error = |expected: String| TrainError::Shape {
        layer: layer.to_owned(),
        operation: "its result",
        expected,
        received: shapes.to_vec(),
    };
    let elements =
        |shape: &[usize]| shape.iter().try_fold(1usize, |elements, &size| elements.checked_mul(size));
    for shape in shapes {
        if shape.first() != Some(&PROBE) || shape.contains(&0) {
            return Err(error(format!("the batch ({PROBE} here) as its first size, and no size of 0")));
        }
        if elements(&shape[1..]).is_none_or(|elements| elements > SAMPLE_MAX) {
            return Err(error(format!("at most {SAMPLE_MAX} values for a sample")));
        }
    }
    let each = weights.iter().map(|placed| elements(&placed.weight.shape));
    let sum = each.into_iter().try_fold(0usize, |sum, elements| sum.checked_add(elements?));
    if sum.is_none_or(|sum| sum > WEIGHTS_MAX) {
        return Err(error(format!("at most {WEIGHTS_MAX} weights in a model")));
    }
    Ok(())
}

impl Node {
    pub(crate) fn layer(&self) -> &dyn Layer {
        &*self.layer.0.layer
    }

    pub(crate) fn class_name(&self) -> &'static str {
        self.layer().class_name()
    }
}

impl Model {
    /// That a value is there: a layer may yield fewer than are asked for.
    pub(super) fn yielded(&self, source: Origin, ids: &[Vec<Id>]) -> Result<()> {
        match source {
            Origin::Step(step, output) if output >= ids[step].len() => {
                let name = &self.nodes[self.steps[step].node].name;
                let count = ids[step].len();
                Err(TrainError::Order(format!("the layer {name} yields {count} tensors, and more are used")))
            }
            _ => Ok(()),
        }
    }

    /// The graph of a prediction for `batch` samples, and where its outputs are in it. Whatever depends on weights alone is
    /// worked out, unless it is repeated for each sample.
    pub(crate) fn inference(&self, batch: usize) -> Result<(Graph, Vec<Id>)> {
        let mut graph = Graph::new();
        let weights: Vec<Id> =
            self.weights().map(|(_, shape, values)| graph.constant(values, shape)).collect::<Result<_>>()?;
        // No layer draws random numbers when it isn't trained.
        let (seed, step) = (graph.scalar(0.0), graph.scalar(0.0));
        let inputs: Vec<Id> = (0..self.inputs.len())
            .map(|i| graph.input(i, &[&[batch], &self.inputs[i].1[..]].concat()))
            .collect();
        let outputs =
            self.passed(&mut graph, &weights, &inputs, When { training: false, seed, step })?.outputs;
        graph.reduced_except(&outputs, |shape| shape.iter().any(|size| size % batch == 0))
    }

    /// The layers with their names, each once.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &dyn Layer)> {
        self.nodes.iter().map(|node| (node.name.as_str(), node.layer()))
    }

    /// Names of the inputs, in their order.
    pub fn input_names(&self) -> Vec<String> {
        self.inputs.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The outputs' names: of the layers that yield them, each once.
    pub(crate) fn output_names(&self) -> Vec<String> {
        let mut names: Vec<String> = vec![];
        for &origin in &self.outputs {
            let own = match origin {
                Origin::Input(number) => &self.inputs[number].0,
                Origin::Step(step, _) => &self.nodes[self.steps[step].node].name,
            };
            let taken =
                |name: &String| names.contains(name) || self.inputs.iter().any(|input| input.0 == *name);
            let numbered = (1..).map(|number| format!("{own}_{number}"));
            names.extend(std::iter::once(own.clone()).chain(numbered).find(|name| !taken(name)));
        }
        names
    }
}
