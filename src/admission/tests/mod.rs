//! The gate against a registry that fails on demand, with clocks that stand until they are moved.

mod conditions;
mod denied;
mod images;
mod import;
mod kit;
mod mirrors;
mod outage;
mod shown;
mod slots;
mod standing;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use self::kit::{DAY, Key, Node, RELEASE, Setup, WEEK, advance, away, basic, hangs_up, status};
use super::words::RefusalCode;
use super::{Background, ImageFacts, Record, Shown};
use crate::cache::{Admission, Age, Durability, Phase};
use crate::oci::{Digest, Reference};
use crate::policy::evaluate::{Forward, Mode, Resolution, Source};
use crate::registry::Credentials;
use crate::registry::tests::server::Server;

const ID: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn refused(node: &Node, cause: &str) -> String {
    format!("SignatureValidationFailed: {}: keyed/signed: {cause}", node.tagged().text())
}

/// Rule S2 turns "hide" into an error for minutes; neither shows the image.
fn is_shown(shown: &Shown) -> bool {
    *shown == Shown::Show
}

/// A node that enforces one key.
async fn keyed() -> Node {
    let node = Node::start(Setup::default()).await;
    node.enforce(&node.keyed());
    node
}

/// The same with an image that the key has signed.
async fn signed() -> Node {
    let node = keyed().await;
    node.sign(&[(&node.key, json!({}))]);
    node
}

/// The image is pulled by tag and comes back as [`ID`].
async fn pulled(node: &Node) {
    let admitted = node.pull(node.tagged()).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
}

/// The unsigned image is pulled in audit mode, as sent, and comes back as [`ID`].
async fn let_pass(node: &Node, policy: &str) {
    node.snapshot(policy, Mode::Audit);
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!((admitted.permit.source(), admitted.permit.forward()), (Source::Audited, &Forward::AsSent));
    node.gate.pulled(&admitted, ID, Some(node.image));
}

/// What CRI says of an image without a name.
fn nameless(id: &str) -> ImageFacts {
    ImageFacts { id: id.to_owned(), names: Vec::new() }
}

#[tokio::test]
async fn d3_all_conditions_hold_on_the_same_signature() {
    let (node, other) = (Node::start(Setup::default()).await, Key::generate());
    let prod = json!({"annotations": {"env": "prod"}});
    node.enforce(&node.policy(&[(&node.key, prod.clone())], json!({})));
    node.sign(&[(&node.key, json!({"env": "test"})), (&other, json!({"env": "prod"}))]);
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    assert!(refusal.message.starts_with(&refused(&node, "")), "{}", refusal.message);

    node.forget_denials();
    node.sign(&[(&node.key, json!({"env": "test"})), (&node.key, json!({"env": "prod"}))]);
    assert_eq!(node.pull(node.tagged()).await.unwrap().permit.source(), Source::Verified);
}

#[tokio::test]
async fn d3_distinct_entries_may_hold_on_distinct_signatures() {
    let (node, other) = (Node::start(Setup::default()).await, Key::generate());
    node.enforce(&node.policy(&[(&node.key, json!({})), (&other, json!({}))], json!({})));
    node.sign(&[(&node.key, json!({}))]);
    assert_eq!(node.pull(node.tagged()).await.unwrap_err().message, refused(&node, "invalid signature"));
    node.forget_denials();
    node.sign(&[(&node.key, json!({})), (&other, json!({}))]);
    node.pull(node.tagged()).await.unwrap();
}

/// A policy may name another registry for signatures: it needs only to ask for a password.
#[tokio::test]
async fn credentials_of_a_pull_do_not_go_to_another_registry_than_the_images() {
    let elsewhere = Server::start(|_| status(401).header("www-authenticate", "Basic realm=\"r\"")).await;
    let node = Node::start(Setup::default()).await;
    let there = json!({"repository": format!("{}/signatures", elsewhere.address)});
    node.enforce(&node.policy(&[(&node.key, there)], json!({})));
    let bearer = |token: &str| Credentials::RegistryToken(token.to_owned());
    for credentials in [basic("ada", "secret"), bearer("secret"), Credentials::Anonymous] {
        node.pull_as(node.tagged(), credentials).await.unwrap_err();
    }
    let sent: Vec<_> = elsewhere.seen().into_iter().map(|seen| seen.authorization).collect();
    assert!(sent.len() >= 3 && sent.iter().all(Option::is_none), "{sent:?}");

    // Another repository of the image's own registry is asked with them.
    let beside = json!({"repository": format!("{}/signatures", node.host())});
    node.enforce(&node.policy(&[(&node.key, beside)], json!({})));
    node.answers(|seen| {
        let asked = seen.line.contains("/signatures/") && seen.authorization.is_none();
        asked.then(|| status(401).header("www-authenticate", "Basic realm=\"r\""))
    });
    let refusal = node.pull_as(node.tagged(), basic("ada", "secret")).await.unwrap_err();
    assert_eq!(refusal.message, refused(&node, "signature not found"));
}

