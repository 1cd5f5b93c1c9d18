//! Imports point down only, and no type that an administrator writes can swallow an unknown key.
//!
//! The layers are read from the table in `src/lib.rs`, which is what people read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Edges between neighbours that are meant: a reload reads the configuration again.
const MEANT: [(&str, &str); 1] = [("daemon", "config")];

#[test]
fn imports_point_down_only() {
    let layers = layers();
    let mut wrong = Vec::new();
    for file in sources(&src()) {
        let Some(from) = module(&file) else { continue };
        let layer = *layers.get(&from).unwrap_or_else(|| panic!("`{from}` has no layer in src/lib.rs"));
        for (line, to) in imports(&code(&file)) {
            let Some(&other) = layers.get(&to) else {
                wrong.push(format!("{}:{line}: `crate::{to}` is not a module of the table", file.display()));
                continue;
            };
            if from != to && other >= layer && !MEANT.contains(&(from.as_str(), to.as_str())) {
                wrong.push(format!(
                    "{}:{line}: `{from}` (layer {layer}) imports `{to}` (layer {other})",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_every_way_to_write_an_import() {
    let text = "use crate::oci::Digest;\nuse crate::{\n    outcome::{Fault, Contact},\n    policy,\n};\n\
                pub(crate) use crate::keys as k;\nfn f() { crate::cache::open(); }\n";
    let found: Vec<_> = imports(text);
    let expected = [(1, "oci"), (2, "outcome"), (2, "policy"), (6, "keys"), (7, "cache")]
        .map(|(n, m)| (n, m.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn types_that_administrators_write_refuse_unknown_keys() {
    let mut wrong = Vec::new();
    for folder in ["policy", "config"] {
        for file in sources(&src().join(folder)) {
            for (number, line) in code(&file).lines().enumerate() {
                let serde = line.contains("serde(");
                // Both buffer the value: unknown keys and line numbers are lost on the way.
                if serde && (line.contains("flatten") || line.contains("untagged")) {
                    wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "`flatten` and `untagged` swallow unknown keys:\n{}", wrong.join("\n"));
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Module to layer, from the rows `//! | 5 | [`daemon`], [`config`] | yes |`.
fn layers() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(src().join("lib.rs")).unwrap();
    let mut layers = BTreeMap::new();
    for line in text.lines() {
        let Some(row) = line.strip_prefix("//! | ") else { continue };
        let Some((layer, modules)) = row.split_once(" | ") else { continue };
        let Ok(layer) = layer.parse() else { continue };
        for name in modules.split('`').skip(1).step_by(2) {
            layers.insert(name.to_owned(), layer);
        }
    }
    assert!(layers.len() > 10, "the table of layers in src/lib.rs was not understood: {layers:?}");
    layers
}

/// The module of the crate that a file belongs to; none for `lib.rs`.
fn module(file: &Path) -> Option<String> {
    let first = file.strip_prefix(src()).unwrap().components().next().unwrap();
    let name = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
    (name != "lib").then_some(name)
}

/// The Rust files below a folder.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The file with the text of line comments taken out: they may name whatever they like.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Each `crate::name` and each name at the top of a `crate::{…}`, with its line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        // `$crate::` of a macro of ours counts, `other_crate::` does not.
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            for name in top_level_names(group) {
                found.push((line, name));
            }
        } else {
            found.push((line, name(rest)));
        }
    }
    found
}

fn top_level_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0_u32;
    let mut start = true;
    for (at, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                names.push(name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
