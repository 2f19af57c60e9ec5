//! Points in time as the `state` document and the JSON log write them.
//! It may not read the clock: the caller says which moment. `spec::state` and the logger call it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_sys::calendar::Date;

/// A moment in UTC with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// Nanoseconds within the second, below 1_000_000_000.
    pub nanos: u32,
}

impl From<SystemTime> for Timestamp {
    /// A moment further away than `i64` seconds saturates.
    fn from(time: SystemTime) -> Self {
        let whole = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self { secs: whole(after), nanos: after.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Self { secs: -whole(before), nanos: 0 },
                    nanos => Self { secs: -whole(before) - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC; like Go's `RFC3339Nano` the fraction carries no trailing zeros and is left out when zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Date::of(self.secs).fmt(f)?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(secs: i64, nanos: u32) -> String {
        Timestamp { secs, nanos }.to_string()
    }

    #[test]
    fn known_moments_have_their_known_text() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_400, 0), "2000-02-29T00:00:00Z");
        assert_eq!(text(1_709_210_096, 123_456_789), "2024-02-29T12:34:56.123456789Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00Z");
        assert_eq!(text(1_735_689_599, 999_999_999), "2024-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn the_fraction_is_trimmed_like_go() {
        assert_eq!(text(1, 500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(text(1, 1_000), "1970-01-01T00:00:01.000001Z");
    }

    #[test]
    fn moments_before_the_epoch_count_backwards() {
        let time = UNIX_EPOCH - Duration::new(1, 250_000_000);
        assert_eq!(Timestamp::from(time), Timestamp { secs: -2, nanos: 750_000_000 });
        assert_eq!(Timestamp::from(time).to_string(), "1969-12-31T23:59:58.75Z");
    }
}