#[tokio::test]
async fn pitfall_15_a_tag_is_resolved_once_for_a_decision() {
    let node = signed().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // From the second question on the tag is an image that nobody signed.
    let other = Digest::of(b"another manifest").to_string();
    node.answers(move |seen| {
        let again = seen.line.ends_with("/manifests/v1") && count.fetch_add(1, Ordering::SeqCst) > 0;
        again.then(|| status(200).header("docker-content-digest", other.clone()))
    });
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(admitted.permit.digest(), Some(node.image));
    assert_eq!(admitted.permit.forward(), &Forward::Pinned(node.pinned().text().to_owned()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(node.pull(node.tagged()).await.unwrap_err().message, refused(&node, "signature not found"));
}

#[tokio::test]
async fn d4_ignore_lets_pass_only_where_no_host_answered() {
    let node = Node::start(Setup { idle: Some(Duration::from_secs(2)), ..Setup::default() }).await;
    node.enforce(&node.policy(&[(&node.key, json!({}))], json!({"failurePolicy": "Ignore"})));
    // By digest nothing is resolved; the manifest is served, then the host falls silent.
    node.answers(|seen| seen.line.ends_with(".sig").then(hangs_up));
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Unknown);
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);

    // A host that sends to a token service answered, whether or not that service does.
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", away());
    node.answers(move |_| Some(status(401).header("www-authenticate", challenge.clone())));
    for reference in [node.tagged(), node.pinned()] {
        let refusal = node.pull(reference).await.unwrap_err();
        assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
    }

    node.stop();
    for reference in [node.tagged(), node.pinned()] {
        assert_eq!(node.pull(reference).await.unwrap().permit.source(), Source::Ignored);
    }
}

#[tokio::test]
async fn d7_a_child_passes_by_an_admitted_index_that_lists_it() {
    let node = signed().await;
    let cause = format!("SignatureValidationFailed: {}: keyed/signed: signature not found", node.child());
    assert_eq!(node.pull(node.child()).await.unwrap_err().message, cause, "not admitted yet");

    node.pull(node.tagged()).await.unwrap();
    node.forget_denials();
    let asked = node.asked_for_index();
    let pulls = join_all((0..20).map(|_| node.pull(node.child()))).await;
    for pull in pulls {
        let admitted = pull.unwrap();
        assert_eq!(admitted.permit.forward(), &Forward::Pinned(node.child().text().to_owned()));
    }
    assert_eq!(node.asked_for_index() - asked, 1, "once for all who ask at once");

    // The index no longer holds what the policy asks now.
    let other = Key::generate();
    node.enforce(&node.policy(&[(&other, json!({}))], json!({})));
    assert_eq!(node.pull(node.child()).await.unwrap_err().message, cause);
}

/// What an index says of it is not found out: no denial of a pull, and nothing that hides what is present.
#[tokio::test]
async fn d7_d4_a_fault_while_an_index_is_looked_for_is_no_denial() {
    let node = signed().await;
    node.pull(node.tagged()).await.unwrap();
    let admitted = node.pull(node.child()).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    advance(DAY);
    node.forget_denials();
    let index = format!("/manifests/{}", node.image);
    node.answers(move |seen| seen.line.ends_with(&index).then(|| status(409)));
    let child = node.child().digest().unwrap();
    let refusal = node.pull(node.child()).await.unwrap_err();
    let expected = format!("RegistryUnavailable: {}: {}: registry answered 409", node.child(), node.pinned());
    assert_eq!(refusal.message, expected);
    let background = node.gate.decide_present(node.child().text(), child, None).await;
    assert_eq!(background, Background::Undecided);
    let admission = node.gate.store().admission(node.child().repository(), &child);
    assert_eq!(admission.and_then(|admission| admission.image_id).as_deref(), Some(ID), "it stays admitted");

    // Where the index is gone it vouches for nothing.
    let index = format!("/manifests/{}", node.image);
    node.answers(move |seen| seen.line.ends_with(&index).then(|| status(404)));
    let refusal = node.pull(node.child()).await.unwrap_err();
    let cause = format!("SignatureValidationFailed: {}: keyed/signed: signature not found", node.child());
    assert_eq!(refusal.message, cause);
}

