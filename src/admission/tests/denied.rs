//! What a denial of a moment ago answers (rule C2), and for whom.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;

use super::kit::{basic, hangs_up, status};
use super::{keyed, refused};
use crate::policy::evaluate::Source;
use crate::registry::Credentials;

#[tokio::test]
async fn c2_a_second_pull_is_refused_without_asking_for_evidence() {
    let node = keyed().await;
    let denied = async |credentials: Credentials| {
        let asked = node.asked();
        let refusal = node.pull_as(node.pinned(), credentials).await.unwrap_err();
        assert_eq!(
            refusal.message,
            refused(&node, "signature not found").replace(node.tagged().text(), node.pinned().text())
        );
        node.asked() - asked
    };
    // The first learns what the registry has no API for.
    denied(Credentials::Anonymous).await;
    node.forget_denials();
    let once = denied(Credentials::Anonymous).await;
    assert!(once > 0);
    assert_eq!(denied(Credentials::Anonymous).await, 0);
    // A tag is resolved for each pull, and is another question.
    let tagged = async || {
        let asked = node.asked();
        assert_eq!(
            node.pull(node.tagged()).await.unwrap_err().message,
            refused(&node, "signature not found")
        );
        node.asked() - asked
    };
    assert!(tagged().await > 1);
    assert_eq!(tagged().await, 1);
    // Another credential may be shown more.
    assert_eq!(denied(basic("ada", "one")).await, once);
    assert_eq!(denied(basic("ada", "two")).await, once);
    assert_eq!(denied(basic("ada", "one")).await, 0);
    // A reload forgets.
    node.forget_denials();
    assert_eq!(denied(Credentials::Anonymous).await, once);
    assert_eq!(denied(Credentials::Anonymous).await, 0);
}

#[tokio::test]
async fn c2_after_5_s_a_denied_image_is_looked_at_anew() {
    let node = keyed().await;
    node.pull(node.pinned()).await.unwrap_err();
    node.sign(&[(&node.key, json!({}))]);
    node.gate.denials.pass(Duration::from_millis(4000));
    node.pull(node.pinned()).await.unwrap_err();
    // Not from the second refusal on: whoever asks every second is answered as soon as others.
    node.gate.denials.pass(Duration::from_millis(1000));
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Verified);
}

#[tokio::test]
async fn c2_a_fault_is_asked_anew_at_once() {
    let node = keyed().await;
    node.sign(&[(&node.key, json!({}))]);
    node.answers(|seen| seen.line.ends_with(".sig").then(|| status(418)));
    for _ in 0..2 {
        let asked = node.asked();
        let refusal = node.pull(node.pinned()).await.unwrap_err();
        assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
        assert!(node.asked() > asked);
    }
    node.answers(|_| None);
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Verified);
}

#[tokio::test]
async fn c2_a_pull_that_was_cancelled_denies_nothing() {
    let node = keyed().await;
    let asked = Arc::new(Notify::new());
    let heard = Arc::clone(&asked);
    node.answers(move |seen| {
        seen.line.ends_with(".sig").then(|| {
            heard.notify_one();
            hangs_up()
        })
    });
    tokio::select! {
        _ = node.pull(node.pinned()) => unreachable!("it hangs"),
        () = asked.notified() => {}
    }
    node.answers(|_| None);
    node.sign(&[(&node.key, json!({}))]);
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Verified);
}

#[tokio::test]
async fn c2_f1_of_many_that_ask_at_once_each_credential_is_denied_once() {
    let node = keyed().await;
    // It learns what the registry has no API for.
    node.pull(node.pinned()).await.unwrap_err();
    node.forget_denials();
    let pulls = (0..40).map(|n| {
        let credentials = if n % 2 == 0 { Credentials::Anonymous } else { basic("ada", "one") };
        node.pull_as(node.pinned(), credentials)
    });
    let asked = node.asked();
    for refused in futures_util::future::join_all(pulls).await {
        refused.unwrap_err();
    }
    let together = node.asked() - asked;
    node.forget_denials();
    let asked = node.asked();
    node.pull(node.pinned()).await.unwrap_err();
    assert_eq!(together, 2 * (node.asked() - asked));
}
