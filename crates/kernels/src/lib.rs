//! Arithmetic, memory mapping and threads: the only crate with `unsafe`.

pub mod activation;
pub mod attention;
pub mod by_rows;
pub mod compute;
pub mod convolution;
pub mod elements;
pub mod fused;
pub mod gather;
pub mod gemm;
mod lanes;
pub mod matmul;
pub mod memory;
pub mod norm;
pub mod peaks;
pub mod reduce;
pub mod rotary;
pub mod sampling;
pub mod softmax;
pub mod thread_bound;
pub mod threads;
pub mod workspace;
