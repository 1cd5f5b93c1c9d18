//! What people get wrong: each mistake ends with its exit code and one line that names the thing,
//! and a daemon that was given it refuses rather than lets through.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::kit::{self, gate::binary, ran::Ran};

mod daemon;

#[test]
fn policy_that_is_no_yaml_is_named_with_its_line() {
    let folder = kit::folder();
    let file = write(&folder, "p.yaml", "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec: [\n");
    let error = check(&file).expect_error(2);
    assert!(error.starts_with(&format!("pullgate: {}:", file.display())), "{error}");
    assert!(line_of(&error, &file) >= 3, "{error}");
}

#[test]
fn unknown_field_is_named_with_file_and_line() {
    let folder = kit::folder();
    let file = write(&folder, "p.yaml", &policy("imageRefs: []", GOOD_KEY));
    let error = check(&file).expect_error(2);
    let start = format!(
        "pullgate: {}:11: unknown field `imageRefs`; did you mean `imageReferences`?",
        file.display()
    );
    assert!(error.starts_with(&start), "{error}");
    // A folder gives the name of the file in it.
    assert_eq!(check(&folder).expect_error(2), error);
}

#[test]
fn every_broken_policy_has_a_line() {
    let folder = kit::folder();
    let first = write(&folder, "1.yaml", &policy("imageRefs: []", GOOD_KEY));
    let second = write(&folder, "2.yaml", &policy("mutateDigest: perhaps", GOOD_KEY));
    write(&folder, "3.yaml", &policy("required: true", GOOD_KEY));
    let ran = check(&folder);
    assert_eq!(ran.code, 2, "{ran:?}");
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    for (line, file) in lines.iter().zip([first, second]) {
        assert!(line.starts_with(&format!("pullgate: {}:11: ", file.display())), "{line}");
    }
}

#[test]
fn policy_that_is_defined_twice_is_an_error() {
    let folder = kit::folder();
    write(&folder, "1.yaml", &policy("required: true", GOOD_KEY));
    let second = write(&folder, "2.yaml", &policy("required: true", GOOD_KEY));
    let error = check(&folder).expect_error(2);
    assert_eq!(error, format!("pullgate: {}:2: ClusterPolicy `keyed` is defined twice", second.display()));
}

#[test]
fn good_policy_is_no_error() {
    let folder = kit::folder();
    let file = write(&folder, "p.yaml", &policy("required: true", GOOD_KEY));
    let ran = check(&file);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert!(
        ran.stdout.ends_with("policies: 1; rules that refuse: 1; rules that only report: 0\n"),
        "{ran:?}"
    );
}

#[test]
fn empty_policy_folder_is_a_warning_and_an_error_if_strict() {
    let folder = kit::folder();
    let ran = check(&folder);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("warning: no policy loaded: every pull is refused"), "{ran:?}");
    assert_eq!(ran_in(&["check", "--strict", "-p"], &folder).code, 2);
}

#[test]
fn missing_policy_path_is_an_error() {
    let path = kit::folder().join("gone");
    let error = check(&path).expect_error(2);
    assert!(error.starts_with(&format!("pullgate: cannot read {}: No such file", path.display())), "{error}");
}

/// Root may read everything, so what cannot be read here is a circle of links.
#[test]
fn policy_path_that_cannot_be_read_is_an_error() {
    let path = kit::folder().join("circle");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = check(&path).expect_error(2);
    assert!(error.starts_with(&format!("pullgate: cannot read {}: ", path.display())), "{error}");
}

#[test]
fn policy_file_that_is_no_text_is_an_error() {
    let folder = kit::folder();
    let file = folder.join("p.yaml");
    fs::write(&file, b"kind: \xff\xfe").unwrap();
    let error = check(&folder).expect_error(2);
    assert_eq!(error, format!("pullgate: {} is not UTF-8 text", file.display()));
}

