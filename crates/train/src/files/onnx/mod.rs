//! A trained model as ONNX (opset 17): the graph of a prediction, with the batch left open.
//!
//! What is written is the graph of primitive operations, not layers, so every layer can be. It is built for two sizes of
//! batch; what differs between the two follows the batch.

mod lower;
mod spatial;

use formats::onnx::{Dimension, ElementType, GraphWriter, TensorSpec};

use crate::error::{Result, TrainError};
use crate::graph::{Graph, Id, Op};
use crate::model::Model;
use lower::Lowering;

/// Sizes of batch that graphs are compared for: primes, so that no size of a layer is likely to be one by accident, and
/// others in case one is.
const BATCHES: [(usize, usize); 3] = [(61, 67), (131, 137), (257, 263)];

/// A size of a node's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Fixed(usize),
    /// This many for each sample.
    Samples(usize),
}

/// The graph for one size of batch, and which sizes follow it.
pub(super) struct Open {
    pub graph: Graph,
    pub sizes: Vec<Vec<Size>>,
    pub outputs: Vec<Id>,
}

/// The file. Inputs have the model's names and outputs those of the layers that yield them; each begins with the open
/// dimension `batch`.
///
/// # Errors
/// When what the model computes depends on the size of a batch.
pub fn write(model: &Model) -> Result<Vec<u8>> {
    let open = open(model)?;
    let names = model.output_names();
    let mut out = GraphWriter::new("model");
    names.iter().for_each(|name| out.reserve(name));
    for (name, shape) in &model.inputs {
        let dims = shape.iter().map(|&size| Dimension::Fixed(size));
        out.input(&spec(name, dims));
    }
    let mut lowering = Lowering::new(model, &open, out);
    lowering.all()?;
    let values: Vec<String> = open.outputs.iter().map(|&id| lowering.last(id)).collect::<Result<_>>()?;
    let mut out = lowering.into_writer();
    for ((name, value), &id) in names.iter().zip(&values).zip(&open.outputs) {
        let dims = open.sizes[id.index()][1..].iter().map(|&size| match size {
            Size::Fixed(size) => Dimension::Fixed(size),
            Size::Samples(_) => Dimension::Dynamic(None),
        });
        out.output(&spec(name, dims), value);
    }
    out.finish("tureen").map_err(|error| failed(error.to_string()))
}

fn spec(name: &str, dims: impl Iterator<Item = Dimension>) -> TensorSpec {
    let batch = Dimension::Dynamic(Some("batch".to_owned()));
    let shape = Some(std::iter::once(batch).chain(dims).collect());
    TensorSpec { name: name.to_owned(), element: ElementType::Float, shape }
}

pub(super) fn failed(problem: impl Into<String>) -> TrainError {
    TrainError::File { file: "ONNX".to_owned(), problem: problem.into() }
}

fn open(model: &Model) -> Result<Open> {
    let mut problem = failed("the model has no outputs");
    for (one, other) in BATCHES {
        let (graph, outputs) = model.inference(one)?;
        let (second, _) = model.inference(other)?;
        match compared(&graph, &second, [one, other]) {
            Ok(sizes) => return Ok(Open { graph, sizes, outputs }),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// Which sizes of `graph` follow the batch, by comparison with the same graph for another one.
fn compared(graph: &Graph, other: &Graph, batches: [usize; 2]) -> Result<Vec<Vec<Size>>> {
    let differs = || failed("what the model computes depends on the number of samples in a batch");
    if graph.len() != other.len() {
        return Err(differs());
    }
    let mut sizes = Vec::with_capacity(graph.len());
    for index in 0..graph.len() {
        let id = Id(index as u32);
        let (a, b) = (graph.node(id), other.node(id));
        if without_batch(&a.op) != without_batch(&b.op)
            || a.inputs != b.inputs
            || a.shape.len() != b.shape.len()
        {
            return Err(differs());
        }
        let size = |(&a, &b): (&usize, &usize)| {
            if a == b {
                Ok(Size::Fixed(a))
            } else if a * batches[1] == b * batches[0] {
                Ok(Size::Samples(a / batches[0]))
            } else {
                Err(differs())
            }
        };
        sizes.push(a.shape.iter().zip(&b.shape).map(size).collect::<Result<_>>()?);
    }
    Ok(sizes)
}

fn without_batch(op: &Op) -> Op {
    let mut op = op.clone();
    if let Op::Convolution { geometry, .. } | Op::Pool { geometry, .. } = &mut op {
        geometry.batch = 0;
    }
    op
}
