//! Tiny models of several families (`fixtures/decoders`) without some of their layers: the file says what a pass says that
//! leaves these out.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use compress::rewrite::{Changes, rewrite};
use compress::{CompressError, Mix, Source, choose_layers, layer_choice};
use engine::llm::forward::{Forward, Span, StepSizes};
use formats::gguf::{Gguf, Value, ValueType, Writer, read};
use formats::model::ModelFiles;
use kernels::attention::{KvCache, KvElement, KvLayout, PAGE_TOKENS};
use kernels::compute::{Compute, Isa};
use kernels::elements::ElementType;

const TOKENS: usize = 48;

fn model(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(family).join("model.gguf")
}

fn compute() -> Arc<Compute> {
    Arc::new(Compute::new(Isa::detect(), 2))
}

fn without(from: &Path, dropped: &[usize], to: &Path) -> Result<(), CompressError> {
    let source = Source::open(from)?;
    let mix = Mix::find(&ModelFiles::open(from)?.facts().quantisation).unwrap();
    let changes = Changes { dropped, ..Changes::to(mix) };
    rewrite(&compute(), &source, changes, to, &mut |_| ControlFlow::Continue(())).map(|_| ())
}

fn logits(path: &Path, skipped: &[usize]) -> Vec<f32> {
    let files = ModelFiles::open(path).unwrap();
    let decoder = files.decoder();
    let pages = TOKENS.div_ceil(PAGE_TOKENS) as u32;
    let layers = decoder.layers.len();
    let layout = KvLayout::new(layers, decoder.kv_heads, decoder.head_dim, pages, KvElement::I16).unwrap();
    let mut cache = KvCache::new(layout).unwrap();
    let sizes = StepSizes { context_tokens: TOKENS, rows_max: TOKENS, logit_rows_max: TOKENS };
    let mut forward = Forward::load(compute(), &files, sizes, &mut |_, _| {}).unwrap();
    forward.skip_layers(skipped);
    let tokens = (0..TOKENS as u32).map(|i| (i * 37 + 5) % decoder.vocabulary as u32).collect();
    let span = Span { tokens, first_position: 0, pages: (0..pages).collect(), logits: 0..TOKENS };
    forward.run(&[span], &mut cache).1.to_vec()
}

#[test]
fn a_file_without_layers_says_what_a_pass_without_them_says() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let check = |family: &str, dropped: &[usize]| {
        let path = model(family);
        without(&path, dropped, &out).unwrap();
        let expected = logits(&path, dropped);
        assert!(expected != logits(&path, &[]), "{family}: layers do something");
        assert!(logits(&out, &[]) == expected, "{family} without {dropped:?}");
        let [before, after] = [&path, &out].map(|path| ModelFiles::open(path).unwrap().decoder().clone());
        let mut layers = before.layers.clone();
        for layer in dropped.iter().rev() {
            layers.remove(*layer);
        }
        assert_eq!(after, formats::model::Decoder { layers, ..before }, "{family}");
    };
    for family in ["llama", "llama-llama3", "qwen2", "qwen3", "phi3", "phi4-mini", "mixtral", "qwen3-moe"] {
        check(family, &[0]);
        check(family, &[1]);
    }
    // In three files.
    let path = model("llama-linear").with_file_name("model-00001-of-00003.gguf");
    without(&path, &[1], &out).unwrap();
    assert!(logits(&out, &[]) == logits(&path, &[1]));
}

#[test]
fn a_family_whose_layers_differ_by_number_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    for family in ["gemma2", "gemma3"] {
        let error = without(&model(family), &[1], &out).unwrap_err();
        assert!(matches!(error, CompressError::LayersByNumber { .. }), "{family}: {error}");
    }
    let layers = ModelFiles::open(&model("llama")).unwrap().decoder().layers.len();
    let all: Vec<usize> = (0..layers).collect();
    for dropped in [&all[..], &[layers]] {
        let error = without(&model("llama"), dropped, &out).unwrap_err();
        assert!(matches!(error, CompressError::Layers { .. }), "{error}");
    }
    assert!(!out.exists());
}

