//! A coded chunk from a remote, alone and as a difference.

#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;
use store::codec;

/// What the caller expects.
const RAW_BYTES_MAX: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    memory::within(8, data.len() + RAW_BYTES_MAX, || {
        let Ok(header) = codec::header(data) else { return };
        let base = vec![0; RAW_BYTES_MAX.min(header.raw_bytes as usize)];
        if let Ok(raw) = codec::decode(data, Some(&base), RAW_BYTES_MAX) {
            assert_eq!(raw.len() as u64, header.raw_bytes);
            let again = codec::encode(&raw, header.layout, header.lead, header.has_base.then_some(&base));
            assert_eq!(codec::decode(&again, Some(&base), RAW_BYTES_MAX).as_deref(), Ok(&raw[..]));
        }
    });
});
