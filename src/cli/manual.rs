//! The man page: the program, each command with its options, then what holds for all of them.
//!
//! Options come from the same definitions as `--help`. Exit codes, files and reason codes come from the
//! program's own lists, so that the page names neither more nor less than there is. There is one page: it
//! refers to none of single commands.

use std::io::Write;

use clap::CommandFactory;

use super::args::Arguments;
use crate::outcome::{DenialReason, FaultReason};

/// The page, as roff.
///
/// # Errors
/// Whatever writing says.
pub(super) fn page() -> std::io::Result<Vec<u8>> {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    let whole = clap_mangen::Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    commands(&command, "pullgate", &mut page)?;
    section("EXIT STATUS", EXITS.iter().copied(), &mut page)?;
    writeln!(page, ".PP\nWhat a code means for one command stands in its section.")?;
    section("FILES", FILES.iter().copied(), &mut page)?;
    let denials = DenialReason::ALL.iter().map(|reason| reason.code()).collect::<Vec<_>>().join(", ");
    let faults = FaultReason::ALL.iter().map(|reason| reason.code()).collect::<Vec<_>>().join(", ");
    let reasons = [
        ("An image is denied", denials.as_str()),
        ("Could not find out", faults.as_str()),
        ("What each means", "/usr/share/doc/pullgate/docs/reasons.md"),
    ];
    section("REASON CODES", reasons, &mut page)?;
    writeln!(page, ".SH \"SEE ALSO\"\n.BR systemctl (1),\n.BR journalctl (1)")?;
    writeln!(page, ".PP\n/usr/share/doc/pullgate/README.md and the pages in /usr/share/doc/pullgate/docs")?;
    whole.render_version_section(&mut page)?;
    Ok(page)
}

/// The commands of `command`, which is called `name`, and those of theirs.
fn commands(command: &clap::Command, name: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let name = format!("{name} {}", subcommand.get_name());
        writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
        let section = clap_mangen::Man::new(subcommand.clone().bin_name(&name));
        section.render_synopsis_section(page)?;
        section.render_description_section(page)?;
        section.render_options_section(page)?;
        for line in subcommand.get_after_help().map(ToString::to_string).iter().flat_map(|text| text.lines())
        {
            writeln!(page, ".PP\n{}", escaped(line.trim()))?;
        }
        commands(subcommand, &name, page)?;
    }
    Ok(())
}

/// A section of terms, each with a paragraph.
fn section<'a>(
    title: &str,
    terms: impl IntoIterator<Item = (&'a str, &'a str)>,
    page: &mut Vec<u8>,
) -> std::io::Result<()> {
    writeln!(page, ".SH \"{title}\"")?;
    for (term, text) in terms {
        writeln!(page, ".TP\n{}\n{}", escaped(term), escaped(text))?;
    }
    Ok(())
}

/// Text that roff does not take for a request or an escape.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

const EXITS: &[(&str, &str)] = &[
    ("0", "Yes, or done."),
    ("1", "A definite no."),
    ("2", "Usage, config or policy error."),
    ("3", "Could not find out."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/pullgate/config.yaml", "The configuration. The shipped file names every key with its default."),
    ("/etc/pullgate/policies", "Kyverno policies: policy.paths."),
    ("/etc/pullgate/approved.txt", "Digests that always pass: policy.approved."),
    ("/etc/containerd/certs.d", "hosts.toml files and certificates of registries: registry.configPath."),
    (
        "/var/lib/pullgate/cache",
        "Verdicts and their evidence: cache.path. Copies and the last good policies lie beside it.",
    ),
    ("/run/pullgate/pullgate.sock", "Where the kubelet calls: listen."),
    ("/run/pullgate/control.sock", "Where status, reload and cache reach the daemon: control.listen."),
    ("/usr/share/doc/pullgate/examples", "Policies, and the setting of the kubelet."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn text() -> String {
        String::from_utf8(page().unwrap()).unwrap().replace("\\-", "-")
    }

    #[test]
    fn there_is_a_section_for_each_command_and_those_below_it() {
        let page = text();
        for command in ["VERIFY", "CACHE", "CACHE EXPORT", "CACHE IMPORT", "CACHE PREWARM"] {
            assert!(page.contains(&format!(".SH \"PULLGATE {command}\"\n")), "{command}");
        }
        assert!(page.contains("--image"), "options of `cache export`");
        assert!(page.contains("Exit codes: 0 written, 2 usage"), "what `cache export` ends with");
    }

    #[test]
    fn no_page_is_referred_to_that_is_not_there() {
        let page = text();
        let pages: Vec<_> = page.lines().filter(|line| line.contains("(1)")).collect();
        assert_eq!(pages, [".BR systemctl (1),", ".BR journalctl (1)"]);
    }

    #[test]
    fn the_files_are_those_of_the_config_and_the_package() {
        let config = Config::with_policies(Vec::new());
        let defaults = [
            config.policy.approved.as_path(),
            config.registry.config_path.as_path(),
            config.cache.path.as_path(),
            config.listen.path(),
            config.control.listen.path(),
            crate::config::DEFAULT_PATH.as_ref(),
        ];
        for path in defaults {
            assert!(FILES.iter().any(|(file, _)| path == std::path::Path::new(file)), "{}", path.display());
        }
        let package = include_str!("../../Cargo.toml");
        for installed in ["usr/share/doc/pullgate/examples/", "etc/pullgate/policies/"] {
            assert!(package.contains(installed), "{installed}");
        }
        assert!(package.contains(r#"["docs/reasons.md", "usr/share/doc/pullgate/docs/""#));
    }

    #[test]
    fn every_reason_code_is_named() {
        let page = text();
        for code in DenialReason::ALL.iter().map(|reason| reason.code()) {
            assert!(page.contains(code), "{code}");
        }
        for code in FaultReason::ALL.iter().map(|reason| reason.code()) {
            assert!(page.contains(code), "{code}");
        }
    }
}
