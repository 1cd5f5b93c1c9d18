//! Points in time with an offset, as Kyverno's `time_` functions handle them.
//!
//! The years 0 to 9999, in nanoseconds. Compared by instant; printed as RFC 3339 in the offset they were
//! written with and without fractions, as upstream. There is no clock here: now is an argument.

use std::cmp::Ordering;
use std::fmt;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::{GoDuration, layout};

/// A point in time and the offset it was written with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoTime {
    /// Date and time at the offset.
    local: DateTime,
    /// Seconds east of Greenwich.
    offset: i32,
}

impl GoTime {
    /// Reads `text` by a Go layout, as `time.Parse` on a machine that keeps UTC.
    pub(crate) fn parse(layout: &str, text: &str) -> Option<Self> {
        layout::parse(layout, text)
    }

    /// Reads RFC 3339, as Go does: the fraction is optional.
    pub(crate) fn parse_rfc3339(text: &str) -> Option<Self> {
        layout::parse(RFC3339, text)
    }

    /// A date and time at an offset. `None` outside the years 0 to 9999.
    pub(crate) fn at_offset(local: DateTime, offset: i32) -> Option<Self> {
        (local.year() >= 0).then_some(Self { local, offset })
    }

    /// An instant, in UTC. `None` outside the years 0 to 9999.
    pub(crate) fn from_timestamp(instant: Timestamp) -> Option<Self> {
        Self::utc_after_epoch(instant.as_duration())
    }

    /// Whole seconds since 1970, in UTC. `None` outside the years 0 to 9999.
    pub(crate) fn from_unix(seconds: i64) -> Option<Self> {
        Self::utc_after_epoch(SignedDuration::from_secs(seconds))
    }

    /// Date and time at the offset.
    pub(crate) const fn civil(self) -> DateTime {
        self.local
    }

    /// The same instant in UTC. `None` outside the years 0 to 9999.
    pub(crate) fn in_utc(self) -> Option<Self> {
        Self::utc_after_epoch(self.after_epoch())
    }

    /// Later by `duration`, at the same offset. `None` outside the years 0 to 9999.
    pub(crate) fn plus(self, duration: GoDuration) -> Option<Self> {
        let local = self.local.checked_add(SignedDuration::from_nanos(duration.nanoseconds())).ok()?;
        Self::at_offset(local, self.offset)
    }

    /// How much later this is than `other`; the longest duration where it is longer, as Go's `Sub`.
    pub(crate) fn since(self, other: Self) -> GoDuration {
        let nanoseconds = (self.after_epoch() - other.after_epoch()).as_nanos();
        let limited = nanoseconds.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        GoDuration::from_nanoseconds(i64::try_from(limited).unwrap_or_default())
    }

    /// Rounded down to a multiple of `step` since the year 1, as Go's `Truncate`.
    pub(crate) fn truncated(self, step: GoDuration) -> Option<Self> {
        if step.nanoseconds() <= 0 {
            return Some(self);
        }
        let since_year_one = (self.after_epoch() + YEAR_ONE_TO_EPOCH).as_nanos();
        let beyond = since_year_one.rem_euclid(i128::from(step.nanoseconds()));
        let beyond = i64::try_from(beyond).ok()?;
        self.plus(GoDuration::from_nanoseconds(beyond.checked_neg()?))
    }

    fn after_epoch(self) -> SignedDuration {
        self.local.duration_since(EPOCH) - SignedDuration::from_secs(i64::from(self.offset))
    }

    fn utc_after_epoch(duration: SignedDuration) -> Option<Self> {
        Self::at_offset(EPOCH.checked_add(duration).ok()?, 0)
    }
}

impl PartialEq for GoTime {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for GoTime {}

impl PartialOrd for GoTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for GoTime {
    fn cmp(&self, other: &Self) -> Ordering {
        self.after_epoch().cmp(&other.after_epoch())
    }
}

/// RFC 3339 without fractions: `2024-02-29T12:00:00+02:00`, `Z` for UTC.
impl fmt::Display for GoTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.local;
        write!(formatter, "{:04}-{:02}-{:02}T", local.year(), local.month(), local.day())?;
        write!(formatter, "{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second())?;
        if self.offset == 0 {
            return formatter.write_str("Z");
        }
        // Go cuts the seconds of an offset.
        let (sign, minutes) = (if self.offset < 0 { '-' } else { '+' }, self.offset.unsigned_abs() / 60);
        write!(formatter, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

const RFC3339: &str = "2006-01-02T15:04:05Z07:00";

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// From Go's zero time to 1970.
const YEAR_ONE_TO_EPOCH: SignedDuration = SignedDuration::from_secs(62_135_596_800);

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> GoTime {
        GoTime::parse_rfc3339(text).expect(text)
    }

    fn duration(text: &str) -> GoDuration {
        GoDuration::parse(text).expect(text)
    }

    #[test]
    fn compares_instants() {
        assert_eq!(time("2024-01-01T12:00:00+02:00"), time("2024-01-01T10:00:00Z"));
        assert!(time("2024-01-01T12:00:00+02:00") < time("2024-01-01T10:00:00.000000001Z"));
        assert!(time("9999-12-31T23:59:59-23:00") > time("9999-12-31T23:59:59Z"));
    }

    #[test]
    fn adds_and_subtracts() {
        let added = time("2024-02-28T23:30:00+02:00").plus(duration("1h"));
        assert_eq!(added.map(|time| time.to_string()).as_deref(), Some("2024-02-29T00:30:00+02:00"));
        assert!(time("9999-12-31T23:59:59Z").plus(duration("1s")).is_none());
        assert!(time("0000-01-01T00:00:00Z").plus(duration("-1ns")).is_none());
        let since = time("2024-01-02T00:00:00.5Z").since(time("2024-01-01T00:00:00+01:00"));
        assert_eq!(since.to_string(), "25h0m0.5s");
        let longest = time("9999-01-01T00:00:00Z").since(time("0001-01-01T00:00:00Z"));
        assert_eq!(longest.nanoseconds(), i64::MAX);
    }

    #[test]
    fn truncates_from_the_year_one() {
        for (text, step, truncated) in [
            ("2024-01-03T15:34:12.9Z", "1h", "2024-01-03T15:00:00Z"),
            // The year 1 began on a Monday, so weeks begin there.
            ("2024-01-04T15:00:00+01:00", "168h", "2024-01-01T01:00:00+01:00"),
            ("0000-12-31T23:59:59Z", "24h", "0000-12-31T00:00:00Z"),
            ("2024-01-03T15:34:12.9Z", "0s", "2024-01-03T15:34:12Z"),
            ("2024-01-03T15:34:12.9Z", "-1h", "2024-01-03T15:34:12Z"),
        ] {
            let found = time(text).truncated(duration(step)).map(|time| time.to_string());
            assert_eq!(found.as_deref(), Some(truncated), "{text} {step}");
        }
    }

    #[test]
    fn prints_rfc3339() {
        assert_eq!(
            GoTime::from_unix(0).map(|time| time.to_string()).as_deref(),
            Some("1970-01-01T00:00:00Z")
        );
        assert!(GoTime::from_unix(i64::MAX).is_none());
        assert_eq!(GoTime::from_timestamp(Timestamp::UNIX_EPOCH), GoTime::from_unix(0));
        let utc = time("2024-01-01T00:30:00+05:30").in_utc();
        assert_eq!(utc.map(|time| time.to_string()).as_deref(), Some("2023-12-31T19:00:00Z"));
        assert!(time("9999-12-31T23:59:59-00:30").in_utc().is_none());
    }
}
