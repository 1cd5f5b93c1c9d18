//! Lists of images, and what is said of each image.

use super::*;

#[test]
fn a_list_has_one_image_a_line() {
    let text = "# all\na.io/b:1\r\n\n  c.io/d@sha256:00  # pinned\n#\na.io/b:1";
    assert_eq!(listed(text).collect::<Vec<_>>(), ["a.io/b:1", "c.io/d@sha256:00", "a.io/b:1"]);
}

#[test]
fn an_endless_list_is_refused() {
    let error = read(std::io::repeat(b'a'), "standard input").unwrap_err();
    assert_eq!(error, "standard input: a list of images has less than 16777216 bytes");
    assert!(read(&b"\xff"[..], "list").unwrap_err().starts_with("list: "));
}

fn prewarmed(verdict: &str, source: &str, denials: Value, fault: Value) -> String {
    prewarm_lines(&json!({
        "image": "a.io/b:1", "digest": "sha256:00", "verdict": verdict, "source": source,
        "denials": denials, "fault": fault,
    }))
}

#[test]
fn what_is_said_of_an_image_that_was_verified_ahead() {
    let denial =
        json!({ "policy": "p", "rule": "r", "reason": "x", "cause": "not there", "message": "long" });
    let ours =
        json!({ "policy": "", "rule": "", "reason": "x", "cause": "no policy covers it", "message": "" });
    let fault = json!({ "reason": "timeout", "message": "a.io/b:1: took too long" });
    let (none, null) = (json!([]), Value::Null);
    for (said, expected) in [
        (prewarmed("allowed", "fresh", none.clone(), null.clone()), "a.io/b:1: allowed (fresh) sha256:00"),
        (
            prewarmed("allowed", "ignored", none.clone(), fault.clone()),
            "a.io/b:1: allowed (ignored): took too long",
        ),
        (
            prewarmed("allowed", "audited", json!([denial]), null.clone()),
            "a.io/b:1: would deny: p/r: not there",
        ),
        (
            prewarmed("denied", "", json!([denial, ours]), null),
            "a.io/b:1: denied: p/r: not there; no policy covers it",
        ),
        (prewarmed("undecided", "", none, fault), "a.io/b:1: undecided: took too long"),
    ] {
        assert_eq!(said, expected);
    }
}

#[test]
fn an_import_says_what_became_of_an_image_and_exits_so() {
    for (result, exit) in [
        ("kept", Exit::Done),
        ("known", Exit::Done),
        ("not-asked", Exit::Done),
        ("denied", Exit::No),
        ("expired", Exit::No),
        ("full", Exit::Unknown),
        ("unwritten", Exit::Unknown),
        ("undecided", Exit::Unknown),
        ("of a later version", Exit::Unknown),
    ] {
        assert_eq!(became(result).0, exit, "{result}");
    }
    let row = json!({
        "image": "a.io/b@sha256:00", "result": "denied", "fault": null,
        "denials": [{ "policy": "p", "rule": "r", "cause": "invalid signature" }],
    });
    assert_eq!(import_line(&row), "a.io/b@sha256:00: not kept: denied: p/r: invalid signature");
}