/// An index that is denied now vouches for nothing, whatever else could not be found out about it.
#[tokio::test]
async fn d7_d2_a_fault_of_an_audit_rule_keeps_no_child_of_a_denied_index() {
    let node = signed().await;
    node.pull(node.tagged()).await.unwrap();
    let admitted = node.pull(node.child()).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    let mut beside: serde_json::Value =
        serde_json::from_str(&node.policy(&[(&node.key, json!({}))], json!({}))).unwrap();
    beside["metadata"]["name"] = "beside".into();
    beside["spec"]["validationFailureAction"] = "Audit".into();
    beside["spec"]["rules"][0]["verifyImages"][0]["repository"] = "127.0.0.1:1/nobody".into();
    let other = Key::generate();
    node.enforce(&format!("{}\n---\n{beside}", node.policy(&[(&other, json!({}))], json!({}))));
    let refusal = node.pull(node.child()).await.unwrap_err();
    let cause = format!("SignatureValidationFailed: {}: keyed/signed: signature not found", node.child());
    assert_eq!(refusal.message, cause);
    let child = node.child().digest().unwrap();
    let background = node.gate.decide_present(node.child().text(), child, None).await;
    assert_eq!(background, Background::Denied);
    assert_eq!(node.gate.store().admission(node.child().repository(), &child), None);
}

#[tokio::test]
async fn d7_the_index_that_admitted_a_child_is_looked_at_before_newer_images() {
    let node = signed().await;
    node.pull(node.tagged()).await.unwrap();
    let admitted = node.pull(node.child()).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    advance(DAY);
    let (reference, child) = (node.child(), node.child().digest().unwrap());
    let store = node.gate.store();
    let known = store.admission(reference.repository(), &child).unwrap();
    for number in 0..40_u8 {
        let newer =
            Admission { digest: Digest::of(&[number]), at: store.now(), parent: None, ..known.clone() };
        store.admit(newer, Durability::ThisProcess);
    }
    assert_eq!(node.gate.decide_present(reference.text(), child, None).await, Background::Fine);
    assert_eq!(store.admission(reference.repository(), &child).unwrap().parent, Some(node.image));
}

#[tokio::test]
async fn o1_a_child_passes_by_its_index_while_the_registry_is_away() {
    let node = signed().await;
    node.pull(node.tagged()).await.unwrap();
    node.pull(node.child()).await.unwrap();
    let node = node.restart().await;
    node.enforce(&node.keyed());
    node.stop();
    assert_eq!(node.pull(node.child()).await.unwrap().permit.source(), Source::Fresh);
    advance(DAY);
    let admitted = node.pull(node.child()).await.unwrap();
    assert_eq!(admitted.permit.source(), Source::Stale);
    assert_eq!(admitted.permit.forward(), &Forward::Pinned(node.child().text().to_owned()));
    let other = Key::generate();
    for (policy, passed) in [(node.policy(&[(&other, json!({}))], json!({})), 0), (node.keyed(), WEEK)] {
        node.enforce(&policy);
        advance(passed);
        let refusal = node.pull(node.child()).await.unwrap_err();
        assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
    }
}

#[tokio::test]
async fn d7_an_index_that_a_rule_let_pass_admits_no_child() {
    let node = keyed().await;
    let policy = node.keyed();
    let_pass(&node, &policy).await;
    node.enforce(&policy);
    let asked = node.asked_for_index();
    node.pull(node.child()).await.unwrap_err();
    assert_eq!(node.asked_for_index(), asked);
}

