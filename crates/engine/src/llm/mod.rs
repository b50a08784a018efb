//! Text generation by decoder-only transformers.

mod batch;
pub mod detokenizer;
mod draft_model;
mod drafts;
mod durations;
mod events;
mod experts;
mod fingerprint;
pub mod forward;
mod guessing;
mod handle;
mod input_squares;
mod pace;
mod packed;
mod pages;
mod plan;
mod queue;
pub mod request;
pub mod sampling;
mod scheduler;
mod sequence;
pub mod settings;
mod stats;
pub mod template;
pub mod tokenizer;
pub mod weights;

pub use durations::{BOUNDS_SECONDS, DurationCounts, Durations};
pub use events::Generation;
pub use handle::{Llm, LoadError, ModelFacts};
pub use input_squares::{ColumnSquares, InputSquares};
pub use plan::PlanError;
pub use settings::{MemoryPlan, PackedFolder, Settings};
pub use stats::Stats;
