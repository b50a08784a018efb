//! An HDF5 file's groups and the numbers of its data sets.

#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;

// A deflated chunk grows up to 1,100 times, and each of its numbers is 8 bytes in memory.
fuzz_target!(|data: &[u8]| {
    memory::within(40_000, data.len(), || {
        for dataset in formats::hdf5::read(data).unwrap_or_default() {
            drop(dataset.values(data));
        }
    });
});