#[tokio::test]
async fn c3_ignored_admissions_end_after_ten_minutes() {
    let node = Node::start(Setup::default()).await;
    node.enforce(&node.policy(&[(&node.key, json!({}))], json!({"failurePolicy": "Ignore"})));
    node.stop();
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(admitted.permit.source(), Source::Ignored);
    node.gate.pulled(&admitted, ID, Some(node.image));
    assert_eq!(node.status_by_tag(ID), Shown::Show);
    assert_eq!(node.status_by_id(ID), Shown::Show);
    advance(599);
    assert_eq!((node.status_by_tag(ID), node.status_by_id(ID)), (Shown::Show, Shown::Show));
    advance(1);
    assert!(!is_shown(&node.status_by_tag(ID)));
    assert!(!is_shown(&node.status_by_id(ID)));
}

#[tokio::test]
async fn c3_ignored_admissions_end_with_the_process_and_replace_no_proof() {
    let node = Node::start(Setup::default()).await;
    let policy = node.policy(&[(&node.key, json!({}))], json!({"failurePolicy": "Ignore"}));
    node.enforce(&policy);
    node.sign(&[(&node.key, json!({}))]);
    pulled(&node).await;
    node.stop();
    advance(DAY + WEEK);
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(admitted.permit.source(), Source::Ignored);
    node.gate.pulled(&admitted, "sha256:2222", Some(node.image));
    let known = node.admission().unwrap();
    assert_eq!((known.source.as_str(), known.image_id.as_deref()), ("verified", Some(ID)));

    let node = Node::start(Setup::default()).await;
    node.enforce(&node.policy(&[(&node.key, json!({}))], json!({"failurePolicy": "Ignore"})));
    node.stop();
    let admitted = node.pull(node.tagged()).await.unwrap();
    node.gate.pulled(&admitted, ID, Some(node.image));
    assert_eq!(node.status_by_tag(ID), Shown::Show);
    let node = node.restart().await;
    assert_eq!(node.admission(), None);
}

#[tokio::test]
async fn c3_the_id_of_a_pull_as_sent_proves_nothing() {
    let node = keyed().await;
    let policy = node.keyed();
    // The registry may have told containerd something else than us.
    let_pass(&node, &policy).await;
    assert_eq!(node.admission().unwrap().image_id.as_deref(), Some(ID));

    // The digest that we know is verified later; the id stays what it was: anybody's.
    node.enforce(&policy);
    node.sign(&[(&node.key, json!({}))]);
    assert_eq!(node.look().await, Background::Fine);
    let known = node.admission().unwrap();
    assert_eq!((known.source.as_str(), known.image_id), ("verified", None));
    assert!(!is_shown(&node.image_status(ID, Record::Absent, &nameless(ID))));
}

#[tokio::test]
async fn c3_a_verified_pull_takes_no_id_over_from_one_as_sent() {
    let node = keyed().await;
    let policy = node.keyed();
    let_pass(&node, &policy).await;
    node.enforce(&policy);
    node.sign(&[(&node.key, json!({}))]);
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(node.admission().unwrap().image_id, None, "until containerd has pulled it");
    node.gate.pulled(&admitted, "sha256:2222", None);
    assert_eq!(node.admission().unwrap().image_id.as_deref(), Some("sha256:2222"));
}

#[tokio::test]
async fn c3_a_pull_as_sent_is_recorded_as_what_containerd_resolved() {
    let node = Node::start(Setup::default()).await;
    node.snapshot(&node.keyed(), Mode::Audit);
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(admitted.permit.digest(), Some(node.image));
    let other = Digest::of(b"another manifest");
    node.gate.pulled(&admitted, ID, Some(other));
    assert_eq!(node.admission(), None, "not the digest that we were told");
    let repository = node.tagged().repository().clone();
    assert!(node.gate.store().admission(&repository, &other).is_some());
}

#[tokio::test]
async fn s2_nothing_is_hidden_while_the_store_is_being_opened() {
    let first = Node::start(Setup::default()).await;
    // The lock is held, as by a process that is still ending.
    let node = Node::start(Setup { store: Some(first.store_path()), ..Setup::default() }).await;
    node.enforce(&node.keyed());
    assert_eq!(node.gate.store().phase(), Phase::Opening);
    for shown in [node.status_by_tag(ID), node.status_by_id(ID), node.status_by_digest(ID)] {
        assert!(matches!(shown, Shown::Refuse(_)), "{shown:?}");
    }
    // What no rule covers needs no store.
    let uncovered = format!("{}/other:1", node.host());
    let shown = node.image_status(&uncovered, Record::Absent, &nameless("sha256:3333"));
    assert_eq!(shown, Shown::Show);
    // It stays, since the folder goes with it.
    first.gate.store().close();
    assert!(node.gate.store().opened(kit::PATIENCE).await);
    assert_eq!(node.status_by_tag(ID), Shown::Hide);
}

