//! A GGUF file without some of its layers: what the others are called then, and what the metadata says of them.

use formats::error::FormatError;
use formats::gguf::{Gguf, Value, Writer};
use formats::model::Decoder;

use crate::error::CompressError;

/// Arrays of the family's that are not by layer, however many elements they have.
const NOT_BY_LAYER: [&str; 1] = ["rope.dimension_sections"];

/// The layers that stay.
pub struct Kept {
    family: String,
    /// Of each layer, its number in the new file.
    numbers: Vec<Option<usize>>,
}

impl Kept {
    /// Of the model in `first`, the file with the metadata, all layers but those of `dropped`. What layers are has to
    /// follow from each one's own tensors and lists, so the model's description is needed where any go.
    ///
    /// # Errors
    /// When no layer is left, one is none of the model's, or the family says by a layer's number what it does.
    pub fn new(
        first: &Gguf<'_>,
        dropped: &[usize],
        decoder: impl FnOnce() -> Result<Decoder, FormatError>,
    ) -> Result<Kept, CompressError> {
        let family = first.text("general.architecture")?.unwrap_or_default().to_owned();
        if dropped.is_empty() {
            return Ok(Kept { family, numbers: Vec::new() });
        }
        let decoder = decoder()?;
        let layers = decoder.layers.len();
        let mut next = 0;
        let mut number = |layer: usize| {
            let is_kept = !dropped.contains(&layer);
            next += usize::from(is_kept);
            is_kept.then(|| next - 1)
        };
        let numbers: Vec<Option<usize>> = (0..layers).map(&mut number).collect();
        if next == 0 || dropped.iter().any(|layer| *layer >= layers) {
            return Err(CompressError::Layers { found: dropped.len(), layers });
        }
        let key = format!("{family}.attention.sliding_window_pattern");
        let has_list = matches!(first.get(&key), Some(Value::Array(_)));
        let of = |layer: usize| (decoder.layers[layer].window, decoder.layers[layer].rotary);
        if !has_list && (1..layers).any(|layer| of(layer) != of(0)) {
            return Err(CompressError::LayersByNumber { family, key });
        }
        Ok(Kept { family, numbers })
    }

    /// What a tensor is called in the new file; `None` where it goes.
    pub fn name(&self, tensor: &str) -> Option<String> {
        let parts = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let Some((Ok(layer), rest)) = parts.map(|(layer, rest)| (layer.parse::<usize>(), rest)) else {
            return Some(tensor.to_owned());
        };
        match self.numbers.get(layer) {
            Some(number) => number.map(|number| format!("blk.{number}.{rest}")),
            // Past the last layer, or nothing goes.
            None => Some(format!("blk.{}.{rest}", layer - (self.numbers.len() - self.count()))),
        }
    }

    /// Writes a key of the old file as it is in the new one.
    pub fn copy(&self, key: &str, value: Value<'_>, writer: &mut Writer) {
        let own = key.strip_prefix(self.family.as_str()).and_then(|rest| rest.strip_prefix('.'));
        match (own, value) {
            (Some("block_count"), _) if !self.numbers.is_empty() => {
                writer.value(key, Value::U32(self.count() as u32));
            }
            (Some(own), Value::Array(array))
                if !self.numbers.is_empty()
                    && array.len() == self.numbers.len()
                    && !NOT_BY_LAYER.contains(&own) =>
            {
                let kept = array.iter().zip(&self.numbers).filter(|(_, number)| number.is_some());
                writer.array(key, array.element_type(), kept.map(|(value, _)| value));
            }
            _ => drop(writer.copy(key, value)),
        }
    }

    fn count(&self) -> usize {
        self.numbers.iter().flatten().count()
    }
}
