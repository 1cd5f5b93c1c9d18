//! `status` and `reload`: short conversations with the running daemon.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::args::{Output, Reload, Status};
use super::{Exit, complain, say};
use crate::config::Config;
use crate::daemon::control::{Request, Response, ask};

/// `pullgate status`
pub(super) fn status(arguments: &Status) -> Exit {
    let body = match request(&arguments.config, &Request::Status { would_deny: arguments.would_deny }) {
        Ok(body) => body,
        Err(exit) => return exit,
    };
    match arguments.output {
        Output::Json => say(with_version(&body)),
        Output::Text => print_status(&body, arguments.would_deny),
    }
    let degraded = body.get("degraded").is_some_and(|degraded| !degraded.is_null());
    let refused = list(&body, "wouldDeny").next().is_some();
    if degraded || (arguments.would_deny && refused) { Exit::No } else { Exit::Done }
}

/// `pullgate reload`
pub(super) fn reload(arguments: &Reload) -> Exit {
    match request(&arguments.config, &Request::Reload {}) {
        Ok(body) => {
            say(text(&body, "message"));
            Exit::Done
        }
        Err(exit) => exit,
    }
}

/// Asks, and turns what went wrong into a line on stderr and an exit code.
pub(super) fn request(config: &Path, request: &Request) -> Result<Value, Exit> {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Err(Exit::Usage);
        }
    };
    match ask(config.control.listen.path(), request) {
        Ok(Response { error: None, body, .. }) => Ok(body),
        Ok(Response { error: Some(error), .. }) => {
            complain(error);
            Err(Exit::No)
        }
        Err(error) => {
            complain(error);
            Err(Exit::Unknown)
        }
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

fn print_status(body: &Value, would_deny: bool) {
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
        if let Some(value) = body.get(field).filter(|value| !value.is_null()) {
            let value = if field == "trustRoot" { trust_root(value, now()) } else { plain(value) };
            say(format_args!("{title:<18} {value}"));
        }
    }
    for warning in list(body, "warnings") {
        say(format_args!("{:<18} {}", "warning", plain(warning)));
    }
    if !would_deny {
        return;
    }
    let mut any = false;
    for image in list(body, "wouldDeny") {
        any = true;
        say(format_args!(
            "would deny         {} {}/{}: {}",
            text(image, "image"),
            text(image, "policy"),
            text(image, "rule"),
            text(image, "cause")
        ));
    }
    if !any {
        say("would deny         nothing that is present");
    }
    for container in list(body, "wouldDenyRunning") {
        let [image, namespace, pod, name] =
            ["image", "namespace", "pod", "container"].map(|field| text(container, field));
        say(format_args!("running of it      {namespace}/{pod}/{name}: {image}"));
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

/// A member of an object, as plain text.
pub(super) fn text(object: &Value, field: &str) -> String {
    object.get(field).map(plain).unwrap_or_default()
}

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

    #[test]
    fn exit_3_where_no_daemon_listens() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yaml");
        let text = r#"{"policy":{"paths":["/p"]},"control":{"listen":"unix:///nonexistent/c.sock"}}"#;
        std::fs::write(&config, text).unwrap();
        assert_eq!(request(&config, &Request::Reload {}), Err(Exit::Unknown));
        assert_eq!(request(&folder.path().join("none"), &Request::Reload {}), Err(Exit::Usage));
    }
}
