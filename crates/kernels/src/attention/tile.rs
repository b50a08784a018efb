//! One tile of attention: some query rows of one sequence that share a key/value head.
//!
//! A tile takes the keys in blocks of [`PAGE_TOKENS`] from the first that any of its rows sees. Each block goes through
//! a small matrix product into scores, the online softmax, and a matrix product with the values. What a row goes
//! through is the same whatever other rows are in the tile: blocks that it doesn't see are skipped for it, and sums within
//! a block are exact.

use std::ops::Range;

use super::cache::{Block, KvStore, PAGE_TOKENS};
use super::codes::{Code, Limits, SMALLEST, encode};
use super::products::{Coded, add_values, score};
use super::{AttentionSettings, Rows, SequenceRows};
use crate::activation::Softcap;
use crate::lanes::{Kernel, Lanes, WIDTH_MAX, exp};
use crate::memory::AlignedVec;
use crate::threads::DisjointMut;

/// Rows of a tile at most, positions times heads: enough to use each block well, few enough to stay in a core's cache.
const ROWS_MAX: usize = 96;
/// Elements of a tile's queries at most, padded.
const ELEMENTS_MAX: usize = 128 * ROWS_MAX;

/// Rows up to which a tile waits for memory, and asks for the next block before it turns to one.
const PREFETCH_ROWS_MAX: usize = 16;

/// Rows a tile for heads of `value_stride` elements, padded.
pub(super) fn rows_max(value_stride: usize) -> usize {
    (ELEMENTS_MAX / value_stride).min(ROWS_MAX)
}

/// Which part of a batch a tile is. Row `i` of a sequence's key/value head is position `i / group` of those in the batch
/// and head `i % group` of the group.
pub(super) struct Tile<'a> {
    pub layer: usize,
    pub kv_head: usize,
    /// Query heads that share the key/value head.
    pub group: usize,
    pub sequence: &'a SequenceRows<'a>,
    pub rows: Range<usize>,
    pub settings: &'a AttentionSettings,
}

impl Tile<'_> {
    /// Position in the sequence of a row.
    fn position(&self, row: usize) -> usize {
        self.sequence.first_position + row / self.group
    }

    /// The first position that a query at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.settings.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Rows that see some key of `block`: later ones by causality, earlier ones by the window.
    fn rows_that_see(&self, block: usize) -> Range<usize> {
        let (start, first) = (block * PAGE_TOKENS, self.sequence.first_position);
        let from = start.saturating_sub(first).saturating_mul(self.group);
        let until = self.settings.window.map_or(usize::MAX, |window| {
            (start + PAGE_TOKENS - 1).saturating_add(window).saturating_sub(first).saturating_mul(self.group)
        });
        from.max(self.rows.start)..until.min(self.rows.end)
    }

    /// A row's row in the batch, and its head.
    fn place(&self, row: usize) -> (usize, usize) {
        (self.sequence.rows.start + row / self.group, self.kv_head * self.group + row % self.group)
    }
}

/// Buffers of one thread.
pub(super) struct Scratch {
    /// Queries, `[r, codes of a key]`, and what they are multiplied with.
    queries: AlignedVec<i16>,
    query_scales: [f32; ROWS_MAX],
    /// Scores and then weights of one block, `[r, PAGE_TOKENS]`.
    scores: AlignedVec<f32>,
    /// The weights times the scales of the values.
    weights: AlignedVec<i16>,
    weight_scales: [f32; ROWS_MAX],
    /// Weighted sums of values, `[r, d padded]`.
    sums: AlignedVec<f32>,
    /// Greatest score so far, the sums of weights relative to it, a lane apart, and what a block leaves of all sums
    /// before it.
    greatest: [f32; ROWS_MAX],
    totals: [[f32; WIDTH_MAX]; ROWS_MAX],
    kept: [f32; ROWS_MAX],
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            queries: AlignedVec::zeroed(ELEMENTS_MAX),
            query_scales: [0.0; ROWS_MAX],
            scores: AlignedVec::zeroed(ROWS_MAX * PAGE_TOKENS),
            weights: AlignedVec::zeroed(ROWS_MAX * PAGE_TOKENS),
            weight_scales: [0.0; ROWS_MAX],
            sums: AlignedVec::zeroed(ELEMENTS_MAX),
            greatest: [0.0; ROWS_MAX],
            totals: [[0.0; WIDTH_MAX]; ROWS_MAX],
            kept: [0.0; ROWS_MAX],
        }
    }
}

