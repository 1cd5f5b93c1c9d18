//! Kubernetes quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! A decimal number with a suffix: `n u m k M G T P E`, `Ki Mi Gi Ti Pi Ei`, or an exponent. Values are whole
//! nano units; what is finer is rounded away from zero, and binary quantities end at 2^63-1: both as
//! upstream. Beyond that upstream computes with numbers of any size, and an exponent of nine digits
//! stops it; here a text of 1e29 or more is no quantity.
//!
//! Also not copied: texts without any digit (`-`, `.`, `Mi` are zero upstream), exponents cut to 32 bits,
//! and printed results without the suffix they need (upstream prints 1e21 and 1e-12 as `1`).

use std::cmp::Ordering;
use std::fmt;

use super::{ArithmeticError, float_text, leading_digits};

/// A quantity. Compared by value: `1Ki` is `1024`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantity {
    nanos: i128,
    /// Decimal places that upstream's representation has: division rounds there.
    places: i32,
    format: Format,
}

/// How a quantity is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

impl Quantity {
    /// Reads what `resource.ParseQuantity` reads, within the limits above.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, behind) = leading_digits(unsigned);
        let (fraction, suffix) = behind.strip_prefix('.').map_or(("", behind), leading_digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let number = Digits { whole: whole.trim_start_matches('0'), fraction };
        let parsed = match Suffix::parse(suffix)? {
            Suffix::Decimal { exponent, format } => number.decimal(exponent, format)?,
            Suffix::Binary { bits } => number.binary(bits)?,
        };
        Some(if negative { Self { nanos: -parsed.nanos, ..parsed } } else { parsed })
    }

    /// Whether it is zero.
    pub(crate) const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The sum, in the format of the first that is not zero.
    pub(crate) fn plus(self, other: Self) -> Result<Self, ArithmeticError> {
        self.combined(other, self.nanos.checked_add(other.nanos))
    }

    /// The difference, in the format of the first that is not zero.
    pub(crate) fn minus(self, other: Self) -> Result<Self, ArithmeticError> {
        self.combined(other, self.nanos.checked_sub(other.nanos))
    }

    /// `factor` times this.
    pub(crate) fn times(self, factor: f64) -> Result<Self, ArithmeticError> {
        let factor = Self::of_float(factor)?;
        let (units, rest) = (factor.nanos / NANOS, factor.nanos % NANOS);
        // In two parts, so that the product fits whenever the result does.
        let fine = self.nanos.checked_mul(rest).ok_or(ArithmeticError::OutOfRange)?;
        if fine % NANOS != 0 {
            return Err(ArithmeticError::OutOfRange);
        }
        let product = self.nanos.checked_mul(units).and_then(|coarse| coarse.checked_add(fine / NANOS));
        let nanos = product.ok_or(ArithmeticError::OutOfRange)?;
        let places = self.places.saturating_add(factor.places).min(NANO_PLACES);
        Ok(Self { nanos, places, format: self.format })
    }

    /// This in `divisor` parts, cut at the decimal places of the operands or at the unit.
    pub(crate) fn divided_by(self, divisor: f64) -> Result<Self, ArithmeticError> {
        if divisor == 0.0 {
            return Err(ArithmeticError::ZeroDivisor);
        }
        let divisor = Self::of_float(divisor)?;
        let places = self.places.max(divisor.places).clamp(0, NANO_PLACES);
        let step = power_of_ten(NANO_PLACES - places).ok_or(ArithmeticError::OutOfRange)?;
        // Both are in nanos, so the nanos of the quotient need nine more digits.
        let (whole, mut rest) = (self.nanos / divisor.nanos, self.nanos % divisor.nanos);
        let mut nanos = whole;
        for _ in 0..NANO_PLACES {
            // The rest is below the divisor, so ten times it does not fit only for the largest divisors.
            rest = rest.checked_mul(10).ok_or(ArithmeticError::OutOfRange)?;
            nanos = nanos
                .checked_mul(10)
                .and_then(|nanos| nanos.checked_add(rest / divisor.nanos))
                .ok_or(ArithmeticError::OutOfRange)?;
            rest %= divisor.nanos;
        }
        Ok(Self { nanos: nanos - nanos % step, places, format: self.format })
    }

