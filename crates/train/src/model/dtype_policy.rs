//! What the products of training steps are computed in.

use kernels::compute::Isa;
use kernels::gemm::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Model;
use super::programs::Mode;
use crate::compile::Arithmetic;
use crate::error::{Result, TrainError};

/// By Keras's names. Weights, sums and everything but products are f32 in either, and so are evaluation and prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DtypePolicy {
    #[default]
    Float32,
    /// Matrix products of training steps round their operands to bfloat16 (Micikevicius et al., "Mixed Precision
    /// Training", 2018), where the machine multiplies such.
    MixedBfloat16,
}

impl Model {
    /// Chooses what the products of training steps are computed in.
    ///
    /// # Errors
    /// When this machine doesn't multiply bfloat16.
    pub fn set_dtype_policy(&mut self, policy: DtypePolicy) -> Result<()> {
        let isa = self.compute.isa();
        if policy == DtypePolicy::MixedBfloat16 && !Precision::Bfloat16.is_had_by(isa) {
            return Err(TrainError::Argument {
                place: "compile".to_owned(),
                argument: "dtype_policy",
                expected: format!(
                    "\"float32\" on this machine: only {} multiplies bfloat16",
                    Isa::Avx512Bf16
                ),
                received: format!("\"mixed_bfloat16\", with {isa}"),
            });
        }
        if policy != self.dtype_policy {
            self.dtype_policy = policy;
            self.programs.retain(|key, _| key.mode != Mode::Train);
            self.resident = None;
        }
        Ok(())
    }

    pub(super) fn arithmetic(&self, mode: Mode) -> Arithmetic {
        let products = match (mode, self.dtype_policy) {
            (Mode::Train, DtypePolicy::MixedBfloat16) => Precision::Bfloat16,
            _ => Precision::Float32,
        };
        Arithmetic { isa: self.compute.isa(), products }
    }
}
