//! Every rule of the gate has a test that carries its number: `s2_…`, `m3_m4_…`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::layers::sources;

/// The letters of the rules, and how many there are of each.
const RULES: [(char, u32); 8] =
    [('m', 7), ('d', 8), ('c', 6), ('s', 6), ('t', 3), ('f', 1), ('o', 4), ('e', 8)];

#[test]
fn every_rule_has_a_test_with_its_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut numbers = BTreeSet::new();
    for file in [root.join("src"), root.join("tests/it")].iter().flat_map(|folder| sources(folder)) {
        for name in tests(&fs::read_to_string(file).unwrap()) {
            numbers.extend(leading_numbers(&name));
        }
    }
    let missing: Vec<_> = RULES
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}")))
        .filter(|rule| !numbers.contains(rule))
        .collect();
    assert!(missing.is_empty(), "rules without a test whose name carries the number: {missing:?}");
}

#[test]
fn the_scan_sees_tests_of_every_kind_and_nothing_else() {
    let text = "#[test]\nfn m1_one() {}\n#[tokio::test]\nasync fn m2_m3_two() {}\nfn m4_helper() {}\n\
        kit::on_each_containerd!(\n    s1_three,\n    plain,\n);\n#[test]\n#[ignore]\nfn e8_four() {}\n";
    let names: Vec<_> = tests(text);
    assert_eq!(names, ["m1_one", "m2_m3_two", "e8_four", "s1_three", "plain"]);
    let numbers: Vec<_> = names.iter().flat_map(|name| leading_numbers(name)).collect();
    assert_eq!(numbers, ["m1", "m2", "m3", "e8", "s1"]);
}

/// `m3` and `m4` of `m3_m4_exempt_and_approved`.
fn leading_numbers(name: &str) -> Vec<String> {
    let is_number = |part: &&str| {
        part.len() == 2
            && part.starts_with(|c: char| RULES.iter().any(|(letter, _)| *letter == c))
            && part.ends_with(|c: char| c.is_ascii_digit())
    };
    name.split('_').take_while(is_number).map(str::to_owned).collect()
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
