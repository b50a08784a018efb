//! What the quantised blocks mean: portable Rust, and the specification of every faster path.
//!
//! Source: the block layouts of ggml (`ggml-common.h`, `ggml-quants.c`) as published with GGUF.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::ElementType;

/// Elements that every quantised type can be read by: its own block, or an eighth of a super-block.
pub(crate) const BLOCK: usize = 32;

/// What the codes of `IQ4_NL` and `IQ4_XS` stand for.
pub(crate) const NONLINEAR: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 elements of any quantised type: element `i` is `d · scales[i/16] · value(codes[i]) - m · mins[i/16]`,
/// where `value` takes the type's zero point off, or looks the code up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Block {
    pub d: f16,
    pub m: f16,
    pub codes: [u8; BLOCK],
    pub scales: [i8; 2],
    pub mins: [u8; 2],
}

impl Block {
    /// What the elements stand for.
    pub fn numbers(&self, element_type: ElementType, out: &mut [f32; BLOCK]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            let scale = d * f32::from(self.scales[i / 16]);
            let min = m * f32::from(self.mins[i / 16]);
            *out = scale * value(element_type, self.codes[i]) as f32 - min;
        }
    }
}

/// Block `index` of a row of quantised blocks. Inlined, so that what is known of the type is known here; plain loops,
/// since closures may stay functions of their own, without the caller's instruction set.
#[inline(always)]
pub(crate) fn block(element_type: ElementType, row: &[u8], index: usize) -> Block {
    use ElementType::*;
    let per = element_type.block_elements() / BLOCK;
    let bytes = &row[index / per * element_type.block_bytes()..][..element_type.block_bytes()];
    let b = index % per;
    let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let mut block = Block { d: half(0), m: f16::ZERO, codes: [0; BLOCK], scales: [1; 2], mins: [0; 2] };
    match element_type {
        F32 | F16 | BF16 => unreachable!("{element_type} has no blocks"),
        Q4_0 | IQ4_NL => block.codes = nibbles(&bytes[2..]),
        Q4_1 | Q5_1 => {
            // Stored as what is added; kept as what is taken off.
            (block.m, block.mins) = (-half(2), [1; 2]);
            block.codes = if element_type == Q4_1 { nibbles(&bytes[4..]) } else { five_bits(&bytes[4..]) };
        }
        Q5_0 => block.codes = five_bits(&bytes[2..]),
        Q8_0 => {
            for (code, byte) in block.codes.iter_mut().zip(&bytes[2..]) {
                *code = byte ^ 0x80;
            }
        }
        Q2_K => {
            (block.d, block.m) = (half(80), half(82));
            let scales = [bytes[2 * b], bytes[2 * b + 1]];
            block.scales = scales.map(|scale| (scale & 15) as i8);
            block.mins = scales.map(|scale| scale >> 4);
            for (code, byte) in block.codes.iter_mut().zip(&bytes[16 + b / 4 * 32..]) {
                *code = byte >> (b % 4 * 2) & 3;
            }
        }
        Q3_K => {
            block.d = half(108);
            block.scales = [2 * b, 2 * b + 1].map(|i| three_bit_scale(&bytes[96..108], i));
            let low = &bytes[32 + b / 4 * 32..];
            for ((code, low), high) in block.codes.iter_mut().zip(low).zip(bytes) {
                *code = low >> (b % 4 * 2) & 3 | (high >> b & 1) << 2;
            }
        }
        Q4_K | Q5_K => {
            block.m = half(2);
            let (scale, min) = six_bit_pair(&bytes[4..16], b);
            (block.scales, block.mins) = ([scale as i8; 2], [min; 2]);
            let (high, low) = if element_type == Q4_K { (None, 16) } else { (Some(&bytes[16..48]), 48) };
            for (code, low) in block.codes.iter_mut().zip(&bytes[low + b / 2 * 32..]) {
                *code = low >> (b % 2 * 4) & 15;
            }
            for (code, high) in block.codes.iter_mut().zip(high.unwrap_or_default()) {
                *code |= (high >> b & 1) << 4;
            }
        }
        Q6_K => {
            block.d = half(208);
            block.scales = [bytes[192 + 2 * b] as i8, bytes[193 + 2 * b] as i8];
            let (n, j) = (b / 4, b % 4);
            let (low, high) = (&bytes[64 * n + 32 * (j % 2)..], &bytes[128 + 32 * n..]);
            for ((code, low), high) in block.codes.iter_mut().zip(low).zip(high) {
                *code = low >> (j / 2 * 4) & 15 | (high >> (2 * j) & 3) << 4;
            }
        }
        IQ4_XS => {
            let low = bytes[4 + b / 2] >> (b % 2 * 4) & 15;
            let high = u16::from_le_bytes([bytes[2], bytes[3]]) >> (2 * b) & 3;
            block.scales = [(low | (high as u8) << 4) as i8 - 32; 2];
            block.codes = nibbles(&bytes[8 + 16 * b..]);
        }
    }
    block
}

