use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const SHIPPED: &str = include_str!("../../config/config.yaml");
const MINIMAL: &str = "policy: {paths: [/p]}\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("c.yaml"), text)
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

/// The shipped file with every setting behind a `#` put in force; prose stands behind `# `.
fn shipped_with_all_defaults() -> String {
    let mut text = String::new();
    for line in SHIPPED.lines() {
        let indent = line.len() - line.trim_start().len();
        let (spaces, rest) = line.split_at(indent);
        match rest.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => {
                text.push_str(spaces);
                text.push_str(setting);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_shipped_config_loads_and_begins_in_audit_mode() {
    let config = parse(SHIPPED).unwrap();
    let mut expected = Config::with_policies(vec![PathBuf::from("/etc/pullgate/policies")]);
    expected.policy.mode = Mode::Audit;
    assert_eq!(config, expected);
}

#[test]
fn the_defaults_shown_in_the_shipped_config_are_the_defaults() {
    let text = shipped_with_all_defaults();
    assert_eq!(parse(&text).unwrap(), parse(SHIPPED).unwrap(), "in:\n{text}");
    for key in [
        "listen:",
        "endpoint:",
        "containerd:",
        "namespace:",
        "paths:",
        "unmatched:",
        "mode:",
        "compatibility:",
        "exemptNamespaces:",
        "approved:",
        "configPath:",
        "dockerConfig:",
        "caFiles:",
        "plainHttp:",
        "path:",
        "fresh:",
        "stale:",
        "maxEntries:",
        "maxSize:",
        "servePresent:",
        "root:",
        "onlineRekor:",
        "verification:",
        "concurrency:",
        "drain:",
        "format:",
        "level:",
    ] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(key)), "{key} is not shown");
    }
}

#[test]
fn only_policy_paths_is_needed() {
    assert_eq!(parse(MINIMAL).unwrap(), Config::with_policies(vec![PathBuf::from("/p")]));
}

#[test]
fn json_is_accepted_tabs_included() {
    let text = "{\n\t\"policy\": {\"paths\": [\"/p\"], \"mode\": \"audit\"},\n\t\"drain\": \"5s\"\n}\n";
    let config = parse(text).unwrap();
    assert_eq!((config.policy.mode, config.drain), (Mode::Audit, Duration::from_secs(5)));
}

