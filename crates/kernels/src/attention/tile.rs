//! One tile of attention: a few positions of one sequence, with all query heads that share a key/value head.

use std::ops::Range;

use super::cache::{KvCache, PAGE_TOKENS};
use super::{AttentionSettings, SequenceRows};
use crate::activation::{exp, tanh};
use crate::multiversion::{multiply_add, multiversion};
use crate::threads::DisjointMut;

/// Elements of the result that are summed in registers at a time.
const VALUE_COLUMNS: usize = 32;

/// Which part of a batch a tile is.
pub(super) struct Tile<'a> {
    pub layer: usize,
    pub kv_head: usize,
    /// Query heads that share the key/value head.
    pub group: usize,
    pub head_dim: usize,
    pub sequence: &'a SequenceRows<'a>,
    /// Rows of the sequence, counted from its first in the batch.
    pub rows: Range<usize>,
    pub settings: &'a AttentionSettings,
}

/// Buffers of one thread. A tile has `r` rows: positions times heads of the group, heads fastest.
#[derive(Default)]
pub(super) struct TileScratch {
    /// Scaled queries, `[r, d]`.
    queries: Vec<f32>,
    /// Scores and then weights of one block, `[r, PAGE_TOKENS]`.
    scores: Vec<f32>,
    /// Weighted sums of values, `[r, d]`.
    sums: Vec<f32>,
    /// Greatest score so far, and the sum of weights relative to it.
    greatest: Vec<f32>,
    weight: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl TileScratch {
    fn reset(&mut self, rows: usize, head_dim: usize) {
        let block = head_dim * PAGE_TOKENS;
        for (buffer, length, value) in [
            (&mut self.queries, rows * head_dim, 0.0),
            (&mut self.scores, rows * PAGE_TOKENS, 0.0),
            (&mut self.sums, rows * head_dim, 0.0),
            (&mut self.greatest, rows, f32::NEG_INFINITY),
            (&mut self.weight, rows, 0.0),
        ] {
            buffer.clear();
            buffer.resize(length, value);
        }
        self.keys.resize(block, 0.0);
        self.values.resize(block, 0.0);
    }
}

multiversion! {
    /// Computes one tile and writes its rows of `out`, `[m, a·d]`.
    pub(super) fn attend_tile(
        cache: &KvCache, tile: &Tile<'_>, queries: &[f32], out: &DisjointMut<'_, f32>, scratch: &mut TileScratch,
    ) = attend_tile_body
}

#[inline(always)]
fn attend_tile_body<const FMA: bool>(
    cache: &KvCache,
    tile: &Tile<'_>,
    queries: &[f32],
    out: &DisjointMut<'_, f32>,
    scratch: &mut TileScratch,
) {
    let (d, group) = (tile.head_dim, tile.group);
    scratch.reset(tile.rows.len() * group, d);
    let place = |row: usize| {
        let batch_row = tile.sequence.rows.start + tile.rows.start + row / group;
        (batch_row * tile.settings.heads + tile.kv_head * group + row % group) * d
    };
    for (row, query) in scratch.queries.chunks_exact_mut(d).enumerate() {
        let source = &queries[place(row)..][..d];
        for (query, x) in query.iter_mut().zip(source) {
            *query = x * tile.settings.scale;
        }
    }

    let first = tile.sequence.first_position + tile.rows.start;
    let last = tile.sequence.first_position + tile.rows.end - 1;
    let first_key = tile.settings.window.map_or(0, |window| (first + 1).saturating_sub(window));
    for block in first_key / PAGE_TOKENS..=last / PAGE_TOKENS {
        // Rows that see some key of the block: later ones by causality, earlier ones by the window.
        let start = block * PAGE_TOKENS;
        let from = start.saturating_sub(first) * group;
        let until = tile.settings.window.map_or(tile.rows.len(), |window| {
            (start + PAGE_TOKENS - 1 + window).saturating_sub(first).min(tile.rows.len())
        });
        attend_block::<FMA>(cache, tile, scratch, block, from..until * group);
    }

    for (row, sums) in scratch.sums.chunks_exact(d).enumerate() {
        let scale = 1.0 / scratch.weight[row];
        // SAFETY: each row and head of the batch belongs to one tile.
        let out = unsafe { out.slice(place(row), d) };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum * scale;
        }
    }
}

