//! Every decoder family against `transformers`: the logits of 64 positions of a tiny checkpoint with random
//! weights, from safetensors and from GGUF, on every instruction set that this machine has. The checkpoints and
//! their goldens are made by `fixtures/decoders/make.py` and `convert.py`.

#![allow(clippy::expect_used)] // a fixture that is not there fails the test

use std::path::{Path, PathBuf};

use engine::llm::forward::{Forward, Span, StepSizes};
use formats::model::ModelFiles;
use kernels::attention::{KvCache, KvElement, KvLayout, PAGE_TOKENS};
use kernels::compute::{Compute, Isa};

/// As the project's first issue sets it; the goldens' own float32 rounding is below 1e-4.
const DEPARTURE_MAX: f32 = 1e-3;

const FAMILIES: [&str; 21] = [
    "gemma2",
    "gemma2-scale",
    "gemma3",
    "gemma3-v5",
    "llama",
    "llama-dynamic",
    "llama-linear",
    "llama-llama3",
    "llama-yarn",
    "llama-yarn-v5",
    "mistral",
    "mixtral",
    "phi3",
    "phi3-longrope-long",
    "phi3-longrope-short",
    "phi4-mini",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "qwen3-moe",
    "qwen3-moe-mixed",
];

struct Golden {
    tokens: Vec<u32>,
    /// `[tokens, v]`.
    logits: Vec<f32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders")
}

fn golden(family: &str) -> Golden {
    let folder = fixtures().join(family);
    let text = std::fs::read(folder.join("golden.json")).expect("golden.json");
    let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let tokens: Vec<u32> = serde_json::from_value(json["tokens"].clone()).expect("tokens");
    let bytes = std::fs::read(folder.join("logits.bin")).expect("logits.bin");
    let logits = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Golden { tokens, logits }
}

/// The most of [`median_share`] where products take activations rounded to bfloat16, which have 8 bits.
const ROUNDED_DEPARTURE_MAX: f32 = 0.02;

/// The most of [`median_share`] where keys and values are kept in 16 or 8 bits.
const KEPT_DEPARTURES_MAX: [(KvElement, f32); 2] = [(KvElement::I16, 1e-3), (KvElement::I8, 0.02)];

/// Logits of all `tokens`, evaluated in chunks of `chunk`.
fn logits(path: &Path, tokens: &[u32], kept: KvElement, isa: Isa, threads: usize, chunk: usize) -> Vec<f32> {
    let files = ModelFiles::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let decoder = files.decoder();
    let (layers, pages) = (decoder.layers.len(), tokens.len().div_ceil(PAGE_TOKENS) as u32);
    let layout = KvLayout::new(layers, decoder.kv_heads, decoder.head_dim, pages, kept);
    let mut cache = KvCache::new(layout.expect("a layout")).expect("memory");
    let sizes =
        StepSizes { context_tokens: tokens.len(), rows_max: tokens.len(), logit_rows_max: tokens.len() };
    let mut forward = Forward::load(Compute::new(isa, threads), &files, sizes, &mut |_, _| {})
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut all = Vec::new();
    for (index, part) in tokens.chunks(chunk).enumerate() {
        let span = Span {
            tokens: part.to_vec(),
            first_position: index * chunk,
            pages: (0..pages).collect(),
            logits: 0..part.len(),
        };
        all.extend_from_slice(forward.run(&[span], &mut cache).1);
    }
    all
}

fn quantisation(path: &Path) -> String {
    ModelFiles::open(path).expect("a model").facts().quantisation.clone()
}

/// The departures' root mean square over the logits', in the median of positions: of near ties, rounding may choose
/// another expert.
fn median_share(off: &[f32], logits: &[f32], vocabulary: usize) -> f32 {
    let square = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
    let rows = off.chunks(vocabulary).zip(logits.chunks(vocabulary));
    let mut shares: Vec<f32> = rows.map(|(off, logits)| (square(off) / square(logits)).sqrt()).collect();
    shares.sort_by(f32::total_cmp);
    shares[shares.len() / 2]
}

