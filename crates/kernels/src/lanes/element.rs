//! How one number is stored, and a vector of them read.

use half::{bf16, f16};

use super::Lanes;

/// A type that is read as f32.
pub(crate) trait Element: Copy {
    /// Widens exactly.
    ///
    /// # Safety
    /// `from` must be readable for `L::WIDTH` elements.
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self) -> L::F;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const f32) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { lanes.load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const f16) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { lanes.load_f16(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const bf16) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { lanes.load_bf16(from) }
    }
}

/// Calls `$function::<L, E, R>($arguments)` for each run of `R` rows, as many at a time as registers allow.
macro_rules! for_runs_of_rows {
    ($rows:expr, $lanes:ident, |$row:ident| $function:ident($($argument:expr),*)) => {
        let mut $row = 0;
        while $row < $rows {
            let left = ($rows - $row).min(L::ROWS_MAX);
            // SAFETY: the caller of this macro checked that `$rows` rows are there, and `left` is not more than what
            // remains of them from `$row` on.
            unsafe {
                $row += match left {
                    12.. if L::ROWS_MAX >= 12 => { $function::<L, E, 12>($lanes, $($argument),*); 12 }
                    8.. if L::ROWS_MAX >= 8 => { $function::<L, E, 8>($lanes, $($argument),*); 8 }
                    6.. if L::ROWS_MAX >= 6 => { $function::<L, E, 6>($lanes, $($argument),*); 6 }
                    4.. if L::ROWS_MAX >= 4 => { $function::<L, E, 4>($lanes, $($argument),*); 4 }
                    3.. if L::ROWS_MAX >= 3 => { $function::<L, E, 3>($lanes, $($argument),*); 3 }
                    2.. => { $function::<L, E, 2>($lanes, $($argument),*); 2 }
                    _ => { $function::<L, E, 1>($lanes, $($argument),*); 1 }
                };
            }
        }
    };
}
pub(crate) use for_runs_of_rows;
