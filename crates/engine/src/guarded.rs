//! Calls into libraries that may panic over what a file says.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`, of which a panic is an error. A panic hook can ask [`is_guarded`] and keep silent.
///
/// # Errors
/// What the panic said.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let before = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    outcome
}

/// Whether a panic of this thread will be an error that somebody reports.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_guard_ends_with_it() {
        assert_eq!(guarded(is_guarded).ok(), Some(true));
        assert!(guarded(|| guarded(|| panic!("inside")).is_err() && is_guarded()).is_ok_and(|inside| inside));
        assert!(!is_guarded());
    }
}
