//! Moments, as protobuf and as text.

use std::time::{SystemTime, UNIX_EPOCH};

use hull_sys::calendar::Date;
use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp;

/// For a message.
pub fn stamp(moment: SystemTime) -> MessageField<Timestamp> {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    MessageField::some(Timestamp { seconds, nanos, ..Default::default() })
}

/// `2024-05-06T07:08:09.000000001Z`.
pub fn rfc3339(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = Date::of(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let nanos = since.subsec_nanos();
    format!("{date}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56.000000000Z");
        assert_eq!(at(1_714_979_289), "2024-05-06T07:08:09.000000000Z");
    }
}
