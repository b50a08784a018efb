//! The element and block types that weights are stored in.
//!
//! Source: the GGUF specification and the block layouts of ggml (`docs/gguf.md` and `ggml-common.h` there).

mod blocks;
mod quantize;
#[cfg(test)]
mod tests;

pub use blocks::dequantize;
pub(crate) use blocks::{BLOCK, Block, NONLINEAR, block, zero_point};
pub use quantize::{is_compensable, quantize, quantize_compensated};

use std::fmt;

/// How the numbers of a tensor are stored. Quantised types come in blocks along a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // the names are the field's own
pub enum ElementType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
}

impl ElementType {
    /// Every type, in the order of declaration.
    pub const ALL: [ElementType; 15] = [
        ElementType::F32,
        ElementType::F16,
        ElementType::BF16,
        ElementType::Q4_0,
        ElementType::Q4_1,
        ElementType::Q5_0,
        ElementType::Q5_1,
        ElementType::Q8_0,
        ElementType::Q2_K,
        ElementType::Q3_K,
        ElementType::Q4_K,
        ElementType::Q5_K,
        ElementType::Q6_K,
        ElementType::IQ4_NL,
        ElementType::IQ4_XS,
    ];

    /// Elements in one block; 1 for the plain float types. A row's length is a multiple of it.
    pub const fn block_elements(self) -> usize {
        use ElementType::*;
        match self {
            F32 | F16 | BF16 => 1,
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL => 32,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        use ElementType::*;
        match self {
            F32 => 4,
            F16 | BF16 => 2,
            Q4_0 | IQ4_NL => 18,
            Q4_1 => 20,
            Q5_0 => 22,
            Q5_1 => 24,
            Q8_0 => 34,
            Q2_K => 84,
            Q3_K => 110,
            Q4_K => 144,
            Q5_K => 176,
            Q6_K => 210,
            IQ4_XS => 136,
        }
    }

    /// Bytes of a row of `elements`, or `None` where that is no whole number of blocks or overflows.
    pub fn row_bytes(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// The field's name, as in file names and reports: `Q4_K`, `BF16`.
    pub fn name(self) -> &'static str {
        use ElementType::*;
        match self {
            F32 => "F32",
            F16 => "F16",
            BF16 => "BF16",
            Q4_0 => "Q4_0",
            Q4_1 => "Q4_1",
            Q5_0 => "Q5_0",
            Q5_1 => "Q5_1",
            Q8_0 => "Q8_0",
            Q2_K => "Q2_K",
            Q3_K => "Q3_K",
            Q4_K => "Q4_K",
            Q5_K => "Q5_K",
            Q6_K => "Q6_K",
            IQ4_NL => "IQ4_NL",
            IQ4_XS => "IQ4_XS",
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