/// Computes one tile and writes its rows of `out`, `[m, a·d]`.
pub(super) struct AttendTile<'a, E: Code> {
    pub store: &'a KvStore<E>,
    pub tile: &'a Tile<'a>,
    /// Of `a·d` elements.
    pub queries: Rows<'a>,
    /// `[m, a·d]`.
    pub out: &'a DisjointMut<'a, f32>,
    pub scratch: &'a mut Scratch,
}

impl<E: Code> Kernel for AttendTile<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let AttendTile { store, tile, queries, out, scratch } = self;
        let (d, stride) = (store.layout().head_dim(), store.layout().value_stride());
        let (key_codes, limits) = (store.layout().key_codes(), store.limits());
        let rows = tile.rows.len();
        for i in 0..rows {
            let (row, head) = tile.place(tile.rows.start + i);
            let query = queries.part(row, head * d..(head + 1) * d);
            // The last code of an odd number has a neighbour.
            let codes = &mut scratch.queries[i * key_codes..][..key_codes];
            codes[key_codes - 1] = 0;
            let scale = encode(lanes, query, limits.query, &mut codes[..d]);
            scratch.query_scales[i] = scale * tile.settings.scale;
        }
        scratch.sums[..rows * stride].fill(0.0);
        // The least number instead of -inf: a difference to it is never NaN.
        scratch.greatest[..rows].fill(f32::MIN);
        scratch.totals[..rows].fill([0.0; WIDTH_MAX]);

        let last = tile.position(tile.rows.end - 1);
        let first = tile.first_seen(tile.position(tile.rows.start));
        for block in first / PAGE_TOKENS..=last / PAGE_TOKENS {
            // Many rows give memory the time it needs anyway.
            if rows <= PREFETCH_ROWS_MAX && block < last / PAGE_TOKENS {
                store.prefetch(tile.layer, tile.sequence.pages[block + 1], tile.kv_head);
            }
            attend_block(lanes, store, tile, &limits, scratch, block);
        }

        for i in 0..rows {
            // A row that only saw scores of -inf has no weights, and becomes zero.
            let total = lanes.sum(lanes.read(&scratch.totals[i]));
            let scale = if total == 0.0 { 0.0 } else { 1.0 / total };
            let (row, head) = tile.place(tile.rows.start + i);
            // SAFETY: each row and head of the batch belongs to one tile, and one thread has the tile.
            let out = unsafe { out.slice((row * tile.settings.heads + head) * d, d) };
            for (out, sum) in out.iter_mut().zip(&scratch.sums[i * stride..][..d]) {
                // Adding zero makes one zero of both: how many hidden keys a row had beside it may decide its sign.
                *out = sum * scale + 0.0;
            }
        }
    }
}

/// Adds one block of keys and values to the rows that see it.
#[inline(always)]
fn attend_block<L: Lanes, E: Code>(
    lanes: L,
    store: &KvStore<E>,
    tile: &Tile<'_>,
    limits: &Limits,
    scratch: &mut Scratch,
    block: usize,
) {
    let (key_codes, stride) = (store.layout().key_codes(), store.layout().value_stride());
    let page = tile.sequence.pages[block];
    let seeing = tile.rows_that_see(block);
    if seeing.is_empty() {
        return;
    }
    let rows = seeing.start - tile.rows.start..seeing.end - tile.rows.start;
    let queries = Coded {
        codes: &scratch.queries[rows.start * key_codes..rows.end * key_codes],
        scales: &scratch.query_scales[rows.clone()],
    };
    let scores = &mut scratch.scores[rows.start * PAGE_TOKENS..rows.end * PAGE_TOKENS];
    score(lanes, queries, store.keys(tile.layer, page, tile.kv_head), key_codes, scores);

    let values = store.values(tile.layer, page, tile.kv_head);
    let (value_scales, spoilt) = sound_scales(&values);
    let cap = tile.settings.softcap.map(Softcap::new);
    let start = block * PAGE_TOKENS;
    for row in rows.clone() {
        let position = tile.position(tile.rows.start + row);
        let hidden_before = tile.first_seen(position).saturating_sub(start).min(PAGE_TOKENS);
        let seen_until = (position + 1 - start).min(PAGE_TOKENS);
        let scores = &mut scores[(row - rows.start) * PAGE_TOKENS..][..PAGE_TOKENS];
        if let Some(cap) = cap {
            for part in scores.chunks_exact_mut(L::WIDTH) {
                let capped = cap.of(lanes, lanes.read(part));
                lanes.write(part, capped);
            }
        }
        scores[..hidden_before].fill(f32::NEG_INFINITY);
        scores[seen_until..].fill(f32::NEG_INFINITY);
        let (greatest, totals) = (&mut scratch.greatest[row], &mut scratch.totals[row]);
        scratch.kept[row] = weigh(lanes, scores, greatest, totals);
        if spoilt >> hidden_before & ((1 << (seen_until - hidden_before)) - 1) != 0 {
            totals.fill(f32::NAN);
        }
        let codes = &mut scratch.weights[row * PAGE_TOKENS..][..PAGE_TOKENS];
        scratch.weight_scales[row] = encode_weights(lanes, scores, &value_scales, limits.weight, codes);
    }

    let tokens = (tile.position(tile.rows.end - 1) + 1 - start).min(PAGE_TOKENS);
    let weights = Coded {
        codes: &scratch.weights[rows.start * PAGE_TOKENS..rows.end * PAGE_TOKENS],
        scales: &scratch.weight_scales[rows.clone()],
    };
    let sums = &mut scratch.sums[rows.start * stride..rows.end * stride];
    add_values(lanes, weights, values.codes, tokens, &scratch.kept[rows], sums);
}

