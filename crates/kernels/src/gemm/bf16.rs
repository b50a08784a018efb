//! Products of f32 matrices by way of bfloat16, on AVX-512 with BF16: operands are rounded where they are packed, to
//! the nearest with ties to even, and `vdpbf16ps` adds two neighbours in `k` at a time to sums in f32. It takes
//! denormal numbers for zero.
//!
//! As in f32, a sum takes the elements of `k` in their order, so that bits don't depend on how rows are divided.

use std::arch::x86_64::*;

use super::pack::{Pack, offset_of};
use super::tile::{Tile, rows_at_once};
use super::{Block, STEPS, pitch};
use crate::lanes::transpose;
use crate::workspace::Memory;

/// Values of a vector.
pub(super) const WIDTH: usize = 16;
/// Rows that are held in registers at once.
const ROWS_MAX: usize = 12;

/// Lays out one strip of `[k, n]` as `[k/2, strip width]` pairs, with zeros where the matrix ends.
///
/// # Safety
/// The machine has AVX-512 with BF16; `pack`'s views lie in the memory, and the strip is written by nobody else.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_strip(pack: &Pack, memory: Memory<'_>, batch: usize, strip: usize) {
    let from = &pack.from;
    let rank = from.shape.len();
    let (k, n) = (from.shape[rank - 2], from.shape[rank - 1]);
    let padded = n.div_ceil(WIDTH) * WIDTH;
    let first = strip * 2 * WIDTH;
    let strip_width = (2 * WIDTH).min(padded - first);
    let columns = strip_width.min(n - first);
    let (k_stride, n_stride) = (from.strides[rank - 2], from.strides[rank - 1]);
    let base = offset_of(&from.shape[..rank - 2], &from.strides[..rank - 2], batch);
    let start = from.offset as isize + base + first as isize * n_stride;
    let pairs = k.div_ceil(2);
    // SAFETY: the strip's place, inside the workspace as `Pack::new` found.
    let to = unsafe { memory.at(pack.to + batch * pairs * padded + first * pairs) };
    // Sixteen steps of k at a time: where columns lie apart, the lines of their values stay in the first cache.
    let mut block = [[0.0f32; 2 * WIDTH]; 16];
    for first_step in (0..k).step_by(16) {
        let steps = 16.min(k - first_step);
        block[steps..].fill([0.0; 2 * WIDTH]);
        let element = |step: usize, column: usize| {
            let at = start + (first_step + step) as isize * k_stride + column as isize * n_stride;
            // SAFETY: an element of the view, inside the workspace.
            unsafe { memory.at(at as usize).cast_const() }
        };
        if n_stride == 1 {
            for step in 0..steps {
                // SAFETY: a row of the view, and `columns` are not more than a strip has.
                unsafe {
                    std::ptr::copy_nonoverlapping(element(step, 0), block[step].as_mut_ptr(), columns);
                }
            }
        } else {
            let whole = if k_stride == 1 && steps == WIDTH { columns / WIDTH * WIDTH } else { 0 };
            for column in (0..whole).step_by(WIDTH) {
                // SAFETY: as above, a square; the block has as many rows of two vectors.
                unsafe {
                    let to = block.as_mut_ptr().cast::<f32>().add(column);
                    transpose(element(0, column), n_stride, to, 2 * WIDTH);
                }
            }
            for column in whole..columns {
                for step in 0..steps {
                    // SAFETY: as above.
                    block[step][column] = unsafe { *element(step, column) };
                }
            }
        }
        for pair in 0..steps.div_ceil(2) {
            for vector in (0..strip_width).step_by(WIDTH) {
                // SAFETY: the block has whole vectors, and the strip has `pairs` pairs of `strip_width`.
                unsafe {
                    let low = _mm512_loadu_ps(block[2 * pair].as_ptr().add(vector));
                    let high = _mm512_loadu_ps(block[2 * pair + 1].as_ptr().add(vector));
                    let place = to.add((first_step / 2 + pair) * strip_width + vector);
                    _mm512_storeu_si512(place.cast(), interleaved(low, high));
                }
            }
        }
    }
}

/// Both rounded, each of `low` in the low half of its lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn interleaved(low: __m512, high: __m512) -> __m512i {
    // SAFETY: a vector of bfloat16 is one of 16-bit integers.
    let [low, high] =
        [low, high].map(|half| unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(half)) });
    let (low, high) = (_mm512_cvtepu16_epi32(low), _mm512_cvtepu16_epi32(high));
    _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
}

