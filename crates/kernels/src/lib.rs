//! Arithmetic, memory mapping and threads: the only crate with `unsafe`.

pub mod activation;
pub mod attention;
pub mod compute;
pub mod elements;
mod lanes;
pub mod matmul;
pub mod memory;
pub mod norm;
pub mod peaks;
pub mod rotary;
pub mod sampling;
pub mod softmax;
pub mod thread_bound;
pub mod threads;
