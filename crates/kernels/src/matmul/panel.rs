//! How quantised weights lie in a panel.
//!
//! A panel has `N` output columns. Along `k` it is a run of super-blocks of `per_super` blocks of 32 elements:
//!
//! ```text
//! super-block: d [N] f16, m [N] f16 (where there is one), then its blocks
//! block:       scales [N] or [N, 2] i8, mins [N] or [N, 2] u8 (where there are any), low plane, high plane
//! plane:       groups of 4 elements of k: the codes of column c of group g are the bits of 32-bit lane c
//! ```
//!
//! A plane of `B` bits keeps `8 / B` groups in one vector of `4·N` bytes: group `g` is vector `g / (8/B)` shifted right
//! by `B · (g % (8/B))` and masked. The code is `low | high << LOW`.

use crate::elements::{BLOCK, Block, ElementType, zero_point};

/// Elements of `k` in one group: what a 32-bit lane holds.
pub(super) const GROUP: usize = 4;
/// Groups of a block.
pub(super) const GROUPS: usize = BLOCK / GROUP;

/// What kind of numbers a packed matrix holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    Float(ElementType),
    Quantized(Format),
}

/// What differs between the quantised types, once packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub element_type: ElementType,
    /// Bits of the low and the high plane; the high one may be absent.
    pub low_bits: usize,
    pub high_bits: usize,
    /// Codes are indices into [`crate::elements::NONLINEAR`].
    pub nonlinear: bool,
    /// log2 of what is taken off each code, where anything is.
    pub zero_shift: Option<u32>,
    pub has_min: bool,
    /// Small integer scales that each block has: none, one, or one a half.
    pub sub_scales: usize,
    /// Blocks that share `d` and `m`.
    pub per_super: usize,
}

impl Format {
    /// The format of a quantised type; `None` for floats.
    pub fn of(element_type: ElementType) -> Option<Format> {
        use ElementType::*;
        let (low_bits, high_bits) = match element_type {
            F32 | F16 | BF16 => return None,
            Q4_0 | Q4_1 | Q4_K | IQ4_NL | IQ4_XS => (4, 0),
            Q5_0 | Q5_1 | Q5_K => (4, 1),
            Q6_K => (4, 2),
            Q8_0 => (4, 4),
            Q2_K => (2, 0),
            Q3_K => (2, 1),
        };
        let zero = zero_point(element_type);
        Some(Format {
            element_type,
            low_bits,
            high_bits,
            nonlinear: matches!(element_type, IQ4_NL | IQ4_XS),
            zero_shift: (zero > 0).then(|| zero.ilog2()),
            has_min: matches!(element_type, Q4_1 | Q5_1 | Q2_K | Q4_K | Q5_K),
            sub_scales: match element_type {
                Q2_K | Q3_K | Q6_K => 2,
                Q4_K | Q5_K | IQ4_XS => 1,
                _ => 0,
            },
            per_super: element_type.block_elements() / BLOCK,
        })
    }

    /// Bytes of `d` and `m` of a super-block.
    pub const fn header_bytes(&self, n: usize) -> usize {
        n * if self.has_min { 4 } else { 2 }
    }

    /// Bytes of the small scales of a block; its mins take as many where it has any.
    pub const fn scale_bytes(&self, n: usize) -> usize {
        n * self.sub_scales
    }

    /// Bytes of a block before its planes.
    pub const fn block_header_bytes(&self, n: usize) -> usize {
        self.scale_bytes(n) * if self.has_min { 2 } else { 1 }
    }

    pub const fn low_bytes(&self, n: usize) -> usize {
        n * BLOCK * self.low_bits / 8
    }

    pub const fn high_bytes(&self, n: usize) -> usize {
        n * BLOCK * self.high_bits / 8
    }

    pub const fn block_bytes(&self, n: usize) -> usize {
        self.block_header_bytes(n) + self.low_bytes(n) + self.high_bytes(n)
    }

    pub const fn super_bytes(&self, n: usize) -> usize {
        self.header_bytes(n) + self.per_super * self.block_bytes(n)
    }

    /// Writes block `index` of column `column` into a panel of `n` columns.
    pub fn store(&self, panel: &mut [u8], n: usize, column: usize, index: usize, block: &Block) {
        let super_block = &mut panel[index / self.per_super * self.super_bytes(n)..][..self.super_bytes(n)];
        let (header, blocks) = super_block.split_at_mut(self.header_bytes(n));
        header[2 * column..][..2].copy_from_slice(&block.d.to_le_bytes());
        if self.has_min {
            header[2 * (n + column)..][..2].copy_from_slice(&block.m.to_le_bytes());
        }
        let bytes = &mut blocks[index % self.per_super * self.block_bytes(n)..][..self.block_bytes(n)];
        let (small, planes) = bytes.split_at_mut(self.block_header_bytes(n));
        for half in 0..self.sub_scales {
            small[column * self.sub_scales + half] = block.scales[half] as u8;
            if self.has_min {
                small[self.scale_bytes(n) + column * self.sub_scales + half] = block.mins[half];
            }
        }
        let (low, high) = planes.split_at_mut(self.low_bytes(n));
        for (i, code) in block.codes.iter().enumerate() {
            store_code(low, self.low_bits, n, column, i, code & ((1 << self.low_bits) - 1));
            if self.high_bits > 0 {
                store_code(high, self.high_bits, n, column, i, code >> self.low_bits);
            }
        }
    }
}

/// Where the bits of element `i` of `column` are in a plane of `bits`: byte and shift.
pub(super) fn place(bits: usize, n: usize, column: usize, i: usize) -> (usize, usize) {
    let (group, per_vector) = (i / GROUP, 8 / bits);
    (group / per_vector * GROUP * n + column * GROUP + i % GROUP, bits * (group % per_vector))
}

fn store_code(plane: &mut [u8], bits: usize, n: usize, column: usize, i: usize, code: u8) {
    let (byte, shift) = place(bits, n, column, i);
    plane[byte] |= code << shift;
}
