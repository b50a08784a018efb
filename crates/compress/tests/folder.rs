//! Hugging Face folders (`fixtures/decoders`) become the GGUF files that llama.cpp's own converter made of them.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use compress::rewrite::{Changes, rewrite};
use compress::{CompressError, Mix, Source, measure};
use engine::llm::tokenizer::Tokenizer;
use formats::gguf::{Gguf, read};
use formats::model::ModelFiles;
use kernels::compute::{Compute, Isa};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(name)
}

fn make(folder: &Path, mix: &str, to: &Path) -> Result<(), CompressError> {
    let compute = Compute::new(Isa::detect(), 2);
    let source = Source::open(folder)?;
    let mut go = |_| ControlFlow::Continue(());
    rewrite(&compute, &source, Changes::to(Mix::find(mix).unwrap()), to, &mut go).map(|_| ())
}

/// All tensors are the converter's to the bit, but for divisors of rotary embeddings, which are rounded in another order.
fn check_tensors(
    name: &str,
    (ours, our_bytes): (&Gguf<'_>, &[u8]),
    (theirs, their_bytes): (&Gguf<'_>, &[u8]),
) {
    for tensor in theirs.tensors() {
        let found = ours.tensor(tensor.name).unwrap_or_else(|| panic!("{name} lacks {}", tensor.name));
        assert_eq!(found.shape(), tensor.shape(), "{name}: {}", tensor.name);
        assert_eq!(found.element_type, tensor.element_type, "{name}: {}", tensor.name);
        let (found, wanted) = (&our_bytes[found.bytes.clone()], &their_bytes[tensor.bytes.clone()]);
        if tensor.name == "rope_freqs.weight" {
            let numbers = |bytes: &[u8]| -> Vec<f32> {
                bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
            };
            let (found, wanted) = (numbers(found), numbers(wanted));
            assert!(found.iter().zip(&wanted).all(|(x, y)| (x / y - 1.0).abs() < 1e-6), "{name}: {found:?}");
        } else {
            assert!(found == wanted, "{name}: {}", tensor.name);
        }
    }
}

#[test]
fn a_folder_becomes_what_llama_cpps_converter_makes_of_it() {
    // What it counts, and what it knows only of published models.
    const THEIRS: [&str; 4] = ["general.size_label", "general.basename", "general.name", "general.file_type"];
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("made.gguf");
    let check = |name: &str, mix: &str| {
        make(&fixture(name), mix, &path).unwrap();
        let [our_bytes, their_bytes] =
            [&path, &fixture(name).join("model.gguf")].map(|path| std::fs::read(path).unwrap());
        let (ours, theirs) = (read(&our_bytes).unwrap(), read(&their_bytes).unwrap());
        assert_eq!(ours.tensors().len(), theirs.tensors().len(), "{name}");
        check_tensors(name, (&ours, &our_bytes), (&theirs, &their_bytes));
        for (key, value) in theirs.metadata() {
            // Phi-3's original context is its context where nothing is scaled.
            let is_default = name == "phi3" && key.ends_with("original_context_length");
            if THEIRS.contains(key) || is_default {
                continue;
            }
            let found = ours.get(key);
            let is_close = matches!((found.and_then(|x| x.float()), value.float()),
                (Some(x), Some(y)) if (x / y - 1.0).abs() < 1e-6);
            assert!(found == Some(*value) || is_close, "{name}: {key} is {found:?} and not {value:?}");
        }
        let texts =
            ["the world and a model", "Hello, it is in that token", "<|im_start|>user\nhi<|im_end|>\n"];
        let [one, other] = [&fixture(name), &path]
            .map(|path| Tokenizer::new(ModelFiles::open(path).unwrap().tokenizer()).unwrap());
        for text in texts {
            let ids = [&one, &other].map(|tokenizer| tokenizer.encode(text, true, true).unwrap());
            assert_eq!(ids[0], ids[1], "{name}: {text}");
        }
    };
    check("llama", "F32");
    for name in ["llama-llama3", "llama-yarn", "qwen3", "gemma2", "gemma3", "phi3", "mixtral", "qwen3-moe"] {
        check(name, "F16");
    }
    for name in ["phi3-longrope-short", "phi3-longrope-long", "phi4-mini"] {
        check(name, "F16");
    }
    check("qwen2", "BF16");
}

#[test]
fn the_file_says_what_the_folder_says() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("made.gguf");
    let text: String =
        (0..200).map(|i| format!("{i} and {} make {}. ", i * 7 % 13, i + i * 7 % 13)).collect();
    let compute = Arc::new(Compute::new(Isa::detect(), 2));
    let check = |name: &str, mix: &str, most: f64| {
        make(&fixture(name), mix, &path).unwrap();
        let mut go = |_, _| ControlFlow::Continue(());
        let found = measure::compare(&fixture(name), &path, &compute, &text, 512, &mut go).unwrap();
        assert!(found.kl_max <= most, "{name}: {}", found.kl_max);
    };
    // In the types of the folders, so that the same kernels run.
    check("llama", "F32", 1e-6);
    check("llama-llama3", "F16", 1e-6);
    for name in ["qwen2", "qwen3", "gemma2", "gemma3", "phi4-mini"] {
        check(name, "BF16", 1e-6);
    }
}

/// By way of llama.cpp's file or not, a mix is the same.
#[test]
fn a_folder_is_quantised_as_its_gguf_file_is() {
    let scratch = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours.gguf", "theirs.gguf"].map(|name| scratch.path().join(name));
    make(&fixture("llama"), "Q4_K_M", &ours).unwrap();
    make(&fixture("llama").join("model.gguf"), "Q4_K_M", &theirs).unwrap();
    let [our_bytes, their_bytes] = [ours, theirs].map(|path| std::fs::read(path).unwrap());
    let (ours, theirs) = (read(&our_bytes).unwrap(), read(&their_bytes).unwrap());
    check_tensors("llama", (&ours, &our_bytes), (&theirs, &their_bytes));
}

#[test]
fn what_gguf_has_no_words_for_is_refused_by_name() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("made.gguf");
    let check = |name: &str, expected: &str| {
        let error = make(&fixture(name), "Q8_0", &path).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!path.exists(), "{name}");
    };
    check("mistral", "sliding windows");
    check("qwen2-window", "sliding windows");
    check("llama-dynamic", "rotary embedding");
    check("llama-yarn-v5", "rotary embedding");
    check("gemma2-scale", "attention scale");
    check("qwen3-moe-mixed", "experts");
}

#[test]
fn a_tokeniser_that_gguf_cannot_say_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        std::fs::copy(fixture("llama").join(file), scratch.path().join(file)).unwrap();
    }
    let original = std::fs::read_to_string(fixture("llama").join("tokenizer.json")).unwrap();
    let check = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let mut tree: serde_json::Value = serde_json::from_str(&original).unwrap();
        change(&mut tree);
        std::fs::write(scratch.path().join("tokenizer.json"), tree.to_string()).unwrap();
        let error = make(scratch.path(), "Q8_0", &scratch.path().join("made.gguf")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&|tree| tree["model"]["byte_fallback"] = true.into(), "SentencePiece");
    check(&|tree| tree["normalizer"] = serde_json::json!({"type": "Lowercase"}), "Lowercase");
    check(&|tree| tree["pre_tokenizer"]["use_regex"] = false.into(), "no name is known");
}
