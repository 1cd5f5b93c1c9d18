//! Every rule of the gate has a test that carries its number (`s2_…`, `m3_m4_…`), and so has every
//! pitfall that other verifiers fell into (`pitfall_08_…`, also behind the numbers of rules).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::layers::sources;

/// The letters of the rules, and how many there are of each.
const RULES: [(char, u32); 8] =
    [('m', 7), ('d', 8), ('c', 6), ('s', 6), ('t', 3), ('f', 1), ('o', 4), ('e', 8)];

/// What went wrong elsewhere, in the order of the numbers, and where it did.
const PITFALLS: [&str; 28] = [
    "a genuine log entry of another artifact counts (CVE-2022-36056, CVE-2026-22703, CVE-2024-51746)",
    "a signature counts as logged without a log's word (CVE-2022-23649)",
    "a time counts that no log promised (CVE-2026-48816)",
    "an attestation of another type counts, or none at all (CVE-2022-35929, CVE-2022-35930)",
    "an attestation that cannot be read counts (CVE-2026-39395)",
    "evidence without end is read (CVE-2023-46737, CVE-2024-29902, CVE-2024-29903)",
    "entries, timestamps and subjects without end are verified (CVE-2024-45395)",
    "an expired intermediate certificate counts (CVE-2026-24122)",
    "a timestamp's certificate is picked from the token (CVE-2026-39984)",
    "a key counts outside of its validity (CVE-2026-54787)",
    "one log counts as two (CVE-2026-49834)",
    "of several signatures one is verified (sigstore-rust's audit)",
    "a field of a policy is silently not looked at (CVE-2025-29778)",
    "an expression without anchors fits more than meant",
    "a tag is resolved twice (CVE-2022-47633, CVE-2023-47630, CVE-2024-23332)",
    "hostile input ends in a panic (CVE-2023-42813 to CVE-2023-42816)",
    "an unchecked digest gets into addresses and paths (CVE-2024-3727)",
    "secrets go to foreign hosts (CVE-2020-15157, CVE-2019-10214, CVE-2025-27403)",
    "one document is read as two things (CVE-2021-41190)",
    "a signature of another image counts",
    "a failure counts as success (GHSA-7c37-gx6w-8vc5)",
    "hostile update metadata (CVE-2026-23991, CVE-2026-23992, CVE-2026-24137)",
    "texts of policies multiply (CVE-2025-47281, CVE-2026-23881)",
    "compressed evidence (GO-2023-1754)",
    "building a certificate path takes too long (RUSTSEC-2023-0053)",
    "the identity of one signature and the annotation of another add up",
    "the signature of an index counts for what it does not list, or the other way round",
    "a verdict serves another question",
];

#[test]
fn every_rule_has_a_test_with_its_number() {
    let numbers: BTreeSet<_> = all_tests().iter().flat_map(|name| leading_numbers(name)).collect();
    let missing: Vec<_> = RULES
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}")))
        .filter(|rule| !numbers.contains(rule))
        .collect();
    assert!(missing.is_empty(), "rules without a test whose name carries the number: {missing:?}");
}

#[test]
fn every_pitfall_has_a_test_with_its_number() {
    let numbers: BTreeSet<_> = all_tests().iter().filter_map(|name| pitfall(name)).collect();
    let missing: Vec<_> = PITFALLS
        .iter()
        .zip(1..)
        .map(|(pitfall, number)| (format!("{number:02}"), pitfall))
        .filter(|(number, _)| !numbers.contains(number))
        .collect();
    assert!(missing.is_empty(), "pitfalls without a test whose name carries the number: {missing:?}");
    assert_eq!(numbers.len(), PITFALLS.len(), "{numbers:?}");
}

#[test]
fn the_scan_sees_tests_of_every_kind_and_nothing_else() {
    let text = "#[test]\nfn m1_one() {}\n#[tokio::test]\nasync fn m2_m3_two() {}\nfn m4_helper() {}\n\
        kit::on_each_containerd!(\n    s1_three,\n    plain,\n);\n#[test]\n#[ignore]\nfn e8_four() {}\n\n\
        \n#[test]\nfn c1_pitfall_28_five() {}\n";
    let names: Vec<_> = tests(text);
    assert_eq!(names, ["m1_one", "m2_m3_two", "e8_four", "c1_pitfall_28_five", "s1_three", "plain"]);
    let numbers: Vec<_> = names.iter().flat_map(|name| leading_numbers(name)).collect();
    assert_eq!(numbers, ["m1", "m2", "m3", "e8", "c1", "s1"]);
    let pitfalls: Vec<_> = names.iter().filter_map(|name| pitfall(name)).collect();
    assert_eq!(pitfalls, ["28"]);
}

/// The names of all tests; this file's own examples are none.
fn all_tests() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [root.join("src"), root.join("tests/it")]
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|file| !file.ends_with("rules.rs"))
        .flat_map(|file| tests(&fs::read_to_string(file).unwrap()))
        .collect()
}

/// `m3` and `m4` of `m3_m4_exempt_and_approved`.
fn leading_numbers(name: &str) -> Vec<String> {
    name.split('_').take_while(|part| is_number(part)).map(str::to_owned).collect()
}

/// `28` of `c1_pitfall_28_a_verdict_is_of_one_repository`.
fn pitfall(name: &str) -> Option<String> {
    let mut parts = name.split('_').skip_while(|part| is_number(part));
    (parts.next() == Some("pitfall")).then(|| parts.next().map(str::to_owned))?
}

fn is_number(part: &str) -> bool {
    part.len() == 2
        && part.starts_with(|c: char| RULES.iter().any(|(letter, _)| *letter == c))
        && part.ends_with(|c: char| c.is_ascii_digit())
}

/// Functions behind a test attribute, then the names in the lists of `on_each_containerd`.
fn tests(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut attribute = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            attribute = true;
        } else if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
            if attribute {
                names.extend(rest.split('(').next().map(str::to_owned));
            }
            attribute = false;
        }
    }
    for list in text.split("on_each_containerd!(").skip(1) {
        let list = list.split(')').next().unwrap_or_default();
        names.extend(list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    names
}
