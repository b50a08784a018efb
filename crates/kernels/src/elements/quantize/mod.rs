//! Numbers become quantised blocks, with the least weighted squared error that a search finds.
//!
//! Sixteen sub-blocks are searched side by side, one in each lane, so that nothing is added across a vector
//! (`fit.rs`). Types with super-blocks then choose the integers that scale their sub-blocks together with the two floats
//! that scale those (`scales.rs`). `pack.rs` writes what `blocks.rs` reads.
//!
//! The error is `Σ w (x - y)²`: the weight of a column says how much it matters there, which is how large the activations
//! are that it is multiplied with; and since what is known of that is inexact, large numbers count more.

mod fit;
mod pack;
mod scales;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use super::{BLOCK, ElementType};
use crate::compute::Isa;
use crate::lanes::WIDTH_MAX;
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
type GroupCodes = [[f32; LANES]; BLOCK];

/// Rows of `columns` numbers, of at most 1e9 in size, as `element_type`. `importance` has one number for each column, of
/// at least 0: the mean square of what the column is multiplied with; without it all columns count the same.
///
/// Floats are rounded to nearest; what a type of 16 bits has no number for becomes infinite. The same rows give the same
/// bytes on one instruction set, however they are divided among calls.
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
) {
    assert!(columns > 0 && values.len().is_multiple_of(columns), "whole rows of {columns}");
    assert!(columns.is_multiple_of(element_type.block_elements()), "whole blocks of {element_type}");
    assert_eq!(Some(out.len()), element_type.row_bytes(values.len()), "bytes of {element_type}");
    assert!(importance.is_none_or(|importance| importance.len() == columns), "one importance a column");
    match element_type {
        ElementType::F32 => {
            let (out, _) = out.as_chunks_mut::<4>();
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value.to_le_bytes());
        }
        ElementType::F16 => {
            let (out, _) = out.as_chunks_mut::<2>();
            out.iter_mut().zip(values).for_each(|(out, x)| *out = f16::from_f32(*x).to_le_bytes());
        }
        ElementType::BF16 => {
            let (out, _) = out.as_chunks_mut::<2>();
            out.iter_mut().zip(values).for_each(|(out, x)| *out = bf16::from_f32(*x).to_le_bytes());
        }
        _ => {
            for (row, out) in values.chunks_exact(columns).zip(rows_of(out, element_type, columns)) {
                quantize_row(isa, element_type, row, importance, out);
            }
        }
    }
}

fn rows_of(out: &mut [u8], element_type: ElementType, columns: usize) -> impl Iterator<Item = &mut [u8]> {
    out.chunks_exact_mut(columns / element_type.block_elements() * element_type.block_bytes())
}

/// A row of blocks, as many at a time as fill the lanes.
fn quantize_row(
    isa: Isa,
    element_type: ElementType,
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    let elements = sub_block(element_type);
    let per_group = LANES * elements;
    let group_bytes = per_group / element_type.block_elements() * element_type.block_bytes();
    for (index, (part, out)) in row.chunks(per_group).zip(out.chunks_mut(group_bytes)).enumerate() {
        let importance = importance.map(|all| &all[index * per_group..][..part.len()]);
        let group = Group::gather(isa, elements, part, importance);
        let blocks = out.chunks_exact_mut(element_type.block_bytes());
        match element_type.block_elements() {
            BLOCK => quantize_blocks(isa, element_type, &group, blocks),
            _ => scales::quantize_super_blocks(isa, element_type, &group, blocks),
        }
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
    /// Lanes that `values` don't reach are zeros.
    fn gather(isa: Isa, elements: usize, values: &[f32], importance: Option<&[f32]>) -> Group {
        let mut group = Group { x: [[0.0; LANES]; BLOCK], w: [[1.0; LANES]; BLOCK], elements };
        for (lane, sub) in values.chunks_exact(elements).enumerate() {
            for (i, x) in sub.iter().enumerate() {
                group.x[i][lane] = *x;
            }
        }
        for (lane, sub) in importance.unwrap_or_default().chunks_exact(elements).enumerate() {
            for (i, important) in sub.iter().enumerate() {
                group.w[i][lane] = *important;
            }
        }
        fit::run(isa, Weigh { group: &mut group });
        group
    }
}

/// Blocks of 32 that have their own scale, and minimum where the type has one.
fn quantize_blocks<'o>(
    isa: Isa,
    element_type: ElementType,
    group: &Group,
    blocks: impl Iterator<Item = &'o mut [u8]>,
) {
    use ElementType::*;
    let (mut d, mut m) = ([0.0; LANES], [0.0; LANES]);
    let codes = match element_type {
        Q4_1 | Q5_1 => {
            let top = if element_type == Q4_1 { 15.0 } else { 31.0 };
            fit::run(isa, FitAffine { group, top, positive_min: true, scale: &mut d, min: &mut m });
            (d, m) = (d.map(round_to_f16), m.map(round_to_f16));
            fit::codes(isa, Codes { group, grid: Integers { low: 0.0, high: top }, scale: &d, min: &m })
        }
        IQ4_NL => {
            fit::run(isa, FitSymmetric { group, grid: Nonlinear, scale: &mut d });
            d = d.map(round_to_f16);
            fit::codes(isa, Codes { group, grid: Nonlinear, scale: &d, min: &m })
        }
        _ => {
            let grid = match element_type {
                Q4_0 => Integers { low: -8.0, high: 7.0 },
                Q5_0 => Integers { low: -16.0, high: 15.0 },
                _ => Integers { low: -127.0, high: 127.0 },
            };
            fit::run(isa, FitSymmetric { group, grid, scale: &mut d });
            d = d.map(round_to_f16);
            fit::codes(isa, Codes { group, grid, scale: &d, min: &m })
        }
    };
    for (lane, out) in blocks.enumerate() {
        pack::block(element_type, d[lane], m[lane], &std::array::from_fn(|i| codes[i][lane] as i32), out);
    }
}

/// The nearest number of 16 bits that isn't infinite.
fn round_to_f16(x: f32) -> f32 {
    let most = f16::MAX.to_f32();
    f16::from_f32(x.clamp(-most, most)).to_f32()
}
