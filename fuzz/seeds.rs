//! Writes what fuzzing begins from into corpus/: the fixtures' real files, and tiny models of each form.

use std::error::Error;
use std::fs;
use std::path::Path;

use formats::gguf::Value;
use kernels::elements::ElementType;
use store::codec::Layout;

#[path = "../crates/formats/tests/tiny/mod.rs"]
mod tiny;

use tiny::{HIDDEN, Tiny};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = |target: &str| root.join("corpus").join(target);
    for target in ["gguf", "safetensors", "hf_config", "onnx", "hdf5", "chunk"] {
        fs::create_dir_all(corpus(target))?;
    }
    for entry in fs::read_dir(root.join("../fixtures/decoders"))? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (file, target) in
            [("model.gguf", "gguf"), ("model.safetensors", "safetensors"), ("config.json", "hf_config")]
        {
            if folder.join(file).exists() {
                fs::copy(folder.join(file), corpus(target).join(&name))?;
            }
        }
    }
    for (folder, end, target) in [("onnx", "onnx", "onnx"), ("hdf5", "h5", "hdf5")] {
        for entry in fs::read_dir(root.join("../fixtures").join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == end) {
                fs::copy(&path, corpus(target).join(path.file_name().unwrap_or_default()))?;
            }
        }
    }
    for layout in [Layout::Bytes, Layout::Words16, Layout::Words32, Layout::Blocks(ElementType::Q4_K)] {
        let raw = Tiny::llama().file();
        let raw = &raw[raw.len().saturating_sub(4000)..];
        let zeros = vec![0; raw.len()];
        let name = format!("{layout:?}").replace(['(', ')'], "");
        fs::write(corpus("chunk").join(&name), store::codec::encode(raw, layout, 0, None))?;
        let frame = store::codec::encode(raw, layout, 0, Some(&zeros));
        fs::write(corpus("chunk").join(name + "-difference"), frame)?;
    }
    for (name, tiny) in tiny_models() {
        fs::write(corpus("gguf").join(name), tiny.file())?;
    }
    Ok(())
}

/// Small, so that most mutations hit the header.
fn tiny_models() -> Vec<(&'static str, Tiny)> {
    let mut experts = Tiny::llama();
    experts.set("llama.expert_count", Value::U32(3)).set("llama.expert_used_count", Value::U32(2));
    experts.remove("blk.0.ffn_gate").remove("blk.0.ffn_up").remove("blk.0.ffn_down");
    experts.add("blk.0.ffn_gate_inp.weight", ElementType::F32, &[3, HIDDEN]);
    experts.add("blk.0.ffn_gate_exps.weight", ElementType::Q4_0, &[3, 64, HIDDEN]);
    experts.add("blk.0.ffn_up_exps.weight", ElementType::Q4_0, &[3, 64, HIDDEN]);
    experts.add("blk.0.ffn_down_exps.weight", ElementType::Q4_0, &[3, HIDDEN, 64]);

    let mut scaled = Tiny::llama();
    scaled
        .set("llama.rope.scaling.type", Value::String("yarn"))
        .set("llama.rope.scaling.factor", Value::F32(4.0));
    scaled.set("general.alignment", Value::U64(32)).set("general.file_type", Value::I32(15));

    let mut fused = Tiny::llama();
    for (key, value) in fused.keys.clone() {
        fused.set(&key.replace("llama.", "phi3."), value);
    }
    fused.set("general.architecture", Value::String("phi3"));
    fused.remove("blk.0.attn_q").remove("blk.0.attn_k").remove("blk.0.attn_v").remove("blk.0.ffn_gate");
    fused.add("blk.0.attn_qkv.weight", ElementType::Q4_0, &[64, HIDDEN]);
    fused.add("blk.0.ffn_up.weight", ElementType::Q4_0, &[128, HIDDEN]);
    vec![("tiny", Tiny::llama()), ("tiny-experts", experts), ("tiny-yarn", scaled), ("tiny-fused", fused)]
}
