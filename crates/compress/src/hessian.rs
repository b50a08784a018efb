//! What rounding with compensation (GPTQ) goes by: for each matrix, how its columns can make up for each other on a text.
//!
//! Each token counts the same. For importance it doesn't: there a text's first tokens, which many columns are large for, were
//! found to be worth their weight.
//!
//! The second moments of all inputs of a large model don't fit in memory, so the text is read again for every few layers, in
//! the order in which their matrices are rounded.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use formats::model::{FeedForward, Role};
use kernels::compute::Compute;

use crate::error::CompressError;
use crate::factor::factor;
use crate::progress::{Phase, Progress};
use crate::sequence::{Reader, WINDOW, spread};

/// Windows that are read for each few layers.
const WINDOWS_MAX: usize = 32;
/// Memory for the moments of these layers. One layer's are taken whatever they need.
const GATHERED_BYTES_MAX: usize = 1 << 30;
/// Columns of the widest matrix: its moments take a gigabyte. Wider ones are rounded each weight by itself.
const COLUMNS_MAX: usize = 16_384;

/// Of a layer, and which of its inputs.
type Place = (usize, Input);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Attention,
    AttentionOutput,
    FeedForward,
    Down,
}

/// A model and a text that it reads.
pub struct Hessians {
    compute: Arc<Compute>,
    reader: Reader,
    windows: Vec<Vec<u32>>,
    dropped: Vec<usize>,
    /// What each matrix reads, by the tensor's name.
    inputs: BTreeMap<String, Place>,
    /// The layers whose moments are there.
    gathered: Range<usize>,
    /// The factors of one layer, as they were asked for.
    factors: Vec<(Place, Option<Vec<f32>>)>,
}

impl Hessians {
    /// Of the model at `path`, without the layers of `dropped`.
    ///
    /// # Errors
    /// A model that can't be run, a text that is too short.
    pub fn open(
        path: &Path,
        compute: &Arc<Compute>,
        text: &str,
        dropped: &[usize],
    ) -> Result<Hessians, CompressError> {
        let reader = Reader::open(path, compute)?;
        let tokens = reader.tokens(text)?;
        let windows = spread(&tokens, WINDOWS_MAX).into_iter().map(<[u32]>::to_vec).collect();
        let mut inputs = BTreeMap::new();
        let decoder = reader.files.decoder();
        for (index, layer) in decoder.layers.iter().enumerate() {
            let mut read = vec![
                (Input::Attention, Role::Query),
                (Input::Attention, Role::Key),
                (Input::Attention, Role::Value),
                (Input::AttentionOutput, Role::AttentionOutput),
            ];
            // Each expert sees rows of its own, which aren't told apart here.
            if layer.feed_forward == FeedForward::Dense {
                read.extend([
                    (Input::FeedForward, Role::Gate),
                    (Input::FeedForward, Role::Up),
                    (Input::Down, Role::Down),
                ]);
            }
            for (input, role) in read {
                if let Some(tensor) = reader.files.tensor(role, Some(index))? {
                    inputs.insert(tensor.name.to_owned(), (index, input));
                }
            }
        }
        let compute = compute.clone();
        let dropped = dropped.to_vec();
        Ok(Hessians { compute, reader, windows, dropped, inputs, gathered: 0..0, factors: Vec::new() })
    }

    /// Tokens of the text that are read.
    pub fn tokens(&self) -> usize {
        self.windows.len() * WINDOW
    }

    /// The factor of a matrix of `columns`, as [`kernels::elements::quantize_compensated`] takes it; `None` for what isn't
    /// rounded so. Quick where matrices come layer by layer.
    ///
    /// # Errors
    /// [`CompressError::Stopped`], where `progress` asks for it.
    pub fn factor(
        &mut self,
        tensor: &str,
        columns: usize,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<&[f32]>, CompressError> {
        let Some(key) = self.inputs.get(tensor).copied() else { return Ok(None) };
        if columns > COLUMNS_MAX {
            return Ok(None);
        }
        if !self.gathered.contains(&key.0) {
            self.gather(key.0, progress)?;
        }
        let place = match self.factors.iter().position(|(found, _)| *found == key) {
            Some(place) => place,
            None => {
                self.factors.retain(|((layer, _), _)| *layer == key.0);
                let moments = self.moments(key).filter(|moments| moments.len() == columns * columns);
                let found = moments.and_then(|moments| factor(&self.compute, moments, columns));
                self.factors.push((key, found));
                self.factors.len() - 1
            }
        };
        Ok(self.factors[place].1.as_deref())
    }

    fn moments(&self, (layer, input): Place) -> Option<&[f32]> {
        let squares = self.reader.forward.squares()?;
        let layer = &squares.layers[layer];
        squares.products(match input {
            Input::Attention => &layer.query_key_value,
            Input::AttentionOutput => &layer.attention_output,
            Input::FeedForward => &layer.feed_forward,
            Input::Down => &layer.down,
        })
    }

    /// Reads the text for the layers from `first` on.
    fn gather(
        &mut self,
        first: usize,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), CompressError> {
        let decoder = self.reader.files.decoder();
        let inputs = [decoder.hidden, decoder.heads * decoder.head_dim, decoder.hidden, decoder.feed_forward];
        let bytes: usize = inputs.iter().map(|columns| columns * columns * size_of::<f32>()).sum();
        let layers = (GATHERED_BYTES_MAX / bytes.max(1)).clamp(1, decoder.layers.len() - first);
        self.gathered = first..first + layers;
        self.reader.forward.gather_products(self.gathered.clone(), COLUMNS_MAX);
        // What comes after them tells nothing of them.
        let later = self.gathered.end..self.reader.files.decoder().layers.len();
        let skipped: Vec<usize> = self.dropped.iter().copied().chain(later).collect();
        self.reader.forward.skip_layers(&skipped);
        for (index, window) in self.windows.iter().enumerate() {
            if progress(Progress::new(Phase::Calibrating, index, self.windows.len())).is_break() {
                return Err(CompressError::Stopped);
            }
            self.reader.read(window);
        }
        let _ = progress(Progress::new(Phase::Calibrating, self.windows.len(), self.windows.len()));
        Ok(())
    }
}
