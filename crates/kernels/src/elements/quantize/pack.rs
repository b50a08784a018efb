//! Codes and scales as bytes: the inverse of `blocks.rs`, which says what each layout is.

use half::f16;

use crate::elements::{BLOCK, ElementType, NONLINEAR, zero_point};

/// What a block of 256 is made of: element `i` is `d · scales[s] · (codes[i] - zero point) - m · mins[s]`.
pub(super) struct SuperBlock {
    pub d: f32,
    pub m: f32,
    /// One for each sub-block.
    pub scales: [i32; 16],
    pub mins: [i32; 16],
    /// With the zero point added.
    pub codes: [u8; 256],
}

impl Default for SuperBlock {
    fn default() -> SuperBlock {
        SuperBlock { d: 0.0, m: 0.0, scales: [0; 16], mins: [0; 16], codes: [0; 256] }
    }
}

fn put_half(out: &mut [u8], value: f32) {
    out[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// A block of 32 numbers `d · code + m`.
pub(super) fn block(element_type: ElementType, d: f32, m: f32, codes: &[i8; BLOCK], out: &mut [u8]) {
    use ElementType::*;
    put_half(out, d);
    let unsigned = match element_type {
        IQ4_NL => {
            codes.map(|code| NONLINEAR.iter().position(|value| *value == code).unwrap_or_default() as u8)
        }
        _ => {
            let zero = zero_point(element_type) as u8;
            codes.map(|code| (code as u8).wrapping_add(zero))
        }
    };
    match element_type {
        Q4_0 | IQ4_NL => nibbles(&unsigned, &mut out[2..]),
        Q4_1 => {
            put_half(&mut out[2..], m);
            nibbles(&unsigned, &mut out[4..]);
        }
        Q5_0 => five_bits(&unsigned, &mut out[2..]),
        Q5_1 => {
            put_half(&mut out[2..], m);
            five_bits(&unsigned, &mut out[4..]);
        }
        Q8_0 => {
            for (out, code) in out[2..].iter_mut().zip(codes) {
                *out = *code as u8;
            }
        }
        _ => unreachable!("{element_type} has no blocks of 32"),
    }
}

/// The first half of the codes in the low halves of 16 bytes, the second in the high ones.
fn nibbles(codes: &[u8; BLOCK], out: &mut [u8]) {
    for i in 0..16 {
        out[i] = codes[i] & 15 | codes[i + 16] << 4;
    }
}

fn five_bits(codes: &[u8; BLOCK], out: &mut [u8]) {
    let fifth = codes.iter().enumerate().fold(0, |bits: u32, (i, code)| bits | u32::from(code >> 4) << i);
    out[..4].copy_from_slice(&fifth.to_le_bytes());
    nibbles(&codes.map(|code| code & 15), &mut out[4..]);
}

pub(super) fn super_block(element_type: ElementType, block: &SuperBlock, out: &mut [u8]) {
    use ElementType::*;
    out.fill(0);
    match element_type {
        Q2_K => {
            for s in 0..16 {
                out[s] = block.scales[s] as u8 | (block.mins[s] as u8) << 4;
            }
            put_pairs_of_bits(&block.codes, &mut out[16..80]);
            put_half(&mut out[80..], block.d);
            put_half(&mut out[82..], block.m);
        }
        Q3_K => {
            for (bit, codes) in block.codes.as_chunks::<32>().0.iter().enumerate() {
                out.iter_mut().zip(codes).for_each(|(out, code)| *out |= (code >> 2) << bit);
            }
            put_pairs_of_bits(&block.codes, &mut out[32..96]);
            for (s, scale) in block.scales.iter().enumerate() {
                let scale = (scale + 32) as u8;
                out[96 + s % 8] |= (scale & 15) << (s / 8 * 4);
                out[104 + s % 4] |= (scale >> 4) << (s / 4 * 2);
            }
            put_half(&mut out[108..], block.d);
        }
        Q4_K | Q5_K => {
            put_half(out, block.d);
            put_half(&mut out[2..], block.m);
            six_bit_pairs(block, &mut out[4..16]);
            let low = if element_type == Q4_K { 16 } else { 48 };
            for (codes, out) in block.codes.as_chunks::<64>().0.iter().zip(out[low..].as_chunks_mut::<32>().0)
            {
                let (first, second) = codes.split_at(32);
                let pairs = first.iter().zip(second);
                out.iter_mut().zip(pairs).for_each(|(out, (a, b))| *out = a & 15 | b << 4);
            }
            if element_type == Q5_K {
                for (bit, codes) in block.codes.as_chunks::<32>().0.iter().enumerate() {
                    out[16..48].iter_mut().zip(codes).for_each(|(out, code)| *out |= (code >> 4) << bit);
                }
            }
        }
        Q6_K => {
            let (low, high) = out.split_at_mut(128);
            for (half, codes) in block.codes.as_chunks::<128>().0.iter().enumerate() {
                let low = &mut low[64 * half..][..64];
                let (first, second) = codes.split_at(64);
                low.iter_mut().zip(first.iter().zip(second)).for_each(|(out, (a, b))| *out = a & 15 | b << 4);
                for (quarter, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
                    let high = high[32 * half..][..32].iter_mut();
                    high.zip(codes).for_each(|(out, code)| *out |= (code >> 4) << (2 * quarter));
                }
            }
            for (out, scale) in out[192..208].iter_mut().zip(block.scales) {
                *out = scale as i8 as u8;
            }
            put_half(&mut out[208..], block.d);
        }
        _ => unreachable!("{element_type} has no super-blocks that are written"),
    }
}

/// The two low bits of 256 codes, four in a byte.
fn put_pairs_of_bits(codes: &[u8; 256], out: &mut [u8]) {
    for (index, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        let out = out[index / 4 * 32..][..32].iter_mut();
        out.zip(codes).for_each(|(out, code)| *out |= (code & 3) << (index % 4 * 2));
    }
}

/// Eight scales and minima of 6 bits in 12 bytes.
fn six_bit_pairs(block: &SuperBlock, out: &mut [u8]) {
    for b in 0..4 {
        let (scale, min) = (block.scales[b] as u8, block.mins[b] as u8);
        let (later_scale, later_min) = (block.scales[b + 4] as u8, block.mins[b + 4] as u8);
        out[b] = scale | later_scale >> 4 << 6;
        out[b + 4] = min | later_min >> 4 << 6;
        out[b + 8] = later_scale & 15 | later_min << 4;
    }
}
