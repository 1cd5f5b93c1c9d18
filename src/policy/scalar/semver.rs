//! Semantic versions, and the ranges that `semver_compare` takes.
//!
//! Versions are strict: three numbers without leading zeros, then `-pre.release` and `+build`, which does
//! not count in comparisons. A range is `>=1.0.0 <2.0.0 || 3.x`: comparators side by side must all hold,
//! one side of `||` is enough, and a last `x` stands for any number (`1.x.x` is `1.0.x`, as upstream).
//!
//! What upstream's library reads as something else than it says is no range here: unknown comparators
//! before a wildcard (`~1.x` is `1.0.0` there), `!=1.x` (admits nothing there), and nothing beside a
//! `||` (stops it). It also drops single characters, so that `! 1.0.0` is `1.0.0`; here it is `!=1.0.0`.

use std::cmp::Ordering;
use std::fmt;

/// A version. Compared by precedence: the build does not count.
#[derive(Debug, Clone)]
pub(crate) struct Version(semver::Version);

/// Versions that a range admits.
#[derive(Debug, Clone)]
pub(crate) struct VersionRange {
    /// One of these must admit the version, with all its bounds.
    alternatives: Vec<Vec<Bound>>,
}

#[derive(Debug, Clone)]
struct Bound {
    comparator: Comparator,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Version {
    /// Reads a strict version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let version = semver::Version::parse(text).ok()?;
        // The crate takes numeric identifiers of any length, upstream those of 64 bits.
        let numeric = version.pre.split('.').filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let fits = numeric.filter(|part| !part.is_empty()).all(|part| part.parse::<u64>().is_ok());
        fits.then_some(Self(version))
    }

    /// `0.0.0`: what `semver_compare` makes of a text that is no version.
    pub(crate) const fn zero() -> Self {
        Self(semver::Version::new(0, 0, 0))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_precedence(&other.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl VersionRange {
    /// Reads a range.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let alternatives = text.split("||").map(bounds).collect::<Option<Vec<_>>>()?;
        Some(Self { alternatives })
    }

    /// Whether `version` is in it.
    pub(crate) fn admits(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|bounds| bounds.iter().all(|bound| bound.admits(version)))
    }
}

impl Bound {
    fn admits(&self, version: &Version) -> bool {
        let order = version.cmp(&self.version);
        match self.comparator {
            Comparator::Equal => order.is_eq(),
            Comparator::NotEqual => order.is_ne(),
            Comparator::Greater => order.is_gt(),
            Comparator::GreaterOrEqual => order.is_ge(),
            Comparator::Less => order.is_lt(),
            Comparator::LessOrEqual => order.is_le(),
        }
    }
}

/// What stands between two `||`.
fn bounds(text: &str) -> Option<Vec<Bound>> {
    let (mut bounds, mut comparator) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        comparator.push_str(word);
        // `>= 1.0.0`: the version follows.
        if !word.ends_with(['<', '>', '=', '!']) {
            bounds.extend(bound(&comparator)?);
            comparator.clear();
        }
    }
    (!bounds.is_empty() && comparator.is_empty()).then_some(bounds)
}

/// One comparator and version: a bound, or the two ends of what a wildcard stands for.
fn bound(text: &str) -> Option<Vec<Bound>> {
    let (comparator, version) = text.split_at_checked(text.find(|c: char| c.is_ascii_digit())?)?;
    let comparator = Comparator::parse(comparator)?;
    let Some((least, beyond)) = wildcard(version) else {
        return Some(vec![Bound { comparator, version: Version::parse(version)? }]);
    };
    let bound = |comparator, version| Bound { comparator, version };
    Some(match comparator {
        Comparator::Equal => {
            vec![bound(Comparator::GreaterOrEqual, least), bound(Comparator::Less, beyond)]
        }
        Comparator::Greater => vec![bound(Comparator::GreaterOrEqual, beyond)],
        Comparator::GreaterOrEqual => vec![bound(Comparator::GreaterOrEqual, least)],
        Comparator::Less => vec![bound(Comparator::Less, least)],
        Comparator::LessOrEqual => vec![bound(Comparator::Less, beyond)],
        Comparator::NotEqual => return None,
    })
}

