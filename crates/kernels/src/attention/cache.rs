//! Where keys and values are kept: pages of a fixed number of positions.
//!
//! A head's key, or value, of one token is whole numbers and one scale that they are multiplied with. The largest of the
//! numbers is as large as exact sums of products in 32 bits allow.

use super::codes::{Code, Limits, encode};
use super::reference::Plain;
use super::{Rows, SequenceRows};
use crate::compute::Compute;
use crate::lanes::{Kernel, Lanes, WIDTH_MAX, dispatch};
use crate::memory::{AlignedVec, LINE_BYTES, prefetch};
use crate::threads::DisjointMut;

/// Positions a page; also the keys that a step of the online softmax takes together.
pub const PAGE_TOKENS: usize = 32;
/// Elements a head at most.
pub const HEAD_DIM_MAX: usize = 512;
/// Rows from which on a batch is written by several threads: a fork and a join cost more than a few rows.
const PARALLEL_ROWS_MIN: usize = 8;

/// How keys and values are stored: as signed integers with a scale for each token and head, or as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvElement {
    /// Exact, by plain loops on one thread: what the others are held against, and too slow for anything else.
    F32,
    /// 16 bits, of which 13 are used for heads of 64 elements: a rounding of 1 / 11,000 of the head's largest element.
    I16,
    /// Half the memory, with a rounding of 1 / 254 of the head's largest element.
    I8,
}

impl KvElement {
    /// What a cache for use may be made of; the first where nothing else is said.
    pub const CODED: [KvElement; 2] = [KvElement::I16, KvElement::I8];

    /// The one of [`KvElement::CODED`] that is called so.
    pub fn find(name: &str) -> Option<KvElement> {
        KvElement::CODED.into_iter().find(|element| element.name() == name)
    }

    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            KvElement::F32 => "f32",
            KvElement::I16 => "i16",
            KvElement::I8 => "i8",
        }
    }

    fn bytes(self) -> usize {
        match self {
            KvElement::F32 => 4,
            KvElement::I16 => 2,
            KvElement::I8 => 1,
        }
    }
}

/// Why a cache can't be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvLayoutError {
    #[error("heads of {0} elements: at least 1 and at most {HEAD_DIM_MAX} are supported")]
    HeadDim(usize),
    #[error(
        "a cache of {layers} layers, {kv_heads} heads of {head_dim} and {pages} pages does not fit the address space"
    )]
    TooLarge { layers: usize, kv_heads: usize, head_dim: usize, pages: u32 },
}

/// The shape of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    pages: u32,
    element: KvElement,
}

impl KvLayout {
    /// # Errors
    /// A head size that is not supported, or a cache beyond the address space.
    pub fn new(
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        pages: u32,
        element: KvElement,
    ) -> Result<KvLayout, KvLayoutError> {
        if head_dim == 0 || head_dim > HEAD_DIM_MAX {
            return Err(KvLayoutError::HeadDim(head_dim));
        }
        let padded = head_dim.next_multiple_of(WIDTH_MAX);
        // A scale takes no more than a vector of 16 does.
        let bytes = [layers, kv_heads, padded, pages as usize, PAGE_TOKENS, 2 * element.bytes() + 4]
            .into_iter()
            .try_fold(1usize, usize::checked_mul);
        match bytes {
            Some(bytes) if bytes < isize::MAX as usize => {
                Ok(KvLayout { layers, kv_heads, head_dim, pages, element })
            }
            _ => Err(KvLayoutError::TooLarge { layers, kv_heads, head_dim, pages }),
        }
    }

    /// Bytes of the whole cache.
    pub fn bytes(&self) -> usize {
        let scales = 2 * PAGE_TOKENS * size_of::<f32>();
        self.blocks() * ((self.key_block() + self.value_block()) * self.element.bytes() + scales)
    }

