//! What ImageStatus shows: rules S1, S2.

use futures_util::FutureExt as _;
use serde_json::json;

use super::kit::{Key, Node};
use super::{ID, is_shown, keyed, nameless, pulled, signed};
use crate::admission::{Background, ImageFacts, Record, Shown};
use crate::cache::{Admission, Durability, Selection};
use crate::oci::Digest;
use crate::policy::evaluate::{Mode, Source};

const OTHER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

#[test]
fn s1_an_image_carries_the_digests_of_its_names() {
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let facts = |names| ImageFacts { id: one.to_string(), names };
    assert!(facts(vec!["a.io/b:1".into(), format!("c.io/d@{two}"), format!("a.io/b@{one}")]).carries(one));
    assert!(!facts(vec!["a.io/b:1".into(), format!("a.io/b@{two}")]).carries(one));
    assert!(!facts(vec!["a.io/b:1".into()]).carries(one), "an imported image has no digest");
}

/// containerd's record of the tag is already the verified image, CRI's answer is still the one before.
#[tokio::test]
async fn s1_a_tag_that_moves_to_a_verified_image_shows_nothing_of_the_one_before() {
    let node = signed().await;
    pulled(&node).await;
    let record = Record::Target(node.image);
    let before = format!("{}@{}", node.tagged().repository(), Digest::of(b"not verified"));
    for names in [vec![node.tagged().text().to_owned(), before], vec![node.tagged().text().to_owned()]] {
        let facts = ImageFacts { id: OTHER.into(), names };
        let shown = node.image_status(node.tagged().text(), record, &facts);
        assert!(matches!(&shown, Shown::Refuse(text) if text.ends_with("try again")), "{shown:?}");
    }
    // Imported under the tag alone it is still the image that was pulled.
    let imported = ImageFacts { id: ID.into(), names: vec![node.tagged().text().to_owned()] };
    assert_eq!(node.image_status(node.tagged().text(), record, &imported), Shown::Show);

    node.approve(&node.policy(&[(&node.key, json!({}))], json!({})));
    let facts = ImageFacts { id: OTHER.into(), names: Vec::new() };
    assert!(!is_shown(&node.image_status(node.tagged().text(), record, &facts)), "an approved one as well");
}

#[tokio::test]
async fn s2_another_name_of_the_image_does_not_keep_one_from_being_hidden() {
    let node = keyed().await;
    let uncovered = format!("{}/other:1", node.host());
    let other = ImageFacts { id: ID.into(), names: vec![uncovered.clone()] };
    assert_eq!(node.image_status(&uncovered, Record::Absent, &other), Shown::Show);
    assert_eq!(node.status_by_tag(ID), Shown::Hide, "nobody was shown this name");
    assert!(matches!(node.status_by_id(ID), Shown::Refuse(_)), "the id was");
}

#[tokio::test]
async fn s2_a_truncated_id_is_no_name_while_containerd_cannot_be_asked() {
    let node = keyed().await;
    let asked = "1111111111111";
    let unknown = node.image_status(asked, Record::Unknown, &nameless(ID));
    assert!(matches!(&unknown, Shown::Refuse(text) if text.ends_with("try again")), "{unknown:?}");
    assert_eq!(node.image_status(asked, Record::Absent, &nameless(ID)), Shown::Hide);
}

/// Whether a look was asked for since the last time.
fn look_is_wanted(node: &Node) -> bool {
    node.gate.look_again().notified().now_or_never().is_some()
}

#[tokio::test]
async fn s5_a_pull_that_began_before_a_reload_asks_for_another_look() {
    let (node, other) = (signed().await, Key::generate());
    let admitted = node.pull(node.tagged()).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    assert!(!look_is_wanted(&node));
    node.enforce(&node.policy(&[(&other, json!({}))], json!({})));
    node.gate.pulled(&admitted, ID, None);
    assert!(look_is_wanted(&node));
    assert_eq!(node.look().await, Background::Denied);
    assert!(!is_shown(&node.status_by_tag(ID)));
}

#[tokio::test]
async fn c3_what_a_rule_lets_pass_replaces_no_proof() {
    let (node, other) = (signed().await, Key::generate());
    pulled(&node).await;
    let proof = node.admission();
    assert!(proof.is_some());
    node.snapshot(&node.policy(&[(&other, json!({}))], json!({})), Mode::Audit);
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(admitted.permit.source(), Source::Audited);
    node.gate.pulled(&admitted, OTHER, Some(node.image));
    assert_eq!(node.admission(), proof);
}

#[tokio::test]
async fn c3_a_look_does_not_take_back_what_a_pull_proved_meanwhile() {
    let node = signed().await;
    pulled(&node).await;
    let proof = node.admission().unwrap();
    for signatures in [&[(&node.key, json!({}))][..], &[]] {
        node.sign(signatures);
        let (store, answered) = (node.gate.store().clone(), proof.clone());
        store.purge(&Selection::Everything);
        let snapshot = Digest::of(b"older");
        let older = Admission { snapshot, image_id: None, pulled_by: Vec::new(), ..proof.clone() };
        store.admit(older, Durability::Durable);
        node.answers(move |seen| {
            if seen.line.ends_with(".sig") {
                store.admit(answered.clone(), Durability::Durable);
            }
            None
        });
        node.forget_denials();
        let found = node.look().await;
        assert_eq!(found, if signatures.is_empty() { Background::Denied } else { Background::Fine });
        assert_eq!(node.admission().as_ref(), Some(&proof));
    }
}
