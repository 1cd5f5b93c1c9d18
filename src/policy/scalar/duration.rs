//! Durations as Go writes them: `1h30m`, `-2h`, `1.5s`.
//!
//! A whole number of nanoseconds in 64 bits. Units are `ns us µs ms s m h`; a number needs its unit,
//! except a bare `0`. Fractions go through a float, as in Go, so that the last nanosecond is the same.
//! What does not fit is no duration; Go refuses it too, except for sums that wrap around to something
//! small again.

use std::fmt;

use super::{ArithmeticError, leading_digits};

/// A duration in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GoDuration(i64);

impl GoDuration {
    /// Reads what `time.ParseDuration` reads.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        if rest == "0" {
            return Some(Self(0));
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (part, behind) = part(rest)?;
            total = total.checked_add(part)?;
            rest = behind;
        }
        if text.starts_with('-') {
            return 0_i64.checked_sub_unsigned(total).map(Self);
        }
        i64::try_from(total).ok().map(Self)
    }

    /// From nanoseconds.
    pub(crate) const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }

    /// The length in nanoseconds.
    pub(crate) const fn nanoseconds(self) -> i64 {
        self.0
    }

    /// The length in seconds, rounded as Go does.
    #[expect(clippy::cast_precision_loss, reason = "Go's Seconds() loses the same bits")]
    pub(crate) fn seconds(self) -> f64 {
        let (whole, rest) = (self.0 / SECOND, self.0 % SECOND);
        whole as f64 + rest as f64 / 1e9
    }

    /// The sum.
    pub(crate) fn plus(self, other: Self) -> Result<Self, ArithmeticError> {
        self.0.checked_add(other.0).map(Self).ok_or(ArithmeticError::OutOfRange)
    }

    /// The difference.
    pub(crate) fn minus(self, other: Self) -> Result<Self, ArithmeticError> {
        self.0.checked_sub(other.0).map(Self).ok_or(ArithmeticError::OutOfRange)
    }

    /// `factor` times this.
    pub(crate) fn times(self, factor: f64) -> Result<Self, ArithmeticError> {
        Self::from_seconds(self.seconds() * factor)
    }

    /// This in `divisor` parts.
    pub(crate) fn divided_by(self, divisor: f64) -> Result<Self, ArithmeticError> {
        if divisor == 0.0 {
            return Err(ArithmeticError::ZeroDivisor);
        }
        Self::from_seconds(self.seconds() / divisor)
    }

    /// How often `other` is in this.
    pub(crate) fn ratio(self, other: Self) -> Result<f64, ArithmeticError> {
        if other.0 == 0 {
            return Err(ArithmeticError::ZeroDivisor);
        }
        Ok(self.seconds() / other.seconds())
    }

    /// What is left of this after whole numbers of `other`; it has the sign of this.
    pub(crate) fn remainder(self, other: Self) -> Result<Self, ArithmeticError> {
        if other.0 == 0 {
            return Err(ArithmeticError::ZeroDivisor);
        }
        Ok(Self(self.0.wrapping_rem(other.0)))
    }

    /// Seconds with a fraction, cut at the nanosecond.
    #[expect(clippy::cast_possible_truncation, reason = "the fraction is cut; the range was checked")]
    fn from_seconds(seconds: f64) -> Result<Self, ArithmeticError> {
        let nanoseconds = seconds * 1e9;
        // 2^63 is exact as a float; i64::MAX is not.
        if nanoseconds.abs() < 9_223_372_036_854_775_808.0 {
            Ok(Self(nanoseconds as i64))
        } else {
            Err(ArithmeticError::OutOfRange)
        }
    }
}

/// As `Duration.String`: `1h30m0s`, `1.5ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            formatter.write_str("-")?;
        }
        let length = self.0.unsigned_abs();
        match length {
            0 => formatter.write_str("0s"),
            1..1_000 => write!(formatter, "{length}ns"),
            1_000..1_000_000 => write!(formatter, "{}µs", decimal(length, 3)),
            1_000_000..1_000_000_000 => write!(formatter, "{}ms", decimal(length, 6)),
            _ => {
                let (minutes, rest) = (length / 60_000_000_000, length % 60_000_000_000);
                if minutes >= 60 {
                    write!(formatter, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(formatter, "{}m", minutes % 60)?;
                }
                write!(formatter, "{}s", decimal(rest, 9))
            }
        }
    }
}

