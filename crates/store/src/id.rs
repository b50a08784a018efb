//! Names that the store gives: `job-` and 32 hexadecimal digits, which nobody guesses and nothing else has.

use std::hash::{BuildHasher, Hasher, RandomState};

pub fn new_id(prefix: &str) -> String {
    // The standard library seeds each of these from the system's random numbers.
    let random = || RandomState::new().build_hasher().finish();
    format!("{prefix}-{:016x}{:016x}", random(), random() ^ std::process::id() as u64)
}

#[test]
fn ids_differ() {
    assert_ne!(new_id("job"), new_id("job"));
    assert_eq!(new_id("job").len(), "job-".len() + 32);
}
