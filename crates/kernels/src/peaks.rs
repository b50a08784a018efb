//! What the machine can do at best, to hold measurements against: reading memory, `f32` multiply-adds, products of bytes.
//!
//! Nothing is computed with it. A multiplication and an addition count as two operations.

use std::hint::black_box;

use crate::compute::{Compute, Isa};
use crate::lanes::{Kernel, Lanes, dispatch};

/// Independent chains: enough to cover an instruction's latency, and few enough to stay in registers.
const CHAINS: usize = 12;
/// Floats that a thread reads before it asks for more: 1 MiB.
const READ_PART: usize = 1 << 18;

/// Reads `data` once with all threads.
pub fn read(compute: &Compute, data: &[f32]) {
    let parts: Vec<&[f32]> = data.chunks(READ_PART).collect();
    compute.pool().for_each(parts.len(), |i| {
        black_box(dispatch(compute.isa(), Sum(parts[i])));
    });
}

/// Chains of `rounds` multiply-adds of `f32` on every thread; returns the number of operations.
pub fn multiply_adds(compute: &Compute, rounds: usize) -> usize {
    on_every_thread(compute, || dispatch(compute.isa(), MultiplyAdds(rounds)))
}

/// Chains of `rounds` products of unsigned with signed bytes, and their sums, on every thread; returns the number of
/// operations. With AVX2 pairs add up in 16 bits, the least that such a product takes there.
pub fn byte_products(compute: &Compute, rounds: usize) -> usize {
    on_every_thread(compute, || match compute.isa() {
        // SAFETY: `Compute` has checked that the machine has its instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => unsafe { x86::avx512(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::avx2(rounds) },
        _ => portable(rounds),
    })
}

fn on_every_thread(compute: &Compute, kernel: impl Fn() -> usize + Sync) -> usize {
    let operations = std::sync::atomic::AtomicUsize::new(0);
    compute.pool().run(|_| {
        operations.fetch_add(kernel(), std::sync::atomic::Ordering::Relaxed);
    });
    operations.into_inner()
}

struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        let mut sums = [lanes.splat(0.0); 8];
        for block in self.0.chunks_exact(8 * L::WIDTH) {
            for i in 0..8 {
                sums[i] = lanes.add(sums[i], lanes.read(&block[i * L::WIDTH..]));
            }
        }
        let mut all = 0.0;
        for sum in sums {
            all += lanes.sum(sum);
        }
        all
    }
}

struct MultiplyAdds(usize);

impl Kernel for MultiplyAdds {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> usize {
        let (half, one) = (lanes.splat(black_box(0.5)), lanes.splat(black_box(1.0)));
        let mut chains = [one; CHAINS];
        for _ in 0..self.0 {
            for i in 0..CHAINS {
                chains[i] = lanes.fma(chains[i], half, one);
            }
        }
        let mut all = 0.0;
        for chain in chains {
            all += lanes.sum(chain);
        }
        black_box(all);
        2 * self.0 * CHAINS * L::WIDTH
    }
}

fn portable(rounds: usize) -> usize {
    let mut sums = black_box([1i32; 64]);
    let factor = i32::from(black_box(3i8));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = (*sum & 255) * factor + *sum;
        }
    }
    black_box(sums);
    2 * rounds * sums.len()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::CHAINS;

    /// # Safety
    /// The machine must have AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn avx2(rounds: usize) -> usize {
        let factors = _mm256_set1_epi8(black_box(3));
        let mut chains = [factors; CHAINS];
        for _ in 0..rounds {
            for i in 0..CHAINS {
                chains[i] = _mm256_add_epi16(chains[i], _mm256_maddubs_epi16(chains[i], factors));
            }
        }
        black_box(chains);
        2 * rounds * CHAINS * 32
    }

    /// # Safety
    /// The machine must have AVX-512 F and VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub unsafe fn avx512(rounds: usize) -> usize {
        let factors = _mm512_set1_epi8(black_box(3));
        let mut chains = [factors; CHAINS];
        for _ in 0..rounds {
            for i in 0..CHAINS {
                chains[i] = _mm512_dpbusd_epi32(chains[i], chains[i], factors);
            }
        }
        black_box(chains);
        2 * rounds * CHAINS * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_count_every_thread() {
        for isa in Isa::available() {
            let (one, two) = (Compute::new(isa, 1), Compute::new(isa, 2));
            assert_eq!(multiply_adds(&two, 10), 2 * multiply_adds(&one, 10), "{isa}");
            assert_eq!(byte_products(&two, 10), 2 * byte_products(&one, 10), "{isa}");
            read(&two, &[1.0; 3 * READ_PART / 2]);
        }
    }
}
