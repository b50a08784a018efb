//! Attention against a plain reference in double precision, and the bits of a row whatever its company.

use super::*;
use crate::compute::Isa;
use proptest::prelude::*;

struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    settings: AttentionSettings,
    length: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

impl Case {
    /// Scores of longer heads are scaled down as models do it, so that rounding means the same for all.
    fn new(heads: usize, kv_heads: usize, head_dim: usize, length: usize, seed: u64) -> Case {
        Case {
            heads,
            kv_heads,
            head_dim,
            settings: AttentionSettings {
                heads,
                scale: 0.7 * (80.0 / head_dim.max(80) as f32).sqrt(),
                softcap: None,
                window: None,
            },
            length,
            queries: noise(length * heads * head_dim, seed).iter().map(|x| x * 3.0).collect(),
            keys: noise(length * kv_heads * head_dim, seed + 1),
            values: noise(length * kv_heads * head_dim, seed + 2),
        }
    }

    /// In chunks of `chunk` rows, the sequence's pages in reverse order in the cache.
    fn run(&self, isa: Isa, threads: usize, chunk: usize, element: KvElement) -> Vec<f32> {
        let compute = Compute::new(isa, threads);
        let pages = self.length.div_ceil(PAGE_TOKENS) as u32 + 3;
        let layout = KvLayout::new(2, self.kv_heads, self.head_dim, pages, element).unwrap();
        let mut cache = KvCache::new(layout).unwrap();
        let table: Vec<u32> = (0..pages).rev().collect();
        let (q, k) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut out = vec![0.0; self.length * q];
        for first in (0..self.length).step_by(chunk) {
            let last = (first + chunk).min(self.length);
            let rows = SequenceRows { rows: 0..last - first, first_position: first, pages: &table };
            let rows = [rows];
            let keys = Rows { values: &self.keys[first * k..last * k], stride: k };
            let values = Rows { values: &self.values[first * k..last * k], stride: k };
            cache.write(&compute, 1, &rows, keys, values);
            let queries = Rows { values: &self.queries[first * q..last * q], stride: q };
            attend(&compute, &cache, 1, queries, &rows, &self.settings, &mut out[first * q..last * q]);
        }
        out
    }

    fn reference(&self) -> Vec<f64> {
        let d = self.head_dim;
        let group = self.heads / self.kv_heads;
        let mut out = Vec::new();
        for position in 0..self.length {
            for head in 0..self.heads {
                let query = &self.queries[(position * self.heads + head) * d..][..d];
                let of =
                    |all: &[f32], key: usize| all[(key * self.kv_heads + head / group) * d..][..d].to_vec();
                let first = self.settings.window.map_or(0, |window| (position + 1).saturating_sub(window));
                let scores = (first..=position).map(|key| {
                    let dot: f64 = query
                        .iter()
                        .zip(of(&self.keys, key))
                        .map(|(q, k)| f64::from(*q) * f64::from(k))
                        .sum();
                    let score = dot * f64::from(self.settings.scale);
                    self.settings
                        .softcap
                        .map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                });
                let weights: Vec<f64> = scores.map(f64::exp).collect();
                let sum: f64 = weights.iter().sum();
                let mut result = vec![0.0; d];
                for (key, weight) in (first..=position).zip(weights) {
                    let values = of(&self.values, key);
                    result.iter_mut().zip(values).for_each(|(out, v)| *out += weight / sum * f64::from(v));
                }
                out.extend(result);
            }
        }
        out
    }
}

