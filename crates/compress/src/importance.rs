//! Which columns of a model's matrices matter: the mean square of what each is multiplied with while the model reads a
//! text.
//!
//! A product's error is `Σ (w - w') a` over a row; where activations of different columns don't go together, its mean
//! square is `Σ (w - w')² · mean(a²)`. So that is what rounding is to keep small.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use formats::model::{FeedForward, ModelFiles, Role};
use kernels::compute::Compute;

use crate::error::CompressError;
use crate::sequence::{Reader, STEP, WINDOW, spread};

/// Windows of a text that are read at most: more change little.
const WINDOWS_MAX: usize = 64;
/// A column counts at least this part of the mean: a text doesn't show all that a model is asked.
const SHARE_MIN: f32 = 1e-3;

/// By tensor, one number a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    columns: BTreeMap<String, Vec<f32>>,
    /// That were read.
    pub tokens: usize,
}

impl Importance {
    /// What the model at `path` shows while it reads `text`, without the layers of `dropped`; of a long text, windows spread
    /// over it. `progress` hears how many of how many windows are done, and may ask to stop.
    ///
    /// # Errors
    /// A model that can't be run, a text that is too short.
    pub fn measure(
        path: &Path,
        compute: &Arc<Compute>,
        text: &str,
        dropped: &[usize],
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Importance, CompressError> {
        let mut reader = Reader::open(path, compute)?;
        let tokens = reader.tokens(text)?;
        reader.forward.gather_squares();
        reader.forward.skip_layers(dropped);
        let windows = spread(&tokens, WINDOWS_MAX);
        for (index, window) in windows.iter().enumerate() {
            if progress(index, windows.len()).is_break() {
                return Err(CompressError::Stopped);
            }
            for (step, tokens) in window.chunks(STEP).enumerate() {
                reader.logits(tokens, step * STEP);
            }
        }
        let _ = progress(windows.len(), windows.len());
        let mut importance = Importance { columns: BTreeMap::new(), tokens: windows.len() * WINDOW };
        importance.take(&reader)?;
        Ok(importance)
    }

    fn take(&mut self, reader: &Reader) -> Result<(), CompressError> {
        let Some(squares) = reader.forward.squares() else { return Ok(()) };
        let files = &reader.files;
        for (index, layer) in squares.layers.iter().enumerate() {
            let feed_forward: (&[Role], &[Role]) = match files.decoder().layers[index].feed_forward {
                FeedForward::Dense => (&[Role::Gate, Role::Up], &[Role::Down]),
                // What each expert's second product reads isn't gathered.
                FeedForward::Experts => (&[Role::ExpertGate(0), Role::ExpertUp(0)], &[]),
            };
            let read: [(&[Role], _); 4] = [
                (&[Role::Query, Role::Key, Role::Value], &layer.query_key_value),
                (&[Role::AttentionOutput], &layer.attention_output),
                (feed_forward.0, &layer.feed_forward),
                (feed_forward.1, &layer.down),
            ];
            for (roles, squares) in read {
                let Some(means) = squares.means() else { continue };
                for role in roles {
                    self.add(files, *role, Some(index), &means)?;
                }
            }
        }
        if let Some(means) = squares.output.means() {
            let tied = files.tensor(Role::Output, None)?.is_none();
            self.add(files, if tied { Role::Embedding } else { Role::Output }, None, &means)?;
        }
        Ok(())
    }

    /// Tensors are named as in the model's files; several roles may be parts of one tensor, with the same columns.
    fn add(
        &mut self,
        files: &ModelFiles,
        role: Role,
        layer: Option<usize>,
        means: &[f32],
    ) -> Result<(), CompressError> {
        let Some(tensor) = files.tensor(role, layer)? else { return Ok(()) };
        let mean = means.iter().sum::<f32>() / means.len() as f32;
        // What is no number says nothing, and neither does a column of which nothing is known.
        if !mean.is_finite() || mean <= 0.0 {
            return Ok(());
        }
        let columns = means.iter().map(|x| (x / mean).max(SHARE_MIN)).collect();
        self.columns.insert(tensor.name.to_owned(), columns);
        Ok(())
    }

    /// Of numbers that were measured before, by tensor.
    pub fn new(columns: BTreeMap<String, Vec<f32>>) -> Importance {
        Importance { columns, tokens: 0 }
    }

    /// All there is, by tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.columns.iter().map(|(name, columns)| (name.as_str(), columns.as_slice()))
    }

    /// Of a tensor whose rows are as long as what was measured.
    pub fn of(&self, tensor: &str, shape: &[usize]) -> Option<&[f32]> {
        let columns = self.columns.get(tensor)?;
        (shape.last() == Some(&columns.len())).then_some(columns)
    }
}