/// The first number with its unit, in nanoseconds, and what follows.
fn part(text: &str) -> Option<(u64, &str)> {
    let (whole, behind) = leading_digits(text);
    let (fraction, behind) = behind.strip_prefix('.').map_or(("", behind), leading_digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = behind.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(behind.len());
    let (unit, behind) = behind.split_at_checked(end)?;
    let unit = unit_length(unit)?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let length = whole.checked_mul(unit)?.checked_add(fraction_length(fraction, unit))?;
    (length <= LONGEST).then_some((length, behind))
}

const fn unit_length(unit: &str) -> Option<u64> {
    Some(match unit.as_bytes() {
        b"ns" => 1,
        // Both the micro sign and the Greek letter.
        b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
        b"ms" => 1_000_000,
        b"s" => 1_000_000_000,
        b"m" => 60_000_000_000,
        b"h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The digits behind a point in nanoseconds. Digits that do not fit are ignored, as in Go.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "Go computes it in floats and cuts; the result is not negative and below one unit"
)]
fn fraction_length(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1.0_f64);
    for digit in digits.bytes() {
        let next = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0')));
        match next {
            Some(next) if next <= LONGEST => (value, scale) = (next, scale * 10.0),
            _ => break,
        }
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

/// `value` / 10^`places` without trailing zeros.
fn decimal(value: u64, places: u32) -> String {
    let one = 10_u64.pow(places);
    let (whole, rest) = (value / one, value % one);
    if rest == 0 {
        return whole.to_string();
    }
    let width = usize::try_from(places).unwrap_or(0);
    format!("{whole}.{rest:0width$}").trim_end_matches('0').to_owned()
}

const SECOND: i64 = 1_000_000_000;

/// 2^63: the length of the longest (negative) duration.
const LONGEST: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanoseconds) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("+0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("+5s", Some(5_000_000_000)),
            ("-5s", Some(-5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("3ns2us1ms", Some(1_002_003)),
            ("1µs", Some(1_000)),
            ("1μs", Some(1_000)),
            ("1m1m", Some(120_000_000_000)),
            ("0.3333333333333333333h", Some(1_200_000_000_000)),
            ("9007199254.740993s", Some(9_007_199_254_740_993_000)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("0.100000000000000000000h", Some(360_000_000_000)),
            ("9223372036854775808ns", None),
            ("9223372036854775808ns9223372036854775808ns", None),
            ("3000000h", None),
            ("", None),
            ("-", None),
            ("00", None),
            ("3", None),
            ("s", None),
            (".s", None),
            (".", None),
            ("-.5", None),
            ("1d", None),
            ("1 s", None),
            (" 1s", None),
            ("1S", None),
            ("1h-1m", None),
            ("1e3s", None),
            ("１s", None),
        ] {
            assert_eq!(GoDuration::parse(text).map(GoDuration::nanoseconds), nanoseconds, "{text}");
        }
    }

    #[test]
    fn prints_as_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
            (3_600_000_000_000, "1h0m0s"),
            (-5_400_000_000_000, "-1h30m0s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration::from_nanoseconds(nanoseconds).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_refuses_what_does_not_fit() {
        let (hour, most) = (GoDuration(3_600 * SECOND), GoDuration(i64::MAX));
        assert_eq!(hour.plus(hour).map(|sum| sum.to_string()), Ok("2h0m0s".to_owned()));
        assert_eq!(most.plus(hour), Err(ArithmeticError::OutOfRange));
        assert_eq!(GoDuration(i64::MIN).minus(hour), Err(ArithmeticError::OutOfRange));
        assert_eq!(hour.times(1.5), Ok(GoDuration(5_400 * SECOND)));
        assert_eq!(most.times(2.0), Err(ArithmeticError::OutOfRange));
        assert_eq!(hour.divided_by(-2.0), Ok(GoDuration(-1_800 * SECOND)));
        assert_eq!(hour.divided_by(0.0), Err(ArithmeticError::ZeroDivisor));
        assert_eq!(hour.ratio(GoDuration(900 * SECOND)), Ok(4.0));
        assert_eq!(hour.ratio(GoDuration(0)), Err(ArithmeticError::ZeroDivisor));
        assert_eq!(GoDuration(-7).remainder(GoDuration(4)), Ok(GoDuration(-3)));
        assert_eq!(GoDuration(i64::MIN).remainder(GoDuration(-1)), Ok(GoDuration(0)));
        assert_eq!(hour.remainder(GoDuration(0)), Err(ArithmeticError::ZeroDivisor));
    }
}
