//! What is written is read back nearer to what it was than from what the peers' quantisers write (`fixtures/quantize`),
//! on every instruction set.

use std::path::{Path, PathBuf};

use super::*;
use crate::elements::dequantize;

/// Every type that is written in blocks.
const TYPES: [ElementType; 11] = [
    ElementType::Q4_0,
    ElementType::Q4_1,
    ElementType::Q5_0,
    ElementType::Q5_1,
    ElementType::Q8_0,
    ElementType::Q2_K,
    ElementType::Q3_K,
    ElementType::Q4_K,
    ElementType::Q5_K,
    ElementType::Q6_K,
    ElementType::IQ4_NL,
];
const COLUMNS: usize = 1024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/quantize")
}

fn values() -> Vec<f32> {
    let bytes = std::fs::read(folder().join("values.bin")).unwrap();
    let mut values = vec![0.0; bytes.len() / 4];
    dequantize(ElementType::F32, &bytes, &mut values);
    values
}

fn quantized(isa: Isa, element_type: ElementType, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let columns = importance.map_or(values.len().min(COLUMNS), <[f32]>::len);
    let mut bytes = vec![0; element_type.row_bytes(values.len()).unwrap()];
    quantize(isa, element_type, values, columns, importance, &mut bytes);
    bytes
}

/// What is read back of `values`.
fn there_and_back(
    isa: Isa,
    element_type: ElementType,
    values: &[f32],
    importance: Option<&[f32]>,
) -> Vec<f32> {
    let mut back = vec![0.0; values.len()];
    dequantize(element_type, &quantized(isa, element_type, values, importance), &mut back);
    back
}

fn error(values: &[f32], back: &[f32]) -> f64 {
    let squares = |x: f64, y: f64| (x - y) * (x - y);
    let off: f64 = values.iter().zip(back).map(|(x, y)| squares((*x).into(), (*y).into())).sum();
    (off / values.iter().map(|x| squares((*x).into(), 0.0)).sum::<f64>()).sqrt()
}

/// A number of errors.json, which holds lines like `"Q4_0": {` and then `"llama": 0.11`.
fn peer_error(element_type: ElementType) -> f64 {
    let text = std::fs::read_to_string(folder().join("errors.json")).unwrap();
    let (_, after) = text.split_once(&format!("\"{element_type}\"")).unwrap();
    let (_, after) = after.split_once("\"llama\": ").unwrap();
    after.split([',', '\n', '}']).next().unwrap().trim().parse().unwrap()
}

#[test]
fn errors_are_below_those_of_llama_cpp() {
    let values = values();
    for element_type in TYPES {
        for isa in Isa::available() {
            let ours = error(&values, &there_and_back(isa, element_type, &values, None));
            let theirs = peer_error(element_type);
            println!("{element_type} on {isa}: {ours:.5}, llama.cpp {theirs:.5}");
            assert!(ours < theirs, "{element_type} on {isa}: {ours}, llama.cpp {theirs}");
        }
    }
}

#[test]
fn important_columns_come_nearer() {
    let values = values();
    let importance: Vec<f32> = (0..COLUMNS).map(|i| if i % 7 == 0 { 100.0 } else { 1.0 }).collect();
    let of_important = |back: &[f32]| {
        let pick = |values: &[f32]| -> Vec<f32> {
            values
                .iter()
                .enumerate()
                .filter(|(i, _)| (i % COLUMNS).is_multiple_of(7))
                .map(|(_, x)| *x)
                .collect()
        };
        error(&pick(&values), &pick(back))
    };
    for element_type in TYPES {
        let plain = of_important(&there_and_back(Isa::detect(), element_type, &values, None));
        let weighted = of_important(&there_and_back(Isa::detect(), element_type, &values, Some(&importance)));
        assert!(weighted < 0.97 * plain, "{element_type}: {weighted}, without importance {plain}");
    }
}

#[test]
fn floats_are_rounded_to_nearest() {
    let values = [1.0, -0.1, 65504.0, 1.0e-7, 0.0];
    assert_eq!(there_and_back(Isa::Portable, ElementType::F32, &values, None), values);
    let half = values.map(|x| f16::from_f32(x).to_f32());
    assert_eq!(there_and_back(Isa::Portable, ElementType::F16, &values, None), half);
    let brain = values.map(|x| bf16::from_f32(x).to_f32());
    assert_eq!(there_and_back(Isa::Portable, ElementType::BF16, &values, None), brain);
}

/// Zeros, numbers that are all one, tiny and huge ones, and blocks of which nothing matters.
#[test]
fn odd_numbers_stay_finite() {
    let check = |values: &[f32], importance: Option<&[f32]>, error_max: f64| {
        for element_type in TYPES {
            for isa in Isa::available() {
                let back = there_and_back(isa, element_type, values, importance);
                assert!(back.iter().all(|x| x.is_finite()), "{element_type} on {isa}: {values:?}");
                if values.iter().any(|x| *x != 0.0) {
                    let off = error(values, &back);
                    assert!(off <= error_max, "{element_type} on {isa}: {off} of {:?}", &values[..3]);
                } else {
                    assert!(back.iter().all(|x| *x == 0.0), "{element_type} on {isa}");
                }
            }
        }
    };
    check(&[0.0; 256], None, 0.0);
    check(&[0.37; 256], None, 0.02);
    check(&[-0.37; 256], None, 0.02);
    check(&[1e-12; 256], None, 1.0);
    check(&[60_000.0; 256], None, 0.02);
    check(&values()[..256], Some(&[0.0; 256]), 1.0);
    let mut one = [0.0; 256];
    one[77] = -2.5;
    // IQ4_NL has no zero, and its nearest is 1/127 of the largest.
    check(&one, None, 0.05);
}

/// A row's blocks don't depend on the rows beside it, so that threads may share rows out as they like.
#[test]
fn rows_are_on_their_own() {
    let values = values();
    for element_type in TYPES {
        let all = quantized(Isa::detect(), element_type, &values, None);
        let second = quantized(Isa::detect(), element_type, &values[COLUMNS..2 * COLUMNS], None);
        assert_eq!(all[second.len()..2 * second.len()], second, "{element_type}");
    }
}

/// Widths that are no multiple of sixteen blocks.
#[test]
fn any_whole_blocks_make_a_row() {
    for columns in [32, 64, 576] {
        let values: Vec<f32> = values()[..columns].to_vec();
        for element_type in TYPES.into_iter().filter(|t| columns.is_multiple_of(t.block_elements())) {
            let off = error(&values, &there_and_back(Isa::detect(), element_type, &values, None));
            assert!(off < 0.15, "{element_type}, {columns} columns: {off}");
        }
    }
}
