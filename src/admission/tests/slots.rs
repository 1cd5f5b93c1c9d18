//! What a slot for verifications is held for (`limits.concurrency`), and what its wait costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::kit::Node;
use super::signed;
use crate::oci::Reference;
use crate::policy::evaluate::Source;

/// `limits.concurrency` of these tests.
const SLOTS: usize = 4;

fn free(node: &Node) -> usize {
    node.gate.slots.free()
}

/// How many slots are taken at each question for signatures, the most of them.
fn most_taken(node: &Node) -> Arc<AtomicUsize> {
    let (slots, most) = (Arc::clone(&node.gate.slots), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    node.answers(move |asked| {
        if asked.line.ends_with(".sig") {
            seen.fetch_max(SLOTS - slots.free(), Ordering::SeqCst);
        }
        None
    });
    most
}

#[tokio::test]
async fn a_slot_is_held_while_evidence_is_asked_for_and_not_while_the_pull_goes_on() {
    let node = signed().await;
    let most = most_taken(&node);
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(admitted.permit.source(), Source::Verified);
    // containerd has not begun yet.
    assert_eq!((most.load(Ordering::SeqCst), free(&node)), (1, SLOTS));
}

#[tokio::test]
async fn a_cached_verdict_needs_no_slot() {
    let node = signed().await;
    node.pull(node.tagged()).await.unwrap();
    let _all = node.gate.slots.hold(4).await;
    for reference in [node.tagged(), node.pinned()] {
        assert_eq!(node.pull(reference).await.unwrap().permit.source(), Source::Fresh);
    }
}

#[tokio::test]
async fn more_verifications_than_slots_wait_for_each_other() {
    let node = signed().await;
    let most = most_taken(&node);
    let refused = async || {
        // Each another question; none of these repositories is there.
        let images = (0..3 * SLOTS).map(|n| format!("{}/app{n}@{}", node.host(), node.image));
        let pulls = images.map(|image| node.pull(Reference::parse(&image).unwrap()));
        assert!(join_all(pulls).await.iter().all(Result::is_err));
    };
    refused().await;
    // One registry has half of them.
    assert_eq!((most.swap(0, Ordering::SeqCst), free(&node)), (SLOTS / 2, SLOTS));
    // With one slot they pass one by one.
    node.forget_denials();
    let held = node.gate.slots.hold(3).await;
    refused().await;
    assert_eq!((most.load(Ordering::SeqCst), free(&node)), (SLOTS, 1));
    drop(held);
}

#[tokio::test]
async fn no_slot_is_lost_to_a_pull_that_is_cancelled() {
    let node = signed().await;
    let all = node.gate.slots.hold(4).await;
    // Still waiting.
    let waiting = tokio::time::timeout(Duration::from_millis(100), node.pull(node.pinned())).await;
    assert!(waiting.is_err());
    drop(all);
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Verified);
    assert_eq!(free(&node), SLOTS);
}

#[tokio::test]
async fn waiting_for_a_slot_does_not_count_against_the_limit() {
    const LIMIT: Duration = Duration::from_secs(2);
    let mut node = signed().await;
    node.gate.settings.verification = LIMIT;
    let all = node.gate.slots.hold(4).await;
    let asked = node.asked();
    let pull = node.pull(node.pinned());
    tokio::pin!(pull);
    assert!(tokio::time::timeout(LIMIT + LIMIT / 2, &mut pull).await.is_err());
    assert_eq!(node.asked(), asked, "nothing is asked without a slot");
    drop(all);
    assert_eq!(pull.await.unwrap().permit.source(), Source::Verified);
}
