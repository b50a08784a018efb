//! Times as people and files write them, in UTC: everything that writes a date takes it from here.

/// A time of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    pub year: u64,
    /// From 1.
    pub month: u64,
    /// From 1.
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
    /// From 1.
    pub day_of_year: u64,
    /// From Sunday, which is 0.
    pub weekday: u64,
}

impl DateTime {
    /// Seconds since 1970 as a date and time (Howard Hinnant's `civil_from_days`).
    pub fn utc(seconds: u64) -> DateTime {
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let shifted = days + 719_468; // days since 0000-03-01
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        let day_of_year = match month {
            1 | 2 => day_from_march - 306 + 1,
            _ => day_from_march + 59 + u64::from(is_leap) + 1,
        };
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        DateTime { year, month, day, hour, minute, second, day_of_year, weekday: (days + 4) % 7 }
    }
}

/// As RFC 3339 has it: `2026-11-23T17:20:01Z`, which sorts as it should.
impl std::fmt::Display for DateTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DateTime { year, month, day, hour, minute, second, .. } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |seconds: u64, expected: &str, day_of_year: u64, weekday: u64| {
            let time = DateTime::utc(seconds);
            assert_eq!(
                (time.to_string().as_str(), time.day_of_year, time.weekday),
                (expected, day_of_year, weekday)
            );
        };
        check(0, "1970-01-01T00:00:00Z", 1, 4);
        check(951_782_400, "2000-02-29T00:00:00Z", 60, 2);
        check(1_000_000_000, "2001-09-09T01:46:40Z", 252, 0);
        check(1_798_761_599, "2026-12-31T23:59:59Z", 365, 4);
        check(4_107_542_399, "2100-02-28T23:59:59Z", 59, 0);
        check(4_107_542_400, "2100-03-01T00:00:00Z", 60, 1);
    }
}
