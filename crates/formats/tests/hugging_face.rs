//! Hugging Face folders: configurations that are refused, and files that are missing, cut or elsewhere.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::fs;
use std::path::{Path, PathBuf};

use formats::decoder::read_config;
use formats::model::{Activation, Decoder, FeedForward, ModelFiles, RotaryScaling};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(name)
}

/// A copy of a fixture, to break.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn refuses(folder: &Path, expected: &str) {
    let error = ModelFiles::open(folder).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}\nexpected: {expected}");
}

/// A small configuration with some entries changed; `null` removes one.
fn config(model_type: &str, changes: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn decoder(model_type: &str, changes: Value) -> Decoder {
    read_config(&config(model_type, changes)).unwrap()
}

#[test]
fn unsupported_models_and_options_are_refused() {
    let check = |model_type: &str, changes: Value, expected: &str| {
        let error = read_config(&config(model_type, changes)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nexpected: {expected}");
    };
    check("mamba", json!({}), "\"mamba\"");
    check("mamba", json!({}), "llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3, phi3");
    check("llama", json!({"hidden_act": "relu"}), "hidden_act in config.json is the text \"relu\"");
    check("gemma2", json!({"hidden_activation": "gelu"}), "hidden_activation");
    check("llama", json!({"mlp_bias": true}), "mlp_bias");
    check("llama", json!({"kv_lora_rank": 512}), "kv_lora_rank");
    check("llama", json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config");
    check("llama", json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping");
    check("llama", json!({"is_causal": false}), "is_causal");
    check("llama", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor");
    check("llama", json!({"rope_scaling": {"type": "mystery"}}), "mystery");
    check("llama", json!({"rope_scaling": {"rope_type": "default", "mrope_section": [1]}}), "mrope_section");
    check("llama", json!({"rope_scaling": {"rope_type": "yarn", "truncate": false}}), "truncate");
    check(
        "llama",
        json!({"rope_scaling": {"rope_type": "linear"}}),
        "factor in the rope parameters is missing",
    );
    check("llama", json!({"rope_scaling": {"rope_type": "linear", "factor": -1.0}}), "positive");
    check(
        "llama",
        json!({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}),
        "8",
    );
    check("qwen2", json!({"layer_types": ["full_attention"]}), "one entry for each of 4 layers");
    check("qwen2", json!({"layer_types": ["a", "b", "c", "d"]}), "full_attention, sliding_attention");
    check("qwen3_moe", json!({"decoder_sparse_step": 0}), "decoder_sparse_step");
    check("qwen3_moe", json!({"num_experts": 4, "num_experts_per_tok": 5}), "experts used");
    check("gemma3", json!({"sliding_window_pattern": 0}), "sliding_window_pattern");
    check("gemma2", json!({"final_logit_softcapping": -1.0}), "final_logit_softcapping");
    check("gemma2", json!({"final_logit_softcapping": 1e300}), "final_logit_softcapping");
    check("llama", json!({"use_qk_norm": true}), "use_qk_norm");
    check("llama", json!({"num_attention_heads": 0}), "0");
    check("llama", json!({"num_hidden_layers": 100_000_000}), "number of layers");
    check("llama", json!({"hidden_size": -64}), "hidden_size in config.json is -64");
    check("llama", json!({"hidden_size": null}), "hidden_size in config.json is missing");
    check("llama", json!({"head_dim": 17}), "rotary");
    check("llama", json!({"sliding_window": "wide"}), "sliding_window");
    assert!(read_config(&json!([])).is_err());
}

#[test]
fn what_a_configuration_leaves_out_is_the_familys() {
    assert_eq!(decoder("mistral", json!({})).layers[3].window, Some(4096));
    assert_eq!(decoder("mistral", json!({"sliding_window": null})).layers[3].window, None);
    assert_eq!(decoder("llama", json!({"num_key_value_heads": null})).kv_heads, 4);
    assert_eq!(decoder("qwen3", json!({})).head_dim, 128);
    let gemma = decoder("gemma2", json!({}));
    assert_eq!((gemma.head_dim, gemma.activation, gemma.norm_offset), (256, Activation::GeluTanh, 1.0));
    assert_eq!(
        (gemma.attention_softcap, gemma.logit_softcap, gemma.attention_scale),
        (Some(50.0), Some(30.0), 1.0 / 16.0)
    );
    assert_eq!(
        gemma.layers.iter().map(|layer| layer.window).collect::<Vec<_>>(),
        [Some(4096), None, Some(4096), None]
    );
    let mixtral = decoder("mixtral", json!({}));
    let experts = mixtral.experts.unwrap();
    assert_eq!(
        (experts.count, experts.used, experts.normalise, mixtral.rotaries[0].theta),
        (8, 2, true, 1e6)
    );
    let mixed = decoder("qwen3_moe", json!({"decoder_sparse_step": 2, "mlp_only_layers": [3]}));
    assert_eq!(
        mixed.layers.iter().map(|layer| layer.feed_forward).collect::<Vec<_>>(),
        [FeedForward::Dense, FeedForward::Experts, FeedForward::Dense, FeedForward::Dense]
    );
    // As Qwen3-Coder's published configurations.
    decoder(
        "qwen3_moe",
        json!({"use_qk_norm": true, "qkv_bias": false, "shared_expert_intermediate_size": 0}),
    );
    // As Gemma 3's: sparse, and inside another.
    let nested = json!({"model_type": "gemma3", "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }});
    let gemma = read_config(&nested).unwrap();
    assert_eq!((gemma.heads, gemma.kv_heads, gemma.head_dim, gemma.context), (8, 4, 256, 131_072));
    assert_eq!((gemma.layers[4].window, gemma.layers[5].window), (Some(1024), None));
    assert_eq!((gemma.layers[4].rotary, gemma.layers[5].rotary), (1, 0));
    assert_eq!(gemma.rotaries[0].scaling, RotaryScaling::Linear { factor: 8.0 });
    assert_eq!((gemma.rotaries[0].theta, gemma.rotaries[1].theta), (1e6, 1e4));
    assert_eq!(gemma.rotaries[1].scaling, RotaryScaling::None);
}

#[test]
fn missing_and_broken_files_are_named() {
    let folder = copy("llama");
    let file = |name: &str| folder.path().join(name);
    let weights = fs::read(file("model.safetensors")).unwrap();

    fs::write(file("model.safetensors"), &weights[..weights.len() - 1]).unwrap();
    refuses(folder.path(), "model.safetensors: malformed safetensors: tensor");
    fs::write(file("model.safetensors"), "").unwrap();
    refuses(folder.path(), "it has 0 bytes");
    fs::remove_file(file("model.safetensors")).unwrap();
    refuses(folder.path(), "model.safetensors is missing");
    fs::write(file("pytorch_model.bin"), "").unwrap();
    refuses(folder.path(), "save the model as safetensors");
    fs::write(file("model.safetensors"), &weights).unwrap();

    fs::write(file("generation_config.json"), r#"{"eos_token_id": [257, 280]}"#).unwrap();
    refuses(folder.path(), "eos_token_id is 280; expected the id of one of 280 tokens");
    fs::remove_file(file("generation_config.json")).unwrap();
    assert_eq!(ModelFiles::open(folder.path()).unwrap().end_tokens(), [257]);

    fs::write(file("chat_template.jinja"), "from its own file").unwrap();
    assert_eq!(ModelFiles::open(folder.path()).unwrap().chat_template(), Some("from its own file"));
    fs::write(file("README.md"), "---\nlicense: mit\n---\n").unwrap();
    assert_eq!(ModelFiles::open(folder.path()).unwrap().facts().licence.as_deref(), Some("mit"));

    fs::write(file("config.json"), "{").unwrap();
    refuses(folder.path(), "config.json: malformed JSON");
    fs::remove_file(file("config.json")).unwrap();
    refuses(folder.path(), "config.json is missing");
    fs::remove_file(file("tokenizer.json")).unwrap();
    fs::write(file("config.json"), "{}").unwrap();
    refuses(folder.path(), "tokenizer.json is missing");
    refuses(Path::new("/nonexistent/model"), "cannot open /nonexistent/model");
}

#[test]
fn tensors_that_are_left_over_are_refused() {
    // With biases in the file that its configuration does not mention.
    let folder = copy("qwen2");
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"qwen2\"", "\"llama\"")).unwrap();
    refuses(folder.path(), "self_attn.k_proj.bias, which is not supported");
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    let folder = copy("mistral");
    let path = folder.path().join("model.safetensors.index.json");
    assert!(ModelFiles::open(folder.path()).is_ok());
    let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let write = |change: &dyn Fn(&mut Value)| {
        let mut index = index.clone();
        change(&mut index["weight_map"]);
        fs::write(&path, index.to_string()).unwrap();
    };
    write(&|map| map["extra.weight"] = map["model.norm.weight"].clone());
    refuses(folder.path(), "tensor extra.weight is missing: the index of weights says");
    write(&|map| map["model.norm.weight"] = json!("../model.safetensors"));
    refuses(folder.path(), "in the same folder");
    write(&|map| map["model.norm.weight"] = json!("nowhere.safetensors"));
    refuses(folder.path(), "nowhere.safetensors");
    fs::write(&path, "[]").unwrap();
    refuses(folder.path(), "model.safetensors.index.json: malformed index of weights");
}

#[test]
fn missing_parts_of_a_split_file_are_named() {
    let folder = copy("llama-linear");
    let part = |number: usize| folder.path().join(format!("model-0000{number}-of-00003.gguf"));
    assert!(ModelFiles::open(&part(3)).is_ok());
    fs::remove_file(part(2)).unwrap();
    refuses(&part(1), "cannot open");
    refuses(&part(1), "model-00002-of-00003.gguf");
    fs::copy(part(3), part(2)).unwrap();
    refuses(&part(1), "by its name it is part 2 of 3");
    let alone = folder.path().join("alone.gguf");
    fs::copy(part(1), &alone).unwrap();
    refuses(&alone, "keep them together");
}
