//! Attention over a paged cache of keys and values.
//!
//! `tile` holds the arithmetic of one tile of query rows; here is who computes which tile.

mod cache;
mod codes;
mod products;
mod reference;
mod tile;

pub use cache::{HEAD_DIM_MAX, KvCache, KvElement, KvLayout, KvLayoutError, PAGE_TOKENS};

use std::cell::RefCell;
use std::ops::Range;

use crate::compute::Compute;
use crate::lanes::dispatch;
use crate::threads::DisjointMut;
use cache::Store;
use tile::{AttendTile, Scratch, Tile, rows_max};

/// Multiplications from which on a batch is computed by several threads: those of some five microseconds.
const PARALLEL_WORK_MIN: usize = 150_000;

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

/// Rows that stand among others: row `i` begins at element `i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Elements `columns` of a row.
    #[inline(always)]
    pub fn part(&self, row: usize, columns: Range<usize>) -> &'a [f32] {
        &self.values[row * self.stride..][columns]
    }
}

thread_local! {
    /// Made when a thread first needs it, then kept.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Causal grouped-query attention: `queries`' rows have `a·d` elements, `out` is `[m, a·d]`, and the keys and values of every
/// row's own position have been written to the cache. Rows of no sequence are left as they are in `out`.
///
/// The softmax is taken online over blocks of [`PAGE_TOKENS`] keys that start at position 0 (Dao et al.,
/// "FlashAttention", 2022), so that a row's bits depend on nothing but its own sequence. No memory is allocated once
/// each thread has its buffers.
///
/// # Panics
/// When lengths don't fit each other, or the sequences' rows don't rise.
pub fn attend(
    compute: &Compute,
    cache: &KvCache,
    layer: usize,
    queries: Rows<'_>,
    sequences: &[SequenceRows<'_>],
    settings: &AttentionSettings,
    out: &mut [f32],
) {
    let (kv_heads, head_dim) = (cache.layout().kv_heads(), cache.layout().head_dim());
    assert!(settings.heads.is_multiple_of(kv_heads), "{} heads over {kv_heads} groups", settings.heads);
    let columns = settings.heads * head_dim;
    assert!(out.len().is_multiple_of(columns), "{} results are no whole rows of {columns}", out.len());
    assert!(settings.window != Some(0), "a window counts the query's own position");
    let mut end = 0;
    let rise = sequences.iter().all(|SequenceRows { rows, .. }| {
        let rises = end <= rows.start && rows.start <= rows.end;
        end = rows.end;
        rises
    });
    assert!(rise, "the rows of each sequence come after those of the one before");
    let group = settings.heads / kv_heads;
    if let Store::F32(store) = &cache.store {
        return store.attend(layer, queries, sequences, settings, out);
    }
    let rows_max = rows_max(cache.layout().value_stride());
    let tiles = |sequence: &SequenceRows<'_>| (sequence.rows.len() * group).div_ceil(rows_max) * kv_heads;
    let total: usize = sequences.iter().map(tiles).sum();
    let out = DisjointMut::new(out);
    let attend_tile = |item: usize| {
        // Later tiles see more keys: they come first, so that the short ones fill the gaps.
        let mut item = total - 1 - item;
        for sequence in sequences {
            if item >= tiles(sequence) {
                item -= tiles(sequence);
                continue;
            }
            let (kv_head, first) = (item % kv_heads, item / kv_heads * rows_max);
            let rows = first..(first + rows_max).min(sequence.rows.len() * group);
            let tile = &Tile { layer, kv_head, group, sequence, rows, settings };
            return SCRATCH.with_borrow_mut(|scratch| {
                let (isa, out) = (compute.isa(), &out);
                match &cache.store {
                    Store::F32(_) => unreachable!("attended above"),
                    Store::I16(store) => dispatch(isa, AttendTile { store, tile, queries, out, scratch }),
                    Store::I8(store) => dispatch(isa, AttendTile { store, tile, queries, out, scratch }),
                }
            });
        }
    };
    let keys = |sequence: &SequenceRows<'_>| {
        let length = sequence.first_position + sequence.rows.len();
        sequence.rows.len() * settings.window.map_or(length, |window| length.min(window))
    };
    let work = 2 * settings.heads * head_dim * sequences.iter().map(keys).sum::<usize>();
    if work < PARALLEL_WORK_MIN {
        (0..total).for_each(attend_tile);
    } else {
        compute.pool().for_each(total, attend_tile);
    }
}

#[cfg(test)]
mod tests;
