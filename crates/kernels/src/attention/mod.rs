//! Attention over a paged cache of keys and values.
//!
//! `tile` holds the arithmetic of one tile of query rows; here is who computes which tile.

mod cache;
mod tile;

pub use cache::{HEAD_DIM_MAX, KvCache, KvElement, KvLayout, KvLayoutError, PAGE_TOKENS};

use std::cell::RefCell;
use std::ops::Range;

use crate::compute::Compute;
use crate::threads::DisjointMut;
use tile::{Tile, TileScratch, attend_tile};

/// Query rows of a tile, positions times heads of one group, that share each block of keys.
const TILE_ROWS: usize = 32;

/// What a decoder's attention asks for besides queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSettings {
    /// Query heads `a`, a multiple of the cache's key/value heads `g`.
    pub heads: usize,
    /// Multiplies `q · k`.
    pub scale: f32,
    /// `cap * tanh(score / cap)` before the softmax.
    pub softcap: Option<f32>,
    /// A query at position `p` sees keys from `p - window + 1` on.
    pub window: Option<usize>,
}

/// Consecutive rows of a batch that belong to one sequence.
#[derive(Clone, Debug)]
pub struct SequenceRows<'a> {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first of them.
    pub first_position: usize,
    /// Pages of the sequence: `pages[i]` holds positions from `i * PAGE_TOKENS` on.
    pub pages: &'a [u32],
}

thread_local! {
    /// Grown when a thread first needs it, then kept.
    static SCRATCH: RefCell<TileScratch> = RefCell::new(TileScratch::default());
}

/// Causal grouped-query attention: `queries` and `out` are `[m, a·d]`, and the keys and values of every row's own
/// position have been written to the cache.
///
/// The softmax is taken online over blocks of [`PAGE_TOKENS`] keys that start at position 0 (Dao et al.,
/// "FlashAttention", 2022), so that a row's bits depend on nothing but its own sequence.
///
/// # Panics
/// When lengths don't fit each other.
pub fn attend(
    compute: &Compute,
    cache: &KvCache,
    layer: usize,
    queries: &[f32],
    sequences: &[SequenceRows<'_>],
    settings: &AttentionSettings,
    out: &mut [f32],
) {
    let (kv_heads, head_dim) = (cache.layout().kv_heads(), cache.layout().head_dim());
    assert!(settings.heads.is_multiple_of(kv_heads), "{} heads over {kv_heads} groups", settings.heads);
    assert_eq!(queries.len(), out.len(), "as many results as queries");
    let group = settings.heads / kv_heads;
    let positions = (TILE_ROWS / group).max(1);
    let tiles = |sequence: &SequenceRows<'_>| sequence.rows.len().div_ceil(positions) * kv_heads;
    let total: usize = sequences.iter().map(tiles).sum();
    let out = DisjointMut::new(out);
    compute.pool.for_each(total, |item| {
        // Later tiles see more keys: they come first, so that the short ones fill the gaps.
        let mut item = total - 1 - item;
        for sequence in sequences {
            if item >= tiles(sequence) {
                item -= tiles(sequence);
                continue;
            }
            let (kv_head, first) = (item % kv_heads, item / kv_heads * positions);
            let rows = first..(first + positions).min(sequence.rows.len());
            let tile = Tile { layer, kv_head, group, head_dim, sequence, rows, settings };
            return SCRATCH.with_borrow_mut(|scratch| {
                attend_tile(compute.isa, cache, &tile, queries, &out, scratch);
            });
        }
    });
}

#[cfg(test)]
mod tests;