#[test]
fn key_that_is_no_key_is_named_with_its_line() {
    let folder = kit::folder();
    for (key, problem) in [
        (
            "-----BEGIN PUBLIC KEY-----\nbm90IGEga2V5\n-----END PUBLIC KEY-----",
            ": the PEM block does not hold a public key (SPKI DER)",
        ),
        (
            "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----",
            ": the PEM block does not hold a public key (SPKI DER)",
        ),
        ("-----BEGIN PUBLIC KEY-----\nbm90IGEga2V5", ": the key must be exactly one complete PEM block"),
        (
            "/etc/keys/cosign.pub",
            " `/etc/keys/cosign.pub` is a key reference, which is not supported yet; write the PEM of the public key",
        ),
    ] {
        let file = write(&folder, "p.yaml", &policy("required: true", key));
        assert_eq!(check(&file).expect_error(2), key_error(&file, problem), "{key}");
    }
}

#[test]
fn pem_of_another_type_is_named() {
    let folder = kit::folder();
    for (label, problem) in [
        ("CERTIFICATE", "this is a certificate, not a public key (PEM type `PUBLIC KEY`)"),
        (
            "EC PRIVATE KEY",
            "this is a private key (PEM type `EC PRIVATE KEY`): give the public key, and treat this one as leaked",
        ),
        (
            "ENCRYPTED SIGSTORE PRIVATE KEY",
            "this is a private key (PEM type `ENCRYPTED SIGSTORE PRIVATE KEY`): give the public key, and treat this one as leaked",
        ),
        (
            "RSA PUBLIC KEY",
            "this is a PKCS#1 key (PEM type `RSA PUBLIC KEY`): convert it to the PEM type `PUBLIC KEY` (SPKI)",
        ),
        ("PGP MESSAGE", "PEM type `PGP MESSAGE` is not a public key, only `PUBLIC KEY` is"),
    ] {
        let key = format!("-----BEGIN {label}-----\nbm90IGEga2V5\n-----END {label}-----");
        let file = write(&folder, "p.yaml", &policy("required: true", &key));
        let error = check(&file).expect_error(2);
        assert_eq!(error, key_error(&file, &format!(": {problem}")), "{label}");
        assert!(!error.contains("bm90IGEga2V5"), "{error}");
    }
}

#[test]
fn missing_config_is_an_error_of_every_command() {
    let path = kit::folder().join("config.yaml");
    for command in EVERY_COMMAND_WITH_A_CONFIG {
        let error = configured(command, &path).expect_error(2);
        let path = path.display();
        assert!(
            error.starts_with(&format!("pullgate: {path}: cannot read the configuration: No such file")),
            "{error}"
        );
        assert!(error.ends_with("; create it, or name another with --config"), "{error}");
    }
}

#[test]
fn bad_config_key_is_an_error_of_every_command() {
    let folder = kit::folder();
    let path = write(&folder, "config.yaml", "policy:\n  paths: [/p]\ncache:\n  fresch: 1h\n");
    for command in EVERY_COMMAND_WITH_A_CONFIG {
        let error = configured(command, &path).expect_error(2);
        assert_eq!(
            error,
            format!("pullgate: {}:4:3: cache.fresch: unknown key: did you mean `fresh`?", path.display())
        );
    }
}

#[test]
fn bad_config_value_is_named() {
    let folder = kit::folder();
    for (text, place, words) in [
        ("policy: {paths: [/p], mode: warn}\n", "1:", "policy.mode: `warn` is not one of enforce, audit"),
        (
            "policy: {paths: [/p], unmatched: ask}\n",
            "1:",
            "policy.unmatched: `ask` is not one of allow, deny",
        ),
        (
            "cache: {fresh: 1h}\n",
            "",
            "policy.paths is required: name the files or folders that hold the policies",
        ),
        ("", "", "policy.paths is required: name the files or folders that hold the policies"),
        ("policy: [\n", "", ""),
    ] {
        let path = write(&folder, "config.yaml", text);
        let error = configured(&["check"], &path).expect_error(2);
        assert!(error.starts_with(&format!("pullgate: {}:{place}", path.display())), "{text}: {error}");
        assert!(error.ends_with(words), "{text}: {error}");
    }
}