    /// How often `other` is in this, as upstream's approximate floats.
    pub(crate) fn ratio(self, other: Self) -> Result<f64, ArithmeticError> {
        if other.is_zero() {
            return Err(ArithmeticError::ZeroDivisor);
        }
        Ok(self.approximate() / other.approximate())
    }

    /// What is left of this after whole numbers of `other`; both must be whole.
    pub(crate) fn remainder(self, other: Self) -> Result<Self, ArithmeticError> {
        if self.nanos % NANOS != 0 || other.nanos % NANOS != 0 {
            return Err(ArithmeticError::NotIntegral);
        }
        if other.is_zero() {
            return Err(ArithmeticError::ZeroDivisor);
        }
        Ok(Self { nanos: self.nanos % other.nanos, places: 0, format: self.format })
    }

    /// A float by its text, as upstream.
    fn of_float(number: f64) -> Result<Self, ArithmeticError> {
        Self::parse(&float_text(number)).ok_or(ArithmeticError::OutOfRange)
    }

    fn combined(self, other: Self, nanos: Option<i128>) -> Result<Self, ArithmeticError> {
        let format = if self.is_zero() { other.format } else { self.format };
        let nanos = nanos.ok_or(ArithmeticError::OutOfRange)?;
        Ok(Self { nanos, places: self.places.max(other.places), format })
    }

    #[expect(clippy::cast_precision_loss, reason = "upstream's AsApproximateFloat64 loses the same bits")]
    fn approximate(self) -> f64 {
        let unscaled =
            power_of_ten(NANO_PLACES.saturating_sub(self.places)).map_or(0, |one| self.nanos / one);
        let scale = power_of_ten(self.places.saturating_abs()).unwrap_or(i128::MAX) as f64;
        // Go multiplies with the rounded power, also with a negative one.
        unscaled as f64 * if self.places > 0 { 1.0 / scale } else { scale }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: no fraction, the largest suffix.
impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return formatter.write_str("0");
        }
        let units = self.nanos / NANOS;
        if self.format == Format::Binary && units.abs() >= 1024 && self.nanos % NANOS == 0 {
            let (mut mantissa, mut step) = (units, 0);
            while mantissa % 1024 == 0 && step + 1 < BINARY.len() {
                (mantissa, step) = (mantissa / 1024, step + 1);
            }
            return write!(formatter, "{mantissa}{}", BINARY.get(step).copied().unwrap_or_default());
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        let last = if self.format == Format::Exponent { i32::MAX } else { 18 };
        while mantissa % 1000 == 0 && exponent < last {
            (mantissa, exponent) = (mantissa / 1000, exponent + 3);
        }
        match (self.format, exponent) {
            (_, 0) => write!(formatter, "{mantissa}"),
            (Format::Exponent, _) => write!(formatter, "{mantissa}e{exponent}"),
            (Format::Decimal | Format::Binary, _) => {
                let suffix = DECIMAL.iter().find(|(_, at)| *at == exponent);
                write!(formatter, "{mantissa}{}", suffix.map_or("", |(suffix, _)| suffix))
            }
        }
    }
}

/// A number without its sign, as written.
struct Digits<'a> {
    /// Before the point, without leading zeros.
    whole: &'a str,
    fraction: &'a str,
}

