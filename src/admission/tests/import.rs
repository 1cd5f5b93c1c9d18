//! Imported evidence: what a file may claim, and what comes of it.

use serde_json::json;

use super::kit::{DAY, Key, Node, Setup, WEEK, advance, status};
use super::{ID, is_shown, keyed, pulled, signed};
use crate::admission::{Background, Imported};
use crate::cache::archive::{ImageEvidence, Piece};
use crate::cache::{Age, ImageName, NotKept, Origin, Selection};
use crate::oci::{Digest, Reference};
use crate::outcome::DenialReason;
use crate::policy::evaluate::{Decision, Mode, Source};

fn name(node: &Node) -> ImageName {
    ImageName { repository: node.tagged().repository().clone(), digest: node.image }
}

/// The evidence of a pull, as a file brings it to a node that knows nothing yet.
async fn exported(node: &Node) -> ImageEvidence {
    pulled(node).await;
    let evidence = node.gate.store().export_evidence(&name(node)).await.unwrap();
    node.gate.store().purge(&Selection::Everything);
    evidence
}

/// A node with an image that was imported just now.
async fn imported() -> Node {
    let node = signed().await;
    let evidence = exported(&node).await;
    assert!(matches!(node.gate.import(evidence).await, Imported::Kept));
    node
}

/// Nothing that decides anything is there.
fn assert_nothing_is_decided(node: &Node) {
    let store = node.gate.store();
    assert_eq!((node.verdict_ages(), node.admission()), (Vec::new(), None));
    assert_eq!(store.tag(&node.tagged().normalised_form()), None);
}

async fn source(node: &Node, reference: Reference) -> Option<Source> {
    node.pull(reference).await.ok().map(|admitted| admitted.permit.source())
}

#[tokio::test]
async fn o1_imported_evidence_serves_while_no_registry_answers() {
    let node = imported().await;
    assert_nothing_is_decided(&node);
    node.stop();
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Stale));
    assert_eq!(node.verdict_ages(), [], "nothing becomes younger by that");
    advance(WEEK - 1);
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Stale));
    advance(1);
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
}

#[tokio::test]
async fn o1_a_signature_that_was_withdrawn_passes_by_no_import() {
    let node = imported().await;
    node.sign(&[]);
    for reference in [node.pinned(), node.tagged()] {
        let refusal = node.pull(reference).await.unwrap_err();
        assert!(refusal.message.ends_with("keyed/signed: signature not found"), "{}", refusal.message);
    }
    // An answer that says nothing about signatures is an answer too.
    node.forget_denials();
    node.answers(|seen| seen.line.ends_with(".sig").then(|| status(503)));
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
}

#[tokio::test]
async fn o1_a_look_at_the_registry_makes_it_fresh() {
    let node = imported().await;
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Verified));
    assert_eq!(node.verdict_ages(), [Age::Fresh]);
    let kept = node.gate.store().evidence(&name(&node).repository, &node.image).await.unwrap();
    assert_eq!((kept.age, kept.origin), (Age::Fresh, Origin::Fetched));
}

#[tokio::test]
async fn d8_a_file_claims_no_later_time_than_now() {
    let node = signed().await;
    let evidence = ImageEvidence { fetched_at: u64::MAX, ..exported(&node).await };
    assert!(matches!(node.gate.import(evidence.clone()).await, Imported::Kept));
    node.stop();
    advance(WEEK - 1);
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Stale));
    advance(1);
    assert_eq!(source(&node, node.pinned()).await, None);
    // What was fetched too long ago is not kept at all.
    for (age, kept) in [(WEEK - 1, true), (WEEK, false)] {
        node.gate.store().purge(&Selection::Everything);
        let fetched_at = node.gate.store().now().seconds() - age;
        let imported = node.gate.import(ImageEvidence { fetched_at, ..evidence.clone() }).await;
        assert_eq!(matches!(imported, Imported::Kept), kept, "{imported:?}");
        assert_eq!(matches!(imported, Imported::NotKept(NotKept::Expired)), !kept, "{imported:?}");
    }
    assert_eq!(node.gate.store().counts().evidence, 0);
}

