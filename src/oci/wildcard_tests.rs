//! Patterns with what fits them and what does not: upstream's tables, ours, and a second matcher.

use proptest::prelude::*;

use super::wildcard::{is_pattern, matches};

/// A pattern, texts that fit it, texts that do not.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

fn check(rows: &[Row]) {
    for (pattern, fitting, others) in rows {
        for text in *fitting {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for text in *others {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}

#[test]
fn fits_whole_texts_as_upstream() {
    check(UPSTREAM);
}

#[test]
fn fits_images_and_characters() {
    check(OURS);
}

#[test]
fn wildcards_make_a_pattern() {
    for text in ["*", "?", "name*", "*name", "start*end", "name?", "?name", "start?end", "*name?", "?name*"] {
        assert!(is_pattern(text), "{text}");
    }
    for text in ["", "name", "[a-z]", "\\", "a.c"] {
        assert!(!is_pattern(text), "{text}");
    }
}

#[test]
fn hostile_patterns_end() {
    assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    assert!(!matches(&("*a".repeat(100) + "b"), &"a".repeat(5000)));
    assert!(!matches(&("*?a".repeat(100) + "b"), &"a".repeat(5000)));
    assert!(matches(&"*".repeat(10_000), &"a".repeat(10_000)));
}

proptest! {
    #[test]
    fn finds_what_trying_all_ways_finds(pattern in "[abä*?]{0,8}", text in "[abä]{0,8}") {
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(matches(&pattern, &text), fits(&characters(&pattern), &characters(&text)));
    }
}

/// The definition, written down: tries every length of every `*`.
fn fits(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, found) => found.is_none(),
        (Some(('*', rest)), None) => fits(rest, text),
        (Some(('*', rest)), Some((_, behind))) => fits(rest, text) || fits(pattern, behind),
        (Some((wanted, rest)), Some((found, behind))) => {
            (wanted == found || *wanted == '?') && fits(rest, behind)
        }
        (Some(_), None) => false,
    }
}

const UPSTREAM: &[Row] = &[
    ("*", &["s3:GetObject"], &[]),
    ("", &[""], &["s3:GetObject"]),
    ("s3:*", &["s3:ListMultipartUploadParts"], &[]),
    ("s3:ListBucketMultipartUploads", &["s3:ListBucketMultipartUploads"], &["s3:ListBucket"]),
    ("s3:ListBucket", &["s3:ListBucket"], &[]),
    ("my-bucket/oo*", &["my-bucket/oo"], &["my-bucket/odo"]),
    ("my-bucket/In*", &["my-bucket/India/Karnataka/"], &["my-bucket/Karnataka/India/"]),
    (
        "my-bucket/In*/Ka*/Ban",
        &[
            "my-bucket/India/Karnataka/Ban",
            "my-bucket/India/Karnataka/Ban/Ban/Ban/Ban/Ban",
            "my-bucket/India/Karnataka/Area1/Area2/Area3/Ban",
            "my-bucket/India/State1/State2/Karnataka/Area1/Area2/Area3/Ban",
        ],
        &["my-bucket/India/Karnataka/Bangalore"],
    ),
    ("my-bucket/In*/Ka*/Ban*", &["my-bucket/India/Karnataka/Bangalore"], &[]),
    ("my-bucket/*", &["my-bucket/India"], &[]),
    ("my-bucket?/abc*", &["my-bucket1/abc"], &["mybucket/abc"]),
    ("my-?-bucket/abc*", &["my-1-bucket/abc", "my-k-bucket/abc"], &["my--bucket/abc", "my-bucket/mnopqanda"]),
    ("my??bucket/abc*", &["my4abucket/abc"], &["mybucket/abc"]),
    ("my-bucket?abc*", &["my-bucket/abc"], &[]),
    ("my-bucket/abc?efg", &["my-bucket/abcdefg", "my-bucket/abc/efg"], &[]),
    ("my-bucket/abc????", &["my-bucket/abcdefg"], &["my-bucket/abc", "my-bucket/abcde"]),
    ("my-bucket/abc?", &["my-bucket/abcd"], &["my-bucket/abc", "my-bucket/abcde"]),
    (
        "my-bucket/mnop*?",
        &["my-bucket/mnopqrst/mnopqr", "my-bucket/mnopqrst/mnopqrs", "my-bucket/mnopq", "my-bucket/mnopqr"],
        &["my-bucket/mnop", "my-bucket/mn"],
    ),
    ("my-bucket/mnop*?and", &["my-bucket/mnopqand"], &["my-bucket/mnopand", "my-bucket/mnopqanda"]),
    ("my-bucket/mnop*??", &["my-bucket/mnopqrst"], &[]),
    ("my-bucket/mnop*qrst", &["my-bucket/mnopabcdegqrst"], &[]),
    ("my-bucket/mnop*?and?", &["my-bucket/mnopqanda"], &[]),
    ("d*", &["default"], &["test"]),
    ("default2", &[], &["default1"]),
];

const OURS: &[Row] = &[
    ("", &[""], &["a"]),
    ("*", &["", "a/b:c@d"], &[]),
    ("?", &["a", "ä"], &["", "ab"]),
    ("a*c", &["ac", "abbc"], &["abbcd", "a", "c"]),
    ("A", &["A"], &["a"]),
    ("*:*", &["a:b", ":"], &["a"]),
    ("ghcr.io/org/app:*", &["ghcr.io/org/app:v1"], &["ghcr.io/org/app@sha256:00", "ghcrxio/org/app:v1"]),
    ("**a**", &["xay", "a"], &["x", ""]),
    ("*a*b*c", &["aabbcc", "abc"], &["aabbc d", "acb"]),
    ("*ab", &["aab", "abab"], &["aba"]),
    ("[ab]", &["[ab]"], &["a"]),
    ("\\*", &["\\", "\\a"], &["*"]),
];
