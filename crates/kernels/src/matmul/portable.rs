//! The product of quantised rows with one panel, in plain Rust: what every faster path must compute.

use half::f16;

use super::Span;
use super::panel::Format;
use crate::elements::{BLOCK, NONLINEAR};
use crate::threads::DisjointMut;

/// Output columns of a panel.
const N: usize = 8;

/// Writes `out[row, column]` for the span's rows and columns.
pub(super) fn product(format: &Format, span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    let blocks = span.activations.columns / BLOCK;
    for panel in span.panels.clone() {
        let bytes = span.weights.panel(panel);
        for row in span.rows.clone() {
            // SAFETY: a panel's columns of a row are written by one task.
            let out = unsafe { span.place(out, row, panel) };
            for (column, out) in out.iter_mut().enumerate() {
                let add = |sum, index| sum + block_product(format, span, bytes, (row, column, index));
                *out = (0..blocks).fold(0.0, add);
            }
        }
    }
}

fn block_product(
    format: &Format,
    span: &Span<'_>,
    panel: &[u8],
    (row, column, index): (usize, usize, usize),
) -> f32 {
    let super_block = &panel[index / format.per_super * format.super_bytes(N)..][..format.super_bytes(N)];
    let half_float = |at: usize| f16::from_le_bytes([super_block[2 * at], super_block[2 * at + 1]]).to_f32();
    let start = format.header_bytes(N) + index % format.per_super * format.block_bytes(N);
    let (small, planes) = super_block[start..][..format.block_bytes(N)].split_at(format.small_bytes(N));
    let (low, high) = planes.split_at(format.low_bytes(N));
    let at = row * span.activations.columns / BLOCK + index;
    let codes = &span.activations.codes[at * BLOCK..][..BLOCK];

    let (mut sum, mut min_sum) = (0i32, 0i32);
    for half in 0..2 {
        let products = (16 * half..16 * half + 16).map(|i| {
            let code = format.code(low, high, N, column, i);
            let weight =
                if format.nonlinear { i32::from(NONLINEAR[usize::from(code)]) } else { i32::from(code) };
            weight * i32::from(codes[i])
        });
        let codes_sum = i32::from(span.activations.sums[2 * at + half]);
        let zero = format.zero_shift.map_or(0, |shift| codes_sum << shift);
        let (scale, min) = format.small(small, N, column, half);
        sum += scale * (products.sum::<i32>() - zero);
        min_sum += min * codes_sum;
    }
    let scale = span.activations.scales[at];
    let scaled = half_float(column) * scale * sum as f32;
    if format.has_min { scaled - half_float(N + column) * scale * min_sum as f32 } else { scaled }
}
