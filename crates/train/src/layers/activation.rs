//! `Activation` as a layer of its own.

use serde::{Deserialize, Serialize};

use super::{Call, Layer, described};
use crate::activations::Activation;
use crate::error::Result;
use crate::graph::Id;

/// Keras's `Activation` layer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ActivationLayer {
    pub activation: Activation,
}

impl ActivationLayer {
    pub fn new(activation: Activation) -> ActivationLayer {
        ActivationLayer { activation }
    }
}

impl Layer for ActivationLayer {
    described!("Activation");

    fn call(&self, call: &mut Call<'_>, inputs: &[Id], _: &[Id]) -> Result<Vec<Id>> {
        Ok(vec![self.activation.apply(call.graph, inputs[0])?])
    }
}
