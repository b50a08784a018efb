//! Text generation by decoder-only transformers.

pub mod detokenizer;
mod drafts;
mod experts;
mod fingerprint;
pub mod forward;
mod handle;
mod pages;
mod plan;
pub mod request;
pub mod sampling;
mod scheduler;
mod sequence;
pub mod settings;
mod stats;
pub mod template;
pub mod tokenizer;
pub mod weights;

pub use handle::{Generation, Llm, LoadError, ModelFacts};
pub use plan::PlanError;
pub use settings::{MemoryPlan, Settings};
pub use stats::Stats;