#[tokio::test]
async fn s4_age_hides_nothing_while_the_registry_is_away() {
    let node = signed().await;
    pulled(&node).await;
    node.stop();
    advance(10 * WEEK);
    assert_eq!(node.look().await, Background::Undecided);
    assert_eq!((node.status_by_tag(ID), node.status_by_id(ID)), (Shown::Show, Shown::Show));
}

#[tokio::test]
async fn s4_a_definite_denial_past_stale_hides() {
    let node = signed().await;
    pulled(&node).await;
    node.sign(&[]);
    advance(DAY - 1);
    assert_eq!(node.look().await, Background::Fine, "fresh");
    advance(WEEK);
    assert_eq!(node.look().await, Background::Denied);
    assert!(!is_shown(&node.status_by_tag(ID)));
}

#[tokio::test]
async fn s4_a_registry_that_shows_strangers_nothing_hides_no_image() {
    let (node, other) = (signed().await, Key::generate());
    node.answers(|seen| {
        let stranger = seen.authorization.as_deref() != Some("Basic YWRhOm9uZQ==");
        let challenge = || status(401).header("www-authenticate", "Basic realm=\"r\"");
        // To strangers the image is forbidden and everything beside it does not exist.
        let beside = seen.line.contains("/sha256-") || seen.line.contains("/referrers/");
        stranger.then(|| if beside { status(404) } else { challenge() })
    });
    let admitted = node.pull_as(node.tagged(), basic("ada", "one")).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    node.enforce(&node.policy(&[(&other, json!({}))], json!({})));
    assert_eq!(node.look().await, Background::Undecided);
    assert_eq!((node.status_by_tag(ID), node.status_by_id(ID)), (Shown::Show, Shown::Show));
}

#[tokio::test]
async fn s4_a_present_image_is_decided_under_its_own_name_where_only_capitals_make_a_registry() {
    let node = keyed().await;
    node.enforce(&node.keyed().replace(&node.host(), "Registry"));
    let [own, hub] = ["Registry/app:v1", "docker.io/registry/app:v1"]
        .map(|text| Reference::parse(text).unwrap().repository().clone());
    node.keep_verdict(&Reference::parse(&format!("Registry/app@{}", node.image)).unwrap());
    let store = node.gate.store();
    assert_eq!(node.gate.decide_present("Registry/app:v1", node.image, None).await, Background::Fine);
    let source = |repository| store.admission(repository, &node.image).map(|admission| admission.source);
    assert_eq!((source(&own).as_deref(), source(&hub).as_deref()), (Some(Source::Fresh.word()), None));
}

#[tokio::test]
async fn s5_what_a_rule_let_pass_stands_under_another_snapshot_at_most_stale() {
    let node = keyed().await;
    let policy = node.keyed();
    let_pass(&node, &policy).await;
    node.enforce(&policy);
    advance(WEEK - 1);
    assert_eq!((node.status_by_tag(ID), node.status_by_id(ID)), (Shown::Show, Shown::Show));
    advance(1);
    assert!(!is_shown(&node.status_by_tag(ID)));
    assert!(!is_shown(&node.status_by_id(ID)));
}

#[tokio::test]
async fn s5_a_new_snapshot_is_decided_from_stored_evidence_first() {
    let (node, other) = (keyed().await, Key::generate());
    node.sign(&[(&node.key, json!({})), (&other, json!({}))]);
    pulled(&node).await;
    node.stop();
    node.enforce(&node.policy(&[(&other, json!({}))], json!({})));
    assert_eq!(node.look().await, Background::Fine);
    assert_eq!(node.admission().unwrap().image_id.as_deref(), Some(ID));
}

#[tokio::test]
async fn c1_a_verdict_of_another_release_is_made_anew() {
    let node = keyed().await;
    for (release, counts) in [("0.0.0", false), (RELEASE, true)] {
        node.keep_verdict_of(release, &node.pinned());
        let admitted = node.pull(node.pinned()).await;
        assert_eq!(admitted.is_ok_and(|admitted| admitted.permit.source() == Source::Fresh), counts);
    }
}

