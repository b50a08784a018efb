//! Products of activations with weight matrices: `out[m, n] = x[m, k] · w[n, k]ᵀ`.
//!
//! Weights are packed once into panels of a few output columns, in the order they are read, and stay at their few bits.
//! Quantised weights meet activations quantised to 8 bits: products of small integers are summed exactly within 32
//! elements, then scaled and added in `f32`, block after block from the row's beginning. So a row's bits depend neither
//! on the other rows nor on threads: only columns and rows are ever divided, never `k`.
//!
//! `portable` specifies what the instruction sets' files compute.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float;
mod pack;
mod panel;
mod portable;
mod quantize;
#[cfg(test)]
mod tests;

pub use pack::{MatmulError, PackedWeights, Weights};
pub use quantize::QuantizedRows;

use crate::compute::{Compute, Isa};
use crate::threads::DisjointMut;
use panel::Storage;
use quantize::Activations;

/// Activation bytes that are kept in the second-level cache while a strip of panels passes over them.
const ROW_BLOCK_BYTES: usize = 192 * 1024;
/// Panel bytes that a worker takes at a time: few enough that all finish together.
const STRIP_BYTES: usize = 64 * 1024;

/// Activations in both forms; each kind of weights reads its own.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// `[m, k]`, read by float weights.
    pub values: &'a [f32],
    /// The same, read by quantised weights.
    pub quantized: &'a QuantizedRows,
}

/// Rows of a product that one call of a kernel makes, for one panel.
struct Span<'a> {
    activations: Activations<'a>,
    /// Rows of `activations`.
    rows: std::ops::Range<usize>,
    panel: &'a [u8],
    /// First output column of the panel, and how many it has.
    column: usize,
    columns: usize,
    /// Columns of the whole result.
    stride: usize,
}

/// `out[m, n] = x[m, k] · w[n, k]ᵀ`, where `m` follows from the length of `out`.
///
/// # Panics
/// When the lengths don't fit each other.
pub fn matmul(compute: &Compute, input: Input<'_>, weights: &PackedWeights, out: &mut [f32]) {
    let (n, k) = (weights.rows(), weights.columns());
    assert!(out.len().is_multiple_of(n), "{} results are no whole rows of {n}", out.len());
    let m = out.len() / n;
    let out = DisjointMut::new(out);
    let panels = n.div_ceil(weights.panel_columns());
    let strip = (STRIP_BYTES / weights.panel_bytes().max(1))
        .clamp(1, panels.div_ceil(4 * compute.pool.threads()).max(1));
    let each_strip = |task: usize, product: &dyn Fn(usize, usize, usize)| {
        for panel in task * strip..((task + 1) * strip).min(panels) {
            let column = panel * weights.panel_columns();
            product(panel, column, (n - column).min(weights.panel_columns()));
        }
    };
    if let Storage::Float(element_type) = weights.storage() {
        assert_eq!(input.values.len(), m * k, "activations of {m} rows of {k}");
        compute.pool.for_each(panels.div_ceil(strip), |task| {
            each_strip(task, &|panel, column, columns| {
                let bytes = weights.panel(panel);
                float::panel_product(
                    compute.isa,
                    element_type,
                    input.values,
                    k,
                    bytes,
                    (column, columns, n),
                    &out,
                );
            });
        });
        return;
    }
    let Storage::Quantized(format) = weights.storage() else {
        unreachable!("weights are float or quantised")
    };
    let activations = input.quantized.rows(m, k);
    let row_block = (ROW_BLOCK_BYTES / k).max(8);
    compute.pool.for_each(panels.div_ceil(strip), |task| {
        for first in (0..m).step_by(row_block) {
            each_strip(task, &|panel, column, columns| {
                let rows = first..(first + row_block).min(m);
                let span =
                    Span { activations, rows, panel: weights.panel(panel), column, columns, stride: n };
                match compute.isa {
                    Isa::Portable => portable::panel_product(format, &span, &out),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2::panel_product(format, &span, &out),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512::panel_product(format, &span, &out),
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => unreachable!("this machine has only the portable level"),
                }
            });
        }
    });
}
