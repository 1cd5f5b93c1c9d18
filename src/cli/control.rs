//! `status` and `reload`: short conversations with the running daemon.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::args::{Output, Reload, Status};
use super::{Exit, complain, say, tree};
use crate::config::{Config, ConfigError};
use crate::daemon::control::{Request, Response, ask, listens};

/// `pullgate status`
pub(super) fn status(arguments: &Status) -> Exit {
    let asked = client_config(&arguments.config).map_err(|error| {
        complain(error);
        Exit::Usage
    });
    let request = Request::Status { would_deny: arguments.would_deny };
    let body = match asked.and_then(|config| answer(&config, &request)) {
        Ok(body) => body,
        Err(exit) => return exit,
    };
    match arguments.output {
        Output::Json => say(tree::shown(&with_version(&body))),
        Output::Text => status_lines(&body, arguments.would_deny, now()).iter().for_each(say),
    }
    let degraded = body.get("degraded").is_some_and(|degraded| !degraded.is_null());
    match arguments.would_deny {
        _ if degraded => Exit::No,
        true => found(&body),
        false => Exit::Done,
    }
}

/// `pullgate reload`
pub(super) fn reload(arguments: &Reload) -> Exit {
    // What is wrong with the config the daemon says itself.
    let asked = reach(&arguments.config).map_err(|error| {
        complain(error);
        Exit::Usage
    });
    match asked.and_then(|(config, _)| answer(&config, &Request::Reload {})) {
        Ok(body) => {
            say(text(&body, "message"));
            if body.get("degraded").is_some_and(|degraded| !degraded.is_null()) {
                Exit::No
            } else {
                Exit::Done
            }
        }
        Err(exit) => exit,
    }
}

/// Asks, and turns what went wrong into a line on stderr and an exit code.
fn answer(config: &Config, request: &Request) -> Result<Value, Exit> {
    match ask(config.control.listen.path(), request) {
        Ok(Response { error: None, body, .. }) => Ok(body),
        // Of what these commands ask only a reload is refused: for the config or the policies.
        Ok(Response { error: Some(error), .. }) => {
            complain(error);
            Err(Exit::Usage)
        }
        Err(error) => {
            complain(error);
            Err(Exit::Unknown)
        }
    }
}

/// The config at `path`, for what is asked of the daemon. That it is broken is a warning where a daemon
/// listens that began with it: only the control socket is then what the file says.
pub(super) fn client_config(path: &Path) -> Result<Config, ConfigError> {
    let (config, broken) = reach(path)?;
    if let Some(error) = broken {
        complain(format_args!("warning: {error}; the daemon goes on with what it read before"));
    }
    Ok(config)
}

fn reach(path: &Path) -> Result<(Config, Option<ConfigError>), ConfigError> {
    let broken = match Config::load(path) {
        Ok(config) => return Ok((config, None)),
        Err(error) => error,
    };
    match Config::of_broken(path).filter(|config| listens(config.control.listen.path())) {
        Some(config) => Ok((config, Some(broken))),
        None => Err(broken),
    }
}

/// The body as one JSON object with its `schemaVersion`.
pub(super) fn with_version(body: &Value) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("schemaVersion".to_owned(), Value::from(1));
    match body {
        Value::Object(members) => object.extend(members.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            object.insert("items".to_owned(), body.clone());
        }
    }
    Value::Object(object)
}

