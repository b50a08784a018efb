//! Where keys and values are kept: pages of a fixed number of positions.

use half::f16;

use super::{Rows, SequenceRows};
use crate::compute::Compute;
use crate::lanes::{Element, Kernel, Lanes, WIDTH_MAX, dispatch};
use crate::memory::{AlignedVec, LINE_BYTES, Zeroed, prefetch};
use crate::threads::DisjointMut;

/// Positions a page; also the keys that a step of the online softmax takes together.
pub const PAGE_TOKENS: usize = 32;
/// Elements a head at most.
pub const HEAD_DIM_MAX: usize = 512;
/// Rows from which on a batch is written by several threads: a fork and a join cost more than a few rows.
const PARALLEL_ROWS_MIN: usize = 8;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvElement {
    F32,
    /// Half the memory, with a relative rounding of 2^-11 on each key and value.
    F16,
}

impl KvElement {
    /// The name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            KvElement::F32 => "f32",
            KvElement::F16 => "f16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            KvElement::F32 => 4,
            KvElement::F16 => 2,
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
        let bytes = [layers, kv_heads, padded, pages as usize, PAGE_TOKENS, 2 * element.bytes()]
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
        self.blocks() * (self.key_block() + self.value_block()) * self.element.bytes()
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

    /// Elements from one token's values to the next one's: the head's size, padded to whole vectors.
    pub(super) fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(WIDTH_MAX)
    }

    /// Blocks of the whole cache; one holds the keys, or the values, of a layer, page and head.
    fn blocks(&self) -> usize {
        self.layers * self.pages as usize * self.kv_heads
    }

    fn key_block(&self) -> usize {
        PAGE_TOKENS * self.head_dim
    }

    fn value_block(&self) -> usize {
        PAGE_TOKENS * self.value_stride()
    }

    fn block(&self, layer: usize, page: u32, kv_head: usize) -> usize {
        assert!(layer < self.layers && page < self.pages && kv_head < self.kv_heads, "outside the cache");
        (layer * self.pages as usize + page as usize) * self.kv_heads + kv_head
    }
}

/// How one key or value is stored.
pub(super) trait Kept: Element + Zeroed {
    /// Rounds `from` to the elements of `to`, which is as long.
    fn narrow<L: Lanes>(lanes: L, from: &[f32], to: &mut [Self]);
}

