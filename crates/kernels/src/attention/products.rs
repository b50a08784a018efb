//! The two matrix products of attention, of a tile's rows with one block of keys or values.
//!
//! Every element of a result is one sum, taken in the order of its terms in a register of its own. So it doesn't matter
//! to its bits how many rows are computed together; that is chosen to fill the registers.

use super::cache::PAGE_TOKENS;
use crate::lanes::{Element, Lanes, for_runs_of_rows};

/// `scores[r, t] = sum over i of queries[r, i] * keys[i, t]`; `queries` is `[r, d]`, `keys` `[d, PAGE_TOKENS]`, `scores`
/// `[r, PAGE_TOKENS]`.
///
/// # Panics
/// When the lengths don't fit.
#[inline(always)]
pub(super) fn score<L: Lanes, E: Element>(
    lanes: L,
    queries: &[f32],
    keys: &[E],
    d: usize,
    scores: &mut [f32],
) {
    let rows = queries.len() / d;
    assert!(queries.len() == rows * d && keys.len() == d * PAGE_TOKENS && scores.len() == rows * PAGE_TOKENS);
    let (queries, keys, scores) = (queries.as_ptr(), keys.as_ptr(), scores.as_mut_ptr());
    for_runs_of_rows!(rows, lanes, |row| score_rows(
        queries.add(row * d),
        keys,
        d,
        scores.add(row * PAGE_TOKENS)
    ));
}

/// [`score`] for `R` rows.
///
/// # Safety
/// The pointers are to `[R, d]`, `[d, PAGE_TOKENS]` and `[R, PAGE_TOKENS]`.
#[inline(always)]
unsafe fn score_rows<L: Lanes, E: Element, const R: usize>(
    lanes: L,
    queries: *const f32,
    keys: *const E,
    d: usize,
    scores: *mut f32,
) {
    // SAFETY: the caller's promise, handed on.
    unsafe {
        if 2 * R <= L::ROWS_MAX && 4 * L::WIDTH <= PAGE_TOKENS {
            score_columns::<L, E, R, 4>(lanes, queries, keys, d, scores);
        } else {
            score_columns::<L, E, R, 2>(lanes, queries, keys, d, scores);
        }
    }
}

/// [`score_rows`] with `V` vectors of tokens at a time.
///
/// # Safety
/// As [`score_rows`].
#[inline(always)]
unsafe fn score_columns<L: Lanes, E: Element, const R: usize, const V: usize>(
    lanes: L,
    queries: *const f32,
    keys: *const E,
    d: usize,
    scores: *mut f32,
) {
    for first in (0..PAGE_TOKENS).step_by(V * L::WIDTH) {
        let mut sums = [[lanes.splat(0.0); V]; R];
        for i in 0..d {
            // SAFETY: `i < d`, `first + V * WIDTH <= PAGE_TOKENS` as both are powers of two, and `r < R`.
            unsafe {
                let mut block = [lanes.splat(0.0); V];
                for v in 0..V {
                    block[v] = E::load(lanes, keys.add(i * PAGE_TOKENS + first + v * L::WIDTH));
                }
                for r in 0..R {
                    let query = lanes.splat(*queries.add(r * d + i));
                    for v in 0..V {
                        sums[r][v] = lanes.fma(query, block[v], sums[r][v]);
                    }
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                // SAFETY: as above.
                unsafe { lanes.store(scores.add(r * PAGE_TOKENS + first + v * L::WIDTH), sums[r][v]) };
            }
        }
    }
}

/// `sums[r, c] = kept[r] * sums[r, c] + sum over t of weights[r, t] * values[t, c]`; `weights` is `[r, PAGE_TOKENS]`,
/// `values` `[tokens, stride]` for at most [`PAGE_TOKENS`] tokens, `sums` `[r, stride]`, and `stride` a multiple of 16.
///
/// # Panics
/// When the lengths don't fit.
#[inline(always)]
pub(super) fn add_values<L: Lanes, E: Element>(
    lanes: L,
    weights: &[f32],
    values: &[E],
    stride: usize,
    kept: &[f32],
    sums: &mut [f32],
) {
    let (rows, tokens) = (kept.len(), values.len() / stride);
    assert!(weights.len() == rows * PAGE_TOKENS && sums.len() == rows * stride);
    assert!(tokens <= PAGE_TOKENS && stride.is_multiple_of(crate::lanes::WIDTH_MAX));
    let block = Values { start: values.as_ptr(), tokens, stride };
    let (weights, kept, sums) = (weights.as_ptr(), kept.as_ptr(), sums.as_mut_ptr());
    for_runs_of_rows!(rows, lanes, |row| add_rows(
        weights.add(row * PAGE_TOKENS),
        block,
        kept.add(row),
        sums.add(row * stride)
    ));
}

/// A block of values, `[tokens, stride]`.
#[derive(Clone, Copy)]
struct Values<E> {
    start: *const E,
    tokens: usize,
    stride: usize,
}

/// [`add_values`] for `R` rows.
///
/// # Safety
/// The pointers are to `[R, PAGE_TOKENS]`, `[tokens, stride]`, `[R]` and `[R, stride]`; `tokens <= PAGE_TOKENS`, and
/// `stride` is a multiple of the width.
#[inline(always)]
unsafe fn add_rows<L: Lanes, E: Element, const R: usize>(
    lanes: L,
    weights: *const f32,
    values: Values<E>,
    kept: *const f32,
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
                        add_columns::<L, E, R, 4>(lanes, weights, values, kept, sums, first);
                        4
                    }
                    2.. => {
                        add_columns::<L, E, R, 2>(lanes, weights, values, kept, sums, first);
                        2
                    }
                    _ => {
                        add_columns::<L, E, R, 1>(lanes, weights, values, kept, sums, first);
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
unsafe fn add_columns<L: Lanes, E: Element, const R: usize, const V: usize>(
    lanes: L,
    weights: *const f32,
    values: Values<E>,
    kept: *const f32,
    sums: *mut f32,
    first: usize,
) {
    let mut partial = [[lanes.splat(0.0); V]; R];
    for r in 0..R {
        for v in 0..V {
            // SAFETY: row `r < R`, columns within the stride.
            unsafe {
                let sum = lanes.load(sums.add(r * values.stride + first + v * L::WIDTH));
                partial[r][v] = lanes.mul(sum, lanes.splat(*kept.add(r)));
            }
        }
    }
    for t in 0..values.tokens {
        // SAFETY: token `t < tokens <= PAGE_TOKENS`, row `r < R`, columns within the stride.
        unsafe {
            let mut block = [lanes.splat(0.0); V];
            for v in 0..V {
                block[v] = E::load(lanes, values.start.add(t * values.stride + first + v * L::WIDTH));
            }
            for r in 0..R {
                let weight = lanes.splat(*weights.add(r * PAGE_TOKENS + t));
                for v in 0..V {
                    partial[r][v] = lanes.fma(weight, block[v], partial[r][v]);
                }
            }
        }
    }
    for r in 0..R {
        for v in 0..V {
            // SAFETY: as for the loads.
            unsafe { lanes.store(sums.add(r * values.stride + first + v * L::WIDTH), partial[r][v]) };
        }
    }
}
