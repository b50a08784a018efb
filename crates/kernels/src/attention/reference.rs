//! Attention in plain loops over keys and values as they came: what the codes are held against.

use super::cache::{HEAD_DIM_MAX, KvLayout, PAGE_TOKENS};
use super::{AttentionSettings, Rows, SequenceRows};
use crate::memory::AlignedVec;

/// Keys and values, `[blocks, PAGE_TOKENS, d]` each.
pub(super) struct Plain {
    layout: KvLayout,
    keys: AlignedVec<f32>,
    values: AlignedVec<f32>,
}

impl Plain {
    pub fn new(layout: KvLayout) -> std::io::Result<Plain> {
        let elements = layout.blocks() * PAGE_TOKENS * layout.head_dim();
        Ok(Plain {
            layout,
            keys: AlignedVec::try_zeroed(elements)?,
            values: AlignedVec::try_zeroed(elements)?,
        })
    }

    /// Where a head's key and value of a position begin.
    fn place(&self, layer: usize, pages: &[u32], position: usize, kv_head: usize) -> usize {
        let block = self.layout.block(layer, pages[position / PAGE_TOKENS], kv_head);
        (block * PAGE_TOKENS + position % PAGE_TOKENS) * self.layout.head_dim()
    }

    pub fn write(&mut self, layer: usize, sequences: &[SequenceRows<'_>], keys: Rows<'_>, values: Rows<'_>) {
        let d = self.layout.head_dim();
        for sequence in sequences {
            for (offset, row) in sequence.rows.clone().enumerate() {
                for head in 0..self.layout.kv_heads() {
                    let at = self.place(layer, sequence.pages, sequence.first_position + offset, head);
                    self.keys[at..at + d].copy_from_slice(keys.part(row, head * d..(head + 1) * d));
                    self.values[at..at + d].copy_from_slice(values.part(row, head * d..(head + 1) * d));
                }
            }
        }
    }

    pub fn attend(
        &self,
        layer: usize,
        queries: Rows<'_>,
        sequences: &[SequenceRows<'_>],
        settings: &AttentionSettings,
        out: &mut [f32],
    ) {
        let (d, group) = (self.layout.head_dim(), settings.heads / self.layout.kv_heads());
        for sequence in sequences {
            for (offset, row) in sequence.rows.clone().enumerate() {
                for head in 0..settings.heads {
                    let query = queries.part(row, head * d..(head + 1) * d);
                    let out = &mut out[(row * settings.heads + head) * d..][..d];
                    let position = sequence.first_position + offset;
                    let first = settings.window.map_or(0, |window| (position + 1).saturating_sub(window));
                    let places = (first..=position)
                        .map(|position| self.place(layer, sequence.pages, position, head / group));
                    self.attend_row(query, places, settings, out);
                }
            }
        }
    }

    /// One head of one row, over the keys and values at `places`.
    fn attend_row(
        &self,
        query: &[f32],
        places: impl Iterator<Item = usize>,
        settings: &AttentionSettings,
        out: &mut [f32],
    ) {
        let d = query.len();
        let (mut greatest, mut total, mut sums) = (f32::MIN, 0.0, [0.0; HEAD_DIM_MAX]);
        for at in places {
            let products = query.iter().zip(&self.keys[at..at + d]).map(|(query, key)| query * key);
            let score = products.sum::<f32>() * settings.scale;
            let score = settings.softcap.map_or(score, |cap| cap * libm::tanhf(score / cap));
            if score > greatest {
                let kept = libm::expf(greatest - score);
                total *= kept;
                sums[..d].iter_mut().for_each(|sum| *sum *= kept);
                greatest = score;
            }
            let weight = libm::expf(score - greatest);
            total += weight;
            for (sum, value) in sums[..d].iter_mut().zip(&self.values[at..at + d]) {
                *sum += weight * value;
            }
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = sum / total);
    }
}
