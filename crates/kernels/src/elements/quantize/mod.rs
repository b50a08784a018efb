//! Numbers become quantised blocks, with the least weighted squared error that a search finds.
//!
//! Sixteen sub-blocks are searched side by side, one in each lane, so that nothing is added across a vector
//! (`fit.rs`). Types with super-blocks then choose the integers that scale their sub-blocks together with the two floats
//! that scale those (`scales.rs`). `pack.rs` writes what `blocks.rs` reads.
//!
//! The error is `Σ w (x - y)²`: the weight of a column says how much it matters there, which is how large the activations
//! are that it is multiplied with. Where that isn't known, large numbers count more; where it is, that makes models worse.

mod compensated;
mod fit;
mod pack;
mod scales;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use super::{BLOCK, ElementType};
use crate::compute::Isa;
use crate::lanes::WIDTH_MAX;
pub use compensated::{is_compensable, quantize_compensated};
use fit::{Codes, FitAffine, FitSymmetric, Integers, Nonlinear, Weigh};

/// Sub-blocks that are searched together.
const LANES: usize = WIDTH_MAX;

/// Sixteen sub-blocks side by side: `x[i][lane]` is element `i` of sub-block `lane`, and `w` its weight.
struct Group {
    x: [[f32; LANES]; BLOCK],
    w: [[f32; LANES]; BLOCK],
    /// Elements of a sub-block: 16 or 32.
    elements: usize,
}

/// One number a lane.
type PerLane = [f32; LANES];

/// The elements of each lane's sub-block, as codes before a zero point is added.
type GroupCodes = [[i8; LANES]; BLOCK];

/// Rows of `columns` numbers, of at most 1e9 in size, as `element_type`. `importance` has one number for each column, of
/// at least 0: the mean square of what the column is multiplied with; without it all columns count the same.
///
/// Floats are rounded to nearest; what a type of 16 bits has no number for becomes infinite. The same rows give the same
/// bytes on one instruction set, however they are divided among calls. Gives the sum of the squared errors.
///
/// # Panics
/// When `values` are no whole rows, a row is no whole number of blocks, or `out` and `importance` don't fit them.
pub fn quantize(
    isa: Isa,
    element_type: ElementType,
    values: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> f64 {
    assert!(columns > 0 && values.len().is_multiple_of(columns), "whole rows of {columns}");
    assert!(columns.is_multiple_of(element_type.block_elements()), "whole blocks of {element_type}");
    assert_eq!(Some(out.len()), element_type.row_bytes(values.len()), "bytes of {element_type}");
    assert!(importance.is_none_or(|importance| importance.len() == columns), "one importance a column");
    match element_type {
        ElementType::F32 => {
            let (out, _) = out.as_chunks_mut::<4>();
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value.to_le_bytes());
            0.0
        }
        ElementType::F16 => {
            round(values, out, |x| (f16::from_f32(x).to_le_bytes(), f16::from_f32(x).to_f32()))
        }
        ElementType::BF16 => {
            round(values, out, |x| (bf16::from_f32(x).to_le_bytes(), bf16::from_f32(x).to_f32()))
        }
        _ => {
            let mut work = Work::new(isa, element_type);
            let mut error = 0.0;
            let row_bytes = columns / element_type.block_elements() * element_type.block_bytes();
            for (row, out) in values.chunks_exact(columns).zip(out.chunks_exact_mut(row_bytes)) {
                error += work.quantize_row(row, importance, out);
            }
            error
        }
    }
}

/// Numbers of 16 bits, and their squared error.
fn round(values: &[f32], out: &mut [u8], nearest: impl Fn(f32) -> ([u8; 2], f32)) -> f64 {
    let mut error = 0.0;
    for (out, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
        let (bytes, rounded) = nearest(*x);
        *out = bytes;
        error += f64::from((x - rounded) * (x - rounded));
    }
    error
}

/// What a row is quantised with, used again for the next.
struct Work {
    isa: Isa,
    element_type: ElementType,
    group: Group,
    codes: GroupCodes,
}

impl Work {
    fn new(isa: Isa, element_type: ElementType) -> Work {
        let elements = sub_block(element_type);
        let group = Group { x: [[0.0; LANES]; BLOCK], w: [[0.0; LANES]; BLOCK], elements };
        Work { isa, element_type, group, codes: [[0; LANES]; BLOCK] }
    }

