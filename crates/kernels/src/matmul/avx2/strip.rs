//! Many rows: codes are unpacked once, for two panels and a stretch of `k` at a time, and stay in the first-level cache
//! while all rows pass over them. Sums between stretches wait in the result.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::super::rows::Rows;
use super::codes::{Factors, Header, unpack};
use super::{N, add_block, store};
use crate::elements::BLOCK;
use crate::matmul::Span;
use crate::matmul::panel::Of;
use crate::threads::DisjointMut;

/// Panels that are read side by side, so that each load of activations serves both.
const PANELS: usize = 2;
/// Blocks of a stretch, a whole number of super-blocks: with their factors some 20 KB.
const BLOCKS: usize = 24;
/// Rows of a tile: with two panels they fill the registers.
const ROWS: usize = 4;

/// Room for a stretch of two panels, unpacked. The order of fields is fixed: vectors are read from `codes` as aligned.
#[repr(C, align(64))]
struct Strip {
    codes: [[[u8; BLOCK * N]; PANELS]; BLOCKS],
    factors: [[Factors; PANELS]; BLOCKS],
}

/// A stretch that was unpacked.
struct Stretch<'a> {
    strip: &'a MaybeUninit<Strip>,
    first_panel: usize,
    /// Of the two panels those that count.
    panels: usize,
    first_block: usize,
    blocks: usize,
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn product<const T: usize>(span: &Span<'_>, out: &DisjointMut<'_, f32>) {
    let mut strip = MaybeUninit::<Strip>::uninit();
    let all_blocks = span.activations.columns / BLOCK;
    for first_panel in span.panels.clone().step_by(PANELS) {
        let panels = PANELS.min(span.panels.end - first_panel);
        for first_block in (0..all_blocks).step_by(BLOCKS) {
            let blocks = BLOCKS.min(all_blocks - first_block);
            for p in 0..PANELS {
                // Where the second panel is missing, the first stands in for it, and its results are left out.
                let panel = span.weights.panel(first_panel + p.min(panels - 1));
                unpack_stretch::<T>(panel, first_block, blocks, p, &mut strip);
            }
            let stretch = Stretch { strip: &strip, first_panel, panels, first_block, blocks };
            let mut row = span.rows.start;
            while row + ROWS <= span.rows.end {
                // SAFETY: both panels of the stretch were just unpacked.
                unsafe { tile::<T, ROWS>(span, &stretch, row, out) };
                row += ROWS;
            }
            while row < span.rows.end {
                // SAFETY: as above.
                unsafe { tile::<T, 1>(span, &stretch, row, out) };
                row += 1;
            }
        }
    }
}

/// Unpacks `blocks` blocks of a panel, from `first_block` on, as panel `p` of the strip.
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_stretch<const T: usize>(
    panel: &[u8],
    first_block: usize,
    blocks: usize,
    p: usize,
    strip: &mut MaybeUninit<Strip>,
) {
    let format = &Of::<T>::FORMAT;
    assert!(first_block.is_multiple_of(format.per_super) && blocks <= BLOCKS && p < PANELS);
    let supers = first_block / format.per_super..(first_block + blocks) / format.per_super;
    let stretch = &panel[supers.start * format.super_bytes(N)..supers.end * format.super_bytes(N)];
    let strip = strip.as_mut_ptr();
    for (super_block, bytes) in stretch.chunks_exact(format.super_bytes(N)).enumerate() {
        // SAFETY: the chunk is a super-block, and the strip has room for `blocks` blocks of each panel.
        unsafe {
            let header = Header::read::<T>(bytes.as_ptr());
            for b in 0..format.per_super {
                let bytes = bytes.as_ptr().add(format.header_bytes(N) + b * format.block_bytes(N));
                let block = super_block * format.per_super + b;
                (*strip).factors[block][p] = Factors::read::<T>(&header, bytes);
                unpack::<T>(bytes.add(format.small_bytes(N)), (&raw mut (*strip).codes[block][p]).cast());
            }
        }
    }
}

/// `R` rows from `row` on with the stretch: begins their sums, or takes them up from the result.
///
/// # Safety
/// The blocks of the stretch are in its strip, for both panels.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const T: usize, const R: usize>(
    span: &Span<'_>,
    stretch: &Stretch<'_>,
    row: usize,
    out: &DisjointMut<'_, f32>,
) {
    let rows = Rows::<R>::new(&span.activations, row);
    assert!(stretch.first_block + stretch.blocks <= rows.blocks);
    let mut sums = [[_mm256_setzero_ps(); PANELS]; R];
    let counting = stretch.first_panel..stretch.first_panel + stretch.panels;
    if stretch.first_block > 0 {
        for r in 0..R {
            for (p, panel) in counting.clone().enumerate() {
                // SAFETY: a panel's columns of a row are used by one task.
                sums[r][p] = load(unsafe { span.place(out, row + r, panel) });
            }
        }
    }
    let strip = stretch.strip.as_ptr();
    for block in 0..stretch.blocks {
        // SAFETY: the caller's promise; the strip's blocks are those from `first_block` on, which the rows have.
        unsafe {
            let codes = (&raw const (*strip).codes[block]).cast();
            let factors = &raw const (*strip).factors[block];
            add_block::<T, R, PANELS, true>(codes, &*factors, &rows, stretch.first_block + block, &mut sums);
        }
    }
    for r in 0..R {
        for (p, panel) in counting.clone().enumerate() {
            // SAFETY: as above.
            store(sums[r][p], unsafe { span.place(out, row + r, panel) });
        }
    }
}

/// Sums that were stored before; columns that are not there get 0.
#[target_feature(enable = "avx2")]
fn load(place: &[f32]) -> __m256 {
    let mut all = [0.0f32; N];
    all[..place.len()].copy_from_slice(place);
    // SAFETY: `all` has the 8 columns.
    unsafe { _mm256_loadu_ps(all.as_ptr()) }
}
