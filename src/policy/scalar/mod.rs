//! The scalar values of Kyverno's conditions and functions, as Go reads and prints them.
//!
//! A condition holds `1h30m` against a number of seconds, `1Ki` against `1024` and `1.10.0` against
//! `1.9.0`; what a text means is decided here, by the rules of Go's `time` and `strconv`, of
//! Kubernetes' quantities and of strict semantic versions.
//!
//! Texts come from attestations, so from whoever could sign one: parsing takes time linear in the text,
//! nothing panics, and nothing wraps around. A text that is not such a value is `None`: which kind a text
//! is, is found out by trying. A result that the type cannot carry is an [`ArithmeticError`], where Go
//! would give a wrong number.

mod duration;
mod layout;
mod number;
mod quantity;
mod semver;
mod time;

pub(crate) use duration::GoDuration;
pub(crate) use number::{
    element_text, float, float_text, integral, parse_float, parse_int, value_text, whole_seconds,
};
pub(crate) use quantity::Quantity;
pub(crate) use semver::{Version, VersionRange};
pub(crate) use time::GoTime;

/// Why two values have no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArithmeticError {
    /// The divisor is zero.
    #[error("zero divisor")]
    ZeroDivisor,
    /// A remainder is of whole numbers.
    #[error("non-integer operand")]
    NotIntegral,
    /// Too large, or finer than the smallest unit.
    #[error("result is too large or too fine")]
    OutOfRange,
}

/// The decimal digits that a text begins with, and what follows.
fn leading_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod layout_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod quantity_tests;
