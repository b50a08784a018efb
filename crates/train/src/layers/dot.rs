//! `Dot`: products along an axis of two inputs.

use serde::{Deserialize, Serialize};

use super::rectifiers::{Axes, axis_of};
use super::{Call, Layer, Weight, argument_error, arguments, described};
use crate::error::{Result, TrainError};
use crate::graph::{Function, Graph, Id};

/// Keras's least sum of squares where lengths are brought to 1.
const LEAST: f32 = 1e-14;

/// For each sample, the sums of products along `axes`, one of each input: `[batch, rest of the first .., rest of the
/// second ..]`, or `[batch, 1]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dot {
    pub axes: Axes,
    /// Whether vectors are brought to length 1 first.
    #[serde(default)]
    pub normalize: bool,
}

impl Dot {
    pub fn new(axes: impl Into<Axes>) -> Dot {
        Dot { axes: axes.into(), normalize: false }
    }

    arguments! { normalize: bool }

    fn axes(&self, ranks: [usize; 2]) -> Result<[usize; 2]> {
        let given = match self.axes.as_slice() {
            [one] => [*one; 2],
            [one, other] => [*one, *other],
            other => {
                let received = format!("{other:?}");
                return Err(argument_error("Dot", "axes", "an axis, or one of each input", received));
            }
        };
        Ok([axis_of("Dot", "axes", given[0], ranks[0])?, axis_of("Dot", "axes", given[1], ranks[1])?])
    }
}

impl Layer for Dot {
    described!("Dot");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let expected = match inputs {
            [one, other] if one.len() >= 2 && other.len() >= 2 => {
                let axes = self.axes([one.len(), other.len()])?;
                if one[axes[0]] == other[axes[1]] {
                    return Ok(vec![]);
                }
                format!("two inputs of one size along the axes {axes:?}")
            }
            _ => "two inputs of 2 dimensions or more, the batch counted".to_owned(),
        };
        let layer = "Dot".to_owned();
        Err(TrainError::Shape { layer, operation: "the layer", expected, received: inputs.to_vec() })
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let graph = &mut *call.graph;
        let shapes = [graph.shape(inputs[0]).to_vec(), graph.shape(inputs[1]).to_vec()];
        let axes = self.axes([shapes[0].len(), shapes[1].len()])?;
        let batch = shapes[0][0];
        let mut sides = [inputs[0], inputs[1]];
        let mut result = vec![batch];
        for (side, (shape, axis)) in sides.iter_mut().zip(shapes.iter().zip(axes)) {
            if self.normalize {
                *side = of_length_1(graph, *side, axis)?;
            }
            let rest: Vec<usize> = (1..shape.len()).filter(|&other| other != axis).collect();
            result.extend(rest.iter().map(|&other| shape[other]));
            *side = graph.transpose(*side, &[&[0][..], &rest, &[axis]].concat())?;
            *side = graph
                .reshape(*side, &[batch, shape[1..].iter().product::<usize>() / shape[axis], shape[axis]])?;
        }
        if result.len() == 1 {
            result.push(1);
        }
        let turned = graph.transposed(sides[1])?;
        let products = graph.matmul(sides[0], turned)?;
        Ok(vec![graph.reshape(products, &result)?])
    }
}

fn of_length_1(graph: &mut Graph, x: Id, axis: usize) -> Result<Id> {
    let square = graph.square(x)?;
    let sum = graph.sum(square, &[axis])?;
    let least = graph.scalar(LEAST);
    let sum = graph.max(sum, least)?;
    let length = graph.map(Function::Sqrt, sum);
    graph.div(x, length)
}