fn check(path: &Path, golden: &Golden) -> Result<(), String> {
    for isa in Isa::available() {
        let ours = logits(path, &golden.tokens, KvElement::F32, isa, 2, golden.tokens.len());
        assert_eq!(ours.len(), golden.logits.len(), "{}: logits", path.display());
        let vocabulary = ours.len() / golden.tokens.len();
        let off: Vec<f32> =
            ours.iter().zip(&golden.logits).map(|(ours, theirs)| (ours - theirs).abs()).collect();
        let worst = off
            .iter()
            .copied()
            .fold(0.0, |most: f32, off| if off.is_nan() { f32::INFINITY } else { most.max(off) });
        println!("{} on {isa}: largest departure {worst:.1e}", path.display());
        if isa == Isa::Avx512Bf16 && quantisation(path).contains("BF16") {
            let share = median_share(&off, &golden.logits, vocabulary);
            println!("  of products with activations of 8 bits: {share:.1e} of the logits");
            if share.is_nan() || share > ROUNDED_DEPARTURE_MAX {
                return Err(format!("{} on {isa}: off by {share} of the logits", path.display()));
            }
            continue;
        }
        if let Some(first) = off.iter().position(|off| off.is_nan() || *off > DEPARTURE_MAX) {
            let position = first / vocabulary;
            return Err(format!("{} on {isa}: off by {worst}, from position {position} on", path.display()));
        }
        for (kept, share_max) in KEPT_DEPARTURES_MAX {
            let coded = logits(path, &golden.tokens, kept, isa, 2, golden.tokens.len());
            let off: Vec<f32> = coded.iter().zip(&ours).map(|(coded, ours)| coded - ours).collect();
            let share = median_share(&off, &ours, vocabulary);
            println!("  with keys and values of {}: {share:.1e} of the logits", kept.name());
            if share.is_nan() || share > share_max {
                let kept = kept.name();
                return Err(format!("{} on {isa}: {kept} moves logits by {share} of them", path.display()));
            }
        }
    }
    Ok(())
}

fn check_all(paths: impl Iterator<Item = (PathBuf, &'static str)>) {
    let failures: Vec<String> =
        paths.filter_map(|(path, family)| check(&path, &golden(family)).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_fixture_is_checked() {
    let folders = std::fs::read_dir(fixtures()).expect("fixtures/decoders");
    let mut names: Vec<String> = folders
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.path().join("golden.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, FAMILIES);
}

#[test]
fn families_from_safetensors_agree_with_transformers() {
    check_all(FAMILIES.iter().map(|family| (fixtures().join(family), *family)));
}

#[test]
fn families_from_gguf_agree_with_transformers() {
    let paths = FAMILIES.iter().flat_map(|family| {
        let files = ["model.gguf", "model-00001-of-00003.gguf"];
        files.map(|file| (fixtures().join(family).join(file), *family))
    });
    let paths: Vec<_> = paths.filter(|(path, _)| path.is_file()).collect();
    assert_eq!(paths.len(), 14, "GGUF files");
    check_all(paths.into_iter());
}

#[test]
fn splitting_a_prompt_and_adding_threads_changes_no_bit() {
    for family in ["llama-llama3", "gemma2", "qwen3-moe", "phi4-mini"] {
        let (path, golden) = (fixtures().join(family), golden(family));
        for isa in Isa::available() {
            let whole = logits(&path, &golden.tokens, KvElement::I16, isa, 1, golden.tokens.len());
            for (threads, chunk) in [(1, 1), (2, 7), (3, 33)] {
                let split = logits(&path, &golden.tokens, KvElement::I16, isa, threads, chunk);
                let same = whole.iter().zip(&split).all(|(whole, split)| whole.to_bits() == split.to_bits());
                assert!(same, "{family} on {isa}: {threads} threads and chunks of {chunk} change the logits");
            }
        }
    }
}
