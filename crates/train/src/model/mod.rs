//! A model: layers wired from inputs to outputs, their weights, and what is done with them.

mod data;
mod dtype_policy;
mod fit;
mod inference;
mod optimizer_state;
mod programs;
mod steps;
mod summary;
mod weight_views;
mod wiring;
mod within;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use kernels::compute::{Compute, Isa};
use kernels::workspace::Workspace;

pub use data::{Array, Arrays};
pub use dtype_policy::DtypePolicy;
pub use fit::{Fit, History};
pub(crate) use fit::{Sums, seed_at};
pub use weight_views::WeightView;
use wiring::{Called, Source};
pub use wiring::{Input, Shared, Tensor, Tensors, Wire};
pub(crate) use within::{Passed, Weights, When};

use crate::compile::Variables;
use crate::error::{Result, TrainError};
use crate::graph::{Graph, Id};
use crate::layers::{Call, Weight};
use crate::optimizers::Part;
use programs::{Compiled, Key};

/// The seed of weights and random numbers if none is given.
pub(crate) const SEED: u64 = 1234;
/// The batch that shapes are found with; sizes that follow from it are shown as none.
const PROBE: usize = 2;

/// A weight with its name and where its values are.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// Keras's path, such as `dense/kernel`.
    pub path: String,
    pub weight: Weight,
    /// The variable that holds it, and the place within that.
    pub variable: usize,
    pub range: Range<usize>,
}

impl Placed {
    /// Its place within the vector of all, for an optimiser.
    pub(crate) fn part(&self) -> Part {
        Part {
            is_embedding: self.path.to_lowercase().contains("embedding"),
            range: self.range.clone(),
            shape: self.weight.shape.clone(),
        }
    }
}

/// A layer of a model.
#[derive(Debug)]
pub(crate) struct Node {
    pub name: String,
    pub layer: Shared,
    /// Indices of its weights.
    pub weights: Range<usize>,
}

/// A call of a layer: which, with what, and the shapes that it yields for a batch of [`PROBE`].
pub(crate) struct Step {
    pub node: usize,
    pub inputs: Vec<Origin>,
    pub shapes: Vec<Vec<usize>>,
}

/// Where a value comes from: an input of the model, or an output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Input(usize),
    Step(usize, usize),
}

/// Layers, wired.
pub struct Model {
    pub(crate) inputs: Vec<(String, Vec<usize>)>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<Origin>,
    pub(crate) weights: Vec<Placed>,
    /// The vector of all trainable weights is variable 0.
    pub(crate) variables: Variables,
    pub(crate) trainable_len: usize,
    compute: Compute,
    dtype_policy: DtypePolicy,
    checkpoint_activations: bool,
    workspace: Workspace,
    compiled: Option<Compiled>,
    programs: HashMap<Key, programs::Entry>,
    /// Whose constants are in the workspace.
    resident: Option<Key>,
    /// What is trained instead of weights, by their numbers.
    weight_views: Vec<(usize, WeightView)>,
    seed: u64,
    /// Steps of the optimiser so far.
    iterations: u64,
}

impl Model {
    /// The model between these tensors, with weights drawn from a fixed seed and a thread for each core.
    ///
    /// # Errors
    /// When shapes don't go together: the error names the layer and both.
    pub fn new(inputs: impl Into<Tensors>, outputs: impl Into<Tensors>) -> Result<Model> {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        Model::with(inputs, outputs, SEED, threads)
    }

    /// As [`Model::new`], with the seed of weights and random numbers, and the number of threads.
    pub fn with(
        inputs: impl Into<Tensors>,
        outputs: impl Into<Tensors>,
        seed: u64,
        threads: usize,
    ) -> Result<Model> {
        let (inputs, outputs) = (inputs.into().0, outputs.into().0);
        let mut builder = Builder {
            inputs: &inputs,
            nodes: vec![],
            steps: vec![],
            known: HashMap::new(),
            names: HashMap::new(),
        };
        let outputs: Vec<Origin> =
            outputs.iter().map(|output| builder.source(output)).collect::<Result<_>>()?;
        let Builder { nodes, steps, .. } = builder;
        let mut names = vec![];
        for (number, input) in inputs.iter().enumerate() {
            let Source::Input { shape, name } = &*input.0 else {
                return Err(TrainError::Order("a model's inputs are made by Input::new".to_owned()));
            };
            let name = name.clone().unwrap_or_else(|| match number {
                0 => "input_layer".to_owned(),
                n => format!("input_layer_{n}"),
            });
            names.push((name, shape.clone()));
        }
        let mut model = Model {
            inputs: names,
            nodes,
            steps,
            outputs,
            weights: vec![],
            variables: Variables::default(),
            trainable_len: 0,
            compute: Compute::new(Isa::detect(), threads),
            dtype_policy: DtypePolicy::default(),
            checkpoint_activations: false,
            workspace: Workspace::new(0, threads),
            compiled: None,
            programs: HashMap::new(),
            resident: None,
            weight_views: vec![],
            seed,
            iterations: 0,
        };
        model.find_shapes()?;
        model.place_weights();
        Ok(model)
    }