impl Kept for f32 {
    #[inline(always)]
    fn narrow<L: Lanes>(_: L, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl Kept for f16 {
    #[inline(always)]
    fn narrow<L: Lanes>(lanes: L, from: &[f32], to: &mut [f16]) {
        assert_eq!(from.len(), to.len());
        let whole = from.len() - from.len() % L::WIDTH;
        // Beyond the largest half an infinity would reach rows that weigh it with zero, and make them NaN.
        let (most, least) = (lanes.splat(f16::MAX.to_f32()), lanes.splat(f16::MIN.to_f32()));
        for i in (0..whole).step_by(L::WIDTH) {
            // SAFETY: `i + WIDTH` is within `whole`, and that within both lengths.
            unsafe {
                let values = lanes.max(least, lanes.min(most, lanes.load(from.as_ptr().add(i))));
                lanes.store_f16(to.as_mut_ptr().add(i), values);
            }
        }
        for i in whole..from.len() {
            to[i] = f16::from_f32(from[i].clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
        }
    }
}

/// Keys and values of all layers. A block (one layer, page and head) holds keys as `[d, PAGE_TOKENS]`, so that scores
/// are computed for many tokens at once, and values as `[PAGE_TOKENS, d padded to whole vectors]`.
pub struct KvCache {
    layout: KvLayout,
    pub(super) store: Store,
}

pub(super) enum Store {
    F32(KvStore<f32>),
    F16(KvStore<f16>),
}

/// The blocks of a cache, as elements of one type.
pub(super) struct KvStore<E: Kept> {
    layout: KvLayout,
    keys: AlignedVec<E>,
    values: AlignedVec<E>,
}

impl KvCache {
    /// An empty cache; its memory is taken from the machine as pages are first written.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::OutOfMemory`] when the machine refuses the address space.
    pub fn new(layout: KvLayout) -> std::io::Result<KvCache> {
        let store = match layout.element {
            KvElement::F32 => Store::F32(KvStore::new(layout)?),
            KvElement::F16 => Store::F16(KvStore::new(layout)?),
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
            Store::F32(store) => store.write(compute, layer, sequences, keys, values),
            Store::F16(store) => store.write(compute, layer, sequences, keys, values),
        }
    }
}

impl<E: Kept> KvStore<E> {
    fn new(layout: KvLayout) -> std::io::Result<KvStore<E>> {
        let keys = AlignedVec::try_zeroed(layout.blocks() * layout.key_block())?;
        let values = AlignedVec::try_zeroed(layout.blocks() * layout.value_block())?;
        Ok(KvStore { layout, keys, values })
    }

    pub(super) fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// One block's keys, `[d, PAGE_TOKENS]`.
    #[inline(always)]
    pub(super) fn keys(&self, layer: usize, page: u32, kv_head: usize) -> &[E] {
        let length = self.layout.key_block();
        &self.keys[self.layout.block(layer, page, kv_head) * length..][..length]
    }

    /// One block's values, `[PAGE_TOKENS, d padded]`.
    #[inline(always)]
    pub(super) fn values(&self, layer: usize, page: u32, kv_head: usize) -> &[E] {
        let length = self.layout.value_block();
        &self.values[self.layout.block(layer, page, kv_head) * length..][..length]
    }

    /// Asks for a block's keys and values before they are read.
    #[inline(always)]
    pub(super) fn prefetch(&self, layer: usize, page: u32, kv_head: usize) {
        for block in [self.keys(layer, page, kv_head), self.values(layer, page, kv_head)] {
            let start = block.as_ptr().addr();
            for at in (0..size_of_val(block)).step_by(LINE_BYTES) {
                prefetch(start + at);
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
        let layout = self.layout;
        let (key_store, value_store) = (DisjointMut::new(&mut self.keys), DisjointMut::new(&mut self.values));
        let task = |index: usize| {
            let (kv_head, is_key) = (index / 2, index.is_multiple_of(2));
            let (rows, store) = if is_key { (keys, &key_store) } else { (values, &value_store) };
            let place = Place { layout: &layout, layer, kv_head, is_key };
            dispatch(compute.isa(), WriteHead { place, sequences, rows, store });
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

/// Writes the keys, or the values, of one head.
struct WriteHead<'a, E> {
    place: Place<'a>,
    sequences: &'a [SequenceRows<'a>],
    /// Of `g·d` elements.
    rows: Rows<'a>,
    store: &'a DisjointMut<'a, E>,
}

impl<E: Kept> Kernel for WriteHead<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Place { layout, layer, kv_head, is_key } = self.place;
        let d = layout.head_dim;
        let (length, stride) =
            if is_key { (layout.key_block(), 1) } else { (layout.value_block(), layout.value_stride()) };
        let mut narrowed = [E::zero(); HEAD_DIM_MAX];
        for sequence in self.sequences {
            for row in sequence.rows.clone() {
                let position = sequence.first_position + (row - sequence.rows.start);
                let page = sequence.pages[position / PAGE_TOKENS];
                let start = layout.block(layer, page, kv_head) * length;
                // SAFETY: blocks of different heads don't overlap, and one task has all of a head's blocks in this store.
                let block = unsafe { self.store.slice(start, length) };
                let source = self.rows.part(row, kv_head * d..(kv_head + 1) * d);
                let token = &mut block[position % PAGE_TOKENS * stride..];
                if is_key {
                    E::narrow(lanes, source, &mut narrowed[..d]);
                    for (i, key) in narrowed[..d].iter().enumerate() {
                        token[i * PAGE_TOKENS] = *key;
                    }
                } else {
                    E::narrow(lanes, source, &mut token[..d]);
                }
            }
        }
    }
}