/// What the daemon does, a line each; with `would_deny` also what policy refuses of what is on the node, and
/// what could not be found out.
fn status_lines(body: &Value, would_deny: bool, now: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |title: &str, text: &str| lines.push(tree::plain(&format!("{title:<18} {text}")));
    for (title, field) in [
        ("mode", "mode"),
        ("policies", "policies"),
        ("snapshot", "snapshot"),
        ("containerd", "containerd"),
        ("cache", "cache"),
        ("images", "images"),
        ("exempt namespaces", "exemptNamespaces"),
        ("trust root", "trustRoot"),
        ("degraded", "degraded"),
    ] {
        let Some(value) = body.get(field).filter(|value| !value.is_null()) else { continue };
        match field {
            "trustRoot" => line(title, &trust_root(value, now)),
            "snapshot" => line(
                title,
                &format!("loaded {}, fingerprint {}", moment(value, "loadedAt"), text(value, "fingerprint")),
            ),
            "images" => line(title, &images(value)),
            _ => line(title, &plain(value)),
        }
    }
    for warning in list(body, "warnings") {
        line("warning", &plain(warning));
    }
    if !would_deny {
        return lines;
    }
    for image in list(body, "wouldDeny") {
        let [name, policy, rule] = ["image", "policy", "rule"].map(|field| text(image, field));
        let by = if policy.is_empty() { String::new() } else { format!("{policy}/{rule}: ") };
        line("would deny", &format!("{name}: {by}{}", told(image)));
    }
    for image in list(body, "undecided") {
        line("undecided", &format!("{}: {}", text(image, "image"), text(image, "cause")));
    }
    match found(body) {
        Exit::Done => line("would deny", "nothing that is present"),
        Exit::Unknown => line("would deny", "nothing that is decided; not everything is"),
        Exit::No | Exit::Usage => {}
    }
    for container in list(body, "wouldDenyRunning") {
        let [image, namespace, pod, name] =
            ["image", "namespace", "pod", "container"].map(|field| text(container, field));
        line("running of it", &format!("{namespace}/{pod}/{name}: {image}"));
    }
    lines
}

/// Whether anything on the node would be denied, and whether that is known of all of it.
fn found(body: &Value) -> Exit {
    let images = body.get("images");
    let count = |field| images.and_then(|images| images.get(field)).and_then(Value::as_u64);
    if list(body, "wouldDeny").next().is_some() {
        Exit::No
    } else if count("undecided") == Some(0) && count("toLookAt") == Some(0) {
        Exit::Done
    } else {
        Exit::Unknown
    }
}

/// `1 denied, 2 undecided, 5 not looked at yet`
fn images(counts: &Value) -> String {
    let mut told = format!("{} denied, {} undecided", text(counts, "denied"), text(counts, "undecided"));
    match counts.get("toLookAt").and_then(Value::as_u64) {
        Some(0) => {}
        Some(more) => told.push_str(&format!(", {more} not looked at yet")),
        None => told.push_str(", not looked at under these policies yet"),
    }
    told
}

/// Seconds since 1970 as people write a time.
pub(super) fn moment(object: &Value, field: &str) -> String {
    let seconds = object.get(field).and_then(Value::as_u64);
    let time = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    match time {
        // What the library can write ends with the year 9999.
        Some(time) if seconds.is_some_and(|seconds| seconds <= LAST_SECOND) => {
            humantime::format_rfc3339_seconds(time).to_string()
        }
        Some(_) | None => text(object, field),
    }
}

