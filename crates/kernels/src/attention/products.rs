//! The two matrix products of attention, of a tile's rows with one block of keys or values.
//!
//! Sums of products of codes are exact. So it doesn't matter to a result's bits how many rows are computed together;
//! that is chosen to fill the registers.

use super::cache::{Block, PAGE_TOKENS};
use super::codes::Code;
use crate::lanes::{Lanes, for_runs_of_rows};

/// Rows as codes: row `r` is its codes times `scales[r]`.
#[derive(Clone, Copy)]
pub(super) struct Coded<'a> {
    pub codes: &'a [i16],
    pub scales: &'a [f32],
}

/// `scores[r, t] = sum over i of queries[r, i] * keys[t, i]`, `[r, PAGE_TOKENS]`; `codes` are those of a query.
///
/// # Panics
/// When the lengths don't fit.
#[inline(always)]
pub(super) fn score<L: Lanes, E: Code>(
    lanes: L,
    queries: Coded<'_>,
    keys: Block<'_, E>,
    codes: usize,
    scores: &mut [f32],
) {
    let rows = queries.scales.len();
    assert!(codes.is_multiple_of(2) && queries.codes.len() == rows * codes);
    assert!(keys.codes.len() == codes * PAGE_TOKENS && scores.len() == rows * PAGE_TOKENS);
    let keys = Keys { start: keys.codes.as_ptr(), pairs: codes / 2, scales: keys.scales.as_ptr() };
    let (queries, scales, scores) = (queries.codes.as_ptr(), queries.scales.as_ptr(), scores.as_mut_ptr());
    for_runs_of_rows!(rows, lanes, |row| score_rows(
        queries.add(row * codes),
        scales.add(row),
        keys,
        scores.add(row * PAGE_TOKENS)
    ));
}

/// A block of keys, `[pairs, PAGE_TOKENS, 2]`.
#[derive(Clone, Copy)]
struct Keys<E> {
    start: *const E,
    pairs: usize,
    scales: *const f32,
}

/// [`score`] for `R` rows.
///
/// # Safety
/// The pointers are to `[R, pairs, 2]`, `[R]`, a block of keys and `[R, PAGE_TOKENS]`.
#[inline(always)]
unsafe fn score_rows<L: Lanes, E: Code, const R: usize>(
    lanes: L,
    queries: *const i16,
    scales: *const f32,
    keys: Keys<E>,
    scores: *mut f32,
) {
    // SAFETY: the caller's promise, handed on.
    unsafe {
        if 2 * R <= L::ROWS_MAX && 4 * L::WIDTH <= PAGE_TOKENS {
            score_columns::<L, E, R, 4>(lanes, queries, scales, keys, scores);
        } else {
            score_columns::<L, E, R, 2>(lanes, queries, scales, keys, scores);
        }
    }
}

