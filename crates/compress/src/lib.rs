//! A model in, a smaller one and a report of what that cost out.
//!
//! `mix.rs` says which tensor gets which type, `rewrite.rs` writes the file, `importance.rs` finds out on a text which
//! columns matter, `hessian.rs` how they make up for each other, `layer_choice.rs` which layers don't matter, `dropping.rs`
//! leaves these out of the file, `smallest.rs` chooses types for a size or for what may be lost, `measure.rs` finds what the
//! smaller model says otherwise, and `report.rs` tells a person. `networks/` does the like for networks of ours and ONNX
//! files.

mod dropping;
mod error;
mod factor;
pub mod hessian;
pub mod importance;
pub mod layer_choice;
pub mod measure;
pub mod mix;
pub mod networks;
pub mod progress;
pub mod report;
pub mod rewrite;
mod sequence;
pub mod smallest;
mod source;
mod trade;

pub use error::CompressError;
pub use hessian::Hessians;
pub use importance::Importance;
pub use layer_choice::{LayerInfluence, choose_layers};
pub use mix::Mix;
pub use progress::{Phase, Progress};
pub use source::{Source, is_same_file};
pub use trade::Wish;