/// Multiplies some rows and strips of one product.
///
/// # Safety
/// The machine has AVX-512 with BF16; the block's views lie in the memory, and its part of `c` is written by nobody else.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn multiply(block: &Block<'_>) {
    let gemm = block.gemm;
    let (a, c) = (&gemm.a, &gemm.c);
    let rank = c.shape.len();
    let (n, k) = (c.shape[rank - 1], a.shape[rank - 1]);
    let (a_row, a_step) = (a.strides[rank - 2], a.strides[rank - 1]);
    let stands_in_rows = a_step == 1 && a_row >= 0;
    let rows = block.rows.len();
    let padded = n.div_ceil(WIDTH) * WIDTH;
    let (packed_pairs, packed_first) = (gemm.packed.steps.div_ceil(2), gemm.packed.first / 2);
    let matrix = if gemm.b_shared { 0 } else { block.batch * packed_pairs * padded };
    for first_step in (0..k.max(1)).step_by(STEPS) {
        let steps = STEPS.min(k - first_step);
        let pairs = steps.div_ceil(2);
        // SAFETY: a worker's scratch is its own.
        let packed = unsafe { block.memory.scratch(block.worker) };
        // SAFETY: the block's rows and steps are inside the view of `a`, and fit the scratch in either layout.
        unsafe {
            let from = block.place(a, block.rows.start, 0).offset(first_step as isize * a_step).cast_const();
            if stands_in_rows {
                round_rows(from, a_row, rows, steps, packed.cast());
            } else {
                pack_rows(from, a_row, a_step, rows, steps, packed.cast());
            }
        }
        for strip in block.strips.clone() {
            let first = strip * 2 * WIDTH;
            let strip_width = (2 * WIDTH).min(padded - first);
            let init = match (first_step, &gemm.init) {
                (0, None) => None,
                (0, Some(init)) => Some(init),
                _ => Some(c),
            };
            let tile = Tile {
                a: packed,
                a_row: if stands_in_rows { pitch(pairs) } else { 1 },
                a_step: 1,
                // SAFETY: the strip of the packed operand, which `Gemm::new` found inside the workspace.
                b: unsafe {
                    let at = matrix + first * packed_pairs + (packed_first + first_step / 2) * strip_width;
                    block.memory.at(gemm.b.offset + at)
                },
                k: pairs,
                init: init.map_or(std::ptr::null(), |init| block.place(init, block.rows.start, first)),
                init_row: init.map_or(0, |init| init.strides[rank - 2] as usize),
                c: block.place(c, block.rows.start, first),
                c_row: c.strides[rank - 2] as usize,
                columns: strip_width.min(n - first),
            };
            let mut row = 0;
            while row < rows {
                let run = rows_at_once(rows - row, ROWS_MAX);
                // SAFETY: `run` rows are left, in the scratch and in the tile's rows of `init` and `c`.
                unsafe {
                    let init =
                        if tile.init.is_null() { tile.init } else { tile.init.add(row * tile.init_row) };
                    let c = tile.c.add(row * tile.c_row);
                    let (a, a_step) = match stands_in_rows {
                        true => (packed.add(row * tile.a_row), 1),
                        false => (packed.add(row * pairs), run),
                    };
                    some_rows(Tile { a: a.cast_const(), a_step, init, c, ..tile }, run, strip_width / WIDTH);
                }
                row += run;
            }
        }
    }
}

/// Lays rows out in runs: `[pairs of steps, run]` for each run of rows that is multiplied at once.
///
/// # Safety
/// `from` is the first of `rows` rows of `steps` elements; `to` has room for as many pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_rows(
    from: *const f32,
    row_stride: isize,
    step_stride: isize,
    rows: usize,
    steps: usize,
    to: *mut u32,
) {
    let (mut row, pairs) = (0, steps.div_ceil(2));
    while row < rows {
        let run = rows_at_once(rows - row, ROWS_MAX);
        // SAFETY: the caller's promise; runs follow one another in `to`.
        unsafe {
            let to = to.add(row * pairs);
            let from = from.offset(row as isize * row_stride);
            if row_stride == 1 {
                let mask = ((1u32 << run) - 1) as __mmask16;
                for pair in 0..pairs {
                    let at = from.offset(2 * pair as isize * step_stride);
                    let low = _mm512_maskz_loadu_ps(mask, at);
                    let high = if 2 * pair + 1 < steps {
                        _mm512_maskz_loadu_ps(mask, at.offset(step_stride))
                    } else {
                        _mm512_setzero_ps()
                    };
                    _mm512_mask_storeu_epi32(to.add(pair * run).cast(), mask, interleaved(low, high));
                }
            } else {
                for pair in 0..pairs {
                    for r in 0..run {
                        let at = from.offset(r as isize * row_stride + 2 * pair as isize * step_stride);
                        let high = if 2 * pair + 1 < steps { *at.offset(step_stride) } else { 0.0 };
                        let rounded = interleaved(_mm512_set1_ps(*at), _mm512_set1_ps(high));
                        *to.add(pair * run + r) = _mm512_cvtsi512_si32(rounded) as u32;
                    }
                }
            }
        }
        row += run;
    }
}

