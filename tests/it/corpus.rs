//! Agreement with other verifiers on one corpus of signed images, bundles and their forgeries
//! (`tests/corpus`), signed anew at each run: pullgate gives the right verdict for each, and whoever
//! differs does so for a reason in `tests/differences.md`.

use std::process::Command;

use crate::kit::{gate, skip, tools};

#[test]
fn pullgate_and_other_verifiers_agree_on_the_corpus() {
    let test = "pullgate_and_other_verifiers_agree_on_the_corpus";
    let needed = [
        "bin/cosign-2",
        "bin/cosign-3",
        "bin/olareg",
        "bin/docker-registry",
        "verifiers/python/bin/python",
        "verifiers/node/node_modules",
    ];
    if let Some(missing) = needed.into_iter().find(|tool| !tools().join(tool).exists()) {
        return skip(test, &format!("{missing} is missing (tests/tools/install)"));
    }
    let mut command = Command::new(tools().join("verifiers/python/bin/python"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/run.py"));
    command.arg("--tools").arg(tools()).arg("--pullgate").arg(gate::binary());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("python");
    let report = String::from_utf8_lossy(&output.stdout);
    eprintln!("{report}");
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
}