    pub fn pages(&self) -> u32 {
        self.pages
    }

    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Codes of a token's value: the head's size, padded to whole vectors.
    pub(super) fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(WIDTH_MAX)
    }

    /// Blocks of the whole cache; one holds the keys, or the values, of a layer, page and head.
    pub(super) fn blocks(&self) -> usize {
        self.layers * self.pages as usize * self.kv_heads
    }

    /// Codes of a token's key: an even number, since kernels multiply pairs.
    pub(super) fn key_codes(&self) -> usize {
        self.head_dim.next_multiple_of(2)
    }

    fn key_block(&self) -> usize {
        PAGE_TOKENS * self.key_codes()
    }

    fn value_block(&self) -> usize {
        PAGE_TOKENS * self.value_stride()
    }

    pub(super) fn block(&self, layer: usize, page: u32, kv_head: usize) -> usize {
        assert!(layer < self.layers && page < self.pages && kv_head < self.kv_heads, "outside the cache");
        (layer * self.pages as usize + page as usize) * self.kv_heads + kv_head
    }
}

/// Keys and values of all layers. A block (one layer, page and head) holds the codes of keys as
/// `[codes of a key / 2, PAGE_TOKENS, 2]` and those of values as `[PAGE_TOKENS / 2, codes of a value, 2]`: sums over two
/// neighbours, for many tokens or many elements at once.
pub struct KvCache {
    layout: KvLayout,
    pub(super) store: Store,
}

pub(super) enum Store {
    F32(Plain),
    I16(KvStore<i16>),
    I8(KvStore<i8>),
}

/// The blocks of a cache, as codes of one type.
pub(super) struct KvStore<E: Code> {
    layout: KvLayout,
    keys: AlignedVec<E>,
    values: AlignedVec<E>,
    /// `[blocks, PAGE_TOKENS]`.
    key_scales: AlignedVec<f32>,
    value_scales: AlignedVec<f32>,
}

/// Keys or values of one block.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, E> {
    pub codes: &'a [E],
    /// Of each token.
    pub scales: &'a [f32; PAGE_TOKENS],
}

impl KvCache {
    /// An empty cache; its memory is taken from the machine as pages are first written.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::OutOfMemory`] when the machine refuses the address space.
    pub fn new(layout: KvLayout) -> std::io::Result<KvCache> {
        let store = match layout.element {
            KvElement::F32 => Store::F32(Plain::new(layout)?),
            KvElement::I16 => Store::I16(KvStore::new(layout)?),
            KvElement::I8 => Store::I8(KvStore::new(layout)?),
        };
        Ok(KvCache { layout, store })
    }

    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Stores the keys and values, rows of `g·d` elements each, of every sequence's rows of a batch.
    ///
    /// # Panics
    /// When a sequence's pages don't reach its rows' positions, or lengths don't fit.
    pub fn write(
        &mut self,
        compute: &Compute,
        layer: usize,
        sequences: &[SequenceRows<'_>],
        keys: Rows<'_>,
        values: Rows<'_>,
    ) {
        match &mut self.store {
            Store::F32(store) => store.write(layer, sequences, keys, values),
            Store::I16(store) => store.write(compute, layer, sequences, keys, values),
            Store::I8(store) => store.write(compute, layer, sequences, keys, values),
        }
    }
}

impl<E: Code> KvStore<E> {
    fn new(layout: KvLayout) -> std::io::Result<KvStore<E>> {
        let blocks = layout.blocks();
        Ok(KvStore {
            layout,
            keys: AlignedVec::try_zeroed(blocks * layout.key_block())?,
            values: AlignedVec::try_zeroed(blocks * layout.value_block())?,
            key_scales: AlignedVec::try_zeroed(blocks * PAGE_TOKENS)?,
            value_scales: AlignedVec::try_zeroed(blocks * PAGE_TOKENS)?,
        })
    }

    pub(super) fn layout(&self) -> &KvLayout {
        &self.layout
    }

    pub(super) fn limits(&self) -> Limits {
        Limits::of::<E>(self.layout.head_dim)
    }

    #[inline(always)]
    pub(super) fn keys(&self, layer: usize, page: u32, kv_head: usize) -> Block<'_, E> {
        let block = self.layout.block(layer, page, kv_head);
        let length = self.layout.key_block();
        Block {
            codes: &self.keys[block * length..][..length],
            scales: &self.key_scales.as_chunks::<PAGE_TOKENS>().0[block],
        }
    }

