//! `Flatten`, `Reshape` and `Permute`.

use serde::{Deserialize, Serialize};

use super::{Call, Layer, argument_error, described};
use crate::error::Result;
use crate::graph::Id;

/// Everything but the batch as one axis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Flatten {}

impl Flatten {
    pub fn new() -> Flatten {
        Flatten {}
    }
}

impl Layer for Flatten {
    described!("Flatten");

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let shape = call.graph.shape(inputs[0]).to_vec();
        Ok(vec![call.graph.reshape(inputs[0], &[shape[0], shape[1..].iter().product()])?])
    }
}

/// Another shape of everything but the batch; one size may be -1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reshape {
    pub target_shape: Vec<isize>,
}

impl Reshape {
    pub fn new(target_shape: impl Into<Vec<isize>>) -> Reshape {
        Reshape { target_shape: target_shape.into() }
    }
}

impl Layer for Reshape {
    described!("Reshape");

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let from = call.graph.shape(inputs[0]).to_vec();
        let elements: usize = from[1..].iter().product();
        let known: isize = self.target_shape.iter().filter(|&&size| size != -1).product();
        let mut shape = vec![from[0]];
        for &size in &self.target_shape {
            let size = if size == -1 && known > 0 { elements as isize / known } else { size };
            shape.push(usize::try_from(size).map_err(|_| {
                argument_error(
                    "Reshape",
                    "target_shape",
                    "sizes, one of which may be -1",
                    format!("{:?}", self.target_shape),
                )
            })?);
        }
        Ok(vec![call.graph.reshape(inputs[0], &shape)?])
    }
}

/// Axes in another order; 1 is the first after the batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Permute {
    pub dims: Vec<usize>,
}

impl Permute {
    pub fn new(dims: impl Into<Vec<usize>>) -> Permute {
        Permute { dims: dims.into() }
    }
}

impl Layer for Permute {
    described!("Permute");

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let axes = [&[0], &self.dims[..]].concat();
        Ok(vec![call.graph.transpose(inputs[0], &axes)?])
    }
}
