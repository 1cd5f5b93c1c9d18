use super::*;
use crate::sigstore::test_pki::{Draft, email, fulcio, names, tlv, uri, user};
use crate::sigstore::test_signer::Signer;

const WORKFLOW: &str = "https://github.com/org/app/.github/workflows/release.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

fn certificate(subjects: &[Vec<u8>], extensions: &[(u32, &str)]) -> Certificate {
    let mut draft = Draft::new("leaf");
    if !subjects.is_empty() {
        draft = draft.with(names(true, subjects));
    }
    for (arc, text) in extensions {
        draft = draft.with(fulcio(*arc, text));
    }
    draft.self_signed(&Signer::p256())
}

fn workflow() -> Certificate {
    certificate(
        &[uri(WORKFLOW)],
        &[(1, ISSUER), (8, ISSUER), (2, "push"), (12, "https://github.com/org/app")],
    )
}

fn matches(text: &IdentityText<'_>, certificate: &Certificate) -> Result<(), Rejection> {
    Identity::new(text).unwrap().matches(certificate)
}

fn by_subject(subject: &str, certificate: &Certificate) -> Result<(), Rejection> {
    matches(&IdentityText { subject, ..IdentityText::default() }, certificate)
}

fn by_regexp(subject_regexp: &str, certificate: &Certificate) -> Result<(), Rejection> {
    matches(&IdentityText { subject_regexp, ..IdentityText::default() }, certificate)
}

fn by_issuer(issuer: &str, certificate: &Certificate) -> Result<(), Rejection> {
    matches(&IdentityText { issuer, ..IdentityText::default() }, certificate)
}

fn by_extension(name: &str, pattern: &str, certificate: &Certificate) -> Result<(), Rejection> {
    let extensions = BTreeMap::from([(name, pattern)]);
    matches(&IdentityText { extensions, ..IdentityText::default() }, certificate)
}

fn subject_mismatch(expected: &str, received: &str) -> Result<(), Rejection> {
    Err(Rejection::SubjectNameMismatch { expected: expected.into(), received: received.into() })
}

#[test]
fn nothing_that_is_asked_for_is_anyone() {
    let identity = Identity::new(&IdentityText::default()).unwrap();
    assert!(matches!(identity, Identity::Anyone));
    assert_eq!(identity.matches(&certificate(&[], &[])), Ok(()));
    assert_eq!(identity.describe(), json!("anyone"));
}

#[test]
fn a_subject_is_a_pattern_over_the_whole_name() {
    assert_eq!(by_subject(WORKFLOW, &workflow()), Ok(()));
    assert_eq!(by_subject("https://github.com/org/*@refs/heads/main", &workflow()), Ok(()));
    assert_eq!(by_subject("*", &workflow()), Ok(()));
    for subject in ["https://github.com/org/", "github.com/org/*", "https://github.com/other/*"] {
        assert_eq!(by_subject(subject, &workflow()), subject_mismatch(subject, WORKFLOW));
    }
}

#[test]
fn any_name_of_any_kind_may_fit() {
    let all = certificate(
        &[email("a@b.c"), uri("https://x"), tlv(0x82, b"dns.test"), tlv(0x87, &[192, 0, 2, 1]), user("jane")],
        &[],
    );
    for subject in ["a@b.c", "https://x", "dns.test", "192.0.2.1", "jane"] {
        assert_eq!(by_subject(subject, &all), Ok(()));
    }
    assert_eq!(by_subject("x", &all), subject_mismatch("x", "a@b.c, https://x, dns.test, 192.0.2.1, jane"));
}

#[test]
fn a_certificate_without_names_satisfies_no_subject() {
    let nameless = certificate(&[], &[]);
    assert_eq!(by_subject("*", &nameless), subject_mismatch("*", ""));
    assert_eq!(by_regexp(".*", &nameless), subject_mismatch(".*", ""));
}

#[test]
fn a_subject_expression_fits_any_part() {
    assert_eq!(by_regexp("github.com/org", &workflow()), Ok(()));
    assert_eq!(by_regexp("^https://github\\.com/org/app/.+@refs/heads/(main|master)$", &workflow()), Ok(()));
    assert_eq!(by_regexp("^github.com/org", &workflow()), subject_mismatch("^github.com/org", WORKFLOW));
    // As in Go, and why `unanchored` warns.
    let evil = certificate(&[uri("https://evil.example/github.com/org")], &[]);
    assert_eq!(by_regexp("github.com/org", &evil), Ok(()));
}

#[test]
fn pattern_or_expression_is_enough_for_a_subject() {
    let either = |subject, subject_regexp| {
        matches(&IdentityText { subject, subject_regexp, ..IdentityText::default() }, &workflow())
    };
    assert_eq!(either("https://github.com/*", "^x$"), Ok(()));
    assert_eq!(either("x", "^https://github"), Ok(()));
    assert_eq!(either("x", "^y$"), subject_mismatch("x", WORKFLOW));
}

