//! A whole model in one GGUF file: header, decoder, tokeniser, and each layer's tensors.

#![no_main]

mod memory;

use formats::model::{FeedForward, ModelFiles, Role};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    memory::within(16, data.len(), || {
        let Ok(model) = ModelFiles::from_gguf_bytes(vec![data.to_vec()], "fuzzed") else { return };
        let decoder = model.decoder();
        decoder.rotaries_at(decoder.context);
        for (index, layer) in decoder.layers.iter().enumerate() {
            let last = match (layer.feed_forward, decoder.experts) {
                (FeedForward::Experts, Some(experts)) => Role::ExpertDown(experts.count - 1),
                _ => Role::Down,
            };
            for role in [Role::Query, Role::ValueBias, last] {
                model.tensor(role, Some(index)).expect("opening has checked it");
            }
        }
    });
});
