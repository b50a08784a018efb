//! What is recorded of a pulled model: `manifest.json`, the last file written, so that a folder with one is whole.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The file's name in a model's folder.
pub const FILE_NAME: &str = "manifest.json";
/// The only form of manifest so far.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u32,
    /// `NAME` or `NAME:TAG`.
    pub model: String,
    /// What was asked for: `hf:owner/repo`, a URL, a path.
    pub source: String,
    /// When it was complete, UTC, as `2026-11-23T17:20:01Z`.
    pub pulled: String,
    /// What is loaded, relative to the folder: a file, or `.` for the folder itself.
    pub entry: String,
    pub files: Vec<File>,
    /// What the model says of itself; absent where this version of Tureen can't read it.
    pub facts: Option<Facts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Relative to the folder, parts separated by `/`.
    pub path: String,
    pub bytes: u64,
    /// Of the contents, in hexadecimal.
    pub sha256: String,
    /// Whether a hash from elsewhere was there to be compared, and was equal.
    pub verified: bool,
    /// Where exactly it came from, and how where that isn't a download: `hard link of ...`.
    pub origin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub family: String,
    pub parameters: u64,
    pub quantisation: String,
    pub licence: Option<String>,
}

impl Manifest {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The present time as `2026-11-23T17:20:01Z`.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date_time(since.as_secs())
}

/// Seconds since 1970 as a date and time (Howard Hinnant's `civil_from_days`).
fn date_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[test]
fn dates_are_those_of_the_calendar() {
    let check = |seconds: u64, expected: &str| assert_eq!(date_time(seconds), expected);
    check(0, "1970-01-01T00:00:00Z");
    check(951_782_400, "2000-02-29T00:00:00Z");
    check(1_000_000_000, "2001-09-09T01:46:40Z");
    check(4_107_542_399, "2100-02-28T23:59:59Z");
    check(4_107_542_400, "2100-03-01T00:00:00Z");
}