#[test]
fn one_socket_for_two_roles_is_an_error() {
    let folder = kit::folder();
    let text =
        "policy: {paths: [/p]}\nlisten: unix:///run/one.sock\ncontrol: {listen: unix:///run/one.sock}\n";
    let path = write(&folder, "config.yaml", text);
    let error = configured(&["serve"], &path).expect_error(2);
    assert!(error.contains("are both ") && error.ends_with(": give each its own"), "{error}");
}

#[test]
fn missing_authority_is_an_error() {
    let folder = kit::folder();
    let gone = folder.join("ca.pem");
    let config = config(&folder, &format!("registry: {{caFiles: [{}]}}\n", gone.display()));
    let error = configured(&["check"], &config).expect_error(2);
    assert!(
        error.starts_with(&format!(
            "pullgate: registry.caFiles: cannot read {}: No such file",
            gone.display()
        )),
        "{error}"
    );
    assert_eq!(configured(&["serve"], &config).expect_error(1), error);
}

#[test]
fn missing_and_broken_trust_roots_are_errors() {
    let folder = kit::folder();
    let root = folder.join("trusted_root.json");
    let config = config(&folder, &format!("trust: {{root: {}}}\n", root.display()));
    // Rule O3: keys without a log need none.
    assert_eq!(configured(&["check"], &config).code, 0);
    let logged = policy("required: true", GOOD_KEY).replace("rekor: {ignoreTlog: true}", "rekor: {}");
    write(&folder, "policies/p.yaml", &logged);
    let error = configured(&["check"], &config).expect_error(2);
    assert!(
        error.starts_with(&format!("pullgate: trust root: cannot read {}: No such file", root.display())),
        "{error}"
    );
    fs::write(&root, "{}").unwrap();
    let error = configured(&["check"], &config).expect_error(2);
    assert!(error.starts_with("pullgate: trust root: "), "{error}");
}

#[test]
fn socket_that_somebody_listens_on_is_left_alone() {
    let folder = kit::folder();
    let config = config(&folder, "");
    let _other = UnixListener::bind(folder.join("gate.sock")).unwrap();
    let error = configured(&["serve"], &config).expect_error(1);
    let socket = folder.join("gate.sock");
    assert_eq!(error, format!("pullgate: listen: another process listens on `{}`", socket.display()));
}

#[test]
fn file_in_place_of_the_socket_is_left_alone() {
    let folder = kit::folder();
    let config = config(&folder, "");
    let socket = write(&folder, "gate.sock", "precious");
    let error = configured(&["serve"], &config).expect_error(1);
    assert_eq!(error, format!("pullgate: listen: `{}` is not a socket; remove it", socket.display()));
    assert_eq!(fs::read_to_string(socket).unwrap(), "precious");
}

#[test]
fn approved_list_that_others_can_write_is_an_error() {
    let folder = kit::folder();
    let approved = write(&folder, "approved.txt", "");
    let config = config(&folder, "");
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&approved, fs::Permissions::from_mode(mode)).unwrap();
        let error = configured(&["check"], &config).expect_error(2);
        let path = approved.display();
        assert_eq!(
            error,
            format!("pullgate: policy.approved: {path} must belong to root and be writable by root alone")
        );
    }
    fs::set_permissions(&approved, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(configured(&["check"], &config).code, 0);
}

#[test]
fn line_of_the_approved_list_that_is_none_is_named() {
    let folder = kit::folder();
    let approved = write(&folder, "approved.txt", "# fine\nexample.org/app:1\n");
    fs::set_permissions(&approved, fs::Permissions::from_mode(0o600)).unwrap();
    let error = configured(&["check"], &config(&folder, "")).expect_error(2);
    let start = format!("pullgate: policy.approved: {}: line 2: ", approved.display());
    assert!(error.starts_with(&start), "{error}");
}

