//! Networks from their definition to their weights: layers, losses and optimisers build a graph of primitive
//! operations, differentiation and fusion rewrite it, and an executor runs its steps without allocating.

pub mod activations;
pub mod compile;
pub mod data;
pub mod definition;
pub mod error;
pub mod files;
pub mod gan;
pub mod graph;
pub mod initializers;
pub mod layers;
pub mod losses;
pub mod metrics;
pub mod model;
pub mod optimizers;
pub mod penalties;
pub mod run;
pub mod schedules;

pub use error::{Result, TrainError};

/// What a program that trains needs by name.
pub mod prelude {
    pub use crate::activations::Activation::{self, *};
    pub use crate::gan::{Gan, GanLoss, GanSettings};
    pub use crate::layers::*;
    pub use crate::losses::*;
    pub use crate::metrics::{Accuracy, Metric};
    pub use crate::model::{
        Array, Arrays, DtypePolicy, Fit, History, Input, Model, Shared, Tensor, Tensors, Wire,
    };
    pub use crate::optimizers::*;
    pub use crate::schedules::Schedule;
}
