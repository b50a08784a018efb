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
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
mod float;
mod pack;
mod panel;
mod portable;
mod quantize;
#[cfg(target_arch = "x86_64")]
mod rows;
#[cfg(test)]
mod tests;

pub use pack::{MatmulError, PackedWeights, Weights};
pub use quantize::{Forms, QuantizedRows};

use std::ops::Range;

use crate::compute::{Compute, Isa};
use crate::memory::prefetch;
use crate::threads::{DisjointMut, Pool};
use panel::{Format, Storage};
use quantize::Activations;

/// Activation bytes that are kept in the second-level cache while a strip of panels passes over them.
const ROW_BLOCK_BYTES: usize = 192 * 1024;
/// Panel bytes that a worker takes at a time: few enough that all finish together.
const STRIP_BYTES: usize = 64 * 1024;
/// Strips a thread, at least, where there are panels enough: a thread that was held up takes fewer.
const TASKS_PER_THREAD: usize = 4;
/// Rows up to which memory is what a product waits for, so that the next one's weights are asked for early.
const AHEAD_ROWS_MAX: usize = 4;
/// Bytes that a worker asks for early: what memory gives while small things are done between two products.
const AHEAD_BYTES: usize = 32 * 1024;
/// The same for the worker that does these: what the processor takes without waiting.
const AHEAD_BYTES_FIRST: usize = 2 * 1024;
/// Rows that a kernel multiplies with a panel at a time; blocks of rows are whole numbers of it.
const ROW_TILE: usize = 16;

/// Activations in both forms; each kind of weights reads its own.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// `[m, k]`, read by float weights.
    pub values: &'a [f32],
    /// The same in the form that other weights read.
    pub quantized: &'a QuantizedRows,
}

/// The part of a product that one call of a kernel makes: some rows and some panels. `A` is the activations' form.
struct Span<'a, A = Activations<'a>> {
    activations: A,
    weights: &'a PackedWeights,
    /// Rows of `activations`.
    rows: Range<usize>,
    /// Panels of `weights`.
    panels: Range<usize>,
}

impl<A> Span<'_, A> {
    /// Where the result of a row with a panel belongs: as many elements as the panel has columns in use.
    ///
    /// # Safety
    /// No two results of the same row and panel live at the same time.
    #[allow(clippy::mut_from_ref)] // disjointness is the caller's promise
    unsafe fn place<'o>(&self, out: &'o DisjointMut<'_, f32>, row: usize, panel: usize) -> &'o mut [f32] {
        let first = panel * self.weights.panel_columns();
        let columns = (self.weights.rows() - first).min(self.weights.panel_columns());
        // SAFETY: the caller's promise.
        unsafe { out.slice(row * self.weights.rows() + first, columns) }
    }
}

/// `out[m, n] = x[m, k] · w[n, k]ᵀ`, where `m` follows from the length of `out`.
///
/// # Panics
/// When the lengths don't fit each other.
pub fn matmul(compute: &Compute, input: Input<'_>, weights: &PackedWeights, out: &mut [f32]) {
    let (n, k) = (weights.rows(), weights.columns());
    assert!(out.len().is_multiple_of(n), "{} results are no whole rows of {n}", out.len());
    let m = out.len() / n;
    let (isa, out) = (compute.isa(), DisjointMut::new(out));
    match weights.storage() {
        Storage::Float(element_type) => {
            assert_eq!(input.values.len(), m * k, "activations of {m} rows of {k}");
            for_spans(compute, input.values, 4 * k, m, weights, |span| {
                float::product(isa, element_type, span, &out);
            });
        }
        #[cfg(target_arch = "x86_64")]
        Storage::Pairs => {
            for_spans(compute, input.quantized.pairs(m, k), 2 * k, m, weights, |span| {
                avx512_bf16::product(span, &out);
            });
        }
        #[cfg(not(target_arch = "x86_64"))]
        Storage::Pairs => unreachable!("nothing is packed so here"),
        Storage::Quantized(format) => {
            for_spans(compute, input.quantized.rows(m, k), k, m, weights, |span| {
                quantized_product(isa, &format, span, &out);
            });
        }
    }
}

/// Cuts a product of `m` rows, of `row_bytes` each, into spans: strips of panels, shared out to the workers, and for each
/// the rows block after block.
fn for_spans<A: Copy + Sync>(
    compute: &Compute,
    activations: A,
    row_bytes: usize,
    m: usize,
    weights: &PackedWeights,
    product: impl Fn(&Span<'_, A>) + Sync,
) {
    let panels = weights.rows().div_ceil(weights.panel_columns());
    let strip = strip_panels(weights, panels, compute.pool().threads());
    let row_block = (ROW_BLOCK_BYTES / row_bytes / ROW_TILE).max(1) * ROW_TILE;
    let task = |_worker: usize, task: usize| {
        for first in (0..m).step_by(row_block) {
            let rows = first..(first + row_block).min(m);
            let panels = task * strip..((task + 1) * strip).min(panels);
            product(&Span { activations, weights, rows, panels });
        }
    };
    let next = weights.next().filter(|_| m <= AHEAD_ROWS_MAX);
    let pool = compute.pool();
    pool.share_out_then(panels.div_ceil(strip), task, |worker| {
        if let Some(next) = next {
            next.prefetch(pool, worker);
        }
    });
}

/// Where the weights of the product after this one begin. While a worker waits for the others and for what lies between
/// two products, memory would be idle: the worker asks for what it will read first.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    address: usize,
    strips: usize,
    strip_bytes: usize,
    bytes: usize,
}

impl Ahead {
    fn prefetch(&self, pool: &Pool, worker: usize) {
        let start = pool.share(self.strips, worker).start * self.strip_bytes;
        // The first worker goes on with other work, which must not wait.
        let wanted = if worker == 0 { AHEAD_BYTES_FIRST } else { AHEAD_BYTES };
        for at in (start..self.bytes.min(start + wanted.min(self.strip_bytes))).step_by(64) {
            prefetch(self.address + at);
        }
    }
}

/// Panels that a worker takes at a time: an even number, since some kernels read two side by side.
fn strip_panels(weights: &PackedWeights, panels: usize, threads: usize) -> usize {
    let fair = panels.div_ceil(TASKS_PER_THREAD * threads).max(1);
    let strip = (STRIP_BYTES / weights.panel_bytes().max(1)).clamp(1, fair);
    strip.next_multiple_of(2)
}

fn quantized_product(isa: Isa, format: &Format, span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    match isa {
        Isa::Portable => portable::product(format, span, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::product(format, span, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => avx512::product(format, span, out),
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("this machine has only the portable level"),
    }
}