    /// Goes through the steps once, to learn weights and shapes.
    fn find_shapes(&mut self) -> Result<()> {
        let mut graph = Graph::new();
        let mut ids: Vec<Vec<Id>> = Vec::new();
        let mut masks = Vec::new();
        let (seed, step) = (graph.scalar(0.0), graph.scalar(0.0));
        let inputs: Vec<Id> = (0..self.inputs.len())
            .map(|i| graph.input(i, &[&[PROBE], &self.inputs[i].1[..]].concat()))
            .collect();
        let mut seen = vec![false; self.nodes.len()];
        for index in 0..self.steps.len() {
            let sources = &self.steps[index].inputs;
            sources.iter().try_for_each(|&source| self.yielded(source, &ids))?;
            let given: Vec<Id> = sources.iter().map(|&source| at(source, &inputs, &ids)).collect();
            let shapes: Vec<Vec<usize>> = given.iter().map(|&id| graph.shape(id).to_vec()).collect();
            let node = &mut self.nodes[self.steps[index].node];
            graph.set_scope(&node.name);
            let layer = &node.layer.0.layer;
            if given.is_empty() {
                return Err(TrainError::Order(format!("the layer {} is called on nothing", node.name)));
            }
            if !std::mem::replace(&mut seen[self.steps[index].node], true) {
                let start = self.weights.len();
                for mut weight in
                    layer.weights(&shapes).map_err(|error| renamed(error, layer.class_name(), &node.name))?
                {
                    if !node.layer.0.trainable {
                        weight.trainable = false;
                        weight.regularizer = None;
                    }
                    let path = format!("{}/{}", node.name, weight.name);
                    self.weights.push(Placed { path, weight, variable: 0, range: 0..0 });
                }
                node.weights = start..self.weights.len();
            }
            let weights: Vec<Id> = node
                .weights
                .clone()
                .map(|which| graph.variable(which, &self.weights[which].weight.shape))
                .collect();
            let given_masks = sources.iter().map(|&source| mask_at(source, &masks)).collect();
            let mut call =
                Call { graph: &mut graph, training: false, seed, step, updates: vec![], masks: given_masks };
            masks.push(layer.mask(&mut call, &given)?);
            let outputs = layer.call(&mut call, &given, &weights)?;
            let shapes: Vec<Vec<usize>> = outputs.iter().map(|&id| graph.shape(id).to_vec()).collect();
            inference::check(&node.name, &shapes, &self.weights)?;
            self.steps[index].shapes = shapes;
            ids.push(outputs);
        }
        self.outputs.iter().try_for_each(|&source| self.yielded(source, &ids))
    }

    /// Gives weights their places and first values: the trainable ones in one vector, the others each alone.
    fn place_weights(&mut self) {
        for placed in self.weights.iter_mut().filter(|placed| placed.weight.trainable) {
            let len = placed.weight.shape.iter().product::<usize>();
            placed.range = self.trainable_len..self.trainable_len + len;
            self.trainable_len += len;
        }
        self.variables.add(self.trainable_len);
        for placed in self.weights.iter_mut().filter(|placed| !placed.weight.trainable) {
            let len = placed.weight.shape.iter().product::<usize>();
            placed.variable = self.variables.add(len);
            placed.range = 0..len;
        }
        self.workspace.grow(self.variables.end());
        for which in 0..self.weights.len() {
            let weight = &self.weights[which].weight;
            let values = weight.initializer.values(&weight.shape, self.seed, which);
            self.values_mut(which).copy_from_slice(&values);
        }
    }

    fn place_of(&self, which: usize) -> Range<usize> {
        let placed = &self.weights[which];
        let start = self.variables.offset(placed.variable);
        start + placed.range.start..start + placed.range.end
    }

    fn values_mut(&mut self, which: usize) -> &mut [f32] {
        let range = self.place_of(which);
        &mut self.workspace.values_mut()[range]
    }

