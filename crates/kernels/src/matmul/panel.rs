//! How quantised weights lie in a panel.
//!
//! A panel has `N` output columns. Along `k` it is a run of super-blocks of `per_super` blocks of 32 elements:
//!
//! ```text
//! super-block: d [N] f16, m [N] f16 (where there is one), then its blocks
//! block:       small scales and mins, low plane, high plane (where there is one)
//! small:       scales [N] i8, then mins [N] u8 (Q4_K, Q5_K); scales [N, 2] i8 (Q3_K, Q6_K); scales [N] i8 (IQ4_XS);
//!              [N, 2] of scale in the low half, min in the high (Q2_K); nothing for the others
//! plane:       groups of 4 elements of k: the codes of column c of group g are the bits of 32-bit lane c
//! ```
//!
//! A plane of `B` bits keeps `8 / B` groups in one vector of `4·N` bytes: group `g` is vector `g / (8/B)` shifted right
//! by `B · (g % (8/B))` and masked. The code is `low | high << LOW`.

use half::f16;

use crate::elements::{BLOCK, Block, ElementType, zero_point};

/// Elements of `k` in one group: what a 32-bit lane holds.
pub(super) const GROUP: usize = 4;
/// Groups of a block.
pub(super) const GROUPS: usize = BLOCK / GROUP;

/// What kind of numbers a packed matrix holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    Float(ElementType),
    /// bfloat16, two neighbours in `k` together.
    Pairs,
    Quantized(Format),
}

/// The small integers that each block has beside its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Small {
    None,
    Scale,
    ScaleAndMin,
    /// One for each half of the block.
    ScaleOfHalf,
    /// The same, both in one byte.
    ScaleAndMinOfHalf,
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
    pub small: Small,
    /// Blocks that share `d` and `m`.
    pub per_super: usize,
}

/// A type's format where a constant is needed: `T` is the place in [`ElementType::ALL`].
pub(super) struct Of<const T: usize>;

/// Calls `$function::<T>($arguments)` for a quantised type, `T` its place in [`ElementType::ALL`].
macro_rules! for_quantized {
    ($element_type:expr, $function:ident($($argument:expr),*)) => {
        for_quantized!(@ $element_type, $function($($argument),*),
            Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS)
    };
    (@ $element_type:expr, $function:ident $arguments:tt, $($type:ident)*) => {
        match $element_type {
            $($crate::elements::ElementType::$type => {
                for_quantized!(@call $function, $type, $arguments)
            })*
            _ => unreachable!("float panels have their own product"),
        }
    };
    (@call $function:ident, $type:ident, ($($argument:expr),*)) => {
        $function::<{ $crate::elements::ElementType::$type as usize }>($($argument),*)
    };
}
pub(super) use for_quantized;

impl<const T: usize> Of<T> {
    pub const FORMAT: Format = match Format::of(ElementType::ALL[T]) {
        Some(format) => format,
        None => panic!("a float type has no format"),
    };
}

impl Format {
    /// The format of a quantised type; `None` for floats.
    pub const fn of(element_type: ElementType) -> Option<Format> {
        use ElementType::*;
        let (low_bits, high_bits) = match element_type {
            F32 | F16 | BF16 => return None,
            Q4_0 | Q4_1 | Q4_K | IQ4_NL | IQ4_XS => (4, 0),
            Q5_0 | Q5_1 | Q5_K => (4, 1),
            Q6_K => (4, 2),
            Q8_0 => (8, 0),
            Q2_K => (2, 0),
            Q3_K => (2, 1),
        };
        let zero = zero_point(element_type);
        Some(Format {
            element_type,
            low_bits,
            high_bits,
            nonlinear: matches!(element_type, IQ4_NL | IQ4_XS),
            zero_shift: if zero > 0 { Some(zero.ilog2()) } else { None },
            has_min: matches!(element_type, Q4_1 | Q5_1 | Q2_K | Q4_K | Q5_K),
            small: match element_type {
                Q4_K | Q5_K => Small::ScaleAndMin,
                IQ4_XS => Small::Scale,
                Q3_K | Q6_K => Small::ScaleOfHalf,
                Q2_K => Small::ScaleAndMinOfHalf,
                _ => Small::None,
            },
            per_super: element_type.block_elements() / BLOCK,
        })
    }

    /// Bytes of `d` and `m` of a super-block.
    pub const fn header_bytes(&self, n: usize) -> usize {
        n * if self.has_min { 4 } else { 2 }
    }

    /// Bytes of a block's small scales and mins.
    pub const fn small_bytes(&self, n: usize) -> usize {
        match self.small {
            Small::None => 0,
            Small::Scale => n,
            Small::ScaleAndMin | Small::ScaleOfHalf | Small::ScaleAndMinOfHalf => 2 * n,
        }
    }

    pub const fn low_bytes(&self, n: usize) -> usize {
        n * BLOCK * self.low_bits / 8
    }

    pub const fn high_bytes(&self, n: usize) -> usize {
        n * BLOCK * self.high_bits / 8
    }

    pub const fn block_bytes(&self, n: usize) -> usize {
        self.small_bytes(n) + self.low_bytes(n) + self.high_bytes(n)
    }