/// A family that isn't told apart by number may have lists, one entry a layer.
#[test]
fn lists_by_layer_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let [listed, out] = ["listed.gguf", "out.gguf"].map(|name| folder.path().join(name));
    let original = std::fs::read(model("llama")).unwrap();
    let file = read(&original).unwrap();
    let layers = file.size("llama.block_count").unwrap().unwrap();
    let heads = file.get("llama.attention.head_count_kv").unwrap();
    let mut writer = Writer::new(file.alignment);
    for (key, value) in file.metadata() {
        if *key != "llama.attention.head_count_kv" {
            writer.copy(key, *value);
        }
    }
    writer.array("llama.attention.head_count_kv", ValueType::U32, vec![heads; layers]);
    let of_layers = |first: u32| (0..layers as u32).map(move |layer| Value::U32(first + layer));
    writer.array("llama.rope.dimension_sections", ValueType::U32, of_layers(7));
    writer.array("general.something", ValueType::U32, of_layers(9));
    writer.array("llama.something", ValueType::U32, of_layers(1));
    for tensor in file.tensors() {
        let bytes = &original[tensor.bytes.clone()];
        writer.tensor(tensor.name, tensor.element_type, tensor.shape(), bytes);
    }
    std::fs::write(&listed, writer.finish()).unwrap();
    without(&listed, &[0], &out).unwrap();
    assert!(logits(&out, &[]) == logits(&model("llama"), &[0]));
    let written = std::fs::read(&out).unwrap();
    let written = read(&written).unwrap();
    let list = |file: &Gguf<'_>, key: &str| -> Vec<i128> {
        file.array(key).unwrap().unwrap().iter().map(|value| value.integer().unwrap()).collect()
    };
    assert_eq!(written.size("llama.block_count").unwrap(), Some(layers - 1));
    assert_eq!(list(&written, "llama.attention.head_count_kv").len(), layers - 1);
    assert_eq!(list(&written, "llama.something")[0], 2);
    assert_eq!(list(&written, "llama.rope.dimension_sections").len(), layers);
    assert_eq!(list(&written, "general.something").len(), layers);
}

/// A layer whose outputs are zeros has no influence, and goes first.
#[test]
fn the_layer_that_does_nothing_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let idle = folder.path().join("idle.gguf");
    let original = std::fs::read(model("llama")).unwrap();
    let file = read(&original).unwrap();
    let mut writer = Writer::new(file.alignment);
    for (key, value) in file.metadata() {
        writer.copy(key, *value);
    }
    for tensor in file.tensors() {
        let mut bytes = original[tensor.bytes.clone()].to_vec();
        if ["blk.1.attn_output.weight", "blk.1.ffn_down.weight"].contains(&tensor.name) {
            assert!(matches!(tensor.element_type, ElementType::F32 | ElementType::F16 | ElementType::BF16));
            bytes.fill(0);
        }
        writer.tensor(tensor.name, tensor.element_type, tensor.shape(), &bytes);
    }
    std::fs::write(&idle, writer.finish()).unwrap();
    let text: String =
        (0..400).map(|i| format!("{} and {} make {}. ", i, i * 7 % 13, i + i * 7 % 13)).collect();
    let go = &mut |_, _| ControlFlow::Continue(());
    let found = choose_layers(&idle, &compute(), &text, 1, go).unwrap();
    assert_eq!(layer_choice::dropped(&found), [1], "{found:?}");
    assert!(found[1].influence < 1e-6 && found[0].influence > 1e-3, "{found:?}");
    assert!(found[1].perplexity_without.is_some_and(|perplexity| perplexity > 1.0), "{found:?}");
    let too_many = choose_layers(&idle, &compute(), &text, found.len(), go);
    assert!(matches!(too_many, Err(CompressError::Layers { .. })));
}