#[tokio::test]
async fn pitfall_20_evidence_of_another_image_is_not_kept() {
    let node = signed().await;
    let evidence = exported(&node).await;
    let swapped = ImageName { digest: Digest::of(b"another image"), ..name(&node) };
    let denied = node.gate.import(ImageEvidence { image: swapped, ..evidence.clone() }).await;
    let Imported::Denied(denials) = denied else { panic!("{denied:?}") };
    assert_eq!(denials[0].reason, DenialReason::SignatureInvalid);
    // The same digest in another place: the pieces lie where nobody looks for it.
    let elsewhere = Reference::parse(&format!("{}/app-2@{}", node.host(), node.image)).unwrap();
    let elsewhere = ImageName { repository: elsewhere.repository().clone(), ..name(&node) };
    let denied = node.gate.import(ImageEvidence { image: elsewhere, ..evidence }).await;
    let Imported::Denied(denials) = denied else { panic!("{denied:?}") };
    assert_eq!(denials[0].reason, DenialReason::SignatureNotFound);
    assert_eq!(node.gate.store().counts().evidence, 0);
    assert_nothing_is_decided(&node);
}

#[tokio::test]
async fn c6_what_this_nodes_policies_do_not_take_is_not_kept() {
    let (node, other) = (signed().await, Key::generate());
    let evidence = exported(&node).await;
    for mode in [Mode::Enforce, Mode::Audit] {
        node.snapshot(&node.policy(&[(&other, json!({}))], json!({})), mode);
        let denied = node.gate.import(evidence.clone()).await;
        let Imported::Denied(denials) = denied else { panic!("{denied:?}") };
        assert_eq!(
            (denials[0].policy.as_str(), denials[0].reason),
            ("keyed", DenialReason::SignatureInvalid)
        );
    }
    // What asks for nothing proves nothing.
    node.enforce(&node.keyed().replace(&format!("{}/app*", node.host()), "other.test/*"));
    let not_asked = node.gate.import(evidence.clone()).await;
    assert!(matches!(not_asked, Imported::NotAsked(Source::Unmatched)), "{not_asked:?}");
    node.enforce("");
    assert!(matches!(node.gate.import(evidence).await, Imported::Denied(_)), "no policy loaded");
    assert_eq!(node.gate.store().counts().evidence, 0);
}

#[tokio::test]
async fn c5_pieces_where_no_rule_looks_are_not_kept() {
    let node = signed().await;
    let mut evidence = exported(&node).await;
    let good = evidence.pieces[0].clone();
    let foreign = String::from_utf8(good.0.clone()).unwrap().replace("\"app\"", "\"elsewhere\"");
    evidence.pieces.push(Piece(foreign.into_bytes()));
    evidence.pieces.push(Piece(b"nothing that anybody reads".to_vec()));
    assert!(matches!(node.gate.import(evidence).await, Imported::Kept));
    let kept = node.gate.store().export_evidence(&name(&node)).await.unwrap();
    assert_eq!(kept.pieces, [good]);
}

#[tokio::test]
async fn c6_what_this_node_fetched_stays_before_what_is_imported() {
    let node = signed().await;
    let evidence = exported(&node).await;
    pulled(&node).await;
    let imported = node.gate.import(evidence).await;
    assert!(matches!(imported, Imported::Known), "{imported:?}");
    let kept = node.gate.store().evidence(&name(&node).repository, &node.image).await.unwrap();
    assert_eq!((kept.age, kept.origin), (Age::Fresh, Origin::Fetched));
}

#[tokio::test]
async fn c3_what_the_disk_does_not_take_is_told() {
    let node = signed().await;
    let evidence = exported(&node).await;
    let policy = node.keyed();
    node.gate.store().close();
    let imported = node.gate.import(evidence).await;
    assert!(matches!(imported, Imported::NotKept(NotKept::Unwritten)), "{imported:?}");
    node.enforce(&policy);
    node.stop();
    assert_eq!(source(&node, node.pinned()).await, None);
}

/// Nodes without a registry live on an import every few days.
#[tokio::test]
async fn o1_the_younger_of_two_imports_is_kept() {
    let node = signed().await;
    let first = exported(&node).await;
    let second = ImageEvidence { fetched_at: first.fetched_at + WEEK - DAY, ..first.clone() };
    node.stop();
    assert!(matches!(node.gate.import(first.clone()).await, Imported::Kept));
    advance(WEEK - DAY);
    assert!(matches!(node.gate.import(first.clone()).await, Imported::Known));
    assert!(matches!(node.gate.import(second).await, Imported::Kept));
    assert!(matches!(node.gate.import(first).await, Imported::Known));
    advance(WEEK - 1);
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Stale));
    advance(1);
    assert_eq!(source(&node, node.pinned()).await, None);
}

