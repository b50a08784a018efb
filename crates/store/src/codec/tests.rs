//! What was put in comes out, for every layout; and of changed frames nothing wrong comes out, and nothing large.

use proptest::prelude::*;

use super::*;

/// Numbers as weights have them: a sum of a few uniform ones.
fn weights(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| 0.04 * (uniform() + uniform() + uniform() + uniform())).collect()
}

fn bf16(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|weight| ((weight.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn check(raw: &[u8], layout: Layout, lead: usize, base: Option<&[u8]>) -> usize {
    let frame = encode(raw, layout, lead, base);
    assert!(decode(&frame, base, raw.len()).unwrap() == raw, "{layout:?} {lead} {}", raw.len());
    assert!(frame.len() <= raw.len() + HEADER_BYTES + 16 * PLANE_HEADER_BYTES);
    frame.len()
}

#[test]
fn bf16_falls_to_two_thirds_and_f32_by_its_exponent() {
    let weights = weights(200_000, 1);
    let raw = bf16(&weights);
    let bytes = check(&raw, Layout::Words16, 0, None);
    assert!(bytes < raw.len() * 70 / 100, "{bytes} of {}", raw.len());
    let raw: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let bytes = check(&raw, Layout::Words32, 0, None);
    assert!(bytes < raw.len() * 86 / 100, "{bytes} of {}", raw.len());
}

#[test]
fn a_child_is_a_small_difference() {
    let parent = weights(100_000, 1);
    let steps = weights(100_000, 2);
    let child: Vec<f32> = parent.iter().zip(&steps).map(|(weight, step)| weight + step * 0.01).collect();
    let (parent, child) = (bf16(&parent), bf16(&child));
    let alone = check(&child, Layout::Words16, 0, None);
    let beside = check(&child, Layout::Words16, 0, Some(&parent));
    assert!(beside < alone * 50 / 100, "{beside} instead of {alone}");
    let same = check(&parent, Layout::Words16, 0, Some(&parent));
    assert!(same < 100, "{same}");
}

#[test]
fn a_base_that_does_not_help_is_not_needed() {
    let (raw, other) = (bf16(&weights(10_000, 1)), bf16(&weights(10_000, 5)));
    let frame = encode(&raw, Layout::Words16, 0, Some(&other));
    assert!(!header(&frame).unwrap().has_base);
    assert!(decode(&frame, None, raw.len()).unwrap() == raw);
}

#[test]
fn the_wrong_base_is_noticed() {
    let raw = bf16(&weights(10_000, 1));
    let mut other = raw.clone();
    let frame = encode(&raw, Layout::Words16, 0, Some(&other));
    assert!(header(&frame).unwrap().has_base);
    other[77] ^= 1;
    assert_eq!(decode(&frame, Some(&other), raw.len()), Err(CodecError::OtherBase));
    assert_eq!(decode(&frame, None, raw.len()), Err(CodecError::OtherBase));
}

#[test]
fn texts_are_deflated_and_noise_is_left_alone() {
    let text = "the quick brown fox jumps over the lazy dog; ".repeat(1000);
    let bytes = check(text.as_bytes(), Layout::Bytes, 0, None);
    assert!(bytes < text.len() / 50, "{bytes}");
    let noise: Vec<u8> = weights(10_000, 3).iter().map(|weight| (weight * 1e6) as i32 as u8).collect();
    assert!(check(&noise, Layout::Bytes, 0, None) >= noise.len());
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    let mut frame = encode(&[7; 1000], Layout::Bytes, 0, None);
    assert!(frame.len() < 60);
    let too_large = |expected, came| Err(CodecError::TooLarge { expected, came });
    assert_eq!(decode(&frame, None, 999), too_large(999, 1000));
    frame[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(decode(&frame, None, usize::MAX), too_large(RAW_BYTES_MAX as u64, u64::MAX));
}

#[test]
fn later_versions_and_other_files_are_told_apart() {
    let frame = encode(b"abc", Layout::Bytes, 0, None);
    let mut later = frame.clone();
    later[3] = 2;
    assert_eq!(header(&later), Err(CodecError::Newer(2)));
    assert_eq!(header(b"GGUF"), Err(CodecError::NotCoded));
    assert_eq!(header(&frame[..20]), Err(CodecError::NotCoded));
}

/// The frame of `docs/chunks.md`, byte for byte: a change of the format fails here.
#[test]
fn the_example_of_the_specification_holds() {
    let raw: Vec<u8> = [1.0f32, -1.0, 1.0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let frame = encode(&raw, Layout::Words32, 0, None);
    let hash = xxh3_64(&raw).to_le_bytes();
    let mut expected = b"tnc\x01\x02\x00\x00\x00\x0c\0\0\0\0\0\0\0".to_vec();
    expected.extend(hash);
    expected.extend([0; 8]);
    expected.extend([CONSTANT, 1, 0, 0, 0, 0x7f, CONSTANT, 1, 0, 0, 0, 0, CONSTANT, 1, 0, 0, 0, 0]);
    expected.extend([RAW, 3, 0, 0, 0, 0, 1, 0]);
    assert_eq!(frame, expected);
}

#[test]
fn weights_are_found_where_nothing_says_so() {
    let floats: Vec<u8> = weights(50_000, 1).iter().flat_map(|weight| weight.to_le_bytes()).collect();
    for before in 0..4 {
        let shifted = [&[7; 4][..before], &floats].concat();
        // Which bytes are taken for a word hardly matters: those that are alike are in one plane.
        let (layout, lead) = guess(&shifted);
        assert_eq!(layout, Layout::Words32);
        let coded = check(&shifted, layout, lead, None);
        assert!(coded < shifted.len() * 87 / 100, "{coded} of {}", shifted.len());
    }
    assert_eq!(guess(&bf16(&weights(50_000, 1))), (Layout::Words16, 0));
    assert_eq!(guess("{\"vocabulary\": [1, 2, 3]}, ".repeat(9999).as_bytes()), (Layout::Bytes, 0));
    assert_eq!(guess(b""), (Layout::Bytes, 0));
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(Layout::all().collect::<Vec<_>>())
}

/// Bytes of few or many values, so that planes of every kind come about.
fn contents() -> impl Strategy<Value = Vec<u8>> {
    (any::<u64>(), 0usize..6000, 0u8..=8).prop_map(|(seed, count, bits)| {
        let noise = weights(count, seed).into_iter().map(move |x| (x.to_bits() >> 3) as u8);
        noise
            .map(|byte| byte & byte.rotate_left(3) & (1u32.wrapping_shl(u32::from(bits)) - 1) as u8)
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_was_put_in_comes_out(raw in contents(), layout in layouts(), lead in 0usize..4, seed: u64) {
        let lead = lead.min(layout.stride() - 1);
        check(&raw, layout, lead, None);
        let mut base = raw.clone();
        if !base.is_empty() {
            let at = seed as usize % base.len();
            base[at] ^= seed as u8;
        }
        check(&raw, layout, lead, Some(&base));
    }

    #[test]
    fn nothing_wrong_comes_out_of_changed_frames(
        raw in contents(), layout in layouts(), at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index
    ) {
        let mut frame = encode(&raw, layout, 0, None);
        let cut = &frame[..cut.index(frame.len())];
        prop_assert!(decode(cut, None, raw.len()).is_err());
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        // A bit that means nothing may be changed; what comes out is what was put in, or nothing.
        prop_assert!(decode(&frame, None, raw.len() + 1000).is_ok_and(|came| came == raw) || decode(&frame, None, raw.len()).is_err());
    }
}
