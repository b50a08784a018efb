//! The runtime behind one door: nothing that a file or a tensor makes of it comes out as a panic.

use std::path::Path;
use std::sync::Arc;

use formats::error::FormatError;
use formats::onnx::{OnnxFacts, Signature};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, ValueOrView};

use super::tensor::Tensor;
use crate::guarded;

/// Why an ONNX model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("the runtime can't load it: {0}")]
    Runtime(String),
    #[error(
        "the runtime sees {found} {role}s, and the file {expected}: {role}s that are weights can't be served"
    )]
    Signature { role: &'static str, found: usize, expected: usize },
    #[error("starting the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The runtime goes through a graph by calls within calls, one for each node of a chain. Only what is used is taken.
const STACK_BYTES: usize = 1 << 30;

/// A loaded model.
pub(super) struct Runner {
    model: Model,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    pool: Arc<ThreadPool>,
}

impl Runner {
    /// Reads and loads the file at `path`, whose operators compute in `pool`.
    pub fn load(path: &Path, pool: Arc<ThreadPool>) -> Result<(Runner, OnnxFacts), LoadError> {
        let facts = formats::onnx::read(path)?;
        let loaded = std::thread::scope(|scope| {
            let load = || guarded(|| loaded(path, &facts));
            let thread = std::thread::Builder::new().name("onnx-load".to_owned()).stack_size(STACK_BYTES);
            // What panics is caught within.
            Ok::<_, std::io::Error>(
                thread
                    .spawn_scoped(scope, load)?
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        });
        let model = loaded?.map_err(LoadError::Runtime)?;
        let (inputs, outputs) = (model.input_ids().to_vec(), model.output_ids().to_vec());
        let Signature { inputs: in_file, outputs: out_file } = &facts.signature;
        for (role, found, expected) in
            [("input", inputs.len(), in_file.len()), ("output", outputs.len(), out_file.len())]
        {
            if found != expected {
                return Err(LoadError::Signature { role, found, expected });
            }
        }
        Ok((Runner { model, inputs, outputs, pool }, facts))
    }

    /// Runs it on inputs in the signature's order; outputs are in the signature's order.
    ///
    /// # Errors
    /// What the runtime says, a panic of it included.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let mut values = Vec::with_capacity(inputs.len());
        for (id, tensor) in self.inputs.iter().zip(inputs) {
            let value = tensor.into_value().ok_or("an input's shape and its elements don't agree")?;
            values.push((*id, ValueOrView::Value(value)));
        }
        let options = RunOptions::default().with_thread_pool(Some(self.pool.clone()));
        let outputs = guarded(|| {
            self.model.run(values, &self.outputs, Some(options)).map_err(|error| error.to_string())
        })?;
        let tensors: Option<Vec<Tensor>> = outputs.into_iter().map(Tensor::from_value).collect();
        tensors.ok_or_else(|| "an output is a sequence, which can't be served".to_owned())
    }
}

fn loaded(path: &Path, facts: &OnnxFacts) -> Result<Model, String> {
    let mut options = ModelOptions::with_all_ops();
    options.prepack_weights(true);
    // Weights beside the file are found by its path alone.
    if facts.needs_mending && facts.external_files.is_empty() {
        let bytes = std::fs::read(path).map_err(|error| format!("it can't be read: {error}"))?;
        let bytes = formats::onnx::mended(bytes.into()).map_err(|error| error.to_string())?;
        return options.load(bytes).map_err(|error| error.to_string());
    }
    options.load_file(path).map_err(|error| error.to_string())
}

/// Does `work`, a panic of which is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match guarded::guarded(work) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("it gave up inside: {said}"))
        }
    }
}
