//! An ONNX file's signature and frame, as read before a runtime sees it.

#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;

// An empty operator takes 2 bytes in a file and 200 in memory.
fuzz_target!(|data: &[u8]| {
    memory::within(200, data.len(), || drop(formats::onnx::parse(data)));
});
