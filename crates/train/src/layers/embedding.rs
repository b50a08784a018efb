//! `Embedding`: rows of a table by number.

use serde::{Deserialize, Serialize};

use super::masks::other_than;
use super::{Call, Layer, Weight, arguments, described};
use crate::error::Result;
use crate::graph::Id;
use crate::initializers::Initializer;
use crate::penalties::{Constraint, Regularizer};

/// A number outside the table yields NaN, which stops a fit. Gradients of repeated numbers are added up before an
/// optimiser sees them: [`crate::optimizers`] says where Keras on TensorFlow doesn't.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Embedding {
    pub input_dim: usize,
    pub output_dim: usize,
    pub embeddings_initializer: Initializer,
    pub embeddings_regularizer: Option<Regularizer>,
    pub embeddings_constraint: Option<Constraint>,
    /// Whether steps of number 0 are masked.
    pub mask_zero: bool,
}

impl Default for Embedding {
    fn default() -> Embedding {
        Embedding {
            input_dim: 1,
            output_dim: 1,
            embeddings_initializer: Initializer::RandomUniform { minval: -0.05, maxval: 0.05 },
            embeddings_regularizer: None,
            embeddings_constraint: None,
            mask_zero: false,
        }
    }
}

impl Embedding {
    pub fn new(input_dim: usize, output_dim: usize) -> Embedding {
        Embedding { input_dim, output_dim, ..Embedding::default() }
    }

    arguments! {
        embeddings_initializer: Initializer,
        embeddings_regularizer: Option<Regularizer>,
        embeddings_constraint: Option<Constraint>,
        mask_zero: bool,
    }
}

impl Layer for Embedding {
    described!("Embedding");

    fn weights(&self, _: &[Vec<usize>]) -> Result<Vec<Weight>> {
        let table =
            Weight::new("embeddings", [self.input_dim, self.output_dim], &self.embeddings_initializer);
        Ok(vec![table.held(&self.embeddings_regularizer, &self.embeddings_constraint)])
    }

    fn mask(&self, call: &mut Call<'_>, inputs: &[Id]) -> Result<Option<Id>> {
        match self.mask_zero {
            true => other_than(call.graph, inputs[0], 0.0).map(Some),
            false => Ok(None),
        }
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>> {
        Ok(vec![call.graph.take(weights[0], inputs[0])?])
    }
}