/// Rounds rows to below each other, at the distance of their pairs' [`pitch`].
///
/// # Safety
/// `from` is the first of `rows` rows of `steps` elements side by side; `to` has room for as many pairs at their pitch.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn round_rows(from: *const f32, row_stride: isize, rows: usize, steps: usize, to: *mut u32) {
    let pitch = pitch(steps.div_ceil(2));
    for row in 0..rows {
        // SAFETY: a row of either; what is beyond its end is neither read nor, but for the pitch, written.
        unsafe {
            let (from, to) = (from.offset(row as isize * row_stride), to.add(row * pitch));
            for first in (0..steps).step_by(2 * WIDTH) {
                let left = |skipped: usize| (steps - first).saturating_sub(skipped).min(WIDTH);
                let load = |skipped: usize| {
                    let mask = ((1u32 << left(skipped)) - 1) as __mmask16;
                    _mm512_maskz_loadu_ps(mask, from.wrapping_add(first + skipped))
                };
                let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(load(WIDTH), load(0)));
                _mm512_storeu_si512(to.add(first / 2).cast(), rounded);
            }
        }
    }
}

/// Multiplies `count` rows, one of the numbers of [`rows_at_once`], with a strip of `vectors` (1 or 2) vectors.
///
/// # Safety
/// The tile's pointers reach as many rows, columns and pairs as it says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn some_rows(tile: Tile, count: usize, vectors: usize) {
    macro_rules! sized {
        ($rows:literal) => {
            match (vectors, tile.a_row) {
                (2, 1) => run::<$rows, 2, true>(tile),
                (2, _) => run::<$rows, 2, false>(tile),
                (_, 1) => run::<$rows, 1, true>(tile),
                _ => run::<$rows, 1, false>(tile),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match count {
            12 => sized!(12),
            8 => sized!(8),
            6 => sized!(6),
            4 => sized!(4),
            3 => sized!(3),
            2 => sized!(2),
            _ => sized!(1),
        }
    }
}

/// # Safety
/// As [`some_rows`], for `R` rows; `UNIT` says that `a_row` is 1.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn run<const R: usize, const V: usize, const UNIT: bool>(tile: Tile) {
    let masks: [__mmask16; V] = std::array::from_fn(|v| {
        ((1u32 << tile.columns.saturating_sub(v * WIDTH).min(WIDTH)) - 1) as __mmask16
    });
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: the caller's promise; masked loads and stores touch the columns that exist, and `r < R`.
    unsafe {
        if !tile.init.is_null() {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let at = tile.init.add(r * tile.init_row).wrapping_add(v * WIDTH);
                    *sum = _mm512_maskz_loadu_ps(masks[v], at);
                }
            }
        }
        let row_step = if UNIT { 1 } else { tile.a_row };
        let (mut a, mut b) = (tile.a.cast::<i32>(), tile.b);
        for _ in 0..tile.k {
            let mut columns = [_mm512_setzero_si512(); V];
            for (v, columns) in columns.iter_mut().enumerate() {
                *columns = _mm512_loadu_si512(b.add(v * WIDTH).cast());
            }
            // Three rows a base, as in f32.
            for base in 0..R.div_ceil(3) {
                let rows = a.add(base * 3 * row_step);
                for r in base * 3..(base * 3 + 3).min(R) {
                    let value = _mm512_set1_epi32(*rows.add((r - base * 3) * row_step));
                    let value: __m512bh = std::mem::transmute(value);
                    for v in 0..V {
                        let columns: __m512bh = std::mem::transmute(columns[v]);
                        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], value, columns);
                    }
                }
            }
            a = a.add(tile.a_step);
            b = b.add(V * WIDTH);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let at = tile.c.add(r * tile.c_row).wrapping_add(v * WIDTH);
                _mm512_mask_storeu_ps(at, masks[v], *sum);
            }
        }
    }
}