#[test]
fn an_issuer_fits_pattern_and_expression() {
    let both = |issuer, issuer_regexp| {
        matches(&IdentityText { issuer, issuer_regexp, ..IdentityText::default() }, &workflow())
    };
    let mismatch = |expected: &str| {
        Err(Rejection::IssuerMismatch { expected: expected.into(), received: ISSUER.into() })
    };
    assert_eq!(both(ISSUER, ""), Ok(()));
    assert_eq!(both("https://token.*", "githubusercontent"), Ok(()));
    assert_eq!(both("", "githubusercontent"), Ok(()));
    assert_eq!(
        both("https://accounts.google.com", "githubusercontent"),
        mismatch("https://accounts.google.com")
    );
    assert_eq!(both(ISSUER, "^google"), mismatch("^google"));
    assert_eq!(both("", "^google"), mismatch("^google"));
}

#[test]
fn the_issuer_may_be_in_either_extension_but_only_one() {
    for arc in [1, 8] {
        assert_eq!(by_issuer(ISSUER, &certificate(&[], &[(arc, ISSUER)])), Ok(()));
    }
    let two = certificate(&[uri(WORKFLOW)], &[(1, ISSUER), (8, "https://other")]);
    assert_eq!(by_issuer(ISSUER, &two), Err(Rejection::IssuerAmbiguous));
    assert_eq!(by_issuer("*", &two), Err(Rejection::IssuerAmbiguous));
    assert_eq!(by_subject(WORKFLOW, &two), Err(Rejection::IssuerAmbiguous));
}

#[test]
fn no_issuer_is_an_empty_one() {
    let private = certificate(&[email("a@b.c")], &[]);
    assert_eq!(by_issuer("*", &private), Ok(()));
    let mismatch = Rejection::IssuerMismatch { expected: ISSUER.into(), received: String::new() };
    assert_eq!(by_issuer(ISSUER, &private), Err(mismatch));
}

#[test]
fn extensions_are_asked_for_by_name_or_number() {
    assert_eq!(by_extension("githubWorkflowTrigger", "pu*", &workflow()), Ok(()));
    assert_eq!(by_extension("1.3.6.1.4.1.57264.1.2", "push", &workflow()), Ok(()));
    assert_eq!(by_extension("sourceRepositoryURI", "https://github.com/org/*", &workflow()), Ok(()));
    assert_eq!(by_extension("1.3.6.1.4.1.57264.1.12", "https://github.com/org/*", &workflow()), Ok(()));
    let mismatch = |key: &str, expected: &str, received: &str| {
        let (key, expected, received) = (key.into(), expected.into(), received.into());
        Err(Rejection::ExtensionMismatch { key, expected, received })
    };
    let name = "githubWorkflowTrigger";
    assert_eq!(by_extension(name, "release", &workflow()), mismatch(name, "release", "push"));
    assert_eq!(by_extension("buildTrigger", "*", &workflow()), mismatch("buildTrigger", "*", ""));
}

#[test]
fn every_extension_has_its_number() {
    let arcs: Vec<u32> = (1..=24).filter(|arc| *arc != 7).collect();
    let values: Vec<String> = arcs.iter().map(|arc| format!("value {arc}")).collect();
    let mut list: Vec<(u32, &str)> = arcs.iter().copied().zip(values.iter().map(String::as_str)).collect();
    for entry in &mut list {
        if entry.0 == 8 {
            entry.1 = "value 1";
        }
    }
    let all = certificate(&[user("jane")], &list);
    for (arc, value) in list {
        assert_eq!(by_extension(&format!("1.3.6.1.4.1.57264.1.{arc}"), value, &all), Ok(()));
    }
    assert_eq!(by_extension("1.3.6.1.4.1.57264.1.7", "jane", &all), Ok(()));
    assert!(by_extension("1.3.6.1.4.1.57264.1.7", "jim", &all).is_err());
    // A user name is one, and no other name beside it.
    let two = certificate(&[email("a@b.c"), user("jane")], &[]);
    assert_eq!(by_extension("1.3.6.1.4.1.57264.1.7", "jane", &two), Ok(()));
    assert!(by_extension("1.3.6.1.4.1.57264.1.7", "a@b.c", &two).is_err());
    let mut numbers = Vec::new();
    for (name, source) in NAMES {
        let number = match source {
            Source::Arc(arc) => arc,
            Source::Issuer => 1,
            Source::UserName => 7,
        };
        assert_eq!(by_extension(name, &format!("value {number}"), &all), Ok(()));
        numbers.push(number);
    }
    assert_eq!(numbers, arcs.iter().copied().filter(|arc| *arc != 8).collect::<Vec<_>>());
}

#[test]
fn every_extension_fits() {
    let two = |trigger| {
        let extensions = BTreeMap::from([("githubWorkflowTrigger", trigger), ("sourceRepositoryURI", "*")]);
        matches(&IdentityText { extensions, ..IdentityText::default() }, &workflow())
    };
    assert_eq!(two("push"), Ok(()));
    assert!(two("release").is_err());
}