    /// A row of blocks, as many at a time as fill the lanes.
    fn quantize_row(&mut self, row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> f64 {
        let per_group = LANES * self.group.elements;
        let (elements, bytes) = (self.element_type.block_elements(), self.element_type.block_bytes());
        let group_bytes = per_group / elements * bytes;
        let mut error = 0.0;
        for (index, (part, out)) in row.chunks(per_group).zip(out.chunks_mut(group_bytes)).enumerate() {
            let importance = importance.map(|all| &all[index * per_group..][..part.len()]);
            self.group.fill(self.isa, part, importance);
            let blocks = out.chunks_exact_mut(bytes);
            error += match elements {
                BLOCK => self.quantize_blocks(blocks),
                _ => scales::quantize_super_blocks(self, blocks),
            };
        }
        error
    }

    /// Blocks of 32 that have their own scale, and minimum where the type has one.
    fn quantize_blocks<'o>(&mut self, blocks: impl Iterator<Item = &'o mut [u8]>) -> f64 {
        use ElementType::*;
        let (isa, element_type, group, codes) = (self.isa, self.element_type, &self.group, &mut self.codes);
        let (mut d, mut m) = ([0.0; LANES], [0.0; LANES]);
        let error = match element_type {
            Q4_1 | Q5_1 => {
                let grid = Integers { low: 0.0, high: if element_type == Q4_1 { 15.0 } else { 31.0 } };
                let (scale, min) = (&mut d, &mut m);
                fit::run(isa, FitAffine { group, top: grid.high, positive_min: true, scale, min });
                (d, m) = (d.map(round_to_f16), m.map(round_to_f16));
                fit::run(isa, Codes { group, grid, scale: &d, min: &m, codes })
            }
            IQ4_NL => {
                fit::run(isa, FitSymmetric { group, grid: Nonlinear, scale: &mut d });
                d = d.map(round_to_f16);
                fit::run(isa, Codes { group, grid: Nonlinear, scale: &d, min: &m, codes })
            }
            _ => {
                let grid = match element_type {
                    Q4_0 => Integers { low: -8.0, high: 7.0 },
                    Q5_0 => Integers { low: -16.0, high: 15.0 },
                    _ => Integers { low: -127.0, high: 127.0 },
                };
                fit::run(isa, FitSymmetric { group, grid, scale: &mut d });
                d = d.map(round_to_f16);
                fit::run(isa, Codes { group, grid, scale: &d, min: &m, codes })
            }
        };
        let codes = by_lane(codes);
        for (lane, out) in blocks.enumerate() {
            pack::block(element_type, d[lane], m[lane], &codes[lane], out);
        }
        error
    }
}

/// Elements that share one scale.
fn sub_block(element_type: ElementType) -> usize {
    match element_type {
        ElementType::Q2_K | ElementType::Q3_K | ElementType::Q6_K => 16,
        _ => BLOCK,
    }
}

impl Group {
    /// Takes in the elements of up to sixteen sub-blocks; lanes that `values` don't reach are zeros.
    fn fill(&mut self, isa: Isa, values: &[f32], importance: Option<&[f32]>) {
        if values.len() < LANES * self.elements {
            self.x = [[0.0; LANES]; BLOCK];
        }
        side_by_side(values, self.elements, &mut self.x);
        match importance {
            Some(importance) => side_by_side(importance, self.elements, &mut self.w),
            None => {
                self.w = [[1.0; LANES]; BLOCK];
                fit::run(isa, Weigh { group: self });
            }
        }
    }
}

/// Element `i` of each sub-block into `to[i]`. Of a whole group all lanes are read at once, which is several times as fast.
fn side_by_side(values: &[f32], elements: usize, to: &mut [[f32; LANES]; BLOCK]) {
    if values.len() == LANES * elements {
        for (i, to) in to.iter_mut().take(elements).enumerate() {
            *to = std::array::from_fn(|lane| values[lane * elements + i]);
        }
        return;
    }
    for (lane, sub) in values.chunks_exact(elements).enumerate() {
        for (to, value) in to.iter_mut().zip(sub) {
            to[lane] = *value;
        }
    }
}

/// The codes of each lane's sub-block together.
fn by_lane(codes: &GroupCodes) -> [[i8; BLOCK]; LANES] {
    std::array::from_fn(|lane| std::array::from_fn(|i| codes[i][lane]))
}

/// The nearest number of 16 bits that isn't infinite.
fn round_to_f16(x: f32) -> f32 {
    let most = f16::MAX.to_f32();
    f16::from_f32(x.clamp(-most, most)).to_f32()
}
