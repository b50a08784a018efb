//! Takes records apart into planes and puts them together again, each less what the parent has in its place where one
//! is given.
//!
//! A float's sign moves below its mantissa, so that the uppermost plane holds nothing but its exponent. A difference is
//! that of the floats' ranks (how many floats lie between two): steps of a fine-tuning are few ranks, whatever the
//! exponent, where an exclusive or would show each carry.

use std::borrow::Cow;

use super::layout::{Field, Layout};

/// The planes of whole records, field by field, uppermost first. `base` has the length of `raw`.
pub fn split(raw: &[u8], layout: Layout, base: Option<&[u8]>) -> Vec<Vec<u8>> {
    let stride = layout.stride();
    let mut planes = Vec::new();
    for field in layout.fields() {
        let own = gather(raw, stride, *field);
        let base = base.map(|base| gather(base, stride, *field));
        match field {
            Field::Bytes { .. } => planes.push(match base {
                Some(base) => own.iter().zip(&*base).map(|(own, base)| own ^ base).collect(),
                None => own.into_owned(),
            }),
            Field::Word16 { .. } => planes.extend(split16(&own, base.as_deref())),
            Field::Word32 { .. } => planes.extend(split32(&own, base.as_deref())),
        }
    }
    planes
}

/// The inverse of [`split`]. `planes` are as many and as long as it would make of `raw`.
pub fn merge(planes: &[Cow<'_, [u8]>], layout: Layout, base: Option<&[u8]>, raw: &mut [u8]) {
    let stride = layout.stride();
    let mut planes = planes.iter();
    for field in layout.fields() {
        let mut next = || planes.next().map_or(&[][..], |plane| &**plane);
        let base = base.map(|base| gather(base, stride, *field));
        let (_, width) = field.place();
        let mut apart = if width == stride { Vec::new() } else { vec![0; raw.len() / stride * width] };
        let own = if width == stride { &mut *raw } else { &mut apart[..] };
        match field {
            Field::Bytes { .. } => {
                own.copy_from_slice(next());
                for (own, base) in own.iter_mut().zip(base.iter().flat_map(|base| &**base)) {
                    *own ^= base;
                }
            }
            Field::Word16 { .. } => merge16([next(), next()], base.as_deref(), own),
            Field::Word32 { .. } => merge32([next(), next(), next(), next()], base.as_deref(), own),
        }
        if width != stride {
            scatter(&apart, stride, *field, raw);
        }
    }
}

/// A field of every record, one after the other.
fn gather(raw: &[u8], stride: usize, field: Field) -> Cow<'_, [u8]> {
    let (at, width) = field.place();
    if width == stride {
        return Cow::Borrowed(raw);
    }
    let mut own = Vec::with_capacity(raw.len() / stride * width);
    for record in raw.chunks_exact(stride) {
        own.extend_from_slice(&record[at..at + width]);
    }
    Cow::Owned(own)
}

fn scatter(own: &[u8], stride: usize, field: Field, raw: &mut [u8]) {
    let (at, width) = field.place();
    for (record, own) in raw.chunks_exact_mut(stride).zip(own.chunks_exact(width)) {
        record[at..at + width].copy_from_slice(own);
    }
}

fn split16(raw: &[u8], base: Option<&[u8]>) -> [Vec<u8>; 2] {
    let words = raw.as_chunks::<2>().0;
    let [mut high, mut low] = [(); 2].map(|()| vec![0; words.len()]);
    let places = high.iter_mut().zip(&mut low).zip(words);
    let put = |high: &mut u8, low: &mut u8, word: u16| [*low, *high] = word.to_le_bytes();
    match base {
        None => {
            for ((high, low), word) in places {
                put(high, low, u16::from_le_bytes(*word).rotate_left(1));
            }
        }
        Some(base) => {
            for (((high, low), word), base) in places.zip(base.as_chunks::<2>().0) {
                put(high, low, less16(u16::from_le_bytes(*word), u16::from_le_bytes(*base)));
            }
        }
    }
    [high, low]
}

fn merge16([high, low]: [&[u8]; 2], base: Option<&[u8]>, raw: &mut [u8]) {
    let places = raw.as_chunks_mut::<2>().0.iter_mut().zip(high).zip(low);
    match base {
        None => {
            for ((word, high), low) in places {
                *word = u16::from_le_bytes([*low, *high]).rotate_right(1).to_le_bytes();
            }
        }
        Some(base) => {
            for (((word, high), low), base) in places.zip(base.as_chunks::<2>().0) {
                *word = plus16(u16::from_le_bytes([*low, *high]), u16::from_le_bytes(*base)).to_le_bytes();
            }
        }
    }
}

