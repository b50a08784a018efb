//! `Dense`: a product with a matrix, a bias and an activation.

use serde::{Deserialize, Serialize};

use super::{Call, Layer, Weight, arguments, described, one_shape};
use crate::activations::Activation;
use crate::error::Result;
use crate::graph::Id;
use crate::initializers::Initializer;
use crate::penalties::{Constraint, Regularizer};

/// `activation(x · kernel + bias)` over the last axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Dense {
    pub units: usize,
    pub activation: Activation,
    pub use_bias: bool,
    pub kernel_initializer: Initializer,
    pub bias_initializer: Initializer,
    pub kernel_regularizer: Option<Regularizer>,
    pub bias_regularizer: Option<Regularizer>,
    pub kernel_constraint: Option<Constraint>,
    pub bias_constraint: Option<Constraint>,
}

impl Default for Dense {
    fn default() -> Dense {
        Dense {
            units: 1,
            activation: Activation::Linear,
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform {},
            bias_initializer: Initializer::Zeros {},
            kernel_regularizer: None,
            bias_regularizer: None,
            kernel_constraint: None,
            bias_constraint: None,
        }
    }
}

impl Dense {
    pub fn new(units: usize) -> Dense {
        Dense { units, ..Dense::default() }
    }

    arguments! {
        activation: Activation,
        use_bias: bool,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
        kernel_regularizer: Option<Regularizer>,
        bias_regularizer: Option<Regularizer>,
        kernel_constraint: Option<Constraint>,
        bias_constraint: Option<Constraint>,
    }
}

impl Layer for Dense {
    described!("Dense");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let shape = one_shape("Dense", inputs, 2)?;
        let mut weights = vec![
            Weight::new("kernel", [shape[shape.len() - 1], self.units], &self.kernel_initializer)
                .held(&self.kernel_regularizer, &self.kernel_constraint),
        ];
        if self.use_bias {
            weights.push(
                Weight::new("bias", [self.units], &self.bias_initializer)
                    .held(&self.bias_regularizer, &self.bias_constraint),
            );
        }
        Ok(weights)
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        let y = linear(call, inputs[0], weights[0], weights.get(1).copied())?;
        Ok(vec![self.activation.apply(call.graph, y)?])
    }
}

/// `x · kernel + bias` over the last axis, as one product of matrices.
pub(crate) fn linear(call: &mut Call<'_>, x: Id, kernel: Id, bias: Option<Id>) -> Result<Id> {
    let graph = &mut *call.graph;
    let mut shape = graph.shape(x).to_vec();
    let Some(last) = shape.pop() else {
        return Err(graph.shape_error("dense", "two dimensions or more", &[x]));
    };
    let rows = shape.iter().product();
    let flat = graph.reshape(x, &[rows, last])?;
    let mut y = graph.matmul(flat, kernel)?;
    if let Some(bias) = bias {
        y = graph.add(y, bias)?;
    }
    shape.push(graph.shape(kernel)[1]);
    graph.reshape(y, &shape)
}