    #[inline(always)]
    pub(super) fn values(&self, layer: usize, page: u32, kv_head: usize) -> Block<'_, E> {
        let block = self.layout.block(layer, page, kv_head);
        let length = self.layout.value_block();
        Block {
            codes: &self.values[block * length..][..length],
            scales: &self.value_scales.as_chunks::<PAGE_TOKENS>().0[block],
        }
    }

    /// Asks for a block's keys and values before they are read.
    #[inline(always)]
    pub(super) fn prefetch(&self, layer: usize, page: u32, kv_head: usize) {
        for Block { codes, scales } in [self.keys(layer, page, kv_head), self.values(layer, page, kv_head)] {
            for (start, bytes) in
                [(codes.as_ptr().addr(), size_of_val(codes)), (scales.as_ptr().addr(), size_of_val(scales))]
            {
                for at in (0..bytes).step_by(LINE_BYTES) {
                    prefetch(start + at);
                }
            }
        }
    }

    /// Scatters the rows of a batch into their pages. One task writes all keys, or all values, of a head: tasks never
    /// meet, whatever pages the sequences name.
    fn write(
        &mut self,
        compute: &Compute,
        layer: usize,
        sequences: &[SequenceRows<'_>],
        keys: Rows<'_>,
        values: Rows<'_>,
    ) {
        let (layout, limits) = (self.layout, self.limits());
        let keys = Side {
            rows: keys,
            most: limits.key,
            codes: DisjointMut::new(&mut self.keys),
            scales: DisjointMut::new(&mut self.key_scales),
        };
        let values = Side {
            rows: values,
            most: limits.value,
            codes: DisjointMut::new(&mut self.values),
            scales: DisjointMut::new(&mut self.value_scales),
        };
        let task = |index: usize| {
            let (kv_head, is_key) = (index / 2, index.is_multiple_of(2));
            let place = Place { layout: &layout, layer, kv_head, is_key };
            let side = if is_key { &keys } else { &values };
            dispatch(compute.isa(), WriteHead { place, sequences, side });
        };
        let rows: usize = sequences.iter().map(|sequence| sequence.rows.len()).sum();
        if rows < PARALLEL_ROWS_MIN {
            (0..2 * layout.kv_heads).for_each(task);
        } else {
            compute.pool().for_each(2 * layout.kv_heads, task);
        }
    }
}

/// Which of a cache's blocks a task writes.
struct Place<'a> {
    layout: &'a KvLayout,
    layer: usize,
    kv_head: usize,
    is_key: bool,
}

/// The keys, or the values: what comes and where it goes.
struct Side<'a, E> {
    /// Of `g·d` elements.
    rows: Rows<'a>,
    /// The largest code.
    most: f32,
    codes: DisjointMut<'a, E>,
    scales: DisjointMut<'a, f32>,
}

/// Writes the keys, or the values, of one head.
struct WriteHead<'a, E> {
    place: Place<'a>,
    sequences: &'a [SequenceRows<'a>],
    side: &'a Side<'a, E>,
}

impl<E: Code> Kernel for WriteHead<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Place { layout, layer, kv_head, is_key } = self.place;
        let d = layout.head_dim;
        let length = if is_key { layout.key_block() } else { layout.value_block() };
        let mut codes = [0i16; HEAD_DIM_MAX];
        for sequence in self.sequences {
            for row in sequence.rows.clone() {
                let position = sequence.first_position + (row - sequence.rows.start);
                let block = layout.block(layer, sequence.pages[position / PAGE_TOKENS], kv_head);
                let token = position % PAGE_TOKENS;
                let source = self.side.rows.part(row, kv_head * d..(kv_head + 1) * d);
                let scale = encode(lanes, source, self.side.most, &mut codes[..d]);
                // SAFETY: blocks of different heads don't overlap, and one task has all of a head's blocks on this side.
                let (block, scale_place) = unsafe {
                    (
                        self.side.codes.slice(block * length, length),
                        self.side.scales.slice(block * PAGE_TOKENS + token, 1),
                    )
                };
                scale_place[0] = scale;
                let places = block.as_chunks_mut::<2>().0;
                if is_key {
                    let codes = codes[..layout.key_codes()].as_chunks::<2>().0;
                    for (pair, place) in codes.iter().zip(places[token..].iter_mut().step_by(PAGE_TOKENS)) {
                        *place = [E::of(pair[0]), E::of(pair[1])];
                    }
                } else {
                    let places = &mut places[token / 2 * layout.value_stride()..];
                    for (code, place) in codes[..d].iter().zip(places) {
                        place[token % 2] = E::of(*code);
                    }
                }
            }
        }
    }
}