fn check(case: &Case, element: KvElement, tolerance: f64) {
    let expected = case.reference();
    for isa in Isa::available() {
        let found = case.run(isa, 2, case.length, element);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < tolerance, "{isa}: {found} for {expected}");
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_double_precision(
        kv_heads in 1usize..4, group in 1usize..5,
        head_dim in prop::sample::select(vec![1, 2, 3, 8, 16, 40, 64, 65, 80, 128, 511, 512]),
        length in 1usize..100, window in prop::option::of(1usize..70), softcap in prop::option::of(1.0f32..50.0),
        seed in 0u64..1000
    ) {
        let mut case = Case::new(kv_heads * group, kv_heads, head_dim, length, seed);
        case.settings.window = window;
        case.settings.softcap = softcap;
        check(&case, KvElement::F32, 2e-5);
        check(&case, KvElement::I16, 8e-3);
        check(&case, KvElement::I8, 0.2);
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_chunks_on_any_threads(
        length in 1usize..120, chunk in 1usize..50, window in prop::option::of(1usize..70),
        softcap in prop::option::of(1.0f32..50.0), head_dim in prop::sample::select(vec![3, 16, 65]),
        element in prop::sample::select(KvElement::CODED.to_vec()), seed in 0u64..1000
    ) {
        let mut case = Case::new(6, 2, head_dim, length, seed);
        case.settings.window = window;
        case.settings.softcap = softcap;
        for isa in Isa::available() {
            let whole = bits(&case.run(isa, 1, length, element));
            prop_assert_eq!(&whole, &bits(&case.run(isa, 2, chunk, element)));
            prop_assert_eq!(&whole, &bits(&case.run(isa, 2, 1, element)));
        }
    }
}

#[test]
fn other_sequences_in_the_batch_change_nothing() {
    let compute = Compute::new(Isa::detect(), 2);
    let case = Case::new(4, 2, 16, 40, 7);
    let alone = case.run(Isa::detect(), 2, 40, KvElement::I16);
    let other = Case::new(4, 2, 16, 70, 8);
    let mut cache = KvCache::new(KvLayout::new(1, 2, 16, 8, KvElement::I16).unwrap()).unwrap();
    // Keys and values side by side, as one product leaves them.
    let columns = |case: &Case, i: usize| [&case.keys[i * 32..][..32], &case.values[i * 32..][..32]].concat();
    let rows_of = |case: &Case| (0..case.length).flat_map(|i| columns(case, i)).collect::<Vec<f32>>();
    let stacked = [rows_of(&other), rows_of(&case)].concat();
    let queries = [&other.queries[..], &case.queries].concat();
    let rows = [
        SequenceRows { rows: 0..70, first_position: 0, pages: &[5, 0, 2] },
        SequenceRows { rows: 70..110, first_position: 0, pages: &[7, 1] },
    ];
    let part = |first| Rows { values: &stacked[first..], stride: 64 };
    cache.write(&compute, 0, &rows, part(0), part(32));
    let mut out = vec![0.0; 110 * 64];
    let queries = Rows { values: &queries, stride: 64 };
    attend(&compute, &cache, 0, queries, &rows, &case.settings, &mut out);
    assert_eq!(bits(&out[70 * 64..]), bits(&alone));
}

#[test]
fn impossible_layouts_are_errors() {
    assert_eq!(KvLayout::new(1, 1, 0, 1, KvElement::I16), Err(KvLayoutError::HeadDim(0)));
    assert_eq!(KvLayout::new(1, 1, 513, 1, KvElement::I16), Err(KvLayoutError::HeadDim(513)));
    assert!(KvLayout::new(usize::MAX, 8, 128, 100, KvElement::I8).is_err());
}

#[test]
fn what_is_no_number_reaches_those_who_see_it_and_no_earlier_row() {
    let spoilers = [(1e9, true), (f32::NAN, false), (f32::INFINITY, false)];
    for (what, element) in
        ["query", "key", "value"].iter().flat_map(|what| KvElement::CODED.map(|e| (*what, e)))
    {
        for (spoilt, seen_as_one) in spoilers {
            let mut case = Case::new(2, 1, 20, 40, 3);
            let all = match what {
                "query" => &mut case.queries,
                "key" => &mut case.keys,
                _ => &mut case.values,
            };
            let last = all.len() - 20;
            all[last + 3] = spoilt;
            for isa in Isa::available() {
                let together = case.run(isa, 1, 40, element);
                let apart = case.run(isa, 1, 1, element);
                let (before, after) = together.split_at(39 * 40);
                assert!(before.iter().all(|x| x.is_finite()), "{isa}");
                let seen = after.iter().all(|x| x.is_finite());
                assert_eq!(seen, seen_as_one, "{isa}: a {what} of {spoilt} is hidden");
                assert_eq!(bits(&together), bits(&apart), "{isa}: a {what} of {spoilt}");
            }
        }
    }
}