#[test]
fn status_and_reload_say_that_there_is_no_daemon() {
    let folder = kit::folder();
    let config = config(&folder, "");
    for command in [&["status"][..], &["status", "-o", "json"], &["status", "--would-deny"], &["reload"]] {
        let ran = configured(command, &config);
        let socket = folder.join("control.sock");
        assert_eq!(ran.stdout, "");
        let error = ran.expect_error(3);
        assert!(
            error.starts_with(&format!("pullgate: no daemon answers on {} (", socket.display())),
            "{error}"
        );
        assert!(error.ends_with("; is pullgate.service running?"), "{error}");
    }
}

#[test]
fn cache_without_daemon_and_folder_says_so() {
    let folder = kit::folder();
    let config = config(&folder, "");
    for command in [&["cache", "list"][..], &["cache", "show", "a"], &["cache", "purge"]] {
        let error = configured(command, &config).expect_error(3);
        let cache = folder.join("cache");
        assert_eq!(error, format!("pullgate: {} is not there: nothing is cached", cache.display()));
        assert!(!cache.exists(), "asking makes nothing");
    }
}

#[test]
fn cache_show_of_nonsense_is_refused_without_a_daemon() {
    let folder = kit::folder();
    let config = config(&folder, "");
    fs::create_dir(folder.join("cache")).unwrap();
    for nonsense in NONSENSE {
        let error = configured(&["cache", "show", nonsense], &config).expect_error(2);
        assert_eq!(error, format!("pullgate: `{nonsense}` is not repository@sha256:…"));
    }
    let unknown = format!("example.org/app@sha256:{}", "0".repeat(64));
    let error = configured(&["cache", "show", &unknown], &config).expect_error(2);
    assert_eq!(error, format!("pullgate: {unknown} is not in the cache"));
    let error = configured(&["cache", "purge", "UPPER case"], &config).expect_error(2);
    assert_eq!(error, "pullgate: `UPPER case` is not an image reference");
}

#[test]
fn commands_and_flags_that_are_none_are_usage_errors() {
    for arguments in [
        &[][..],
        &["chek"],
        &["check", "--bogus"],
        &["cache"],
        &["cache", "show"],
        &["status", "-o", "xml"],
        &["completions", "tcsh"],
        &["serve", "extra"],
    ] {
        let ran = Ran::of(Command::new(binary()).args(arguments));
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("Usage: pullgate") || ran.stderr.contains("--help"), "{ran:?}");
    }
}

#[test]
fn completions_and_man_page_are_there() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Ran::of(Command::new(binary()).args(["completions", shell]));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        for word in ["pullgate", "reload", "would-deny"] {
            assert!(ran.stdout.contains(word), "{shell}: no {word}");
        }
    }
    let man = Ran::of(Command::new(binary()).arg("man"));
    assert_eq!((man.code, man.stderr.as_str()), (0, ""));
    assert!(man.stdout.contains(".TH pullgate 1") && man.stdout.contains("reload"), "{}", man.stdout);
}

