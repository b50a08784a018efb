//! `UpSampling2D`, `ZeroPadding2D` and `Cropping2D`: pixels repeated, added and taken away.

use serde::{Deserialize, Serialize};

use super::convolution::Sizes;
use super::{Call, Layer, Weight, argument_error, described, one_shape};
use crate::error::Result;
use crate::graph::Id;

/// Each pixel repeated (`nearest`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct UpSampling2D {
    pub size: Vec<usize>,
    pub interpolation: String,
}

impl Default for UpSampling2D {
    fn default() -> UpSampling2D {
        UpSampling2D { size: vec![2, 2], interpolation: "nearest".to_owned() }
    }
}

impl UpSampling2D {
    pub fn new(size: impl Sizes<2>) -> UpSampling2D {
        UpSampling2D { size: size.sizes(), ..UpSampling2D::default() }
    }
}

impl Layer for UpSampling2D {
    described!("UpSampling2D");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        one_shape("UpSampling2D", inputs, 4)?;
        super::convolution::check_sizes("UpSampling2D", "size", &self.size, 2)?;
        if self.interpolation != "nearest" {
            return Err(argument_error(
                "UpSampling2D",
                "interpolation",
                "nearest",
                self.interpolation.clone(),
            ));
        }
        Ok(vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let graph = &mut *call.graph;
        let [b, h, w, c] = <[usize; 4]>::try_from(graph.shape(inputs[0])).unwrap_or_default();
        let (y, x) = (self.size[0], self.size[1]);
        let apart = graph.reshape(inputs[0], &[b, h, 1, w, 1, c])?;
        let repeated = graph.broadcast(apart, &[b, h, y, w, x, c])?;
        Ok(vec![graph.reshape(repeated, &[b, h * y, w * x, c])?])
    }
}

/// `((top, bottom), (left, right))` rows and columns.
type Margins = [[usize; 2]; 2];

/// Zeros around the pixels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ZeroPadding2D {
    pub padding: Margins,
}

impl Default for ZeroPadding2D {
    fn default() -> ZeroPadding2D {
        ZeroPadding2D { padding: [[1, 1]; 2] }
    }
}

impl ZeroPadding2D {
    pub fn new(padding: Margins) -> ZeroPadding2D {
        ZeroPadding2D { padding }
    }
}

impl Layer for ZeroPadding2D {
    described!("ZeroPadding2D");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        one_shape("ZeroPadding2D", inputs, 4).map(|_| vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let mut shape = call.graph.shape(inputs[0]).to_vec();
        let [[top, bottom], [left, right]] = self.padding;
        shape[1] += top + bottom;
        shape[2] += left + right;
        Ok(vec![call.graph.pad(inputs[0], &[0, top, left, 0], &[1; 4], &shape)?])
    }
}

/// The pixels within a margin.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cropping2D {
    pub cropping: Margins,
}

impl Cropping2D {
    pub fn new(cropping: Margins) -> Cropping2D {
        Cropping2D { cropping }
    }
}

impl Layer for Cropping2D {
    described!("Cropping2D");

    fn weights(&self, inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        one_shape("Cropping2D", inputs, 4).map(|_| vec![])
    }

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        let mut shape = call.graph.shape(inputs[0]).to_vec();
        let [[top, bottom], [left, right]] = self.cropping;
        shape[1] = shape[1].saturating_sub(top + bottom);
        shape[2] = shape[2].saturating_sub(left + right);
        Ok(vec![call.graph.slice(inputs[0], &[0, top, left, 0], &[1; 4], &shape)?])
    }
}
