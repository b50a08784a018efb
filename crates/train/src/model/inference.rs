//! What a model computes when it isn't trained, as a graph whose weights are constants: what is written for runtimes.

use super::{Model, Node, Origin, at};
use crate::error::Result;
use crate::graph::{Graph, Id};
use crate::layers::{Call, Layer};

impl Model {
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
        let mut ids: Vec<Vec<Id>> = Vec::new();
        for called in &self.steps {
            let given: Vec<Id> = called.inputs.iter().map(|&source| at(source, &inputs, &ids)).collect();
            let Node { name, layer, weights: own, .. } = &self.nodes[called.node];
            graph.set_scope(name);
            let mut call = Call { graph: &mut graph, training: false, seed, step, updates: vec![] };
            ids.push(layer.0.layer.call(&mut call, &given, &weights[own.clone()])?);
        }
        let outputs: Vec<Id> = self.outputs.iter().map(|&source| at(source, &inputs, &ids)).collect();
        graph.reduced_except(&outputs, |shape| shape.iter().any(|size| size % batch == 0))
    }

    /// The layers with their names, each once.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &dyn Layer)> {
        self.nodes.iter().map(|node| (node.name.as_str(), &*node.layer.0.layer))
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
