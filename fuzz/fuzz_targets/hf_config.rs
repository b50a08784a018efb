//! A Hugging Face config.json, up to the rotary frequencies.

#![no_main]

mod memory;

use formats::decoder::{DIMENSION_MAX, read_config};
use formats::hugging_face::parse_config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut decoder = None;
    memory::within(200, data.len(), || {
        decoder = parse_config(data, "config.json").and_then(|config| read_config(&config)).ok();
    });
    if let Some(decoder) = decoder {
        for rotary in decoder.rotaries_at(decoder.context) {
            assert!(rotary.frequencies.len() <= DIMENSION_MAX);
            assert!(rotary.frequencies.iter().all(|x| !x.is_nan()) && rotary.attention_factor.is_finite());
        }
    }
});
