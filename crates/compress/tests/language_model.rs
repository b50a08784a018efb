//! A tiny Llama (`fixtures/decoders/llama`) in every mix: what is written can be read, served and measured.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

mod tiny;

use std::ops::ControlFlow;
use std::path::Path;

use compress::mix::MIXES;
use compress::report::Report;
use compress::rewrite::{Changes, Rewritten, rewrite};
use compress::{CompressError, Hessians, Importance, Mix, Source, measure};
use engine::llm::{Llm, Settings};
use formats::gguf::{Value, Writer, read};
use formats::model::ModelFiles;
use kernels::attention::KvElement;
use kernels::compute::{Compute, Isa};
use kernels::elements::ElementType;
use tiny::{compute, go, text, tiny};

const SENTENCES: usize = 400;

fn make(
    from: &Path,
    mix: &str,
    importance: Option<&Importance>,
    to: &Path,
) -> Result<Rewritten, CompressError> {
    let source = Source::open(from)?;
    let changes = Changes { importance, ..Changes::to(Mix::find(mix).unwrap()) };
    rewrite(&compute(), &source, changes, to, &mut go)
}

#[test]
fn every_mix_can_be_opened_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let original = std::fs::read(tiny()).unwrap();
    let before = read(&original).unwrap();
    for mix in MIXES {
        let path = folder.path().join(format!("{}.gguf", mix.name));
        let rewritten = make(&tiny(), mix.name, None, &path).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(rewritten.bytes_after, written.len() as u64, "{}", mix.name);
        let after = read(&written).unwrap();
        let names = |file: &formats::gguf::Gguf<'_>| -> Vec<(String, Vec<usize>)> {
            file.tensors().iter().map(|tensor| (tensor.name.to_owned(), tensor.shape().to_vec())).collect()
        };
        assert_eq!(names(&before), names(&after), "{}", mix.name);
        assert_eq!(after.get("general.file_type"), Some(Value::U32(mix.file_type)), "{}", mix.name);
        for (key, value) in before.metadata() {
            if *key != "general.file_type" && *key != "general.quantization_version" {
                assert_eq!(after.get(key), Some(*value), "{}: {key}", mix.name);
            }
        }
        ModelFiles::open(&path).unwrap();
        let worst = rewritten.tensors.iter().map(|tensor| tensor.relative_error).fold(0.0, f64::max);
        assert!(worst < 0.2, "{}: {worst}", mix.name);
    }
}

#[test]
fn the_same_type_is_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [small, again] = ["small.gguf", "again.gguf"].map(|name| folder.path().join(name));
    make(&tiny(), "Q8_0", None, &small).unwrap();
    let rewritten = make(&small, "Q8_0", None, &again).unwrap();
    assert!(rewritten.tensors.iter().all(|tensor| tensor.relative_error == 0.0));
    assert_eq!(std::fs::read(small).unwrap(), std::fs::read(again).unwrap());
}

#[test]
fn threads_and_instruction_sets_do_not_show() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for threads in [1, 2, 5] {
        let path = folder.path().join(format!("{threads}.gguf"));
        let source = Source::open(&tiny()).unwrap();
        let compute = Compute::new(Isa::detect(), threads);
        rewrite(&compute, &source, Changes::to(Mix::find("Q4_K_M").unwrap()), &path, &mut go).unwrap();
        files.push(std::fs::read(path).unwrap());
    }
    assert!(files.iter().all(|file| *file == files[0]));
}

#[test]
fn what_is_smaller_says_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    let check = |mix: &str, kl_most: f64, departure_most: f64| {
        let rewritten = make(&tiny(), mix, None, &path).unwrap();
        let mut go = |_, _| ControlFlow::Continue(());
        let found =
            measure::compare(&tiny(), &path, &compute(), &text(SENTENCES), usize::MAX, &mut go).unwrap();
        assert!(found.kl_mean <= kl_most, "{mix}: {}", found.kl_mean);
        assert!(found.kl_median <= found.kl_99 && found.kl_99 <= found.kl_max);
        let departure = (found.compressed.perplexity / found.original.perplexity - 1.0).abs();
        assert!(departure < departure_most, "{mix}: perplexity departs by {departure}");
        assert!(found.examples.windows(2).all(|pair| pair[0].kl >= pair[1].kl));
        let kl = found.kl_mean;
        let mut report = Report::new("tiny", mix, rewritten, 0.1);
        report.comparison = Some(found);
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert!(json["comparison"]["kl_mean"].as_f64().unwrap() >= 0.0);
        assert!(report.html().contains("Where they differ most"));
        kl
    };
    // Random weights make steep logits; and products of quantised weights round activations to 8 bits.
    check("F32", 1e-9, 1e-9);
    let eight = check("Q8_0", 0.05, 0.05);
    let four = check("Q4_0", 5.0, 1.0);
    assert!(eight < four / 4.0, "{eight} in 8 bits, {four} in 4");
}

#[test]
fn importance_is_of_every_matrix_and_lessens_what_it_weighs() {
    let folder = tempfile::tempdir().unwrap();
    let importance =
        Importance::measure(
            &tiny(),
            &compute(),
            &text(SENTENCES),
            &[],
            &mut |_, _| ControlFlow::Continue(()),
        )
        .unwrap();
    let path = folder.path().join("weighed.gguf");
    let rewritten = make(&tiny(), "Q4_0", Some(&importance), &path).unwrap();
    for tensor in rewritten.tensors.iter().filter(|tensor| tensor.to != tensor.from) {
        assert!(tensor.weighed, "{}", tensor.name);
    }
}

