//! What every operation runs on: an instruction set, chosen once at run time, and a pool of threads.

use std::fmt;

use crate::threads::Pool;

/// An instruction-set level that the kernels have code for, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, which specifies what the others compute.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and VNNI, with everything of [`Isa::Avx2`].
    Avx512,
    /// AVX-512 BF16, with everything of [`Isa::Avx512`].
    Avx512Bf16,
}

impl Isa {
    /// Every level, in rising order.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    /// The best level that this machine has.
    pub fn detect() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Portable)
    }

    /// Every level that this machine can run, in rising order; the first is always [`Isa::Portable`].
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    /// Whether this machine can run this level; some loads from memory, so that every kernel can afford to ask.
    #[inline]
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 => false,
        }
    }

    /// The lower-case name used in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512-bf16",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An instruction set and a pool of threads, passed to every operation.
pub struct Compute {
    isa: Isa,
    pool: Pool,
}

impl Compute {
    /// A pool of `threads` threads (the calling one included) on the instruction set `isa`.
    ///
    /// # Panics
    /// When this machine does not have `isa`: running its code would be undefined behaviour.
    pub fn new(isa: Isa, threads: usize) -> Compute {
        assert!(isa.is_available(), "this machine has no {isa}; it has {:?}", Isa::available());
        Compute { isa, pool: Pool::new(threads) }
    }

    /// An instruction set that this machine has.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
