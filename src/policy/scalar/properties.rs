//! Laws of the scalar values, for arbitrary values and hostile texts.

use proptest::prelude::*;

use super::{GoDuration, GoTime, Quantity, Version, VersionRange, float_text, parse_float};

/// Texts that are nearly values of every kind.
fn text() -> impl Strategy<Value = String> {
    let digits = prop_oneof!["[0-9]{0,4}", "[0-9]{0,60}"];
    let unit = prop_oneof![
        "ns|us|µs|ms|s|m|h",
        "[numkMGTPE]?i?",
        "[eE][+-]?[0-9]{0,12}",
        "(\\.[0-9]{1,3}){2}(-[a-z0-9.]{1,6})?(\\+[a-z0-9.]{1,6})?",
        "[-: TZ+/]{0,3}",
    ];
    let part = ("[-+]?", digits, "(\\.[0-9]{0,30})?", unit).prop_map(|(a, b, c, d)| a + &b + &c + &d);
    prop_oneof![proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat()), any::<String>()]
}

fn layout() -> impl Strategy<Value = String> {
    let element = prop_oneof![
        "January|Jan|Monday|Mon|MST|2006|06|01|1|02|_2|2|002|__2|15|03|3|04|4|05|5|PM|pm",
        "[-Z]07(:?00){0,2}",
        "[.,](0{1,12}|9{1,12})",
        "[-:/T ,.]{0,2}",
    ];
    proptest::collection::vec(element, 0..12).prop_map(|elements| elements.concat())
}

proptest! {
    #[test]
    fn a_printed_duration_reads_as_itself(nanoseconds in any::<i64>()) {
        let duration = GoDuration::from_nanoseconds(nanoseconds);
        prop_assert_eq!(GoDuration::parse(&duration.to_string()), Some(duration));
    }

    #[test]
    fn a_printed_quantity_reads_as_itself(text in text()) {
        if let Some(quantity) = Quantity::parse(&text) {
            let printed = quantity.to_string();
            let read = Quantity::parse(&printed);
            prop_assert_eq!(read, Some(quantity));
            prop_assert_eq!(read.map(|read| read.to_string()), Some(printed));
        }
    }

    #[test]
    fn a_printed_version_reads_as_itself(
        major in any::<u64>(), minor in any::<u64>(), patch in any::<u64>(),
        pre in "(-[a-z][a-z0-9-]{0,5}(\\.[a-z][a-z0-9]{0,3}){0,2})?", build in "(\\+[0-9a-z-]{1,5})?",
    ) {
        let text = format!("{major}.{minor}.{patch}{pre}{build}");
        prop_assert_eq!(Version::parse(&text).map(|version| version.to_string()), Some(text));
    }

    #[test]
    fn a_printed_float_reads_as_itself(number in any::<f64>()) {
        if number.is_finite() {
            prop_assert_eq!(parse_float(&float_text(number)).map(f64::to_bits), Some(number.to_bits()));
        }
    }

    #[test]
    fn a_printed_time_reads_as_the_second_it_is_in(seconds in -70_000_000_000_i64..260_000_000_000) {
        if let Some(time) = GoTime::from_unix(seconds) {
            prop_assert_eq!(GoTime::parse_rfc3339(&time.to_string()), Some(time));
        }
    }

    #[test]
    fn adding_and_subtracting_undo_each_other(left in text(), right in text()) {
        if let (Some(left), Some(right)) = (Quantity::parse(&left), Quantity::parse(&right))
            && let Ok(sum) = left.plus(right)
        {
            prop_assert_eq!(sum.minus(right), Ok(left));
            prop_assert_eq!(right.plus(left), Ok(sum));
        }
        if let (Some(left), Some(right)) = (GoDuration::parse(&left), GoDuration::parse(&right))
            && let Ok(sum) = left.plus(right)
        {
            prop_assert_eq!(sum.minus(right), Ok(left));
        }
    }

    #[test]
    fn a_remainder_is_smaller_than_the_divisor(left in any::<i64>(), right in any::<i64>()) {
        let remainder =
            GoDuration::from_nanoseconds(left).remainder(GoDuration::from_nanoseconds(right));
        match remainder {
            Ok(remainder) => {
                prop_assert!(remainder.nanoseconds().unsigned_abs() < right.unsigned_abs());
            }
            Err(_) => prop_assert_eq!(right, 0),
        }
    }

    #[test]
    fn arithmetic_does_not_panic(left in text(), right in text(), number in any::<f64>()) {
        if let (Some(left), Some(right)) = (Quantity::parse(&left), Quantity::parse(&right)) {
            let results = [left.minus(right), left.remainder(right), left.times(number), left.divided_by(number)];
            for quantity in results.into_iter().flatten() {
                prop_assert!(!quantity.to_string().is_empty());
            }
            prop_assert!(left.ratio(right).is_ok() != right.is_zero());
        }
        if let Some(duration) = GoDuration::parse(&left) {
            for duration in [duration.times(number), duration.divided_by(number)].into_iter().flatten() {
                prop_assert!(!duration.to_string().is_empty());
            }
        }
    }

    #[test]
    fn times_do_not_panic(layout in layout(), text in text(), duration in any::<i64>()) {
        let duration = GoDuration::from_nanoseconds(duration);
        for (layout, text) in [(&layout, &text), (&layout, &layout), (&text, &text)] {
            if let Some(time) = GoTime::parse(layout, text) {
                prop_assert_eq!(time.since(time), GoDuration::from_nanoseconds(0));
                if let Some(later) = time.plus(duration) {
                    prop_assert_eq!(later.since(time), duration);
                }
                if let Some(truncated) = time.truncated(duration) {
                    prop_assert!(truncated <= time);
                }
            }
        }
    }

    #[test]
    fn a_range_is_what_its_bounds_are(text in text(), low in 0_u64..5, high in 0_u64..5, other in 0_u64..5) {
        let version = |minor: u64| Version::parse(&format!("1.{minor}.0")).expect("a version");
        let range = VersionRange::parse(&format!(">={} <{}", version(low), version(high))).expect("a range");
        prop_assert_eq!(range.admits(&version(other)), (low..high).contains(&other));
        if let (Some(range), Some(version)) = (VersionRange::parse(&text), Version::parse(&text)) {
            prop_assert!(range.admits(&version));
        }
    }
}

#[test]
fn long_texts_are_read_in_linear_time() {
    // What is not linear takes minutes for these.
    let zeros = "0".repeat(1 << 16);
    let nines = "9".repeat(1 << 16);
    for digits in [&zeros, &nines] {
        for text in [
            digits.clone(),
            format!("{digits}s"),
            format!("0.{digits}h"),
            format!("0.{digits}Ei"),
            format!("1e{digits}"),
            format!("1e-{digits}"),
            format!("1.0.0-{digits}"),
            format!("{digits}.{digits}.{digits}"),
            "1s".repeat(1 << 15),
            "1.0.0 || ".repeat(1 << 13),
            "05.".repeat(1 << 14),
        ] {
            let _ = (GoDuration::parse(&text), Quantity::parse(&text), Version::parse(&text));
            let _ = (parse_float(&text), VersionRange::parse(&text), GoTime::parse(&text, &text));
        }
    }
    assert_eq!(Quantity::parse(&zeros), Quantity::parse("0"));
    assert_eq!(Quantity::parse(&format!("0.{nines}")), Quantity::parse("1"));
    assert_eq!(GoDuration::parse(&format!("0.{zeros}1s")), GoDuration::parse("0s"));
}
