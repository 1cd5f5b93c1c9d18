//! What Kubernetes' own quantities give for the same texts, and where ours refuse.

use super::{ArithmeticError, Quantity};

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).expect(text)
}

/// A result as text, or why there is none.
fn text(result: Result<Quantity, ArithmeticError>) -> String {
    result.map_or_else(|error| error.to_string(), |quantity| quantity.to_string())
}

#[test]
fn prints_the_canonical_form() {
    for (written, canonical) in [
        ("0", "0"),
        ("000", "0"),
        ("-0Ki", "0"),
        ("+1", "1"),
        ("-1", "-1"),
        ("1.", "1"),
        (".5", "500m"),
        ("1.5", "1500m"),
        ("0.001", "1m"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("100k", "100k"),
        ("1000k", "1M"),
        ("0.1G", "100M"),
        ("123456789n", "123456789n"),
        ("1000n", "1u"),
        ("1.5E", "1500P"),
        ("1000E", "1000E"),
        ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("0.0001Ki", "102400u"),
        ("1.1Ki", "1126400m"),
        ("1023Ki", "1023Ki"),
        ("8Ei", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("-8.5Ei", "-9223372036854775807"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1e+3", "1e3"),
        ("12e-1", "1200e-3"),
        ("5e0", "5"),
        ("100e4", "1e6"),
        // Finer than a nano unit: away from zero.
        ("0.0000000001", "1n"),
        ("-0.1n", "-1n"),
        ("1.0000000001", "1000000001n"),
        ("1e-400", "1e-9"),
        ("0.1234567891234567891234567891234567891234567891", "123456790n"),
        ("99999999999999999999999999999", "99999999999999999999999999999"),
    ] {
        assert_eq!(quantity(written).to_string(), canonical, "{written}");
    }
}

#[test]
fn refuses_what_is_no_quantity() {
    for text in [
        "",
        " ",
        "1 Ki",
        " 1",
        "1K",
        "1ki",
        "1KI",
        "1mi",
        "1i",
        "1kk",
        "1e",
        "1e1.5",
        "1e3Ki",
        "1Ki3",
        "--1",
        "+-1",
        "1,5",
        "1.5.5",
        "0x10",
        "1_000",
        "１",
        "1e--3",
        "infinity",
        "1e2147483648",
        // Zero upstream, for want of digits.
        "-",
        ".",
        "-.",
        "Ki",
        "m",
        "E",
        "e3",
        // Too large here.
        "1e29",
        "99999999999999999999999999999.1e1",
        "100000000000000000000000000000",
        "1e2000000000",
    ] {
        assert!(Quantity::parse(text).is_none(), "{text}");
    }
}

#[test]
fn compares_values_not_texts() {
    for (left, right) in [
        ("1Ki", "1024"),
        ("1e3", "1k"),
        ("0.1", "100m"),
        ("1Gi", "1024Mi"),
        ("0e1000", "-0"),
        ("9Ei", "10Ei"),
        ("0.1n", "1n"),
    ] {
        assert_eq!(quantity(left), quantity(right), "{left} {right}");
    }
    for (less, more) in [("-1", "-999m"), ("1023", "1Ki"), ("1k", "1Ki"), ("100m", "101m"), ("7Ei", "9.3E")] {
        assert!(quantity(less) < quantity(more), "{less} {more}");
    }
}

#[test]
fn adds_and_subtracts_as_upstream() {
    for (left, right, sum, difference) in [
        ("12Ki", "1.5Mi", "1548Ki", "-1524Ki"),
        ("1k", "1Ki", "2024", "-24"),
        ("1Ki", "1k", "2024", "24"),
        ("0", "1Ki", "1Ki", "-1Ki"),
        ("0Ki", "1e3", "1e3", "-1e3"),
        ("1Ki", "0.5", "1024500m", "1023500m"),
        ("-10", "10", "0", "-20"),
    ] {
        let (left, right) = (quantity(left), quantity(right));
        assert_eq!(
            (text(left.plus(right)), text(left.minus(right))),
            (sum.to_owned(), difference.to_owned())
        );
    }
    let most = quantity("99999999999999999999999999999");
    assert_eq!(most.plus(most), Err(ArithmeticError::OutOfRange));
}

#[test]
fn multiplies_and_divides_by_numbers() {
    for (quantity_text, number, product, quotient) in [
        ("12Ki", 2.0, "24Ki", "6Ki"),
        ("12Mi", 0.5, "6Mi", "24Mi"),
        ("-3", 2.0, "-6", "-1"),
        ("1.5", 2.0, "3", "700m"),
        ("1500m", 2.0, "3", "750m"),
        ("1", 3.0, "3", "0"),
        ("10Ei", 0.1, "922337203685477580700m", "92233720368547758070"),
        ("1E", 0.000_001, "1T", "1000000E"),
        // Upstream cuts these at the millions, to 0 and 4k.
        ("3M", 2_000_000.0, "6T", "1"),
        ("4.5G", 1_000_000.0, "4500T", "4500"),
    ] {
        let quantity = quantity(quantity_text);
        let found = (text(quantity.times(number)), text(quantity.divided_by(number)));
        assert_eq!(found, (product.to_owned(), quotient.to_owned()), "{quantity_text} {number}");
    }
    assert_eq!(quantity("1").divided_by(0.0), Err(ArithmeticError::ZeroDivisor));
    // Upstream prints these without a suffix, as `500` and `100`.
    assert_eq!(quantity("1n").times(0.5), Err(ArithmeticError::OutOfRange));
    assert_eq!(quantity("1").times(1e30), Err(ArithmeticError::OutOfRange));
}

#[test]
fn ratio_and_remainder() {
    assert_eq!(quantity("1Gi").ratio(quantity("512Mi")), Ok(2.0));
    assert_eq!(quantity("100m").ratio(quantity("1")), Ok(0.1));
    assert_eq!(quantity("1").ratio(quantity("0")), Err(ArithmeticError::ZeroDivisor));
    for (left, right, remainder) in [
        ("13Ki", "5Ki", "3Ki"),
        ("1Mi", "1000", "576"),
        ("-7", "4", "-3"),
        ("7", "-4", "3"),
        ("2000m", "1", "0"),
        ("1.5", "1", "non-integer operand"),
        ("1", "500m", "non-integer operand"),
        ("1", "0", "zero divisor"),
    ] {
        assert_eq!(text(quantity(left).remainder(quantity(right))), remainder, "{left} {right}");
    }
}
