//! Where kernels find the activations of a tile's rows.

use super::quantize::Activations;
use crate::elements::BLOCK;

/// Where `R` rows of activations are.
pub(super) struct Rows<const R: usize> {
    /// Blocks of a row.
    pub blocks: usize,
    pub codes: *const i8,
    pub scales: *const f32,
    pub half_sums: *const i16,
    pub scaled_sums: *const f32,
}

impl<const R: usize> Rows<R> {
    /// Rows `row..row + R`, which must be there.
    pub fn new(activations: &Activations<'_>, row: usize) -> Rows<R> {
        let blocks = activations.columns / BLOCK;
        let range = row * blocks..(row + R) * blocks;
        Rows {
            blocks,
            codes: activations.codes[range.start * BLOCK..range.end * BLOCK].as_ptr(),
            scales: activations.scales[range.clone()].as_ptr(),
            half_sums: activations.sums[2 * range.start..2 * range.end].as_ptr(),
            scaled_sums: activations.scaled_sums[range].as_ptr(),
        }
    }
}
