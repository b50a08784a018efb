//! Pooling over windows and over everything, channels last.

use serde::{Deserialize, Serialize};

use super::convolution::{Sizes, check_sizes};
use super::masks::expanded;
use super::{Call, Layer, Padding, Weight, arguments, described, one_shape};
use crate::error::Result;
use crate::graph::{Graph, Id};

/// The mean of the steps that count: `[batch, 1, width]`.
fn mean_of_steps(graph: &mut Graph, x: Id, mask: Id) -> Result<Id> {
    let mask = expanded(graph, mask, 3)?;
    let zero = graph.scalar(0.0);
    let kept = graph.select(mask, x, zero)?;
    let (sum, count) = (graph.sum(kept, &[1])?, graph.sum(mask, &[1])?);
    graph.div(sum, count)
}

macro_rules! pooling {
    ($($name:ident $class:literal $rank:literal $max:literal;)*) => {$(
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            pub pool_size: Vec<usize>,
            /// None is as the pool's size.
            pub strides: Option<Vec<usize>>,
            pub padding: Padding,
        }

        impl Default for $name {
            fn default() -> $name {
                $name { pool_size: vec![2; $rank], strides: None, padding: Padding::Valid }
            }
        }

        impl $name {
            pub fn new(pool_size: impl Sizes<$rank>) -> $name {
                $name { pool_size: pool_size.sizes(), ..$name::default() }
            }

            pub fn strides(mut self, strides: impl Sizes<$rank>) -> $name {
                self.strides = Some(strides.sizes());
                self
            }

            arguments! { padding: Padding }
        }

        impl Layer for $name {
            described!($class);

            fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
                one_shape($class, inputs, $rank + 2)?;
                check_sizes($class, "pool_size", &self.pool_size, $rank)?;
                check_sizes($class, "strides", self.strides.as_ref().unwrap_or(&self.pool_size), $rank)?;
                Ok(vec![])
            }

            fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
                let shape = call.graph.shape(inputs[0]).to_vec();
                let sizes = &shape[1..shape.len() - 1];
                let strides = self.strides.as_ref().unwrap_or(&self.pool_size);
                let windows = self.padding.windows(sizes, &self.pool_size, strides, &[1; $rank]);
                if $max {
                    return Ok(vec![call.graph.max_pool(inputs[0], &windows)?]);
                }
                let sum = call.graph.sum_pool(inputs[0], &windows)?;
                // What padding adds isn't counted.
                let ones = call.graph.full(1.0, &[&[1], sizes, &[1]].concat());
                let counts = call.graph.sum_pool(ones, &windows)?;
                Ok(vec![call.graph.div(sum, counts)?])
            }
        }
    )*};
}

pooling! {
    MaxPooling1D "MaxPooling1D" 1 true;
    MaxPooling2D "MaxPooling2D" 2 true;
    MaxPooling3D "MaxPooling3D" 3 true;
    AveragePooling1D "AveragePooling1D" 1 false;
    AveragePooling2D "AveragePooling2D" 2 false;
    AveragePooling3D "AveragePooling3D" 3 false;
}

macro_rules! global_pooling {
    ($($name:ident $class:literal $rank:literal $max:literal;)*) => {$(
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            pub keepdims: bool,
        }

        impl $name {
            pub fn new() -> $name {
                $name::default()
            }

            arguments! { keepdims: bool }
        }

        impl Layer for $name {
            described!($class);

            fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
                one_shape($class, inputs, $rank + 2).map(|_| vec![])
            }

            fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
                let shape = call.graph.shape(inputs[0]).to_vec();
                let axes: Vec<usize> = (1..shape.len() - 1).collect();
                let y = match (call.mask(0), $max) {
                    (_, true) => call.graph.reduce_max(inputs[0], &axes)?,
                    // As in Keras, the others don't heed it.
                    (Some(mask), false) if $rank == 1 => mean_of_steps(call.graph, inputs[0], mask)?,
                    (_, false) => call.graph.mean(inputs[0], &axes)?,
                };
                if self.keepdims {
                    return Ok(vec![y]);
                }
                Ok(vec![call.graph.reshape(y, &[shape[0], shape[shape.len() - 1]])?])
            }
        }
    )*};
}

global_pooling! {
    GlobalMaxPooling1D "GlobalMaxPooling1D" 1 true;
    GlobalMaxPooling2D "GlobalMaxPooling2D" 2 true;
    GlobalMaxPooling3D "GlobalMaxPooling3D" 3 true;
    GlobalAveragePooling1D "GlobalAveragePooling1D" 1 false;
    GlobalAveragePooling2D "GlobalAveragePooling2D" 2 false;
    GlobalAveragePooling3D "GlobalAveragePooling3D" 3 false;
}