#[test]
fn a_number_that_is_none_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let [bad, out] = ["bad.gguf", "out.gguf"].map(|name| folder.path().join(name));
    let check = |number: f32, mix: &str, expected: &str| {
        let mut values = vec![0.5f32; 128];
        values[70] = number;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut writer = Writer::default();
        writer.text("general.architecture", "llama");
        writer.tensor("blk.0.ffn_up.weight", ElementType::F32, &[2, 64], &bytes);
        std::fs::write(&bad, writer.finish()).unwrap();
        let error = make(&bad, mix, None, &out).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!out.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    };
    check(f32::NAN, "Q4_0", "blk.0.ffn_up.weight holds NaN in row 1");
    check(f32::INFINITY, "BF16", "inf in row 1");
    check(70_000.0, "F16", "BF16 has");
}

#[test]
fn a_model_is_not_written_over_itself_and_may_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::copy(tiny(), &path).unwrap();
    let error = make(&path, "Q4_0", None, &path).unwrap_err();
    assert!(matches!(error, CompressError::SameFile { .. }), "{error}");
    let out = folder.path().join("out.gguf");
    let source = Source::open(&path).unwrap();
    let mix = Mix::find("Q4_0").unwrap();
    let stopped = rewrite(&compute(), &source, Changes::to(mix), &out, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(CompressError::Stopped)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = Source::open(folder.path()).err().unwrap();
    assert!(error.to_string().contains("config.json is missing"), "{error}");
}

/// What the model says comes nearer to the original's on another text than by rounding each weight.
#[test]
fn compensated_rounding_says_more_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, better] = ["plain.gguf", "better.gguf"].map(|name| folder.path().join(name));
    let compute = compute();
    let seen: String =
        (0..4000).map(|i| format!("{i} and {} make {}. ", i * 7 % 13, i + i * 7 % 13)).collect();
    for mix in ["Q4_0", "Q4_1"] {
        make(&tiny(), mix, None, &plain).unwrap();
        let source = Source::open(&tiny()).unwrap();
        let mut hessians = Hessians::open(&tiny(), &compute, &seen, &[]).unwrap();
        let changes = Changes { hessians: Some(&mut hessians), ..Changes::to(Mix::find(mix).unwrap()) };
        let rewritten = rewrite(&compute, &source, changes, &better, &mut go).unwrap();
        let compensated: Vec<_> = rewritten.tensors.iter().filter(|tensor| tensor.compensated).collect();
        assert_eq!(compensated.len(), 2 * 7, "{compensated:?}");
        let kl = |path: &Path| {
            let go = &mut |_, _| ControlFlow::Continue(());
            measure::compare(&tiny(), path, &compute, &text(SENTENCES), 4096, go).unwrap().kl_mean
        };
        let (before, after) = (kl(&plain), kl(&better));
        println!("{mix}: {before} {after}");
        assert!(after < 0.9 * before, "{mix}: {after}, {before} without");
    }
    let stopped = &mut |_| ControlFlow::Break(());
    let source = Source::open(&tiny()).unwrap();
    let mut hessians = Hessians::open(&tiny(), &compute, &seen, &[]).unwrap();
    let changes = Changes { hessians: Some(&mut hessians), ..Changes::to(Mix::find("Q4_0").unwrap()) };
    assert!(matches!(rewrite(&compute, &source, changes, &better, stopped), Err(CompressError::Stopped)));
}

/// What was chosen for keys and values is in the file, stays when it is rewritten again, and is what engines keep.
#[test]
fn the_file_says_how_keys_and_values_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = ["1.gguf", "2.gguf", "3.gguf"].map(|name| folder.path().join(name));
    let said = |path: &Path| ModelFiles::open(path).unwrap().facts().kv_element;
    let make = |from: &Path, kv_element, to: &Path| {
        let changes = Changes { kv_element, ..Changes::to(Mix::find("Q8_0").unwrap()) };
        rewrite(&compute(), &Source::open(from).unwrap(), changes, to, &mut go).unwrap();
    };
    assert_eq!(said(&tiny()), None);
    make(&tiny(), Some(KvElement::I8), &first);
    make(&first, None, &second);
    make(&first, Some(KvElement::I16), &third);
    assert_eq!(
        [&first, &second, &third].map(|path| said(path)),
        [Some(KvElement::I8), Some(KvElement::I8), Some(KvElement::I16)]
    );
    let fingerprint = |path: &Path, kv_element| {
        let settings = Settings { kv_element, memory_max_bytes: Some(1 << 30), ..Settings::default() };
        Llm::load(path, &settings, &mut |_, _| {}).unwrap().facts().fingerprint.clone()
    };
    assert!(fingerprint(&first, None).contains("/kv-i8/"));
    assert!(fingerprint(&first, Some(KvElement::I16)).contains("/kv-i16/"));
    assert!(fingerprint(&tiny(), None).contains("/kv-i16/"));
    // Another name is refused.
    let mut bytes = std::fs::read(&first).unwrap();
    let key = bytes.windows(17).position(|bytes| bytes == b"tureen.kv_element").unwrap();
    let value = key + 17 + 4 + 8;
    assert_eq!(&bytes[value..][..2], b"i8");
    bytes[value] = b'q';
    std::fs::write(&first, bytes).unwrap();
    let error = ModelFiles::open(&first).err().unwrap().to_string();
    assert!(error.contains("tureen.kv_element") && error.contains("i16 or i8"), "{error}");
}
