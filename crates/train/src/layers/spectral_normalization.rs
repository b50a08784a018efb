//! `SpectralNormalization`: a layer whose kernel is kept at a spectral norm of 1 (Miyato and others, arXiv:1802.05957).

use serde_json::{Value, json};

use super::time_distributed::{wrapped, wrapped_config};
use super::{Call, Layer, Weight, argument_error};
use crate::error::Result;
use crate::graph::{Function, Graph, Id};
use crate::initializers::Initializer;

/// Keras's least sum of squares where lengths are brought to 1.
const LEAST: f32 = 1e-14;
/// Each iteration is operations of its own.
const ITERATIONS_MAX: usize = 100;

/// Before each step of training, the kernel of the layer within is divided by its greatest singular value, as power
/// iteration finds it. As in Keras, what is divided is the weight itself, and no gradient goes through the division.
#[derive(Debug)]
pub struct SpectralNormalization {
    layer: Box<dyn Layer>,
    power_iterations: usize,
}

impl SpectralNormalization {
    pub fn new(layer: impl Layer + 'static) -> SpectralNormalization {
        SpectralNormalization { layer: Box::new(layer), power_iterations: 1 }
    }

    super::arguments! { power_iterations: usize }

    pub(super) fn from_config(config: &Value) -> Result<SpectralNormalization> {
        let iterations = config.get("power_iterations").map_or(Some(1), Value::as_u64);
        let iterations = iterations.filter(|count| (1..=ITERATIONS_MAX as u64).contains(count));
        let power_iterations = iterations.ok_or_else(|| too_many(config["power_iterations"].to_string()))?;
        let layer = wrapped("SpectralNormalization", config)?;
        Ok(SpectralNormalization { layer, power_iterations: power_iterations as usize })
    }
}

fn too_many(received: String) -> crate::error::TrainError {
    let expected = format!("1 to {ITERATIONS_MAX}");
    argument_error("SpectralNormalization", "power_iterations", &expected, received)
}

fn is_kernel(weight: &Weight) -> bool {
    weight.name == "kernel" || weight.name == "embeddings"
}

impl Layer for SpectralNormalization {
    fn class_name(&self) -> &'static str {
        "SpectralNormalization"
    }

    fn config(&self) -> Value {
        json!({ "layer": wrapped_config(&*self.layer), "power_iterations": self.power_iterations })
    }

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        if !(1..=ITERATIONS_MAX).contains(&self.power_iterations) {
            return Err(too_many(self.power_iterations.to_string()));
        }
        let mut weights = self.layer.weights(inputs)?;
        let Some(kernel) = weights.iter().find(|weight| is_kernel(weight)) else {
            let class = self.layer.class_name().to_owned();
            return Err(argument_error("SpectralNormalization", "layer", "a layer with one kernel", class));
        };
        let columns = kernel.shape.last().copied().unwrap_or(1);
        weights = weights.into_iter().map(|weight| weight.under("layer")).collect();
        let first = Initializer::TruncatedNormal { mean: 0.0, stddev: 0.02 };
        weights.push(Weight::new("vector_u", [1, columns], &first).fixed());
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let Some((&u, own)) = weights.split_last() else { return Ok(vec![]) };
        let mut own = own.to_vec();
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|&input| call.graph.shape(input).to_vec()).collect();
        let kernel = self.layer.weights(&shapes)?.iter().position(is_kernel).unwrap_or(0);
        // A layer that is called again in a step goes on with the kernel of the first call.
        if call.training && call.graph.is_kept(own[kernel]) {
            let (divided, new_u) = normalized(call.graph, own[kernel], u, self.power_iterations)?;
            call.updates.push((own[kernel], divided));
            call.updates.push((u, new_u));
            own[kernel] = divided;
        }
        // As in Keras, the layer within sees no mask.
        call.masks.clear();
        self.layer.call(call, inputs, &own)
    }
}

/// The kernel by its greatest singular value, and the vector by which that is found.
fn normalized(graph: &mut Graph, kernel: Id, u: Id, iterations: usize) -> Result<(Id, Id)> {
    let shape = graph.shape(kernel).to_vec();
    let columns = shape.last().copied().unwrap_or(1);
    let matrix = graph.reshape(kernel, &[shape.iter().product::<usize>() / columns, columns])?;
    let turned = graph.transposed(matrix)?;
    let (mut u, before) = (u, u);
    let mut v = u;
    for _ in 0..iterations {
        v = graph.matmul(u, turned)?;
        v = of_length_1(graph, v)?;
        u = graph.matmul(v, matrix)?;
        u = of_length_1(graph, u)?;
    }
    let product = graph.matmul(v, matrix)?;
    let u_turned = graph.transposed(u)?;
    let norm = graph.matmul(product, u_turned)?;
    let norm = graph.reshape(norm, &[])?;
    // A kernel of zeros stays what it is.
    let size = graph.map(Function::Abs, norm);
    let zero = graph.scalar(0.0);
    let is_some = graph.less(zero, size)?;
    let one = graph.scalar(1.0);
    let norm = graph.select(is_some, norm, one)?;
    let u = graph.select(is_some, u, before)?;
    Ok((graph.div(kernel, norm)?, u))
}

fn of_length_1(graph: &mut Graph, x: Id) -> Result<Id> {
    let square = graph.square(x)?;
    let sum = graph.sum(square, &[0, 1])?;
    let least = graph.scalar(LEAST);
    let sum = graph.max(sum, least)?;
    let length = graph.map(Function::Sqrt, sum);
    graph.div(x, length)
}
