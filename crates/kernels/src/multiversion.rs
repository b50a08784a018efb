//! One body of plain Rust, compiled for each instruction set: what the compiler vectorises well needs no intrinsics.

/// Defines `fn name(isa, arguments...)`, which runs `body(arguments...)` as compiled for `isa`.
///
/// The body must be `#[inline(always)]`, and take a `const FMA: bool` that says whether fused multiply-add is one
/// instruction there. Its arithmetic stands in plain loops: a closure is a function of its own, compiled without the
/// instruction set unless the optimiser happens to inline it.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? = $body:ident) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::compute::Isa, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    $body::<true>($($arg),*)
                }
                match isa {
                    $crate::compute::Isa::Portable => {}
                    _ if !isa.is_available() => panic!("this machine has no {isa}"),
                    // SAFETY: the machine has it, as just asked.
                    $crate::compute::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    $crate::compute::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// `a * b + c`, fused where the instruction set does so.
#[inline(always)]
pub(crate) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}