/// `https://mirror, version 3, confirmed 2h 5m ago, expires in 6days`
fn trust_root(status: &Value, now: u64) -> String {
    let span = |seconds: u64| {
        // Two units of time are enough for people.
        let exact = humantime::format_duration(Duration::from_secs(seconds)).to_string();
        exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
    };
    let mut text = text(status, "source");
    let number = |field| status.get(field).and_then(Value::as_u64);
    match status.get("state").and_then(Value::as_str) {
        Some("unused") => text.push_str(", not needed by any policy"),
        Some("unavailable") => text.push_str(", unavailable"),
        Some(_) | None => {
            if let Some(version) = number("version") {
                text.push_str(&format!(", version {version}"));
            }
            if let Some(age) = number("ageSeconds") {
                text.push_str(&format!(", confirmed {} ago", span(age)));
            }
            match number("expiresAt") {
                Some(expires) if expires < now => {
                    text.push_str(&format!(", expired {} ago", span(now - expires)))
                }
                Some(expires) => text.push_str(&format!(", expires in {}", span(expires - now))),
                None => {}
            }
        }
    }
    if let Some(trouble) = status.get("trouble").and_then(Value::as_str) {
        text.push_str(&format!(", last refresh: {trouble}"));
    }
    text
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Objects as `key value, key value`; lists with commas.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| format!("{key} {}", plain(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn list<'a>(body: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    body.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// The cause of a denial, and what it leaves open.
pub(super) fn told(denial: &Value) -> String {
    let cause = text(denial, "cause");
    match denial.get("why").and_then(Value::as_str) {
        Some(why) => format!("{cause} ({why})"),
        None => cause,
    }
}

/// A member of an object, as plain text.
pub(super) fn text(object: &Value, field: &str) -> String {
    object.get(field).map(plain).unwrap_or_default()
}

/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_carries_a_schema_version() {
        assert_eq!(
            with_version(&serde_json::json!({"a": 1})),
            serde_json::json!({"schemaVersion": 1, "a": 1})
        );
        assert_eq!(
            with_version(&serde_json::json!([1])),
            serde_json::json!({"schemaVersion": 1, "items": [1]})
        );
    }

    #[test]
    fn the_trust_root_is_told_in_words() {
        let cases = [
            (
                r#"{"source":"public-good (built in)","state":"unused"}"#,
                "public-good (built in), not needed by any policy",
            ),
            (r#"{"source":"/r.json","state":"in use","ageSeconds":7505}"#, "/r.json, confirmed 2h 5m ago"),
            (
                r#"{"source":"https://m","state":"in use","version":3,"ageSeconds":60,"expiresAt":87400}"#,
                "https://m, version 3, confirmed 1m ago, expires in 1day",
            ),
            (
                r#"{"source":"https://m","state":"in use","ageSeconds":60,"expiresAt":400,"trouble":"no"}"#,
                "https://m, confirmed 1m ago, expired 10m ago, last refresh: no",
            ),
            (
                r#"{"source":"https://m","state":"unavailable","trouble":"no"}"#,
                "https://m, unavailable, last refresh: no",
            ),
        ];
        for (status, text) in cases {
            assert_eq!(trust_root(&serde_json::from_str(status).unwrap(), 1000), text);
        }
    }

    fn status_body(images: &str, more: &str) -> Value {
        let text = format!(
            r#"{{"mode":"audit","snapshot":{{"fingerprint":"sha256:f","loadedAt":1700000000}},"images":{images}{more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_undecided_is_named_and_is_no_clean_bill() {
        let body = status_body(
            r#"{"denied":0,"undecided":1,"toLookAt":0}"#,
            r#","wouldDeny":[],"undecided":[{"image":"a.io/b:1","cause":"a.io answered 500"}]"#,
        );
        assert_eq!(
            status_lines(&body, true, 0),
            [
                "mode               audit",
                "snapshot           loaded 2023-11-14T22:13:20Z, fingerprint sha256:f",
                "images             0 denied, 1 undecided",
                "undecided          a.io/b:1: a.io answered 500",
                "would deny         nothing that is decided; not everything is",
            ]
        );
        assert_eq!(found(&body), Exit::Unknown);
        assert_eq!(status_lines(&body, false, 0).len(), 3);
    }

    #[test]
    fn only_what_was_all_looked_at_is_known() {
        for (counts, exit) in [
            (r#"{"denied":0,"undecided":0,"toLookAt":0}"#, Exit::Done),
            (r#"{"denied":0,"undecided":0,"toLookAt":7}"#, Exit::Unknown),
            (r#"{"denied":0,"undecided":0,"toLookAt":null}"#, Exit::Unknown),
            (r#"{"denied":0,"undecided":3,"toLookAt":0}"#, Exit::Unknown),
        ] {
            assert_eq!(found(&status_body(counts, r#","wouldDeny":[]"#)), exit, "{counts}");
        }
        let denied = r#","wouldDeny":[{"image":"a","policy":"p","rule":"r","cause":"signature not found"}]"#;
        let body = status_body(r#"{"denied":1,"undecided":1,"toLookAt":1}"#, denied);
        assert_eq!(found(&body), Exit::No);
        let lines = status_lines(&body, true, 0);
        assert_eq!(
            lines[2..],
            [
                "images             1 denied, 1 undecided, 1 not looked at yet",
                "would deny         a: p/r: signature not found",
            ]
        );
    }

    #[test]
    fn exit_3_where_no_daemon_listens() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yaml");
        let text = r#"{"policy":{"paths":["/p"]},"control":{"listen":"unix:///nonexistent/c.sock"}}"#;
        std::fs::write(&config, text).unwrap();
        assert_eq!(reload(&Reload { config }), Exit::Unknown);
        assert_eq!(reload(&Reload { config: folder.path().join("none") }), Exit::Usage);
    }
}
