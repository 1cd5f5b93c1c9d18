//! The relay over real sockets, between a client that sees every byte and a containerd of the test.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test may panic")]

mod fake;
mod harness;
mod tags;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use pullgate::containerd::{Client, ContainerdError, Existing, TagRecord, Version};
use pullgate::cri::{Forward, ImageFacts, ProxyOptions, PullOutcome, Refusal, Visibility};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tonic::Code;

use self::fake::{Event, Fake, Pull, framed, pull_answer};
use self::harness::{Caller, Relay, current_user, pull_request, status_request};

const PULL: &str = "/runtime.v1.ImageService/PullImage";
const STATUS: &str = "/runtime.v1.ImageService/ImageStatus";
const FS_INFO: &str = "/runtime.v1.ImageService/ImageFsInfo";
const ONE: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const TWO: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

#[tokio::test]
async fn crio_is_refused_at_start_and_everything_else_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("runtime.sock");
    let fake = Fake::start(&runtime);
    let unix = |name: &str| format!("unix://{}", folder.path().join(name).display());
    let config = serde_json::json!({
        "listen": unix("gate.sock"),
        "runtime": {"endpoint": unix("runtime.sock"), "containerd": unix("runtime.sock")},
        "policy": {"paths": [folder.path()], "approved": folder.path().join("approved.txt")},
        "cache": {"path": folder.path().join("state/cache")},
        "control": {"listen": unix("control.sock")},
        "metrics": {"listen": ""},
        "log": {"format": "json"},
    });
    let path = folder.path().join("pullgate.conf");
    std::fs::write(&path, config.to_string()).unwrap();
    let serve = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pullgate"));
        command.arg("serve").arg("--config").arg(&path).env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };

    *fake.state.name.lock().unwrap() = "cri-o";
    let refused = serve();
    let refused = tokio::task::spawn_blocking(move || refused.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    let start = format!("pullgate: runtime.endpoint: {} is CRI-O, ", runtime.display());
    assert!(said.lines().any(|line| line.starts_with(&start)), "{said}");
    assert!(!folder.path().join("state").exists(), "nothing was touched");

    *fake.state.name.lock().unwrap() = "containerd";
    let mut served = serve();
    let relayed = tokio::time::timeout(PATIENCE, async {
        loop {
            if UnixStream::connect(folder.path().join("gate.sock")).await.is_ok() {
                let caller = Caller::connect(&folder.path().join("gate.sock")).await;
                break caller.call("/runtime.v1.RuntimeService/Version", "").await.status();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let relayed = relayed.await;
    served.kill().unwrap();
    served.wait().unwrap();
    assert_eq!(relayed.unwrap().0, Code::Ok);
}

/// Longer than a busy machine makes any test wait.
const PATIENCE: Duration = Duration::from_secs(60);

fn refused(code: Code, message: &str) -> (Code, String) {
    (code, message.to_owned())
}

#[tokio::test]
async fn m7_known_calls_flow_with_metadata_deadline_and_trailers() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let headers = [("grpc-timeout", "7S"), ("traceparent", "00-1-2-3"), ("x-bytes-bin", "AAEC")];
    let answer = caller.raw("/runtime.v1.RuntimeService/Echo", &headers, framed(b"hello")).await;
    assert_eq!(answer.data, framed(b"hello"));
    assert_eq!(answer.head["x-head"], "kept");
    assert!(!answer.head.contains_key("date"), "{:?}", answer.head);
    assert_eq!(answer.trailers.as_ref().unwrap()["x-trailer"], "kept");
    let seen = relay.fake.state.calls("Echo").pop().unwrap();
    assert_eq!(seen.authority, "localhost");
    for (name, value) in headers {
        assert_eq!(seen.headers[name], value);
    }

    let answer = caller.call("/runtime.v1.RuntimeService/NotYetInvented", "x").await;
    assert_eq!(answer.status(), refused(Code::Unimplemented, "unknown method of the fake"));
    assert!(answer.trailers.is_none(), "trailers-only stays so");
    assert_eq!(answer.head["grpc-status-details-bin"], "AAEC");
}

#[tokio::test]
async fn m7_messages_of_32_mib_flow() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let answer = caller.call("/runtime.v1.ImageService/ListImages", "").await;
    assert_eq!(answer.data.len(), 5 + 32 * 1024 * 1024);
    let large = framed(&vec![7; 32 * 1024 * 1024]);
    let answer = caller.raw("/runtime.v1.RuntimeService/Echo", &[], large.clone()).await;
    assert_eq!(answer.data, large);
}

#[tokio::test]
async fn m7_streams_flow_frame_by_frame_both_ways() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let answer = caller.call("/runtime.v1.RuntimeService/Count", "").await;
    assert_eq!(answer.data.len(), 1000 * 9);
    assert_eq!(answer.status().0, Code::Ok);

    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = stream::unfold(receiver, |mut receiver| async {
        let data = receiver.recv().await?;
        Some((Ok(Frame::data(data)), receiver))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    let mut echoed = caller.begin("/runtime.v1.RuntimeService/Echo", &[], body).await.unwrap().into_body();
    for message in [&b"one"[..], b"two", b"three"] {
        sender.send(framed(message)).await.unwrap();
        let frame = echoed.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), framed(message));
    }
    drop(sender);
    assert_eq!(echoed.frame().await.unwrap().unwrap().into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn m7_unknown_image_methods_flow_and_are_counted() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let answer = caller.call("/runtime.v1.ImageService/Describe", "").await;
    assert_eq!(answer.status().0, Code::Ok);
    assert_eq!(relay.proxy.counts().unknown_methods.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn m7_other_services_never_reach_containerd() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    for path in [
        "/containerd.services.images.v1.Images/Get",
        "/runtime.v1alpha2.ImageService/PullImage",
        "/runtime.v1.ImageService/PullImageFast",
        "/runtime.v1.ImageService/PullImage?",
        "/runtime.v1.ImageService/PullImage/",
        "//runtime.v1.ImageService/PullImage",
    ] {
        let answer = caller.call(path, pull_request("busybox")).await;
        let (code, message) = answer.status();
        assert_eq!(code, Code::Unimplemented, "{path}");
        assert!(message.contains("pullgate"), "{message}");
        assert!(answer.trailers.is_none() && answer.data.is_empty());
    }
    assert!(relay.fake.state.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn m7_inspected_calls_carry_exactly_one_plain_frame() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let one = framed(&pull_request("busybox"));
    let mut compressed = one.to_vec();
    compressed[0] = 1;
    let table = [
        ([&one[..], &one[..]].concat(), Code::InvalidArgument),
        (one[..9].to_vec(), Code::InvalidArgument),
        (Vec::new(), Code::InvalidArgument),
        (compressed, Code::Unimplemented),
        (framed(&vec![0; 5 * 1024 * 1024]).to_vec(), Code::ResourceExhausted),
    ];
    for path in [PULL, STATUS] {
        for (bytes, code) in &table {
            let answer = caller.raw(path, &[], bytes.clone().into()).await;
            assert_eq!(answer.status().0, *code, "{path}");
        }
    }
    assert!(relay.fake.state.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn m1_forwards_the_original_bytes_with_only_the_image_exchanged() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let request = relay.pins("ghcr.io/org/app:v1", ONE, "sha256:aa", None);
    let answer = caller.raw(PULL, &[("traceparent", "00-1-2-3")], framed(&request)).await;
    assert_eq!(answer.data, framed(&pull_answer("sha256:aa")), "containerd's own bytes");
    assert_eq!((answer.status().0, &answer.head["x-head"]), (Code::Ok, &"kept".parse().unwrap()));
    let seen = relay.fake.state.calls("PullImage").pop().unwrap();
    assert_eq!(seen.message, pull_request(&format!("ghcr.io/org/app@{ONE}")));
    assert_eq!(seen.headers["traceparent"], "00-1-2-3");

    let call = relay.gate.calls.lock().unwrap().pop().unwrap();
    assert_eq!(call.image.text(), "ghcr.io/org/app:v1");
    assert_eq!((call.pod.namespace.as_deref(), call.pod.name.as_deref()), (Some("ns"), Some("pod")));
    assert_eq!(call.auth.unwrap().password, "p");
    let outcomes = relay.gate.outcomes.lock().unwrap().clone();
    assert_eq!(outcomes, [PullOutcome::Pulled { image_id: "sha256:aa".into() }]);
}

#[tokio::test]
async fn m1_a_decision_for_another_image_is_not_forwarded() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let digest = ONE.parse().unwrap();
    for name in
        [format!("ghcr.io/org/other@{ONE}"), format!("ghcr.io/org/app@{TWO}"), "ghcr.io/org/app".into()]
    {
        relay.plan(Ok(Forward::Pinned { name, digest, resolved: None }));
        let answer = caller.call(PULL, pull_request("ghcr.io/org/app:v1")).await;
        assert_eq!(answer.status(), refused(Code::Internal, "pullgate: the decision is for another image"));
    }
    assert!(relay.fake.state.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn m5_an_image_id_or_a_bad_reference_is_not_pulled() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    for image in [ONE, &ONE[7..], "sha256:1111", "UPPER CASE", "a@sha256:00"] {
        let (code, _) = caller.call(PULL, pull_request(image)).await.status();
        assert_eq!(code, Code::InvalidArgument, "{image}");
    }
    assert!(relay.gate.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn e1_a_refusal_is_answered_as_given_and_nothing_is_forwarded() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let message = "SignatureValidationFailed: busybox: p/r: signature not found";
    relay.plan(Err(Refusal::new(Code::Unknown, message)));
    let answer = caller.call(PULL, pull_request("busybox")).await;
    assert_eq!(answer.status(), refused(Code::Unknown, message));
    assert!(relay.fake.state.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn e1_our_own_expiry_is_deadline_exceeded() {
    let mut relay = Relay::with(Some(Arc::new(Semaphore::new(0))), current_user());
    let caller = relay.caller().await;
    let answer = caller.raw(PULL, &[("grpc-timeout", "1m")], framed(&pull_request("busybox"))).await;
    assert_eq!(answer.status().0, Code::DeadlineExceeded);
    assert!(relay.fake.state.seen.lock().unwrap().is_empty());
    relay.judging.close();
}

#[tokio::test]
async fn e1_pitfall_21_a_panic_is_one_calls_alone() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    let answer = caller.call(PULL, pull_request("panic")).await;
    assert_eq!(answer.status(), refused(Code::Internal, "pullgate: internal fault"));
    assert_eq!(caller.call(FS_INFO, "").await.status().0, Code::Ok);
    assert_eq!(relay.proxy.counts().panics.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn e5_a_call_that_is_given_up_is_reset_at_containerd() {
    let mut relay = Relay::start();
    let caller = relay.caller().await;
    let hanging = tokio::spawn({
        let caller = caller.clone();
        async move { caller.call("/runtime.v1.RuntimeService/HangBeforeHead", "").await }
    });
    assert_eq!(relay.fake.event().await, Event::Began("head"));
    hanging.abort();
    assert_eq!(relay.fake.event().await, Event::Dropped("head"));

    let body = harness::whole(framed(b""));
    let mut answer = caller.begin("/runtime.v1.RuntimeService/HangInBody", &[], body).await.unwrap();
    assert_eq!(relay.fake.event().await, Event::Began("body"));
    assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), framed(b"first"));
    drop(answer);
    assert_eq!(relay.fake.event().await, Event::Dropped("body"));

    *relay.fake.state.pull.lock().unwrap() = Pull::Wait(Arc::new(Semaphore::new(0)));
    let pulling = tokio::spawn(async move { caller.call(PULL, pull_request("busybox")).await });
    assert_eq!(relay.fake.event().await, Event::Began("pull"));
    pulling.abort();
    assert_eq!(relay.fake.event().await, Event::Dropped("pull"));
}

#[tokio::test]
async fn e6_containerd_away_is_unavailable_and_comes_back_on_the_same_connection() {
    let mut relay = Relay::start();
    let caller = relay.caller().await;
    assert_eq!(caller.call(FS_INFO, "").await.status().0, Code::Ok);
    let body = harness::whole(framed(b""));
    let answer = caller.begin("/runtime.v1.RuntimeService/HangInBody", &[], body).await.unwrap();

    relay.fake.kill().await;
    let cut = answer.into_body().collect().await.unwrap();
    assert_eq!(cut.trailers().unwrap()["grpc-status"], "14", "cut in the middle");
    for (path, message) in [(FS_INFO, Bytes::new()), (PULL, pull_request("a")), (STATUS, status_request("a"))]
    {
        let (code, message) = caller.call(path, message).await.status();
        assert_eq!(code, Code::Unavailable, "{path}");
        assert!(message.contains("containerd is not available"), "{message}");
    }
    relay.fake.listen();
    for (path, message) in [(FS_INFO, Bytes::new()), (PULL, pull_request("a")), (STATUS, status_request("a"))]
    {
        assert_eq!(caller.call(path, message).await.status().0, Code::Ok, "{path}");
    }
}

#[tokio::test]
async fn e6_a_failed_pull_is_passed_on_as_containerd_said_it() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    *relay.fake.state.pull.lock().unwrap() = Pull::Fail(5, "no such image");
    let request = relay.pins("a:1", ONE, "sha256:aa", Some(1));
    let answer = caller.call(PULL, request.clone()).await;
    assert_eq!(answer.status(), refused(Code::NotFound, "no such image"));
    assert_eq!(answer.head["grpc-status-details-bin"], "AAEC");
    assert!(answer.trailers.is_none());
    let outcomes = relay.gate.outcomes.lock().unwrap().clone();
    assert_eq!(outcomes, [PullOutcome::Failed { code: Code::NotFound, message: "no such image".into() }]);
    assert_eq!(relay.fake.state.target("docker.io/library/a:1"), None);
}

#[tokio::test]
async fn o4_the_gate_may_answer_a_failed_pull_with_a_present_image() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    *relay.fake.state.pull.lock().unwrap() = Pull::Fail(2, "dial tcp: no route to host");
    *relay.gate.present.lock().unwrap() = Some("sha256:aa".into());
    let answer = caller.call(PULL, pull_request("a:1")).await;
    assert_eq!(answer.status().0, Code::Ok);
    assert_eq!(answer.data, framed(b"\x0a\x09sha256:aa"));
    assert_eq!(relay.fake.state.target("docker.io/library/a:1"), None, "no tag record");
}

#[tokio::test]
async fn e6_drain_ends_forwarded_pulls_and_cancels_the_rest() {
    let hold = Arc::new(Semaphore::new(1));
    let mut relay = Relay::with(Some(Arc::clone(&hold)), current_user());
    let pulling = Arc::new(Semaphore::new(0));
    *relay.fake.state.pull.lock().unwrap() = Pull::Wait(Arc::clone(&pulling));
    let caller = relay.caller().await;
    let call = |image: &'static str| {
        let caller = caller.clone();
        tokio::spawn(async move { caller.call(PULL, pull_request(image)).await.status() })
    };
    let forwarded = call("forwarded");
    assert_eq!(relay.fake.event().await, Event::Began("pull"));
    let judged = call("judged");
    assert_eq!(relay.judging.recv().await.unwrap(), "forwarded");
    assert_eq!(relay.judging.recv().await.unwrap(), "judged");

    relay.shutdown.cancel();
    assert_eq!(judged.await.unwrap(), refused(Code::Unavailable, "pullgate is stopping"));
    assert!(!relay.served.is_finished());
    pulling.add_permits(1);
    assert_eq!(forwarded.await.unwrap().0, Code::Ok);
    relay.served.await.unwrap();
}

#[tokio::test]
async fn e6_a_pull_that_outlasts_the_drain_is_cut_off() {
    let mut relay = Relay::draining(Duration::from_millis(200));
    let never = Arc::new(Semaphore::new(0));
    *relay.fake.state.pull.lock().unwrap() = Pull::Wait(Arc::clone(&never));
    let caller = relay.caller().await;
    let body = harness::whole(framed(&pull_request("a:1")));
    let pull = tokio::spawn(async move { caller.begin(PULL, &[], body).await });
    assert_eq!(relay.fake.event().await, Event::Began("pull"));
    relay.shutdown.cancel();
    // Well before the 30 s that it is unless set.
    let ended = tokio::time::timeout(Duration::from_secs(20), &mut relay.served).await;
    ended.expect("the drain ends").unwrap();
    pull.await.unwrap().expect_err("no answer comes");
    assert_eq!(relay.fake.event().await, Event::Dropped("pull"), "containerd is told");
}

#[tokio::test]
async fn e6_the_drain_is_as_long_as_it_is_set() {
    let mut relay = Relay::draining(Duration::from_secs(3600));
    let pulling = Arc::new(Semaphore::new(0));
    *relay.fake.state.pull.lock().unwrap() = Pull::Wait(Arc::clone(&pulling));
    let caller = relay.caller().await;
    let pull = tokio::spawn(async move { caller.call(PULL, pull_request("a:1")).await.status() });
    assert_eq!(relay.fake.event().await, Event::Began("pull"));
    relay.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_millis(500), &mut relay.served).await;
    assert!(ended.is_err(), "the pull was not waited for");
    pulling.add_permits(1);
    assert_eq!(pull.await.unwrap().0, Code::Ok);
    tokio::time::timeout(PATIENCE, relay.served).await.expect("the drain ends").unwrap();
}

#[test]
fn e6_the_drain_is_30_s_unless_set() {
    assert_eq!(ProxyOptions::new("/run/c.sock").drain, Duration::from_secs(30));
}

#[tokio::test]
async fn serves_allowed_users_only() {
    let relay = Relay::with(None, current_user() + 1);
    // The connection is closed before or after the client's first bytes.
    if let Ok(caller) = Caller::try_connect(&relay.socket).await {
        let body = harness::whole(framed(b""));
        caller.begin(FS_INFO, &[], body).await.unwrap_err();
    }
    assert_eq!(relay.proxy.counts().refused_connections.load(Ordering::Relaxed), 1);
    assert!(relay.fake.state.seen.lock().unwrap().is_empty());
}

/// Another pod may be between its pull and the question for the user: absent there would make it root.
#[tokio::test]
async fn s1_image_status_asks_containerd_first_and_shows_its_bytes() {
    let relay = Relay::start();
    let caller = relay.caller().await;
    relay.fake.state.image(ONE, "sha256:aa");
    relay.fake.state.add_record("busybox:1", ONE);
    let answer = caller.call(STATUS, status_request("busybox:1")).await;
    assert!(answer.data.ends_with(b"later"), "unknown fields are kept");
    let facts =
        ImageFacts { id: "sha256:aa".into(), repo_tags: vec!["busybox:1".into()], repo_digests: Vec::new() };
    assert_eq!(relay.gate.asked.lock().unwrap().pop(), Some(("busybox:1".into(), Some(facts))));

    *relay.gate.visibility.lock().unwrap() = Visibility::Hide;
    let answer = caller.call(STATUS, status_request("busybox:1")).await;
    assert_eq!((answer.data.clone(), answer.status().0), (framed(b""), Code::Ok));

    let refusal = Refusal::new(Code::Unknown, "SignatureValidationFailed: x");
    *relay.gate.visibility.lock().unwrap() = Visibility::Refuse(refusal);
    let answer = caller.call(STATUS, status_request("busybox:1")).await;
    assert_eq!(answer.status(), refused(Code::Unknown, "SignatureValidationFailed: x"));

    *relay.gate.visibility.lock().unwrap() = Visibility::Show;
    caller.call(STATUS, status_request("other")).await;
    assert_eq!(relay.gate.asked.lock().unwrap().pop(), Some(("other".into(), None)));
}

#[tokio::test]
async fn s1_a_record_is_named_absent_or_an_error() {
    let mut relay = Relay::start();
    let client = Client::new(relay.fake.socket());
    let state = Arc::clone(&relay.fake.state);
    assert_eq!(client.version().await.unwrap(), Version { version: "v9".into(), revision: "abc".into() });
    state.add_record("a:1", ONE);
    let target = client.image_target("a:1").await.unwrap().unwrap();
    assert_eq!((target.digest.to_string().as_str(), target.size), (ONE, 7));
    assert_eq!(client.image_target("a:2").await.unwrap(), None);
    state.add_record("odd", "sha512:00");
    assert!(
        matches!(client.image_target("odd").await, Err(ContainerdError::Digest(name, _)) if name == "odd")
    );
    let names: Vec<_> = client.image_records().await.unwrap().into_iter().map(|record| record.name).collect();
    assert_eq!(names, ["a:1"], "odd ones are left out");

    relay.fake.kill().await;
    let away = client.image_target("a:2").await;
    assert!(matches!(away, Err(ContainerdError::Unavailable(_))), "{away:?}");
    let away = client.image_target("a:2").await;
    assert!(matches!(away, Err(ContainerdError::Unavailable(_))), "{away:?}");
    relay.fake.listen();
    assert_eq!(client.image_target("a:2").await.unwrap(), None, "the client comes back by itself");
}