fn split32(raw: &[u8], base: Option<&[u8]>) -> [Vec<u8>; 4] {
    let words = raw.as_chunks::<4>().0;
    let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| vec![0; words.len()]);
    let places = first.iter_mut().zip(&mut second).zip(&mut third).zip(&mut fourth).zip(words);
    match base {
        None => {
            for ((((first, second), third), fourth), word) in places {
                [*fourth, *third, *second, *first] = u32::from_le_bytes(*word).rotate_left(1).to_le_bytes();
            }
        }
        Some(base) => {
            for (((((first, second), third), fourth), word), base) in places.zip(base.as_chunks::<4>().0) {
                let word = less32(u32::from_le_bytes(*word), u32::from_le_bytes(*base));
                [*fourth, *third, *second, *first] = word.to_le_bytes();
            }
        }
    }
    [first, second, third, fourth]
}

fn merge32([first, second, third, fourth]: [&[u8]; 4], base: Option<&[u8]>, raw: &mut [u8]) {
    let places = raw.as_chunks_mut::<4>().0.iter_mut().zip(first).zip(second).zip(third).zip(fourth);
    match base {
        None => {
            for ((((word, first), second), third), fourth) in places {
                let coded = u32::from_le_bytes([*fourth, *third, *second, *first]);
                *word = coded.rotate_right(1).to_le_bytes();
            }
        }
        Some(base) => {
            for (((((word, first), second), third), fourth), base) in places.zip(base.as_chunks::<4>().0) {
                let coded = u32::from_le_bytes([*fourth, *third, *second, *first]);
                *word = plus32(coded, u32::from_le_bytes(*base)).to_le_bytes();
            }
        }
    }
}

// A float's rank is its place among all floats: bits of positive ones rise with them, those of negative ones fall.

fn rank16(word: u16) -> u16 {
    word ^ ((word as i16 >> 15) as u16 | 1 << 15)
}

fn unrank16(rank: u16) -> u16 {
    rank ^ ((!rank as i16 >> 15) as u16 | 1 << 15)
}

fn rank32(word: u32) -> u32 {
    word ^ ((word as i32 >> 31) as u32 | 1 << 31)
}

fn unrank32(rank: u32) -> u32 {
    rank ^ ((!rank as i32 >> 31) as u32 | 1 << 31)
}

// Differences of either sign become small numbers without: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...

fn less16(word: u16, base: u16) -> u16 {
    let difference = rank16(word).wrapping_sub(rank16(base));
    difference << 1 ^ (difference as i16 >> 15) as u16
}

fn plus16(coded: u16, base: u16) -> u16 {
    let difference = coded >> 1 ^ (coded & 1).wrapping_neg();
    unrank16(rank16(base).wrapping_add(difference))
}

fn less32(word: u32, base: u32) -> u32 {
    let difference = rank32(word).wrapping_sub(rank32(base));
    difference << 1 ^ (difference as i32 >> 31) as u32
}

fn plus32(coded: u32, base: u32) -> u32 {
    let difference = coded >> 1 ^ (coded & 1).wrapping_neg();
    unrank32(rank32(base).wrapping_add(difference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_comes_back() {
        for word in 0..=u16::MAX {
            assert_eq!(unrank16(rank16(word)), word);
            for base in [0, 1, 0x3F80, 0x7F80, 0x8000, 0xBF80, 0xFFFF, word.wrapping_mul(40_503)] {
                assert_eq!(plus16(less16(word, base), base), word);
                let words = [u32::from(word) << 16 | u32::from(base), u32::from(base) << 16 | 77];
                assert_eq!(plus32(less32(words[0], words[1]), words[1]), words[0]);
            }
        }
    }

    #[test]
    fn near_floats_differ_by_little() {
        assert_eq!(less32(1.0f32.to_bits(), 1.0f32.next_down().to_bits()), 2);
        assert_eq!(less32(0.0f32.to_bits(), (-f32::from_bits(1)).to_bits()), 4, "past the other zero");
        assert_eq!(less32(1e-3f32.to_bits(), 1e-3f32.next_up().to_bits()), 1);
    }
}