#[tokio::test]
async fn o1_stale_evidence_serves_only_while_the_registry_is_away() {
    let node = signed().await;
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Verified);
    advance(DAY - 1);
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Fresh);
    advance(1);
    // It answers, though not with what was asked.
    node.answers(|seen| seen.line.ends_with(".sig").then(|| status(418)));
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
    node.answers(|_| None);
    node.stop();
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Stale);
    // Nothing became younger by that.
    advance(WEEK - DAY - 1);
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Stale);
    advance(1);
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
}

#[tokio::test]
async fn o1_a_verdict_is_no_younger_than_its_evidence() {
    let (node, other) = (keyed().await, Key::generate());
    node.sign(&[(&node.key, json!({})), (&other, json!({}))]);
    node.pull(node.pinned()).await.unwrap();
    advance(DAY - 1);
    // Another question is answered from the evidence of a day ago, for a second.
    node.enforce(&node.policy(&[(&other, json!({}))], json!({})));
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Fresh);
    assert_eq!(node.verdict_ages(), [Age::Fresh]);
    advance(1);
    assert_eq!(node.verdict_ages(), [Age::Stale]);
}

#[tokio::test]
async fn o1_what_another_rule_rests_on_is_kept_too() {
    let (node, other) = (signed().await, Key::generate());
    node.pull(node.pinned()).await.unwrap();
    // Another rule, for signatures in another place; where the first ones are is not asked.
    let place = json!({"repository": format!("{}/elsewhere", node.host())});
    let elsewhere = node.policy(&[(&other, place)], json!({}));
    node.answers(node.signed_in("elsewhere", &other));
    node.enforce(&elsewhere);
    advance(10);
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Verified);
    node.stop();
    advance(DAY);
    for policy in [node.keyed(), elsewhere] {
        node.enforce(&policy);
        assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Stale);
    }
    // All of it is as old as the oldest.
    advance(WEEK - DAY - 10);
    node.pull(node.pinned()).await.unwrap_err();
}

#[tokio::test]
async fn o2_the_last_digest_of_a_tag_is_used_only_while_nobody_answers() {
    let node = signed().await;
    assert_eq!(node.pull(node.tagged()).await.unwrap().resolution, Resolution::Answered);
    for code in [401, 403, 404, 418, 503] {
        node.answers(move |seen| seen.line.contains("/manifests/v1").then(|| status(code)));
        node.pull(node.tagged()).await.unwrap_err();
    }
    node.stop();
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!(admitted.permit.digest(), Some(node.image));
    assert_eq!(admitted.resolution, Resolution::NotAsked, "no tag record is written from it");
}

#[tokio::test]
async fn o3_a_key_without_a_log_needs_no_trust_root() {
    // A root that trusts nobody.
    let node = Node::start(Setup { trust: kit::Trust::Nothing, ..Setup::default() }).await;
    let policy = node.keyed();
    assert!(policy.contains(r#""rekor":{"ignoreTlog":true}"#), "{policy}");
    node.enforce(&policy);
    node.sign(&[(&node.key, json!({}))]);
    assert_eq!(node.pull(node.tagged()).await.unwrap().permit.source(), Source::Verified);
}

#[tokio::test]
async fn o1_a_silent_registry_is_waited_for_once() {
    let node = Node::start(Setup { idle: Some(Duration::from_secs(2)), ..Setup::default() }).await;
    node.enforce(&node.keyed());
    node.sign(&[(&node.key, json!({}))]);
    node.pull(node.tagged()).await.unwrap();
    advance(DAY);
    node.answers(|_| Some(hangs_up()));
    // By digest nothing was resolved: while the look-up is silent, the manifest is asked for beside it.
    let requests = [(node.tagged(), 1), (node.pinned(), 2)];
    for (reference, once) in requests.clone() {
        let asked = node.asked();
        assert_eq!(node.pull(reference.clone()).await.unwrap().permit.source(), Source::Stale);
        assert_eq!(node.asked() - asked, once, "{}", reference.text());
    }
    // Without anything stored each pull waits for itself.
    advance(WEEK);
    for (reference, once) in requests {
        let asked = node.asked();
        let refusal = node.pull(reference.clone()).await.unwrap_err();
        assert!(refusal.message.ends_with("registry does not answer in time"), "{}", refusal.message);
        assert_eq!(node.asked() - asked, once, "{}", reference.text());
    }
}
