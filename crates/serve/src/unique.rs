//! Names for answers and requests that don't repeat, neither within a process nor across restarts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// `PREFIX-` and 24 hexadecimal digits: 16 drawn once a process, 8 counted.
pub fn unique(prefix: &str) -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{:016x}{:08x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let (one, two) = (unique("chatcmpl"), unique("chatcmpl"));
        assert_ne!(one, two);
        assert!(one.starts_with("chatcmpl-") && one.len() == "chatcmpl-".len() + 24, "{one}");
    }
}
