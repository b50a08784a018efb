//! Opens every tiny checkpoint of the repository, as a folder and as a GGUF file that llama.cpp's converter made,
//! and holds both to say the same.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::path::{Path, PathBuf};

use formats::model::{Decoder, FeedForward, ModelFiles, Role, RotaryLayout, Tensor};
use formats::tokenizer::TokenizerSource;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(name)
}

const GGUF: [&str; 14] = [
    "gemma2/model.gguf",
    "gemma3/model.gguf",
    "llama/model.gguf",
    "llama-linear/model-00002-of-00003.gguf",
    "llama-llama3/model.gguf",
    "llama-yarn/model.gguf",
    "mixtral/model.gguf",
    "phi3/model.gguf",
    "phi3-longrope-long/model.gguf",
    "phi3-longrope-short/model.gguf",
    "phi4-mini/model.gguf",
    "qwen2/model.gguf",
    "qwen3/model.gguf",
    "qwen3-moe/model.gguf",
];

#[test]
fn every_gguf_opens() {
    for name in GGUF {
        let model = ModelFiles::open(&folder(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(model.decoder().vocabulary, 280, "{name}");
        assert_eq!(model.end_tokens()[0], 257, "{name}");
        assert!(model.chat_template().unwrap().contains("<|im_start|>"), "{name}");
        let embedding = model.tensor(Role::Embedding, None).unwrap().unwrap();
        assert_eq!(embedding.shape, [280, model.decoder().hidden], "{name}");
        let up = model.tensor(Role::FeedForwardNorm, Some(1)).unwrap().unwrap();
        assert_eq!(up.shape, [model.decoder().hidden], "{name}");
    }
}

const FOLDERS: [&str; 21] = [
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

#[test]
fn every_folder_opens() {
    for name in FOLDERS {
        let model = ModelFiles::open(&folder(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(model.decoder().vocabulary, 280, "{name}");
        assert_eq!(model.end_tokens(), [257, 260], "{name}");
        assert!(model.chat_template().unwrap().contains("<|im_start|>"), "{name}");
        assert!(
            matches!(model.tokenizer(), TokenizerSource::TokenizerJson { config: Some(_), .. }),
            "{name}"
        );
    }
}

#[test]
fn a_folder_and_its_gguf_describe_one_decoder() {
    for name in GGUF {
        let gguf = ModelFiles::open(&folder(name)).unwrap();
        let folder = ModelFiles::open(folder(name).parent().unwrap()).unwrap();
        let mut expected = folder.decoder().clone();
        // What the converter changes: it permutes Llama's rows, adds Gemma's 1, and writes other forms of rope scaling.
        if matches!(&expected.family[..], "llama" | "mixtral") {
            expected.rotary_layout = RotaryLayout::Interleaved;
        }
        expected.norm_offset = 0.0;
        expected.rotaries = gguf.decoder().rotaries.clone();
        assert_eq!(gguf.decoder(), &expected, "{name}");
        assert_eq!(gguf.facts().parameters, folder.facts().parameters, "{name}");
        for context in [16, 64, 1000] {
            same_rotaries(gguf.decoder(), folder.decoder(), context, name);
        }
        same_tensors(&gguf, &folder, name);
    }
}

fn same_rotaries(one: &Decoder, other: &Decoder, context: usize, name: &str) {
    for (one, other) in one.rotaries_at(context).iter().zip(other.rotaries_at(context)) {
        let near = |a: f32, b: f32| assert!((a / b - 1.0).abs() < 1e-6, "{name} at {context}: {a} and {b}");
        near(one.attention_factor, other.attention_factor);
        assert_eq!(one.frequencies.len(), other.frequencies.len());
        one.frequencies.iter().zip(other.frequencies).for_each(|(a, b)| near(*a, b));
    }
}

fn same_tensors(gguf: &ModelFiles, folder: &ModelFiles, name: &str) {
    let same = |role: Role, layer: Option<usize>| {
        let (one, other) = (gguf.tensor(role, layer).unwrap(), folder.tensor(role, layer).unwrap());
        assert_eq!(one.as_ref().map(|tensor| &tensor.shape), other.as_ref().map(|tensor| &tensor.shape));
        let (Some(one), Some(other)) = (one, other) else { return };
        let permuted =
            matches!(role, Role::Query | Role::Key) && gguf.decoder().rotary_layout != RotaryLayout::Halves;
        if permuted {
            return;
        }
        let is_norm = one.shape.len() == 1 && one.name.contains("norm");
        let offset = if is_norm { folder.decoder().norm_offset } else { 0.0 };
        for (a, b) in numbers(&one).into_iter().zip(numbers(&other)) {
            // The two forms round differently.
            let difference = (a - b - offset).abs();
            assert!(
                difference < 4e-3 * a.abs().max(1e-3),
                "{name}: {role:?} {layer:?} of {}: {a}, {b}",
                one.name
            );
        }
    };
    [Role::Embedding, Role::Output, Role::OutputNorm].into_iter().for_each(|role| same(role, None));
    for (index, layer) in gguf.decoder().layers.iter().enumerate() {
        let roles = match layer.feed_forward {
            FeedForward::Dense => vec![Role::Gate, Role::Up, Role::Down],
            FeedForward::Experts => {
                let count = gguf.decoder().experts.unwrap().count;
                let of =
                    |expert| [Role::ExpertGate(expert), Role::ExpertUp(expert), Role::ExpertDown(expert)];
                (0..count).flat_map(of).chain([Role::Router]).collect()
            }
        };
        for role in roles {
            same(role, Some(index));
        }
        for role in [
            Role::AttentionNorm,
            Role::Query,
            Role::Key,
            Role::Value,
            Role::QueryBias,
            Role::KeyBias,
            Role::ValueBias,
            Role::QueryNorm,
            Role::KeyNorm,
            Role::AttentionOutput,
            Role::AttentionOutputBias,
            Role::PostAttentionNorm,
            Role::FeedForwardNorm,
            Role::PostFeedForwardNorm,
        ] {
            same(role, Some(index));
        }
    }
}

fn numbers(tensor: &Tensor<'_>) -> Vec<f32> {
    let mut numbers = vec![0.0; tensor.shape.iter().product()];
    kernels::elements::dequantize(tensor.element_type, tensor.bytes, &mut numbers);
    numbers
}