/// The first version of `1.x` or `1.2.x`, and the first one beyond.
fn wildcard(text: &str) -> Option<(Version, Version)> {
    let parts: Vec<&str> = text.split('.').collect();
    let (major, minor) = match parts.as_slice() {
        [major, "x"] => (major, None),
        [major, minor, "x"] => (major, Some(if *minor == "x" { "0" } else { minor })),
        _ => return None,
    };
    let least = Version::parse(&format!("{major}.{}.0", minor.unwrap_or("0")))?;
    let beyond = match minor {
        None => semver::Version::new(least.0.major.checked_add(1)?, 0, 0),
        Some(_) => semver::Version::new(least.0.major, least.0.minor.checked_add(1)?, 0),
    };
    Some((least, Version(beyond)))
}

impl Comparator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "=" | "==" => Self::Equal,
            "!" | "!=" => Self::NotEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_strict_versions() {
        for text in ["0.0.0", "1.2.3", "1.2.3-rc.1", "1.2.3-0a.b-c+01.x", "18446744073709551615.0.0"] {
            assert_eq!(Version::parse(text).map(|version| version.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "1",
            "1.2",
            "v1.2.3",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-01",
            "1.2.3-",
            "1.2.3+",
            "1.2.3-a..b",
            "1.2.3-ä",
            " 1.2.3",
            "1.2.x",
            "18446744073709551616.0.0",
            "1.0.0-18446744073709551616",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn orders_by_precedence() {
        let ordered =
            ["1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-a", "1.0.0-a.1", "1.0.0-b", "1.0.0", "1.0.1", "1.10.0"];
        for pair in ordered.windows(2) {
            assert!(Version::parse(pair[0]) < Version::parse(pair[1]), "{pair:?}");
        }
        assert_eq!(Version::parse("1.0.0+a"), Version::parse("1.0.0+b"));
    }

    #[test]
    fn ranges_admit_what_upstream_admits() {
        let versions =
            ["0.9.0", "1.0.0-next", "1.0.0", "1.0.5", "1.1.0", "1.2.0", "1.2.7", "1.3.0", "2.0.0-a", "2.0.0"];
        for (range, admitted) in [
            ("1.0.0", "1.0.0"),
            ("=1.0.0", "1.0.0"),
            ("==1.0.0", "1.0.0"),
            ("1.0.0 || 1.0.5", "1.0.0 1.0.5"),
            (" >1.0.0  <1.2.0 ", "1.0.5 1.1.0"),
            (">= 1.3.0", "1.3.0 2.0.0-a 2.0.0"),
            (">=1.0.0 <2.0.0 !=1.2.7", "1.0.0 1.0.5 1.1.0 1.2.0 1.3.0 2.0.0-a"),
            ("<1.0.0 || >1.3.0 !2.0.0", "0.9.0 1.0.0-next 2.0.0-a"),
            ("1.x", "1.0.0 1.0.5 1.1.0 1.2.0 1.2.7 1.3.0 2.0.0-a"),
            ("1.x.x", "1.0.0 1.0.5"),
            ("1.2.x", "1.2.0 1.2.7"),
            (">1.x", "2.0.0"),
            (">=1.2.x", "1.2.0 1.2.7 1.3.0 2.0.0-a 2.0.0"),
            ("<1.2.x", "0.9.0 1.0.0-next 1.0.0 1.0.5 1.1.0"),
            ("<=1.x", "0.9.0 1.0.0-next 1.0.0 1.0.5 1.1.0 1.2.0 1.2.7 1.3.0 2.0.0-a"),
            (">=2.0.0-next", "2.0.0"),
            ("<1.0.0+x", "0.9.0 1.0.0-next"),
        ] {
            let parsed = VersionRange::parse(range).expect(range);
            let found: Vec<_> = versions
                .into_iter()
                .filter(|version| parsed.admits(&Version::parse(version).expect("a version")))
                .collect();
            assert_eq!(found.join(" "), admitted, "{range}");
        }
    }

    #[test]
    fn refuses_what_is_no_range() {
        for range in [
            "",
            " ",
            "||",
            "1.0.0 ||",
            "|| 1.0.0",
            "1.0.0 || || 2.0.0",
            "x",
            "1",
            "1.2",
            "1.*",
            "1.X",
            "v1.0.0",
            ">v1.0.0",
            "~1.x",
            "^1.0.0",
            "=>1.0.0",
            ">1.0.0<2.0.0",
            ">",
            "1.0.0 >",
            "1.x.0",
            "!=1.x",
            "1.0.0 a",
            "18446744073709551615.x",
        ] {
            assert!(VersionRange::parse(range).is_none(), "{range}");
        }
    }
}