    pub const fn super_bytes(&self, n: usize) -> usize {
        self.header_bytes(n) + self.per_super * self.block_bytes(n)
    }

    /// Writes block `index` of column `column` into a panel of `n` columns, which was all zeros there.
    #[inline(always)]
    pub fn store(&self, panel: &mut [u8], n: usize, column: usize, index: usize, block: &Block) {
        let super_block = &mut panel[index / self.per_super * self.super_bytes(n)..][..self.super_bytes(n)];
        let (header, blocks) = super_block.split_at_mut(self.header_bytes(n));
        header[2 * column..][..2].copy_from_slice(&block.d.to_le_bytes());
        if self.has_min {
            header[2 * (n + column)..][..2].copy_from_slice(&block.m.to_le_bytes());
        }
        let bytes = &mut blocks[index % self.per_super * self.block_bytes(n)..][..self.block_bytes(n)];
        let (small, planes) = bytes.split_at_mut(self.small_bytes(n));
        match self.small {
            Small::None => {}
            Small::Scale => small[column] = block.scales[0] as u8,
            Small::ScaleAndMin => {
                (small[column], small[n + column]) = (block.scales[0] as u8, block.mins[0]);
            }
            Small::ScaleOfHalf => {
                small[2 * column..][..2].copy_from_slice(&block.scales.map(|scale| scale as u8));
            }
            Small::ScaleAndMinOfHalf => {
                for half in 0..2 {
                    small[2 * column + half] = block.scales[half] as u8 | block.mins[half] << 4;
                }
            }
        }
        let (low, high) = planes.split_at_mut(self.low_bytes(n));
        store_plane(low, self.low_bits, n, column, &block.codes, 0);
        if self.high_bits > 0 {
            store_plane(high, self.high_bits, n, column, &block.codes, self.low_bits);
        }
    }

    /// Reads what [`Format::store`] wrote.
    pub fn load(&self, panel: &[u8], n: usize, column: usize, index: usize) -> Block {
        let super_block = &panel[index / self.per_super * self.super_bytes(n)..][..self.super_bytes(n)];
        let (header, blocks) = super_block.split_at(self.header_bytes(n));
        let half_float = |at: usize| f16::from_le_bytes([header[2 * at], header[2 * at + 1]]);
        let bytes = &blocks[index % self.per_super * self.block_bytes(n)..][..self.block_bytes(n)];
        let (small, planes) = bytes.split_at(self.small_bytes(n));
        let (low, high) = planes.split_at(self.low_bytes(n));
        let halves = [0, 1].map(|half| self.small(small, n, column, half));
        Block {
            d: half_float(column),
            m: if self.has_min { half_float(n + column) } else { f16::ZERO },
            codes: std::array::from_fn(|i| self.code(low, high, n, column, i)),
            scales: halves.map(|(scale, _)| scale as i8),
            mins: halves.map(|(_, min)| if self.has_min { min as u8 } else { 0 }),
        }
    }

    /// The code of element `i` of `column`, out of the two planes.
    pub fn code(&self, low: &[u8], high: &[u8], n: usize, column: usize, i: usize) -> u8 {
        let bits = |plane: &[u8], bits: usize| {
            let (byte, shift) = place(bits, n, column, i);
            plane[byte] >> shift & ((1u32 << bits) - 1) as u8
        };
        let code = bits(low, self.low_bits);
        if self.high_bits > 0 { code | bits(high, self.high_bits) << self.low_bits } else { code }
    }

    /// Small scale and min of half `half` of a block, in `small`, the block's small bytes; ones where it has none.
    pub fn small(&self, small: &[u8], n: usize, column: usize, half: usize) -> (i32, i32) {
        match self.small {
            Small::None => (1, 1),
            Small::Scale => (i32::from(small[column] as i8), 0),
            Small::ScaleAndMin => (i32::from(small[column] as i8), i32::from(small[n + column])),
            Small::ScaleOfHalf => (i32::from(small[2 * column + half] as i8), 0),
            Small::ScaleAndMinOfHalf => {
                let both = small[2 * column + half];
                (i32::from(both & 15), i32::from(both >> 4))
            }
        }
    }
}

/// Where the bits of element `i` of `column` are in a plane of `bits`: byte and shift.
fn place(bits: usize, n: usize, column: usize, i: usize) -> (usize, usize) {
    let (group, per_vector) = (i / GROUP, 8 / bits);
    (group / per_vector * GROUP * n + column * GROUP + i % GROUP, bits * (group % per_vector))
}

/// Adds `bits` bits of each code, from bit `from` on, to `column` of a plane: a group's four codes at a time.
#[inline(always)]
fn store_plane(plane: &mut [u8], bits: usize, n: usize, column: usize, codes: &[u8; BLOCK], from: usize) {
    let mask = u32::from_le_bytes([((1u32 << bits) - 1) as u8; 4]);
    let groups = codes.as_chunks::<GROUP>().0;
    for (vector, groups) in groups.chunks_exact(8 / bits).enumerate() {
        let lane = groups
            .iter()
            .enumerate()
            .fold(0, |lane, (i, group)| lane | (u32::from_le_bytes(*group) >> from & mask) << (bits * i));
        plane[(vector * n + column) * GROUP..][..GROUP].copy_from_slice(&lane.to_le_bytes());
    }
}