#[tokio::test]
async fn c6_imported_evidence_is_imported_after_a_restart_too() {
    let node = imported().await;
    assert!(node.gate.store().flush().await);
    let policy = node.keyed();
    let node = node.restart().await;
    node.enforce(&policy);
    node.sign(&[]);
    assert_eq!(source(&node, node.pinned()).await, None);
    node.stop();
    node.forget_denials();
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Stale));
}

/// Nothing is admitted by an import, but what was imported is evidence for the background's look.
#[tokio::test]
async fn s6_a_present_image_is_shown_once_it_was_decided_from_what_was_imported() {
    let node = imported().await;
    assert!(!is_shown(&node.status_by_tag(ID)));
    node.stop();
    assert_eq!(node.look().await, Background::Fine);
    assert!(is_shown(&node.status_by_tag(ID)));
    assert_eq!(node.admission().map(|admission| admission.source).as_deref(), Some(Source::Stale.word()));
}

#[tokio::test]
async fn s1_what_was_verified_ahead_is_not_shown() {
    let node = signed().await;
    let judgement = node.gate.prewarm(node.tagged()).await;
    assert!(matches!(judgement.decision, Decision::Allow(_)));
    assert_eq!((node.verdict_ages(), node.admission()), (vec![Age::Fresh], None));
    for shown in [node.status_by_tag(ID), node.status_by_digest(ID), node.status_by_id(ID)] {
        assert!(!is_shown(&shown));
    }
    node.stop();
    // The pull itself is allowed: by the digest that the tag had, and the verdict on it.
    assert_eq!(node.pull(node.tagged()).await.unwrap().permit.source(), Source::Fresh);
}

#[tokio::test]
async fn s1_what_is_denied_ahead_leaves_nothing() {
    let node = keyed().await;
    let judgement = node.gate.prewarm(node.tagged()).await;
    assert!(matches!(judgement.decision, Decision::Deny(_)));
    assert_nothing_is_decided(&node);
    assert_eq!(node.gate.store().counts().evidence, 0);
}

/// Two registries, of which one is away: what is stored of it is not lost by what the other answers.
#[tokio::test]
async fn o1_evidence_of_a_registry_that_is_away_stays_while_another_answers() {
    let (node, other) = (Node::start(Setup::default()).await, Node::start(Setup::default()).await);
    let second = Key::generate();
    let place = json!({ "repository": format!("{}/signatures", other.host()) });
    let policy = json!({ "rules": [{
        "name": "both", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] },
        "verifyImages": [
            { "imageReferences": [format!("{}/*", node.host())], "attestors": node.attestors(&node.key, json!({})) },
            { "imageReferences": [format!("{}/*", node.host())], "attestors": node.attestors(&second, place) },
        ],
    }] });
    node.enforce(&node.policy(&[], policy));
    node.sign(&[(&node.key, json!({}))]);
    other.answers(other.signed_in("signatures", &second));
    assert_eq!(node.image, other.image);
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Verified));
    advance(DAY);
    node.stop();
    for _ in 0..2 {
        assert_eq!(source(&node, node.pinned()).await, Some(Source::Stale));
        node.forget_denials();
    }
}

/// The same where one signature of two is enough: who answered that there is none is believed.
#[tokio::test]
async fn o1_a_signature_that_was_withdrawn_passes_by_no_other_registry_that_is_away() {
    let (node, other) = (Node::start(Setup::default()).await, Node::start(Setup::default()).await);
    let second = Key::generate();
    let place = json!({ "repository": format!("{}/signatures", other.host()) });
    let [own, placed] = [node.attestors(&node.key, json!({})), node.attestors(&second, place)];
    let either = json!([{ "count": 1, "entries": [own[0]["entries"][0], placed[0]["entries"][0]] }]);
    let policy = json!({ "rules": [{
        "name": "either", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] },
        "verifyImages": [{ "imageReferences": [format!("{}/*", node.host())], "attestors": either }],
    }] });
    node.enforce(&node.policy(&[], policy));
    other.answers(other.signed_in("signatures", &second));
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Verified));
    advance(DAY);
    node.stop();
    other.answers(|_| None);
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
    // Until it is away too.
    other.stop();
    node.forget_denials();
    assert_eq!(source(&node, node.pinned()).await, Some(Source::Stale));
}