#[test]
fn subject_issuer_and_extensions_must_all_fit() {
    let all = |subject, issuer, trigger| {
        let extensions = BTreeMap::from([("githubWorkflowTrigger", trigger)]);
        matches(&IdentityText { subject, issuer, extensions, ..IdentityText::default() }, &workflow()).is_ok()
    };
    assert!(all(WORKFLOW, ISSUER, "push"));
    assert!(!all("x", ISSUER, "push"));
    assert!(!all(WORKFLOW, "x", "push"));
    assert!(!all(WORKFLOW, ISSUER, "x"));
}

#[test]
fn refuses_extensions_that_are_not_fulcios() {
    for name in [
        "",
        "githubworkflowtrigger",
        "1.3.6.1.4.1.57264.1.0",
        "1.3.6.1.4.1.57264.1.25",
        "1.3.6.1.4.1.57264.1.+9",
        "1.2.3",
    ] {
        let text = IdentityText { extensions: BTreeMap::from([(name, "*")]), ..IdentityText::default() };
        let error = Identity::new(&text).unwrap_err();
        assert_eq!(error, IdentityError::Extension { name: name.into() });
        assert_eq!(error.to_string(), format!("invalid certificate extension {name}"));
    }
}

#[test]
fn refuses_expressions_that_cannot_be_used() {
    let cause = |text: &str| {
        let text = IdentityText { issuer_regexp: text, ..IdentityText::default() };
        Identity::new(&text).unwrap_err().to_string()
    };
    assert_eq!(cause("("), "issuerRegExp is not a regular expression that can be used: unclosed group");
    let big = cause("(a{1000}){1000}");
    assert_eq!(
        big,
        "issuerRegExp is not a regular expression that can be used: it needs more than 1048576 bytes"
    );
    assert!(cause("(?=x)").contains("look-around"));
    let text = IdentityText { subject_regexp: "[", ..IdentityText::default() };
    assert!(Identity::new(&text).unwrap_err().to_string().starts_with("subjectRegExp "));
}

#[test]
fn warns_of_expressions_that_are_not_anchored() {
    for (text, warned) in [
        ("^a$", false),
        ("\\Aa\\z", false),
        ("^(a|b)$", false),
        ("^a$|^b$", false),
        ("(?i)^a.*$", false),
        ("a", true),
        ("^a", true),
        ("a$", true),
        ("^a|b$", true),
        ("^a$|b", true),
        ("(?m)^a$", true),
        ("\\^a\\$", true),
        (".*", true),
    ] {
        let both = IdentityText { subject_regexp: text, issuer_regexp: text, ..IdentityText::default() };
        let expected: &[_] = if warned { &["subjectRegExp", "issuerRegExp"] } else { &[] };
        assert_eq!(Identity::new(&both).unwrap().unanchored(), expected, "{text}");
    }
    assert!(Identity::new(&IdentityText::default()).unwrap().unanchored().is_empty());
}

#[test]
fn classes_do_not_reach_beyond_ascii() {
    let digit = certificate(&[user("user ٣")], &[]);
    assert!(by_regexp("^user \\d$", &digit).is_err());
    assert_eq!(by_regexp("^user .$", &digit), Ok(()));
    assert_eq!(by_regexp("^user \\d$", &certificate(&[user("user 3")], &[])), Ok(()));
}

#[test]
fn describes_everything_it_asks_for() {
    let text = IdentityText {
        subject: "s",
        subject_regexp: "t",
        issuer: "i",
        issuer_regexp: "j",
        extensions: BTreeMap::from([("buildTrigger", "push")]),
    };
    let expected = json!({
        "subject": "s", "subjectRegExp": "t", "issuer": "i", "issuerRegExp": "j",
        "extensions": [["buildTrigger", "push"]],
    });
    assert_eq!(Identity::new(&text).unwrap().describe(), expected);
}

#[test]
fn hostile_text_is_cut() {
    let long = "a".repeat(1000);
    let hostile = certificate(&[user("a\u{1b}[31m\nb"), email(&long)], &[]);
    let cut = format!("{}…", "a".repeat(120));
    assert_eq!(by_subject("x", &hostile), subject_mismatch("x", &format!("a\u{fffd}[31m\u{fffd}b, {cut}")));
    let many: Vec<_> = (0..9).map(|number| email(&format!("{number}@x"))).collect();
    let found = by_subject("x", &certificate(&many, &[]));
    assert_eq!(found, subject_mismatch("x", "0@x, 1@x, 2@x, 3@x, 4@x, …"));
}

#[test]
fn the_words_are_kyvernos() {
    let subject = by_subject("a", &workflow()).unwrap_err().to_string();
    assert_eq!(subject, format!("subject mismatch: expected a, received {WORKFLOW}"));
    let issuer = by_issuer("a", &workflow()).unwrap_err().to_string();
    assert_eq!(issuer, format!("issuer mismatch: expected a, received {ISSUER}"));
    let extension = by_extension("githubWorkflowTrigger", "a", &workflow()).unwrap_err().to_string();
    assert_eq!(extension, "extension mismatch: expected a for key githubWorkflowTrigger, received push");
}