impl Digits<'_> {
    /// This times 10^`exponent`.
    fn decimal(&self, exponent: i32, format: Format) -> Option<Quantity> {
        // Upstream has an exact form of 18 digits and one with nine places.
        let fraction = i32::try_from(self.fraction.len()).ok()?;
        let length = self.whole.len().max(1) + self.fraction.len();
        let places = fraction.saturating_sub(exponent);
        let places = if length <= 18 && places <= NANO_PLACES { places } else { NANO_PLACES };
        let written = self.whole.bytes().chain(self.fraction.bytes()).map(|digit| i128::from(digit - b'0'));
        let leading = written.clone().take_while(|digit| *digit == 0).count();
        let significant = self.whole.len() + self.fraction.len() - leading;
        if significant == 0 {
            return Some(Quantity { nanos: 0, places: 0, format });
        }
        // How many of the significant digits stand before the end of the nanos.
        let kept = i64::try_from(significant).ok()? - i64::from(fraction) + i64::from(exponent) + 9;
        if kept > MOST_DIGITS {
            return None;
        }
        let kept = usize::try_from(kept.max(0)).ok()?;
        let mut nanos: i128 = 0;
        for digit in written.clone().skip(leading).chain(std::iter::repeat(0)).take(kept) {
            nanos = nanos * 10 + digit;
        }
        let finer = written.skip(leading + kept).any(|digit| digit != 0);
        Some(Quantity { nanos: nanos + i128::from(finer), places, format })
    }

    /// This times 2^`bits`.
    fn binary(&self, bits: u32) -> Option<Quantity> {
        let factor = NANOS << bits;
        let nanos = if self.whole.len() > 19 {
            i128::MAX
        } else {
            let whole = if self.whole.is_empty() { 0 } else { self.whole.parse::<i128>().ok()? };
            whole.saturating_mul(factor).saturating_add(fraction_of(factor, self.fraction))
        };
        if nanos > LARGEST_BINARY * NANOS {
            return Some(Quantity { nanos: LARGEST_BINARY * NANOS, places: 0, format: Format::Binary });
        }
        // Upstream has an exact form of so many digits of Ki, Mi, Gi and Ti, and one with nine places.
        let most = [11, 8, 5, 2].get(usize::try_from(bits / 10).ok()?.checked_sub(1)?);
        let exact = self.fraction.is_empty() && most.is_some_and(|most| self.whole.len() <= *most);
        let format = if nanos > 0 && nanos < NANOS { Format::Decimal } else { Format::Binary };
        Some(Quantity { nanos, places: if exact { 0 } else { NANO_PLACES }, format })
    }
}

/// `0.digits` of `whole`, rounded up.
fn fraction_of(whole: i128, digits: &str) -> i128 {
    let (mut sum, mut rounded) = (0, false);
    for digit in digits.bytes().rev() {
        sum += whole * i128::from(digit - b'0');
        rounded |= sum % 10 != 0;
        sum /= 10;
    }
    sum + i128::from(rounded)
}

enum Suffix {
    Decimal { exponent: i32, format: Format },
    Binary { bits: u32 },
}

impl Suffix {
    fn parse(text: &str) -> Option<Self> {
        if let Some((_, exponent)) = DECIMAL.iter().find(|(suffix, _)| *suffix == text) {
            return Some(Self::Decimal { exponent: *exponent, format: Format::Decimal });
        }
        if let Some(step) = BINARY.iter().position(|suffix| *suffix == text) {
            return Some(Self::Binary { bits: u32::try_from(step * 10).ok()? });
        }
        let exponent = text.strip_prefix(['e', 'E'])?.parse().ok()?;
        Some(Self::Decimal { exponent, format: Format::Exponent })
    }
}

fn power_of_ten(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

const DECIMAL: [(&str, i32); 10] =
    [("", 0), ("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// By powers of 1024.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

const NANOS: i128 = 1_000_000_000;

const NANO_PLACES: i32 = 9;

/// 2^63-1, where upstream caps binary quantities.
const LARGEST_BINARY: i128 = 9_223_372_036_854_775_807;

/// Decimal digits that any i128 has room for.
const MOST_DIGITS: i64 = 38;
