//! Layers, with Keras's names, arguments and defaults: one file a kind.
//!
//! A layer is its configuration. Serialised it is what Keras calls the layer's config, so that definition files and
//! Keras archives come from the same data; [`from_config`] reads it back.

mod activation;
mod attention;
mod bidirectional;
mod convolution;
mod dense;
mod depthwise;
mod dot;
mod dropout;
mod embedding;
mod grouped_attention;
mod gru;
mod layout;
mod lstm;
pub(crate) mod masks;
mod merge;
mod normalization;
mod normalize;
mod pooling;
mod random;
mod rectifiers;
mod recurrent;
mod rotation;
mod shape;
mod simple_rnn;
mod spectral_normalization;
mod time_distributed;

use std::fmt::Debug;

use serde_json::Value;

pub use activation::ActivationLayer;
pub use attention::MultiHeadAttention;
pub use bidirectional::{Bidirectional, MergeMode};
pub use convolution::{Conv1D, Conv2D, Conv2DTranspose, Conv3D, Padding};
pub use dense::Dense;
pub use depthwise::{DepthwiseConv2D, SeparableConv2D};
pub use dot::Dot;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use grouped_attention::GroupQueryAttention;
pub use gru::GRU;
pub use layout::{Cropping2D, UpSampling2D, ZeroPadding2D};
pub use lstm::LSTM;
pub use masks::Masking;
pub use merge::{Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract};
pub use normalization::{
    BatchNormalization, GroupNormalization, LayerNormalization, RMSNormalization, Rescaling,
};
pub use normalize::Normalization;
pub use pooling::{
    AveragePooling1D, AveragePooling2D, AveragePooling3D, GlobalAveragePooling1D, GlobalAveragePooling2D,
    GlobalAveragePooling3D, GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D, MaxPooling1D,
    MaxPooling2D, MaxPooling3D,
};
pub use random::{FlipMode, RandomCrop, RandomFlip};
pub use rectifiers::{Axes, ELU, LeakyReLU, PReLU, ReLU, SoftmaxLayer};
pub use recurrent::Recurrent;
pub use rotation::{FillMode, Interpolation, RandomRotation};
pub use shape::{Flatten, Permute, Reshape};
pub use simple_rnn::SimpleRNN;
pub use spectral_normalization::SpectralNormalization;
pub use time_distributed::TimeDistributed;

use crate::error::{Result, TrainError};
use crate::graph::{Graph, Id};
use crate::initializers::Initializer;
use crate::penalties::{Constraint, Regularizer};

/// A weight that a layer asks for.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Keras's path below the layer's name, such as `kernel` or `lstm_cell/bias`.
    pub name: String,
    pub shape: Vec<usize>,
    pub initializer: Initializer,
    pub trainable: bool,
    pub regularizer: Option<Regularizer>,
    pub constraint: Option<Constraint>,
}

impl Weight {
    pub fn new(name: &str, shape: impl Into<Vec<usize>>, initializer: &Initializer) -> Weight {
        Weight {
            name: name.to_owned(),
            shape: shape.into(),
            initializer: initializer.clone(),
            trainable: true,
            regularizer: None,
            constraint: None,
        }
    }

    fn held(mut self, regularizer: &Option<Regularizer>, constraint: &Option<Constraint>) -> Weight {
        self.regularizer = regularizer.clone();
        self.constraint = constraint.clone();
        self
    }

    fn fixed(mut self) -> Weight {
        self.trainable = false;
        self
    }

    fn under(mut self, prefix: &str) -> Weight {
        self.name = format!("{prefix}/{}", self.name);
        self
    }
}

/// What a layer is called with besides its inputs and weights.
pub struct Call<'a> {
    pub graph: &'a mut Graph,
    pub training: bool,
    /// Scalars that random numbers depend on.
    pub seed: Id,
    pub step: Id,
    /// New values of weights: the weight's node and its value after the step. For a trainable one it is the value that the
    /// step begins with.
    pub updates: Vec<(Id, Id)>,
    /// Of each input: see [`Layer::mask`]. None stand for inputs without any.
    pub masks: Vec<Option<Id>>,
}

/// A layer's configuration and what it computes. Shapes include the batch as their first dimension.
pub trait Layer: Debug + Send + Sync {
    /// Keras's class name.
    fn class_name(&self) -> &'static str;

    /// Keras's config, without the name.
    fn config(&self) -> Value;

    /// The weights for inputs of these shapes.
    fn weights(&self, _inputs: &[Vec<usize>]) -> Result<Vec<Weight>> {
        Ok(vec![])
    }

    /// The mask of its first output: which steps of it count, as ones and zeros.
    fn mask(&self, call: &mut Call<'_>, _inputs: &[Id]) -> Result<Option<Id>> {
        Ok(masks::passed_on(self.class_name(), call))
    }

    /// Adds what the layer computes to the graph.
    fn call(&self, call: &mut Call<'_>, inputs: &[Id], weights: &[Id]) -> Result<Vec<Id>>;
}

/// Setters that return the layer, for wiring in one line.
macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, value: impl Into<$type>) -> Self { self.$name = value.into(); self })*
    };
}
pub(crate) use arguments;

/// The class name and configuration of a layer that serde describes.
macro_rules! described {
    ($name:literal) => {
        fn class_name(&self) -> &'static str {
            $name
        }

        fn config(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap_or_default()
        }
    };
}
pub(crate) use described;

pub(crate) fn argument_error(
    place: &str,
    argument: &'static str,
    expected: &str,
    received: String,
) -> TrainError {
    TrainError::Argument { place: place.to_owned(), argument, expected: expected.to_owned(), received }
}

