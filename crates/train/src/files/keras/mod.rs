//! Keras 3's own files (keras.io/guides/serialization_and_saving): the JSON of `model.to_json()` and `.keras` archives,
//! read and written.
//!
//! Nothing that a file says is executed: a layer is one of those here by name and arguments, or it is refused. So is every
//! argument that isn't known here, unless it has the value that changes nothing.

mod archive;
mod arguments;
mod masks;
mod order;
mod plan;
mod read;
mod slots;
mod training;
mod weights;
mod write;

pub use archive::{from_bytes, load, load_with, save, to_bytes, training};
pub use plan::from_json;
pub use training::Training;
pub use write::to_json;

use crate::error::TrainError;

/// Classes that are called on queries, values and keys.
const ATTENTION: [&str; 2] = ["MultiHeadAttention", "GroupQueryAttention"];
/// Layers of a model that is read, at most.
pub(crate) const LAYERS_MAX: usize = 4096;
/// Calls of a layer.
const CALLS_MAX: usize = 4096;
/// Results of a call.
const RESULTS_MAX: usize = 8;
/// Bytes of a model's JSON.
const JSON_BYTES_MAX: usize = 64 << 20;
/// The product of all numbers of a layer's configuration, so that sizes made of them can be counted.
const PRODUCT_MAX: u64 = 1 << 32;

fn failed(problem: impl Into<String>) -> TrainError {
    TrainError::File { file: "Keras model".to_owned(), problem: problem.into() }
}
