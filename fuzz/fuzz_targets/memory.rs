//! Holds each reader to memory in proportion to its input.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What reading anything may take, in bytes.
const BASE: usize = 64 << 10;

/// Runs `read`, which may take `factor` bytes for each of `input_bytes`.
pub fn within(factor: usize, input_bytes: usize, read: impl FnOnce()) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    read();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let allowed = BASE + factor * input_bytes;
    assert!(taken <= allowed, "took {taken} bytes for an input of {input_bytes}; {allowed} are allowed");
}
