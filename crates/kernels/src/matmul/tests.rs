//! Products against dequantised weights in double precision, each instruction set against the portable one, and the
//! bits of a row whatever its company. Every level that this machine has runs; `the_levels_tested` prints which, and
//! fails where the one that `TUREEN_TEST_ISA` names is missing.

use super::*;
use crate::compute::Isa;
use crate::elements::{ElementType, dequantize};
use crate::memory::Arena;
use proptest::prelude::*;

/// Deterministic bytes.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// Where the `f16` scales of a quantised type's block are.
fn scale_offsets(element_type: ElementType) -> &'static [usize] {
    use ElementType::*;
    match element_type {
        F32 | F16 | BF16 => &[],
        Q4_0 | Q5_0 | Q8_0 | IQ4_NL | IQ4_XS => &[0],
        Q4_1 | Q5_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
    }
}

/// Random rows of a type: any codes, and scales that are finite and now and then zero or denormal.
fn random_rows(element_type: ElementType, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed * 77 + element_type as u64);
    let elements = rows * columns;
    let numbers = 0..elements;
    match element_type {
        ElementType::F32 => return numbers.flat_map(|_| noise.unit().to_le_bytes()).collect(),
        ElementType::F16 => {
            return numbers.flat_map(|_| half::f16::from_f32(noise.unit()).to_le_bytes()).collect();
        }
        ElementType::BF16 => {
            return numbers.flat_map(|_| half::bf16::from_f32(noise.unit()).to_le_bytes()).collect();
        }
        _ => {}
    }
    let bytes = element_type.row_bytes(elements).unwrap();
    let mut all: Vec<u8> = (0..bytes).map(|_| noise.next() as u8).collect();
    for block in all.chunks_exact_mut(element_type.block_bytes()) {
        for at in scale_offsets(element_type) {
            let scale = match noise.next() % 16 {
                0 => 0.0,
                1 => 3e-7,
                _ => noise.unit() * 0.01,
            };
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
        }
    }
    all
}

struct Case {
    element_type: ElementType,
    n: usize,
    k: usize,
    weights: Vec<u8>,
    values: Vec<f32>,
}

impl Case {
    fn new(element_type: ElementType, m: usize, n: usize, k: usize, seed: u64) -> Case {
        let mut noise = Noise(seed);
        let mut values: Vec<f32> =
            (0..m * k).map(|i| if i / 32 % 11 == 3 { 0.0 } else { noise.unit() * 4.0 }).collect();
        if element_type == ElementType::BF16 {
            // Some instruction sets multiply with rounded activations: these are round.
            values.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
        }
        Case { element_type, n, k, weights: random_rows(element_type, n, k, seed), values }
    }

    fn run(&self, compute: &Compute, values: &[f32]) -> Vec<f32> {
        let part =
            |rows: usize, bytes| Weights { element_type: self.element_type, rows, columns: self.k, bytes };
        let first = self.n / 3;
        let split = self.element_type.row_bytes(first * self.k).unwrap();
        let (one, two) = self.weights.split_at(split);
        let parts = [part(first, one), part(self.n - first, two)];
        let packed = PackedWeights::pack(
            compute,
            if first == 0 { &parts[1..] } else { &parts },
            &mut Arena::new(0),
            &mut || {},
        )
        .unwrap();
        let mut quantized = QuantizedRows::new(values.len() / self.k, self.k, packed.reads());
        quantized.fill(compute, &mut values.to_vec(), self.k, |_, _| {});
        let mut out = vec![f32::NAN; values.len() / self.k * self.n];
        matmul(compute, Input { values, quantized: &quantized }, &packed, &mut out);
        out
    }

