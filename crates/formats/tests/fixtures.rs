//! Opens every tiny checkpoint of the repository: GGUF files that llama.cpp's converter made.

use std::path::{Path, PathBuf};

use formats::model::{ModelFiles, Role};

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