    /// Keras's paths, shapes and values of all weights.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.weights.iter().enumerate().map(|(which, placed)| {
            let values = &self.workspace.values()[self.place_of(which)];
            (placed.path.as_str(), &placed.weight.shape[..], values)
        })
    }

    /// Sets the weight at `path`.
    ///
    /// # Errors
    /// When there is no such weight, or it has another number of values.
    pub fn set_weight(&mut self, path: &str, values: &[f32]) -> Result<()> {
        let Some(which) = self.weights.iter().position(|placed| placed.path == path) else {
            let known: Vec<&str> = self.weights.iter().map(|placed| placed.path.as_str()).collect();
            let known = known.join(", ");
            return Err(TrainError::Unknown { kind: "weight", name: path.to_owned(), known });
        };
        let place = self.values_mut(which);
        if place.len() != values.len() {
            return Err(TrainError::Argument {
                place: path.to_owned(),
                argument: "values",
                expected: format!("{} values", place.len()),
                received: values.len().to_string(),
            });
        }
        place.copy_from_slice(values);
        Ok(())
    }

    /// Trainable weights within the vector of all.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let trainable = self.weights.iter().filter(|placed| placed.weight.trainable);
        trainable.map(Placed::part).collect()
    }
}

fn at(source: Origin, inputs: &[Id], ids: &[Vec<Id>]) -> Id {
    match source {
        Origin::Input(number) => inputs[number],
        Origin::Step(step, output) => ids[step][output],
    }
}

/// The mask of a step's first output, where there is one: inputs and further outputs have none.
fn mask_at(source: Origin, masks: &[Option<Id>]) -> Option<Id> {
    match source {
        Origin::Step(step, 0) => masks[step],
        _ => None,
    }
}

/// An error of a layer class, said of the layer.
fn renamed(error: TrainError, class: &str, name: &str) -> TrainError {
    match error {
        TrainError::Shape { layer, operation, expected, received } if layer == class => {
            TrainError::Shape { layer: name.to_owned(), operation, expected, received }
        }
        TrainError::Argument { place, argument, expected, received } if place == class => {
            TrainError::Argument { place: name.to_owned(), argument, expected, received }
        }
        other => other,
    }
}

/// A class's name as Keras makes default names of it.
pub(crate) fn snake_case(class: &str) -> String {
    // Keras's class is called otherwise than what it is exported as.
    if class == "GroupQueryAttention" {
        return "grouped_query_attention".to_owned();
    }
    let mut snake = String::new();
    let class: Vec<char> = class.chars().collect();
    for (i, &letter) in class.iter().enumerate() {
        // A word begins at a capital after a small letter, or before one.
        let begins = letter.is_uppercase()
            && i > 0
            && (class[i - 1].is_lowercase()
                || (class.get(i + 1).is_some_and(|next| next.is_lowercase())
                    && !class[i - 1].is_ascii_digit()));
        if begins {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Finds layers and calls from the outputs back to the inputs.
struct Builder<'a> {
    inputs: &'a [Tensor],
    nodes: Vec<Node>,
    steps: Vec<Step>,
    known: HashMap<*const Called, usize>,
    names: HashMap<String, usize>,
}

impl Builder<'_> {
    fn source(&mut self, tensor: &Tensor) -> Result<Origin> {
        let (called, output) = match &*tensor.0 {
            Source::Input { .. } => {
                let number = self.inputs.iter().position(|input| Arc::ptr_eq(&input.0, &tensor.0));
                return number.map(Origin::Input).ok_or_else(|| {
                    TrainError::Order("an output depends on an Input that the model doesn't list".to_owned())
                });
            }
            Source::Output { called, output } => (called, *output),
        };
        if let Some(&step) = self.known.get(&Arc::as_ptr(called)) {
            return Ok(Origin::Step(step, output));
        }
        let inputs = called.inputs.iter().map(|input| self.source(input)).collect::<Result<_>>()?;
        let node = match self.nodes.iter().position(|node| Arc::ptr_eq(&node.layer.0, &called.layer.0)) {
            Some(node) => node,
            None => {
                let name = self.name(&called.layer);
                self.nodes.push(Node { name, layer: called.layer.clone(), weights: 0..0 });
                self.nodes.len() - 1
            }
        };
        self.steps.push(Step { node, inputs, shapes: vec![] });
        self.known.insert(Arc::as_ptr(called), self.steps.len() - 1);
        Ok(Origin::Step(self.steps.len() - 1, output))
    }

    /// The layer's own name, or Keras's: the class in snake case, with a number from the second on.
    fn name(&mut self, layer: &Shared) -> String {
        if let Some(name) = &layer.0.name {
            return name.clone();
        }
        let snake = snake_case(layer.0.layer.class_name());
        let count = self.names.entry(snake.clone()).or_default();
        *count += 1;
        if *count == 1 { snake } else { format!("{snake}_{}", *count - 1) }
    }
}

#[cfg(test)]
mod tests;