/// What a code stands for, before scales.
pub(crate) fn value(element_type: ElementType, code: u8) -> i32 {
    match element_type {
        ElementType::IQ4_NL | ElementType::IQ4_XS => i32::from(NONLINEAR[usize::from(code & 15)]),
        _ => i32::from(code) - zero_point(element_type),
    }
}

/// What is taken off each code.
pub(crate) const fn zero_point(element_type: ElementType) -> i32 {
    use ElementType::*;
    match element_type {
        Q3_K => 4,
        Q4_0 => 8,
        Q5_0 => 16,
        Q6_K => 32,
        Q8_0 => 128,
        _ => 0,
    }
}

/// 16 bytes: the low halves are the first 16 elements, the high ones the rest.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    let mut codes = [0; BLOCK];
    for (i, byte) in bytes[..16].iter().enumerate() {
        (codes[i], codes[i + 16]) = (byte & 15, byte >> 4);
    }
    codes
}

/// 4 bytes of fifth bits, then nibbles.
#[inline(always)]
fn five_bits(bytes: &[u8]) -> [u8; BLOCK] {
    let mut codes = nibbles(&bytes[4..]);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
    codes
}

/// Scale and min `b` of the 12 bytes that hold eight 6-bit pairs.
#[inline(always)]
fn six_bit_pair(bytes: &[u8], b: usize) -> (u8, u8) {
    if b < 4 {
        return (bytes[b] & 63, bytes[b + 4] & 63);
    }
    let scale = bytes[b + 4] & 15 | bytes[b - 4] >> 6 << 4;
    let min = bytes[b + 4] >> 4 | bytes[b] >> 6 << 4;
    (scale, min)
}

/// Scale `i` of the 12 bytes that hold sixteen 6-bit scales, offset by 32.
#[inline(always)]
fn three_bit_scale(bytes: &[u8], i: usize) -> i8 {
    let low = if i < 8 { bytes[i] & 15 } else { bytes[i - 8] >> 4 };
    let high = bytes[8 + i % 4] >> (i / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}

impl ElementType {
    /// A number of two bytes: `F16` or, else, `BF16`.
    pub(crate) fn widen(self, bytes: [u8; 2]) -> f32 {
        match self {
            ElementType::F16 => f16::from_le_bytes(bytes).to_f32(),
            _ => bf16::from_le_bytes(bytes).to_f32(),
        }
    }
}

/// Whole rows of any type as numbers.
///
/// # Panics
/// When `bytes` are not those of exactly `out.len()` elements.
pub fn dequantize(element_type: ElementType, bytes: &[u8], out: &mut [f32]) {
    let expected = element_type.row_bytes(out.len());
    assert_eq!(Some(bytes.len()), expected, "bytes of {} elements of {element_type}", out.len());
    match element_type {
        ElementType::F32 => {
            let (values, _) = bytes.as_chunks::<4>();
            out.iter_mut().zip(values).for_each(|(out, bytes)| *out = f32::from_le_bytes(*bytes));
        }
        ElementType::F16 => {
            // A run at a time, for which machines have instructions.
            for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
                let mut halves = [f16::ZERO; BLOCK];
                for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *half = f16::from_le_bytes(*bytes);
                }
                halves[..out.len()].convert_to_f32_slice(out);
            }
        }
        ElementType::BF16 => {
            let (values, _) = bytes.as_chunks::<2>();
            out.iter_mut().zip(values).for_each(|(out, bytes)| *out = bf16::from_le_bytes(*bytes).to_f32());
        }
        _ => {
            for (index, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                block(element_type, bytes, index).numbers(element_type, out);
            }
        }
    }
}
