//! The Gregorian calendar in UTC. Pure.

const SECS_PER_DAY: i64 = 86_400;

/// A second of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// Year.
    pub year: i64,
    /// Month, from 1.
    pub month: i64,
    /// Day, from 1.
    pub day: i64,
    /// Hour, from 0.
    pub hour: i64,
    /// Minute, from 0.
    pub minute: i64,
    /// Second, from 0.
    pub second: i64,
}

impl Date {
    /// The date `secs` seconds after 1970-01-01T00:00:00Z. Days are counted in eras of 400 years that begin in March,
    /// so that the leap day is the last of its year (Howard Hinnant, `chrono`-compatible date algorithms).
    pub const fn of(secs: i64) -> Self {
        let days = secs.div_euclid(SECS_PER_DAY) + 719_468;
        let second = secs.rem_euclid(SECS_PER_DAY);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let carry = if month <= 2 { 1 } else { 0 };
        Self {
            year: year_of_era + era * 400 + carry,
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }
}

impl std::fmt::Display for Date {
    /// `2024-05-06T07:08:09`, as RFC 3339 begins.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = (1969, 12, 31);
        for day in 0..146_097 {
            let Date { year, month, day, .. } = Date::of(day * SECS_PER_DAY);
            let now = (year, month, day);
            assert!(now > last, "{now:?} after {last:?}");
            last = now;
        }
        assert_eq!(last, (2369, 12, 31));
    }
}