/// The one shape of a layer with one input, of at least `rank` dimensions.
pub(crate) fn one_shape<'a>(place: &str, inputs: &'a [Vec<usize>], rank: usize) -> Result<&'a [usize]> {
    match inputs {
        [shape] if shape.len() >= rank => Ok(shape),
        _ => {
            let layer = place.to_owned();
            let expected = format!("one input of {rank} dimensions or more, the batch counted");
            Err(TrainError::Shape { layer, operation: "the layer", expected, received: inputs.to_vec() })
        }
    }
}

type Reader = fn(&Value) -> serde_json::Result<Box<dyn Layer>>;

fn read<L: Layer + serde::de::DeserializeOwned + 'static>(
    config: &Value,
) -> serde_json::Result<Box<dyn Layer>> {
    Ok(Box::new(L::deserialize(config)?))
}

const READERS: &[(&str, Reader)] = &[
    ("Activation", read::<ActivationLayer>),
    ("Add", read::<Add>),
    ("Average", read::<Average>),
    ("AveragePooling1D", read::<AveragePooling1D>),
    ("AveragePooling2D", read::<AveragePooling2D>),
    ("AveragePooling3D", read::<AveragePooling3D>),
    ("BatchNormalization", read::<BatchNormalization>),
    ("Concatenate", read::<Concatenate>),
    ("Conv1D", read::<Conv1D>),
    ("Conv2D", read::<Conv2D>),
    ("Conv2DTranspose", read::<Conv2DTranspose>),
    ("Conv3D", read::<Conv3D>),
    ("Cropping2D", read::<Cropping2D>),
    ("Dense", read::<Dense>),
    ("DepthwiseConv2D", read::<DepthwiseConv2D>),
    ("Dot", read::<Dot>),
    ("Dropout", read::<Dropout>),
    ("ELU", read::<ELU>),
    ("Embedding", read::<Embedding>),
    ("Flatten", read::<Flatten>),
    ("GRU", read::<GRU>),
    ("GlobalAveragePooling1D", read::<GlobalAveragePooling1D>),
    ("GlobalAveragePooling2D", read::<GlobalAveragePooling2D>),
    ("GlobalAveragePooling3D", read::<GlobalAveragePooling3D>),
    ("GlobalMaxPooling1D", read::<GlobalMaxPooling1D>),
    ("GlobalMaxPooling2D", read::<GlobalMaxPooling2D>),
    ("GlobalMaxPooling3D", read::<GlobalMaxPooling3D>),
    ("GroupNormalization", read::<GroupNormalization>),
    ("GroupQueryAttention", read::<GroupQueryAttention>),
    ("LSTM", read::<LSTM>),
    ("LayerNormalization", read::<LayerNormalization>),
    ("LeakyReLU", read::<LeakyReLU>),
    ("Masking", read::<Masking>),
    ("MaxPooling1D", read::<MaxPooling1D>),
    ("MaxPooling2D", read::<MaxPooling2D>),
    ("MaxPooling3D", read::<MaxPooling3D>),
    ("Maximum", read::<Maximum>),
    ("Minimum", read::<Minimum>),
    ("MultiHeadAttention", read::<MultiHeadAttention>),
    ("Multiply", read::<Multiply>),
    ("Normalization", read::<Normalization>),
    ("PReLU", read::<PReLU>),
    ("Permute", read::<Permute>),
    ("RMSNormalization", read::<RMSNormalization>),
    ("RandomCrop", read::<RandomCrop>),
    ("RandomFlip", read::<RandomFlip>),
    ("RandomRotation", read::<RandomRotation>),
    ("ReLU", read::<ReLU>),
    ("Rescaling", read::<Rescaling>),
    ("Reshape", read::<Reshape>),
    ("SeparableConv2D", read::<SeparableConv2D>),
    ("SimpleRNN", read::<SimpleRNN>),
    ("Softmax", read::<SoftmaxLayer>),
    ("Subtract", read::<Subtract>),
    ("UpSampling2D", read::<UpSampling2D>),
    ("ZeroPadding2D", read::<ZeroPadding2D>),
];

/// Classes that have another layer within.
pub(crate) const WRAPPERS: [&str; 3] = ["Bidirectional", "SpectralNormalization", "TimeDistributed"];

/// Classes that [`from_config`] reads.
pub fn supported() -> impl Iterator<Item = &'static str> {
    READERS.iter().map(|(name, _)| *name).chain(WRAPPERS)
}

/// The layer of this class with this configuration.
///
/// # Errors
/// When the class isn't supported, or an argument isn't what it takes.
pub fn from_config(class_name: &str, config: &Value) -> Result<Box<dyn Layer>> {
    match class_name {
        "Bidirectional" => return Ok(Box::new(Bidirectional::from_config(config)?)),
        "SpectralNormalization" => return Ok(Box::new(SpectralNormalization::from_config(config)?)),
        "TimeDistributed" => return Ok(Box::new(TimeDistributed::from_config(config)?)),
        _ => {}
    }
    let Some((_, reader)) = READERS.iter().find(|(name, _)| *name == class_name) else {
        let known: Vec<&str> = supported().collect();
        return Err(TrainError::Unknown {
            kind: "layer",
            name: class_name.to_owned(),
            known: known.join(", "),
        });
    };
    reader(config)
        .map_err(|error| argument_error(class_name, "config", "Keras's arguments", error.to_string()))
}

#[cfg(test)]
mod tests;