/// Adds one block of keys and values to the given rows.
#[inline(always)]
fn attend_block<const FMA: bool>(
    cache: &KvCache,
    tile: &Tile<'_>,
    scratch: &mut TileScratch,
    block: usize,
    rows: Range<usize>,
) {
    let d = tile.head_dim;
    let page = tile.sequence.pages[block];
    let keys = cache.keys(tile.layer, page, tile.kv_head, &mut scratch.keys);
    let (query_rows, score_rows) =
        (rows.start * d..rows.end * d, rows.start * PAGE_TOKENS..rows.end * PAGE_TOKENS);
    let queries = &scratch.queries[query_rows.clone()];
    let scores = &mut scratch.scores[score_rows.clone()];
    for (queries, scores) in queries.chunks_exact(2 * d).zip(scores.chunks_exact_mut(2 * PAGE_TOKENS)) {
        score::<FMA, 2>(queries, keys, scores);
    }
    if rows.len() % 2 == 1 {
        let last = rows.len() - 1;
        score::<FMA, 1>(&queries[last * d..], keys, &mut scores[last * PAGE_TOKENS..]);
    }

    for row in rows.clone() {
        let position = tile.sequence.first_position + tile.rows.start + row / tile.group;
        let scores = &mut scratch.scores[row * PAGE_TOKENS..][..PAGE_TOKENS];
        let before = scratch.greatest[row];
        let greatest = mask::<FMA>(scores, block * PAGE_TOKENS, position, tile.settings).max(before);
        let kept = if before == f32::NEG_INFINITY { 0.0 } else { exp::<FMA>(before - greatest) };
        let mut sum = 0.0;
        for score in scores.iter_mut() {
            *score = exp::<FMA>(*score - greatest);
        }
        for score in scores.iter() {
            sum += score;
        }
        scratch.greatest[row] = greatest;
        scratch.weight[row] = scratch.weight[row] * kept + sum;
        for sum in &mut scratch.sums[row * d..][..d] {
            *sum *= kept;
        }
    }

    let values = cache.values(tile.layer, page, tile.kv_head, &mut scratch.values);
    let weights = &scratch.scores[score_rows];
    let sums = &mut scratch.sums[query_rows];
    // Keys that no row of the tile sees are left out: pages hold leftovers of other sequences.
    let last = tile.sequence.first_position + tile.rows.end - 1;
    let tokens = (last + 1 - block * PAGE_TOKENS).min(PAGE_TOKENS);
    for (weights, sums) in weights.chunks_exact(2 * PAGE_TOKENS).zip(sums.chunks_exact_mut(2 * d)) {
        add_values::<FMA, 2>(weights, values, tokens, sums);
    }
    if rows.len() % 2 == 1 {
        let last = rows.len() - 1;
        add_values::<FMA, 1>(&weights[last * PAGE_TOKENS..], values, tokens, &mut sums[last * d..]);
    }
}

/// `scores[r, t] = queries[r] · keys[.., t]` for `R` rows.
#[inline(always)]
fn score<const FMA: bool, const R: usize>(queries: &[f32], keys: &[f32], scores: &mut [f32]) {
    let d = queries.len() / R;
    let mut sums = [[0.0f32; PAGE_TOKENS]; R];
    for (i, keys) in keys.as_chunks::<PAGE_TOKENS>().0.iter().enumerate().take(d) {
        for r in 0..R {
            let query = queries[r * d + i];
            for t in 0..PAGE_TOKENS {
                sums[r][t] = multiply_add::<FMA>(query, keys[t], sums[r][t]);
            }
        }
    }
    for (scores, sums) in scores.chunks_exact_mut(PAGE_TOKENS).zip(&sums) {
        scores.copy_from_slice(sums);
    }
}

/// Caps the scores, hides the keys that the position does not see, and returns the greatest.
#[inline(always)]
fn mask<const FMA: bool>(
    scores: &mut [f32],
    first_key: usize,
    position: usize,
    settings: &AttentionSettings,
) -> f32 {
    if let Some(cap) = settings.softcap {
        for score in scores.iter_mut() {
            *score = cap * tanh::<FMA>(*score / cap);
        }
    }
    let hidden_before = settings.window.map_or(0, |window| (position + 1).saturating_sub(window + first_key));
    let seen = (position + 1 - first_key).min(PAGE_TOKENS);
    scores[..hidden_before.min(PAGE_TOKENS)].fill(f32::NEG_INFINITY);
    scores[seen..].fill(f32::NEG_INFINITY);
    let mut greatest = f32::NEG_INFINITY;
    for score in scores.iter() {
        greatest = if *score > greatest { *score } else { greatest };
    }
    greatest
}

/// `sums[r] += weights[r] · values` for `R` rows, over the first `tokens` keys of a block.
#[inline(always)]
fn add_values<const FMA: bool, const R: usize>(
    weights: &[f32],
    values: &[f32],
    tokens: usize,
    sums: &mut [f32],
) {
    let d = sums.len() / R;
    let whole = d / VALUE_COLUMNS * VALUE_COLUMNS;
    for first in (0..whole).step_by(VALUE_COLUMNS) {
        let mut partial = [[0.0f32; VALUE_COLUMNS]; R];
        for r in 0..R {
            partial[r].copy_from_slice(&sums[r * d + first..][..VALUE_COLUMNS]);
        }
        for t in 0..tokens {
            let values: &[f32] = &values[t * d + first..][..VALUE_COLUMNS];
            for r in 0..R {
                let weight = weights[r * PAGE_TOKENS + t];
                for c in 0..VALUE_COLUMNS {
                    partial[r][c] = multiply_add::<FMA>(weight, values[c], partial[r][c]);
                }
            }
        }
        for r in 0..R {
            sums[r * d + first..][..VALUE_COLUMNS].copy_from_slice(&partial[r]);
        }
    }
    for column in whole..d {
        for r in 0..R {
            for t in 0..tokens {
                let sum = &mut sums[r * d + column];
                *sum = multiply_add::<FMA>(weights[r * PAGE_TOKENS + t], values[t * d + column], *sum);
            }
        }
    }
}