/// The scales of a block's values, with zero in place of what is no number, and a bit for each of these: pages hold
/// leftovers of other sequences, which nothing of a row that doesn't see them may meet.
#[inline(always)]
fn sound_scales<E>(values: &Block<'_, E>) -> ([f32; PAGE_TOKENS], u64) {
    let (mut scales, mut spoilt) = (*values.scales, 0);
    for (token, scale) in scales.iter_mut().enumerate() {
        if !scale.is_finite() {
            (*scale, spoilt) = (0.0, spoilt | 1 << token);
        }
    }
    (scales, spoilt)
}

/// Turns one row's scores of a block into weights relative to the greatest score so far, adds them to `sums`, and
/// returns the factor for what was summed before.
#[inline(always)]
fn weigh<L: Lanes>(lanes: L, scores: &mut [f32], greatest: &mut f32, sums: &mut [f32; WIDTH_MAX]) -> f32 {
    let mut most = lanes.splat(*greatest);
    for part in scores.chunks_exact(L::WIDTH) {
        most = lanes.max(lanes.read(part), most);
    }
    let most = lanes.largest(most);
    let kept = if most == *greatest {
        1.0 // what `exp(0)` is
    } else {
        let mut kept = [0.0; WIDTH_MAX];
        lanes.write(&mut kept, exp(lanes, lanes.splat(*greatest - most)));
        kept[0]
    };
    let shift = lanes.splat(most);
    let mut sum = lanes.mul(lanes.read(sums), lanes.splat(kept));
    for part in scores.chunks_exact_mut(L::WIDTH) {
        let weights = exp(lanes, lanes.sub(lanes.read(part), shift));
        lanes.write(part, weights);
        sum = lanes.add(sum, weights);
    }
    *greatest = most;
    lanes.write(sums, sum);
    kept
}

/// A row's weights of a block times the scales of its values, as codes; returns what these are multiplied with.
#[inline(always)]
fn encode_weights<L: Lanes>(
    lanes: L,
    weights: &mut [f32],
    scales: &[f32; PAGE_TOKENS],
    most: f32,
    codes: &mut [i16],
) -> f32 {
    let mut largest = lanes.splat(0.0);
    for (weights, scales) in weights.chunks_exact_mut(L::WIDTH).zip(scales.chunks_exact(L::WIDTH)) {
        let scaled = lanes.mul(lanes.read(weights), lanes.read(scales));
        lanes.write(weights, scaled);
        largest = lanes.max(scaled, largest);
    }
    let largest = lanes.largest(largest);
    if largest < SMALLEST {
        codes.fill(0);
        return 0.0;
    }
    // Weights that are no numbers make the row's total none, whatever becomes of them here.
    let inverse = lanes.splat(most / largest);
    for (weights, codes) in weights.chunks_exact(L::WIDTH).zip(codes.chunks_exact_mut(L::WIDTH)) {
        let code = lanes.round(lanes.mul(lanes.read(weights), inverse));
        // SAFETY: the chunk is as long as a vector.
        unsafe { lanes.store_i16(codes.as_mut_ptr(), code) };
    }
    largest / most
}
