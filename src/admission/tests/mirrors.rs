//! Evidence of which a mirror says one thing, while the registry cannot say anything.

use serde_json::json;

use super::kit::{Key, REPOSITORY, WEEK, advance, status};
use super::{Background, ID, Shown, is_shown, keyed, pulled, refused, signed};
use crate::registry::tests::server::{Seen, Server};

/// Whether this is a question for evidence.
fn is_for_evidence(seen: &Seen) -> bool {
    seen.line.contains("/sha256-") || seen.line.contains("/referrers/")
}

#[tokio::test]
async fn s4_a_mirrors_not_there_hides_nothing_while_the_registry_cannot_say() {
    let node = signed().await;
    pulled(&node).await;
    let mirror = Server::start(|_| status(404)).await;
    node.mirror(&mirror);
    node.answers(|seen| is_for_evidence(seen).then(|| status(418)));
    advance(WEEK + 1);
    assert_eq!(node.look().await, Background::Undecided);
    assert_eq!((node.status_by_tag(ID), node.status_by_id(ID)), (Shown::Show, Shown::Show));
    // What is pulled now is refused by it (rule D4).
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    assert_eq!(refusal.message, refused(&node, "signature not found"));
    assert!(is_shown(&node.status_by_id(ID)));
    // Once the registry says so too, it is definite.
    node.sign(&[]);
    node.answers(|_| None);
    node.forget_denials();
    assert_eq!(node.look().await, Background::Denied);
    assert!(!is_shown(&node.status_by_id(ID)));
}

/// The same of an index, by which a child that is not signed itself was admitted.
#[tokio::test]
async fn d7_s4_a_mirrors_not_there_of_an_index_hides_none_of_its_children() {
    let node = signed().await;
    node.pull(node.tagged()).await.unwrap();
    let admitted = node.pull(node.child()).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    let mirror = Server::start(|_| status(404)).await;
    node.mirror(&mirror);
    let hex = node.image.hex();
    let of_index = move |seen: &Seen| is_for_evidence(seen) && seen.line.contains(&hex);
    node.answers(move |seen| of_index(seen).then(|| status(418)));
    advance(WEEK + 1);
    let (reference, child) = (node.child(), node.child().digest().unwrap());
    let look = || node.gate.decide_present(reference.text(), child, None);
    assert_eq!(look().await, Background::Undecided);
    assert!(node.gate.store().admission(node.child().repository(), &child).is_some());
    node.sign(&[]);
    node.answers(|_| None);
    node.forget_denials();
    assert_eq!(look().await, Background::Denied);
    assert_eq!(node.gate.store().admission(node.child().repository(), &child), None);
}

#[tokio::test]
async fn a_mirrors_old_signature_is_no_denial_while_the_registry_cannot_say() {
    let (node, other) = (keyed().await, Key::generate());
    let old = std::sync::Mutex::new(node.signed_in(REPOSITORY, &other));
    let mirror = Server::start(move |seen| {
        let line = seen.line.split('?').next().unwrap_or_default().to_owned();
        old.lock().unwrap()(&Seen { line, ..seen.clone() }).unwrap_or_else(|| status(404))
    })
    .await;
    node.mirror(&mirror);
    node.answers(|seen| is_for_evidence(seen).then(|| status(418)));
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    assert!(refusal.message.ends_with("registry answered 418"), "{}", refusal.message);
    // What the registry has counts then.
    node.answers(|_| None);
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    assert_eq!(refusal.message, refused(&node, "invalid signature"));
    node.forget_denials();
    node.sign(&[(&node.key, json!({}))]);
    node.pull(node.tagged()).await.unwrap();
}
