//! The header of a safetensors file.

#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    memory::within(16, data.len(), || {
        for tensor in formats::safetensors::read(data).unwrap_or_default() {
            assert!(tensor.bytes.end <= data.len() && tensor.bytes.start <= tensor.bytes.end);
        }
    });
});