    /// The product of the dequantised weights with the values as an 8-bit quantisation leaves them, and the sum of
    /// the magnitudes of its terms.
    fn reference(&self) -> Vec<(f64, f64)> {
        let mut weights = vec![0.0; self.n * self.k];
        dequantize(self.element_type, &self.weights, &mut weights);
        let mut values = self.values.clone();
        if self.element_type.block_elements() > 1 {
            for block in values.chunks_exact_mut(32) {
                let scale = block.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
                if scale > 0.0 {
                    block.iter_mut().for_each(|x| *x = (*x * (1.0 / scale)).round_ties_even() * scale);
                }
            }
        }
        let mut out = Vec::new();
        for row in values.chunks_exact(self.k) {
            for weights in weights.chunks_exact(self.k) {
                let terms = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
                out.push((terms.clone().sum(), terms.map(f64::abs).sum()));
            }
        }
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn products_agree_with_double_precision(
        m in 1usize..20, n in 1usize..50, blocks in 1usize..5, seed in 0u64..1_000_000
    ) {
        for element_type in ElementType::ALL {
            let k = match element_type.block_elements() { 1 => blocks * 37, 32 => blocks * 224, block => blocks * block };
            let case = Case::new(element_type, m, n, k, seed);
            let expected = case.reference();
            for isa in Isa::available() {
                let found = case.run(&Compute::new(isa, 2), &case.values);
                for (found, (expected, magnitude)) in found.iter().zip(&expected) {
                    // Where a value lies between two codes, one rounding may choose the other.
                    let tolerance = 2e-3 * magnitude + 1e-6;
                    let tolerance = if element_type.block_elements() == 1 { 2e-6 * magnitude } else { tolerance };
                    prop_assert!(
                        (f64::from(*found) - expected).abs() <= tolerance,
                        "{} on {}: {} for {} of {}", element_type, isa, found, expected, magnitude
                    );
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_agrees_with_the_portable_one(
        m in 1usize..20, n in 1usize..50, blocks in 1usize..5, seed in 0u64..1_000_000
    ) {
        for element_type in ElementType::ALL {
            let k = element_type.block_elements() * if element_type.block_elements() == 32 { 7 * blocks } else { blocks };
            let case = Case::new(element_type, m, n, k, seed);
            let magnitudes = case.reference();
            let expected = case.run(&Compute::new(Isa::Portable, 1), &case.values);
            for isa in Isa::available() {
                let found = case.run(&Compute::new(isa, 2), &case.values);
                for ((found, expected), (_, magnitude)) in found.iter().zip(&expected).zip(&magnitudes) {
                    let close = f64::from((found - expected).abs()) <= 4e-6 * magnitude + 1e-7;
                    prop_assert!(close, "{} on {}: {} for {}", element_type, isa, found, expected);
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch_on_any_threads(
        m in 2usize..34, n in 1usize..40, long in proptest::bool::ANY, seed in 0u64..1_000_000
    ) {
        for element_type in ElementType::ALL {
            let k = if long { 1024 } else { element_type.block_elements().max(64) };
            let case = Case::new(element_type, m, n, k, seed);
            for isa in Isa::available() {
                let (one, two) = (Compute::new(isa, 1), Compute::new(isa, 2));
                let together = bits(&case.run(&two, &case.values));
                for (row, expected) in case.values.chunks_exact(k).zip(together.chunks_exact(n)) {
                    prop_assert_eq!(&bits(&case.run(&one, row)), expected, "{} on {}", element_type, isa);
                }
            }
        }
    }
}

#[test]
fn rows_are_read_back_as_they_were_in_the_file() {
    for element_type in ElementType::ALL {
        let (rows, columns) = (37, if element_type.block_elements() == 1 { 45 } else { 512 });
        let bytes = random_rows(element_type, rows, columns, 9);
        let mut expected = vec![0.0; rows * columns];
        dequantize(element_type, &bytes, &mut expected);
        for isa in Isa::available() {
            let weights = [Weights { element_type, rows, columns, bytes: &bytes }];
            let packed =
                PackedWeights::pack(&Compute::new(isa, 1), &weights, &mut Arena::new(0), &mut || {}).unwrap();
            for (index, expected) in expected.chunks(columns).enumerate() {
                let mut found = vec![f32::NAN; columns];
                packed.read_row(index, &mut found);
                assert_eq!(bits(&found), bits(expected), "row {index} of {element_type} on {isa}");
            }
        }
    }
}

#[test]
fn the_largest_codes_overflow_nothing() {
    for element_type in ElementType::ALL.into_iter().filter(|element_type| element_type.block_elements() > 1)
    {
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let mut case = Case::new(element_type, 13, 9, 256, 1);
            case.weights.fill(fill);
            for block in case.weights.chunks_exact_mut(element_type.block_bytes()) {
                for at in scale_offsets(element_type) {
                    block[*at..at + 2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
                }
            }
            // Rows of one sign, and rows whose signs change by 1, 2, 4 ... elements.
            for (i, value) in case.values.iter_mut().enumerate() {
                let (row, column) = (i / 256, i % 256);
                *value = if row > 1 && column >> (row - 2) & 1 == 1 || row == 1 { -1.0 } else { 1.0 };
            }
            for isa in Isa::available() {
                let found = case.run(&Compute::new(isa, 1), &case.values);
                for (found, (expected, magnitude)) in found.iter().zip(case.reference()) {
                    let close = (f64::from(*found) - expected).abs() <= 1e-6 * magnitude;
                    assert!(close, "{element_type} of {fill:#x} on {isa}: {found} for {expected}");
                }
            }
        }
    }
}

#[test]
fn packed_weights_take_hardly_more_than_the_file() {
    for element_type in ElementType::ALL {
        let (rows, columns) = (64, 1024);
        let bytes = random_rows(element_type, rows, columns, 5);
        for isa in Isa::available() {
            let weights = [Weights { element_type, rows, columns, bytes: &bytes }];
            let packed =
                PackedWeights::pack(&Compute::new(isa, 2), &weights, &mut Arena::new(0), &mut || {}).unwrap();
            let growth = packed.bytes() as f64 / bytes.len() as f64;
            assert!(growth < 1.04, "{element_type} on {isa}: {growth} times the file's");
        }
    }
}

#[test]
fn the_levels_tested() {
    let tested = Isa::available();
    println!("matrix products ran on {tested:?}");
    if let Ok(wanted) = std::env::var("TUREEN_TEST_ISA") {
        assert!(tested.iter().any(|isa| isa.name() == wanted), "this machine has no {wanted}");
    }
}

#[test]
fn a_value_that_is_no_number_stays_in_its_row() {
    for bad in [f32::NAN, f32::INFINITY] {
        for element_type in ElementType::ALL {
            let k = element_type.block_elements().max(32);
            let mut case = Case::new(element_type, 3, 5, k, 1);
            case.values[k + 1] = bad;
            for isa in Isa::available() {
                let found = case.run(&Compute::new(isa, 1), &case.values);
                assert!(
                    found[..5].iter().chain(&found[10..]).all(|x| x.is_finite()),
                    "{element_type} on {isa}"
                );
                assert!(found[5..10].iter().any(|x| !x.is_finite()), "{element_type} on {isa}");
            }
        }
    }
}

#[test]
fn tiny_activations_count_as_zero() {
    let case = Case::new(ElementType::Q4_K, 1, 8, 256, 3);
    for isa in Isa::available() {
        let found = case.run(&Compute::new(isa, 1), &[1e-42; 256]);
        assert!(found.iter().all(|x| *x == 0.0), "{isa}: {found:?}");
    }
}

#[test]
fn activations_are_rounded_to_the_nearest_bfloat16() {
    let compute = Compute::new(Isa::detect(), 2);
    if compute.isa() != Isa::Avx512Bf16 {
        return;
    }
    for columns in [1, 2, 15, 16, 17, 31, 33, 200] {
        let mut noise = Noise(columns as u64);
        let mut values: Vec<f32> = (0..9 * columns).map(|_| noise.unit() * 1e3).collect();
        // Ties, and what rounds up to the next power of two or to infinity.
        let tie = 1.0 / 256.0;
        let ties = [1.0 + tie, 1.0 + 3.0 * tie, -1.0 - tie, 1.999_999_9, f32::MAX, 0.0, f32::NEG_INFINITY];
        values[2 * columns..].iter_mut().zip(ties).for_each(|(value, tie)| *value = tie);
        let mut rows = QuantizedRows::new(9, columns, Forms { pairs: true, ..Forms::default() });
        rows.fill(&compute, &mut values.clone(), columns, |_, _| {});
        for (row, pairs) in values.chunks(columns).zip(rows.pairs(9, columns).chunks(columns.div_ceil(2))) {
            let found = pairs.iter().flat_map(|pair| [*pair as u16, (*pair >> 16) as u16]);
            let expected = row.iter().map(|x| half::bf16::from_f32(*x).to_bits());
            assert!(found.take(columns).eq(expected), "{columns} columns");
        }
    }
}

#[test]
fn packing_refuses_what_does_not_fit() {
    let compute = Compute::new(Isa::Portable, 1);
    let weights = |element_type, rows, columns, bytes| Weights { element_type, rows, columns, bytes };
    let check = |parts: &[Weights<'_>], expected: &str| {
        let error =
            PackedWeights::pack(&compute, parts, &mut Arena::new(0), &mut || {}).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let bytes = vec![0; 4096];
    check(&[], "nothing to pack");
    check(&[weights(ElementType::F32, 0, 4, &[])], "nothing to pack");
    check(&[weights(ElementType::Q4_0, 1, 31, &bytes[..18])], "do not take 18 bytes");
    check(&[weights(ElementType::Q4_0, 2, 32, &bytes[..18])], "do not take 18 bytes");
    check(&[weights(ElementType::F32, usize::MAX, 32, &bytes)], "do not take");
    let two = [weights(ElementType::F32, 1, 4, &bytes[..16]), weights(ElementType::F16, 1, 4, &bytes[..8])];
    check(&two, "must agree");
}
