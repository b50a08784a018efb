//! The present time as it is kept: `2026-11-23T17:20:01Z`, which sorts as it should.

use std::time::{SystemTime, UNIX_EPOCH};

use formats::calendar::DateTime;

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The present time as `2026-11-23T17:20:01Z`.
pub fn now() -> String {
    DateTime::utc(unix_seconds()).to_string()
}