#[test]
fn every_value_can_be_set() {
    let text = "
listen: unix:///a.sock
runtime: {endpoint: unix:///b.sock, containerd: unix:///c.sock, namespace: moby}
policy: {paths: [/p, /q.yaml], unmatched: deny, mode: audit, compatibility: strict, exemptNamespaces: [], approved: /ok}
registry: {configPath: /certs, dockerConfig: [/d], secrets: /s, caFiles: [/ca], plainHttp: ['reg:5000']}
cache: {path: /c, fresh: 1h, stale: 0s, maxEntries: 7, maxSize: 512MiB}
outage: {servePresent: namespace}
trust: {root: /root.json, onlineRekor: true}
limits: {verification: 1m 30s, concurrency: 2}
drain: 0s
control: {listen: 'unix:///d.sock'}
metrics: {listen: ''}
log: {format: json, level: debug}
";
    let socket = |text: &'static str| SocketPath::fixed(text);
    let expected = Config {
        listen: socket("/a.sock"),
        runtime: Runtime {
            endpoint: socket("/b.sock"),
            containerd: socket("/c.sock"),
            namespace: "moby".to_owned(),
        },
        policy: Policy {
            paths: vec!["/p".into(), "/q.yaml".into()],
            unmatched: Unmatched::Deny,
            mode: Mode::Audit,
            compatibility: Compatibility::Strict,
            exempt_namespaces: Vec::new(),
            approved: "/ok".into(),
        },
        registry: Registry {
            config_path: "/certs".into(),
            docker_config: vec!["/d".into()],
            secrets: "/s".into(),
            ca_files: vec!["/ca".into()],
            plain_http: vec!["reg:5000".to_owned()],
        },
        cache: Cache {
            path: "/c".into(),
            fresh: Duration::from_secs(3600),
            stale: None,
            max_entries: NonZeroUsize::new(7).unwrap(),
            max_size: serde_json::from_str("\"512MiB\"").unwrap(),
        },
        outage: Outage { serve_present: ServePresent::Namespace },
        trust: Trust { root: Origin::File("/root.json".into()), online_rekor: OnlineRekor::Allowed },
        limits: Limits { verification: Duration::from_secs(90), concurrency: NonZeroUsize::new(2).unwrap() },
        drain: Duration::ZERO,
        control: Control { listen: socket("/d.sock") },
        metrics: Metrics { listen: None },
        log: Log { format: LogFormat::Json, level: LogLevel::Debug },
    };
    let config = parse(text).unwrap();
    assert_eq!(config, expected);
    assert_eq!(config.cache.max_size.bytes(), 512 << 20);
}

#[test]
fn an_unknown_key_is_refused_in_every_section() {
    let refused = |text: &str, at: &str| {
        let message = refusal(text);
        assert!(message.starts_with(at) && message.contains("unknown key: "), "{message}");
    };
    refused("policy: {paths: [/p]}\nbogus: 1\n", "c.yaml:2:1: bogus: ");
    refused("policy:\n  paths: [/p]\n  bogus: 1\n", "c.yaml:3:3: policy.bogus: ");
    for section in ["runtime", "registry", "cache", "outage", "trust", "limits", "control", "metrics", "log"]
    {
        refused(&format!("{MINIMAL}{section}:\n  bogus: 1\n"), &format!("c.yaml:3:3: {section}.bogus: "));
    }
    refused(&format!("{MINIMAL}trust:\n  tuf:\n    bogus: 1\n"), "c.yaml:4:5: trust.tuf.bogus: ");
    // Right key, wrong spelling or wrong section.
    refused(&format!("{MINIMAL}cache: {{max_entries: 1}}\n"), "c.yaml:2:9: cache.max_entries: ");
    refused(&format!("{MINIMAL}mode: audit\n"), "c.yaml:2:1: mode: ");
}

#[test]
fn a_missing_or_empty_policy_path_says_what_to_do() {
    for text in ["", "# nothing\n", "{}", "drain: 1s\n", "policy: {mode: audit}\n", "policy: {}\n"] {
        let message = refusal(text);
        assert!(
            message.contains("policy.paths is required: name the files or folders"),
            "{text:?}: {message}"
        );
    }
    assert_eq!(
        refusal("policy:\n  paths: []\n"),
        "c.yaml:2:10: policy.paths: is empty: name the files or folders that hold the policies"
    );
}

#[test]
fn bad_values_name_line_key_and_way_out() {
    let cases = [
        (
            "cache: {fresh: 10}",
            "c.yaml:2:16: cache.fresh: `10` is not a duration: write it with its unit, as 10s, 24h or 0s",
        ),
        (
            "drain: soon",
            "c.yaml:2:8: drain: `soon` is not a duration: write it with its unit, as 10s, 24h or 0s",
        ),
        ("cache: {maxSize: 1}", "c.yaml:2:18: cache.maxSize: `1` is not a size: write it as 512MiB or 1GiB"),
        (
            "cache: {maxSize: 0GiB}",
            "c.yaml:2:18: cache.maxSize: `0GiB` is not a size: write it as 512MiB or 1GiB",
        ),
        ("cache: {maxEntries: 0}", "c.yaml:2:21: cache.maxEntries: `0` is not a whole number of 1 or more"),
        (
            "limits: {concurrency: -1}",
            "c.yaml:2:23: limits.concurrency: `-1` is not a whole number of 1 or more",
        ),
        (
            "limits: {verification: 0s}",
            "c.yaml:2:24: limits.verification: must be more than 0s: with no time nothing could be verified",
        ),
        (
            "listen: /run/p.sock",
            "c.yaml:2:9: listen: `/run/p.sock` is not a Unix socket: write it as unix:///run/….sock",
        ),
        (
            "runtime: {endpoint: 'tcp://1.2.3.4:5'}",
            "c.yaml:2:21: runtime.endpoint: `tcp://1.2.3.4:5` is not a Unix socket: write it as unix:///run/….sock",
        ),
        (
            "listen: unix://run/p.sock",
            "c.yaml:2:9: listen: `run/p.sock` is not an absolute path: begin it with /",
        ),
        (
            "runtime: {namespace: ''}",
            "c.yaml:2:22: runtime.namespace: must not be empty: remove the key to have the default",
        ),
        ("cache: {path: c}", "c.yaml:2:15: cache.path: `c` is not an absolute path: begin it with /"),
        (
            "metrics: {listen: 9477}",
            "c.yaml:2:19: metrics.listen: `9477` is not an address with a port: write it as \"127.0.0.1:9477\", or as \"\" for none",
        ),
        (
            "outage: {servePresent: always}",
            "c.yaml:2:24: outage.servePresent: `always` is not one of never, anonymous, credentials, namespace",
        ),
        (
            "log: {level: loud}",
            "c.yaml:2:14: log.level: `loud` is not one of error, warn, info, debug, trace",
        ),
        (
            "trust: {root: staging}",
            "c.yaml:2:15: trust.root: `staging` is no trust root: write public-good, or the absolute path of a trusted_root.json",
        ),
        (
            "trust: {tuf: {mirror: 'http://tuf.example/', root: /r}}",
            "c.yaml:2:23: trust.tuf.mirror: `http://tuf.example/` is plain HTTP to another machine: use https://",
        ),
        (
            "trust: {tuf: {mirror: tuf.example, root: /r}}",
            "c.yaml:2:23: trust.tuf.mirror: `tuf.example` is not the address of a mirror: write it as https://host/path, or file:///folder",
        ),
        (
            "trust: {tuf: {mirror: 'https://t', root: r.json}}",
            "c.yaml:2:42: trust.tuf.root: `r.json` is not an absolute path: begin it with /",
        ),
        ("trust: {tuf: {mirror: 'https://t'}}", "c.yaml:2:15: trust.tuf: missing field `root`"),
    ];
    for (line, message) in cases {
        assert_eq!(refusal(&format!("{MINIMAL}{line}\n")), message);
    }
    assert_eq!(
        refusal("policy: {paths: [/p], mode: Enforce}"),
        "c.yaml:1:29: policy.mode: `Enforce` is not one of enforce, audit"
    );
}

#[test]
fn values_that_cannot_work_together_are_refused() {
    let cases = [
        (
            "cache: {fresh: 2h, stale: 1h}",
            "cache: `stale` is shorter than `fresh`: set it to the same or more, or to 0s for never",
        ),
        (
            "trust: {root: public-good, tuf: {mirror: 'https://t', root: /r}}",
            "trust: `root` and `tuf` exclude each other: a node has one trust root",
        ),
        (
            "listen: unix:///run/containerd/containerd.sock",
            "listen and runtime.endpoint are both unix:///run/containerd/containerd.sock: give each its own",
        ),
        (
            "control: {listen: 'unix:///run/pullgate/pullgate.sock'}",
            "listen and control.listen are both unix:///run/pullgate/pullgate.sock: give each its own",
        ),
    ];
    for (line, message) in cases {
        let refusal = refusal(&format!("{MINIMAL}{line}\n"));
        assert!(refusal.starts_with("c.yaml:") && refusal.ends_with(message), "{refusal}");
    }
}

#[test]
fn yaml_that_says_two_things_or_none_is_refused() {
    let cases = [
        ("policy: {paths: [/p]}\npolicy: {paths: [/q]}\n", "duplicate mapping key"),
        ("cache: {fresh: 1h, fresh: 2h}\npolicy: {paths: [/p]}\n", "duplicate mapping key"),
        ("policy: {paths: [/p]}\n---\npolicy: {paths: [/q]}\n", "multiple YAML documents"),
        ("policy: {paths: [/p]}\ntrust: {onlineRekor: yes}\n", "trust.onlineRekor: "),
        ("policy: {paths: /p}\n", "policy.paths: "),
        ("policy: [/p]\n", "policy: "),
        ("policy: {paths: [/p]}\ncache: 1\n", "cache: "),
        ("policy: {paths: [/p\n", "c.yaml:"),
        ("- policy\n", "c.yaml:1:1: "),
        ("policy: {paths: [/p]}\nlisten: *nowhere\n", "c.yaml:2:"),
    ];
    for (text, part) in cases {
        let refusal = refusal(text);
        assert!(refusal.contains(part) && !refusal.contains('\n'), "{text:?}: {refusal}");
    }
}

#[test]
fn a_socket_path_is_bounded_by_the_system() {
    let fits = format!("/{}", "a".repeat(106));
    assert_eq!(parse(&format!("{MINIMAL}listen: unix://{fits}\n")).unwrap().listen.path(), Path::new(&fits));
    assert!(refusal(&format!("{MINIMAL}listen: unix://{fits}a\n")).contains("longer than the 107 bytes"));
}

#[test]
fn a_file_that_someone_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.yaml");
    let message = Config::load(&missing).unwrap_err().to_string();
    assert!(
        message.contains("none.yaml: cannot read the configuration: ") && message.contains("--config"),
        "{message}"
    );
    assert!(matches!(Config::load(folder.path()), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn files_that_are_no_configuration_are_refused_unparsed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, [b'#', 0xff, b'\n']).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::NotText { .. })));
    std::fs::write(&path, format!("{MINIMAL}#{}", "x".repeat(1 << 20))).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLarge { limit: 1_048_576, .. })));
    std::fs::write(&path, MINIMAL).unwrap();
    assert_eq!(Config::load(&path).unwrap(), parse(MINIMAL).unwrap());
}

#[test]
fn a_tuf_repository_is_a_mirror_and_a_pinned_root() {
    let config =
        parse(&format!("{MINIMAL}trust: {{tuf: {{mirror: 'https://tuf.example/r', root: /r.json}}}}\n"));
    let mirror = Mirror::parse("https://tuf.example/r/").unwrap();
    let expected = Origin::Tuf { mirror, root: "/r.json".into() };
    assert_eq!(config.unwrap().trust, Trust { root: expected, online_rekor: OnlineRekor::Never });
}