#[test]
fn every_command_has_help() {
    for command in [
        &[][..],
        &["serve"],
        &["verify"],
        &["check"],
        &["status"],
        &["reload"],
        &["cache"],
        &["cache", "list"],
        &["cache", "show"],
        &["cache", "purge"],
        &["completions"],
        &["man"],
    ] {
        let ran = Ran::of(Command::new(binary()).args(command).arg("--help"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{command:?}");
        let usage = [&["Usage:", "pullgate"], command].concat().join(" ");
        assert!(ran.stdout.contains(&usage), "{command:?}: {}", ran.stdout);
        assert!(!ran.stdout.contains('\u{1b}'), "no colour where there is no terminal");
    }
}

/// `pullgate check -p …`
fn check(policies: &Path) -> Ran {
    ran_in(&["check", "-p"], policies)
}

fn ran_in(arguments: &[&str], path: &Path) -> Ran {
    Ran::of(Command::new(binary()).args(arguments).arg(path))
}

fn configured(arguments: &[&str], config: &Path) -> Ran {
    Ran::of(Command::new(binary()).args(arguments).arg("--config").arg(config))
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file
}

/// A config with all paths in the folder, a good policy, and these further lines.
fn config(folder: &Path, more: &str) -> PathBuf {
    fs::create_dir(folder.join("policies")).unwrap();
    write(folder, "policies/p.yaml", &policy("required: true", GOOD_KEY));
    let text = "listen: unix://$D/gate.sock\n\
        policy: {paths: [$D/policies], approved: $D/approved.txt}\n\
        cache: {path: $D/cache}\n\
        control: {listen: unix://$D/control.sock}\n\
        metrics: {listen: \"\"}\n\
        log: {format: text, level: error}\n";
    write(folder, "config.yaml", &(text.replace("$D", &folder.display().to_string()) + more))
}

/// A policy whose 11th line is `field`, and whose key begins in the 17th.
fn policy(field: &str, key: &str) -> String {
    let key = key.replace('\n', &format!("\n{}", " ".repeat(22)));
    format!(
        r#"apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {{name: keyed}}
spec:
  validationFailureAction: Enforce
  rules:
    - name: signed
      match: {{any: [{{resources: {{kinds: [Pod]}}}}]}}
      verifyImages:
        - imageReferences: ["example.org/*"]
          {field}
          attestors:
            - entries:
                - keys:
                    rekor: {{ignoreTlog: true}}
                    publicKeys: |-
                      {key}
"#
    )
}

fn key_error(file: &Path, problem: &str) -> String {
    let place = "keyed/signed: verifyImages[0].attestors[0].entries[0]: keys.publicKeys";
    format!("pullgate: {}:17: {place}{problem}", file.display())
}

fn line_of(error: &str, file: &Path) -> u32 {
    let rest = error.strip_prefix(&format!("pullgate: {}:", file.display())).expect("the file");
    rest.split(':').next().and_then(|line| line.parse().ok()).expect("a line")
}

const EVERY_COMMAND_WITH_A_CONFIG: [&[&str]; 7] = [
    &["serve"],
    &["check"],
    &["status"],
    &["reload"],
    &["cache", "list"],
    &["cache", "show", "a"],
    &["cache", "purge"],
];
const NONSENSE: [&str; 5] = ["nonsense", "example.org/app:1", "a@sha256:00", "", "../../etc@passwd"];
/// An ECDSA key on P-256 that signed nothing.
const GOOD_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEF8gVfr3OhO9NXAv+A2i3MhLhL824\n\
    cvqAE5svUziNUBInFPsYUqHDxfGymDCmAv4RjDfERavjRKxhqXeO9ftsIg==\n\
    -----END PUBLIC KEY-----";

/// A file that is listed but gone must not turn into fewer rules.
#[test]
fn policy_link_to_nowhere_in_a_folder_is_an_error() {
    let folder = kit::folder();
    write(&folder, "1.yaml", &policy("required: true", GOOD_KEY));
    let link = folder.join("2.yaml");
    std::os::unix::fs::symlink(folder.join("gone"), &link).unwrap();
    let error = check(&folder).expect_error(2);
    assert!(error.starts_with(&format!("pullgate: cannot read {}: ", link.display())), "{error}");
}

/// `pullgate completions bash | head -1`
#[test]
fn closed_pipe_is_no_panic() {
    for arguments in [&["completions", "bash"][..], &["man"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(binary()).args(arguments).stdout(writer).stderr(Stdio::piped()).output();
        let ran = Ran::from(output.unwrap());
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{arguments:?}: {ran:?}");
    }
}