/// [`score_rows`] with `V` vectors of tokens at a time.
///
/// # Safety
/// As [`score_rows`].
#[inline(always)]
unsafe fn score_columns<L: Lanes, E: Code, const R: usize, const V: usize>(
    lanes: L,
    queries: *const i16,
    scales: *const f32,
    keys: Keys<E>,
    scores: *mut f32,
) {
    for first in (0..PAGE_TOKENS).step_by(V * L::WIDTH) {
        let mut sums = [[lanes.no_pairs(); V]; R];
        for i in 0..keys.pairs {
            // SAFETY: `i < pairs`, `first + V * WIDTH <= PAGE_TOKENS` as both are powers of two, and `r < R`.
            unsafe {
                let mut block = [lanes.no_pairs(); V];
                for v in 0..V {
                    block[v] = E::load(lanes, keys.start.add(2 * (i * PAGE_TOKENS + first + v * L::WIDTH)));
                }
                for r in 0..R {
                    let query = lanes.splat_pair(queries.add(2 * (r * keys.pairs + i)));
                    for v in 0..V {
                        sums[r][v] = lanes.add_pairs(sums[r][v], block[v], query);
                    }
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                let at = first + v * L::WIDTH;
                // SAFETY: as above.
                unsafe {
                    let scale = lanes.mul(lanes.load(keys.scales.add(at)), lanes.splat(*scales.add(r)));
                    let score = lanes.mul(lanes.to_float(sums[r][v]), scale);
                    lanes.store(scores.add(r * PAGE_TOKENS + at), score);
                }
            }
        }
    }
}

/// `sums[r, c] = kept[r] * sums[r, c] + sum over the first t < tokens of weights[r, t] * values[t, c]`; `weights` is
/// `[r, PAGE_TOKENS]`, with the values' scales in it, `sums` `[r, stride]`, and `stride` a multiple of 16.
///
/// # Panics
/// When the lengths don't fit.
#[inline(always)]
pub(super) fn add_values<L: Lanes, E: Code>(
    lanes: L,
    weights: Coded<'_>,
    values: &[E],
    tokens: usize,
    kept: &[f32],
    sums: &mut [f32],
) {
    let (rows, stride) = (kept.len(), values.len() / PAGE_TOKENS);
    assert!(weights.codes.len() == rows * PAGE_TOKENS && weights.scales.len() == rows);
    assert!(sums.len() == rows * stride && values.len() == PAGE_TOKENS * stride && tokens <= PAGE_TOKENS);
    assert!(stride.is_multiple_of(crate::lanes::WIDTH_MAX));
    let block = Values { start: values.as_ptr(), pairs: tokens.div_ceil(2), stride };
    let (codes, scales) = (weights.codes.as_ptr(), weights.scales.as_ptr());
    let (kept, sums) = (kept.as_ptr(), sums.as_mut_ptr());
    for_runs_of_rows!(rows, lanes, |row| add_rows(
        Weights { codes: codes.add(row * PAGE_TOKENS), scales: scales.add(row), kept: kept.add(row) },
        block,
        sums.add(row * stride)
    ));
}

/// A block of values, `[pairs, stride, 2]`.
#[derive(Clone, Copy)]
struct Values<E> {
    start: *const E,
    pairs: usize,
    stride: usize,
}

/// What some rows are weighted with: `[R, PAGE_TOKENS]`, `[R]` and `[R]`.
#[derive(Clone, Copy)]
struct Weights {
    codes: *const i16,
    scales: *const f32,
    kept: *const f32,
}

/// [`add_values`] for `R` rows.
///
/// # Safety
/// The pointers are to as many elements as their types say, `sums` to `[R, stride]`; `pairs <= PAGE_TOKENS / 2`, and
/// `stride` is a multiple of the width.
#[inline(always)]
unsafe fn add_rows<L: Lanes, E: Code, const R: usize>(
    lanes: L,
    weights: Weights,
    values: Values<E>,
    sums: *mut f32,
) {
    let mut first = 0;
    while first < values.stride {
        let left = (values.stride - first) / L::WIDTH;
        // SAFETY: the caller's promise; the columns taken are not more than are left.
        first += L::WIDTH
            * unsafe {
                match left {
                    4.. if 2 * R <= L::ROWS_MAX => {
                        add_columns::<L, E, R, 4>(lanes, weights, values, sums, first);
                        4
                    }
                    2.. => {
                        add_columns::<L, E, R, 2>(lanes, weights, values, sums, first);
                        2
                    }
                    _ => {
                        add_columns::<L, E, R, 1>(lanes, weights, values, sums, first);
                        1
                    }
                }
            };
    }
}

/// [`add_rows`] for the `V` vectors of columns from `first` on.
///
/// # Safety
/// As [`add_rows`], and `first + V * WIDTH <= stride`.
#[inline(always)]
unsafe fn add_columns<L: Lanes, E: Code, const R: usize, const V: usize>(
    lanes: L,
    weights: Weights,
    values: Values<E>,
    sums: *mut f32,
    first: usize,
) {
    let mut partial = [[lanes.no_pairs(); V]; R];
    for pair in 0..values.pairs {
        // SAFETY: `pair < pairs <= PAGE_TOKENS / 2`, row `r < R`, columns within the stride.
        unsafe {
            let mut block = [lanes.no_pairs(); V];
            for v in 0..V {
                let at = pair * values.stride + first + v * L::WIDTH;
                block[v] = E::load(lanes, values.start.add(2 * at));
            }
            for r in 0..R {
                let weight = lanes.splat_pair(weights.codes.add(r * PAGE_TOKENS + 2 * pair));
                for v in 0..V {
                    partial[r][v] = lanes.add_pairs(partial[r][v], block[v], weight);
                }
            }
        }
    }
    for r in 0..R {
        for v in 0..V {
            // SAFETY: row `r < R`, columns within the stride.
            unsafe {
                let at = sums.add(r * values.stride + first + v * L::WIDTH);
                let before = lanes.mul(lanes.load(at), lanes.splat(*weights.kept.add(r)));
                let scale = lanes.splat(*weights.scales.add(r));
                lanes.store(at, lanes.fma(lanes.to_float(partial[r][v]), scale, before));
            }
        }
    }
}
