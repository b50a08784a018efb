//! Where keys and values are kept: pages of a fixed number of positions.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::SequenceRows;
use crate::compute::Compute;
use crate::memory::AlignedVec;
use crate::threads::DisjointMut;

/// Positions a page; also the keys that a step of the online softmax takes together.
pub const PAGE_TOKENS: usize = 32;
/// Elements a head at most.
pub const HEAD_DIM_MAX: usize = 512;

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
        let bytes = [layers, kv_heads, head_dim, pages as usize, PAGE_TOKENS, 2 * element.bytes()]
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
        2 * self.elements() * self.element.bytes()
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

    /// Keys, or values, of the whole cache.
    fn elements(&self) -> usize {
        self.layers * self.pages as usize * self.kv_heads * self.block()
    }

    /// Keys, or values, of one page and head.
    fn block(&self) -> usize {
        self.head_dim * PAGE_TOKENS
    }

    fn offset(&self, layer: usize, page: u32, kv_head: usize) -> usize {
        assert!(layer < self.layers && page < self.pages && kv_head < self.kv_heads, "outside the cache");
        ((layer * self.pages as usize + page as usize) * self.kv_heads + kv_head) * self.block()
    }
}

/// Keys and values of all layers. A block (one layer, page and head) holds keys as `[d, PAGE_TOKENS]`, so that scores
/// are computed for many tokens at once, and values as `[PAGE_TOKENS, d]`.
pub struct KvCache {
    layout: KvLayout,
    store: Store,
}

enum Store {
    F32 { keys: AlignedVec<f32>, values: AlignedVec<f32> },
    F16 { keys: AlignedVec<u16>, values: AlignedVec<u16> },
}

impl KvCache {
    /// An empty cache; its memory is taken from the machine as pages are first written.
    pub fn new(layout: KvLayout) -> KvCache {
        let n = layout.elements();
        let store = match layout.element {
            KvElement::F32 => Store::F32 { keys: AlignedVec::zeroed(n), values: AlignedVec::zeroed(n) },
            KvElement::F16 => Store::F16 { keys: AlignedVec::zeroed(n), values: AlignedVec::zeroed(n) },
        };
        KvCache { layout, store }
    }

    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Stores the keys and values, `[m, g·d]` each, of every sequence's rows of a batch.
    ///
    /// # Panics
    /// When a sequence's pages don't reach its rows' positions, or lengths don't fit.
    pub fn write(
        &mut self,
        compute: &Compute,
        layer: usize,
        sequences: &[SequenceRows<'_>],
        keys: &[f32],
        values: &[f32],
    ) {
        let layout = self.layout;
        match &mut self.store {
            Store::F32 { keys: k, values: v } => {
                write(compute, &layout, layer, sequences, (keys, k), (values, v), |x| x);
            }
            Store::F16 { keys: k, values: v } => {
                write(compute, &layout, layer, sequences, (keys, k), (values, v), |x| {
                    f16::from_f32(x).to_bits()
                });
            }
        }
    }

    /// One block's keys, `[d, PAGE_TOKENS]`, in `f32`; `scratch` is used where they are stored otherwise.
    pub(super) fn keys<'a>(
        &'a self,
        layer: usize,
        page: u32,
        kv_head: usize,
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        let start = self.layout.offset(layer, page, kv_head);
        match &self.store {
            Store::F32 { keys, .. } => &keys[start..start + self.layout.block()],
            Store::F16 { keys, .. } => widen(&keys[start..start + self.layout.block()], scratch),
        }
    }

    /// One block's values, `[PAGE_TOKENS, d]`, likewise.
    pub(super) fn values<'a>(
        &'a self,
        layer: usize,
        page: u32,
        kv_head: usize,
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        let start = self.layout.offset(layer, page, kv_head);
        match &self.store {
            Store::F32 { values, .. } => &values[start..start + self.layout.block()],
            Store::F16 { values, .. } => widen(&values[start..start + self.layout.block()], scratch),
        }
    }
}

fn widen<'a>(bits: &[u16], scratch: &'a mut [f32]) -> &'a [f32] {
    use half::slice::HalfBitsSliceExt;
    let halves: &[f16] = bits.reinterpret_cast();
    let scratch = &mut scratch[..bits.len()];
    halves.convert_to_f32_slice(scratch);
    scratch
}

/// Scatters the rows of a batch into their pages, one task a key/value head.
fn write<T: crate::memory::Zeroed>(
    compute: &Compute,
    layout: &KvLayout,
    layer: usize,
    sequences: &[SequenceRows<'_>],
    (keys, key_store): (&[f32], &mut [T]),
    (values, value_store): (&[f32], &mut [T]),
    narrow: impl Fn(f32) -> T + Sync,
) {
    let (heads, d) = (layout.kv_heads, layout.head_dim);
    assert_eq!(keys.len(), values.len(), "as many keys as values");
    let (key_store, value_store) = (DisjointMut::new(key_store), DisjointMut::new(value_store));
    let write_head = |head: usize| {
        for sequence in sequences {
            for (offset, row) in sequence.rows.clone().enumerate() {
                let position = sequence.first_position + offset;
                let token = position % PAGE_TOKENS;
                let start = layout.offset(layer, sequence.pages[position / PAGE_TOKENS], head);
                // SAFETY: blocks of different heads don't overlap, and one task has all of a head's blocks.
                let (key_block, value_block) = unsafe {
                    (key_store.slice(start, layout.block()), value_store.slice(start, layout.block()))
                };
                let source = (row * heads + head) * d..(row * heads + head + 1) * d;
                let column = key_block[token..].iter_mut().step_by(PAGE_TOKENS);
                column.zip(&keys[source.clone()]).for_each(|(out, x)| *out = narrow(*x));
                let out = &mut value_block[token * d..][..d];
                out.iter_mut().zip(&values[source]).for_each(|(out, x)| *out = narrow(*x));
            }
        }
    };
    // A fork and a join cost more than a few rows.
    if sequences.iter().map(|sequence| sequence.rows.len()).sum::<usize>() < 8 {
        (0..heads).for_each(write_head);
    } else {
        compute.pool.for_each(heads, write_head);
    }
}
