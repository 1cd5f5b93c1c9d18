//! Rules that are skipped or undecided before any evidence: what a pull and what the background make of
//! them.

use serde_json::{Value, json};

use super::kit::{Key, Node, Setup, WEEK, advance, basic, status};
use super::{ID, is_shown, signed};
use crate::admission::{Background, Wrong};
use crate::policy::evaluate::{Mode, Source};
use crate::sigstore::test_signer::Signer;

/// A policy that nobody's signature satisfies, with these fields in its rule.
pub(super) fn policy(node: &Node, rule: &Value) -> String {
    let keys = json!({ "publicKeys": Signer::p256().pem(), "rekor": { "ignoreTlog": true } });
    let entry = json!({ "imageReferences": [format!("{}/*", node.host())], "attestors": [{ "entries": [{ "keys": keys }] }] });
    let mut fields = json!({
        "name": "signed", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [entry],
    });
    if let (Some(fields), Some(more)) = (fields.as_object_mut(), rule.as_object()) {
        fields.extend(more.clone());
    }
    json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": { "name": "p" },
        "spec": { "validationFailureAction": "Enforce", "rules": [fields] },
    })
    .to_string()
}

fn only_if(key: &str, value: &str) -> Value {
    json!({ "preconditions": { "all": [{ "key": key, "operator": "Equals", "value": value }] } })
}

#[tokio::test]
async fn s6_the_background_admits_nothing_where_a_precondition_reads_the_pull() {
    let node = Node::start(Setup::default()).await;
    for (key, background, admitted) in [
        // Not met for the name that the background gives, which carries no tag.
        ("{{ image.tag }}", Background::Fine, false),
        // Not known there, so it counts as met.
        ("{{ request.namespace || '' }}", Background::Denied, false),
        // Not met for anybody.
        ("{{ 'never' }}", Background::Fine, true),
    ] {
        node.enforce(&policy(&node, &only_if(key, "other")));
        assert_eq!(node.look().await, background, "{key}");
        assert_eq!(node.admission().is_some(), admitted, "{key}");
    }
}

/// An admission of the digest shows the tag as well, so the background gives none where other rules judge that.
#[tokio::test]
async fn s6_the_background_admits_nothing_where_a_tag_is_judged_otherwise_than_its_digest() {
    let node = Node::start(Setup::default()).await;
    node.sign(&[(&node.key, json!({}))]);
    let rules = |fields: Value| {
        let mut entry = json!({
            "imageReferences": [format!("{}/*", node.host())], "attestors": node.attestors(&node.key, json!({})),
        });
        if let (Some(entry), Some(fields)) = (entry.as_object_mut(), fields.as_object()) {
            entry.extend(fields.clone());
        }
        json!([{
            "name": "signed", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [entry],
        }])
    };
    for (fields, admitted) in [
        (json!({}), true),
        (json!({ "skipImageReferences": ["*@sha256:*"] }), false),
        (json!({ "imageReferences": [format!("{}/*v1", node.host())] }), false),
        (json!({ "mutateDigest": false, "verifyDigest": true }), false),
        (json!({ "mutateDigest": false, "verifyDigest": false }), true),
    ] {
        node.gate.store().purge(&crate::cache::Selection::Everything);
        node.enforce(&node.policy(&[], json!({ "rules": rules(fields.clone()) })));
        assert_eq!(node.look().await, Background::Fine, "{fields}");
        assert_eq!(node.admission().is_some(), admitted, "{fields}");
    }
}

#[tokio::test]
async fn e1_a_rule_without_an_answer_is_refused_with_its_cause() {
    let node = Node::start(Setup::default()).await;
    node.enforce(&policy(&node, &only_if("{{ missing }}", "x")));
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    let image = node.tagged();
    assert_eq!(
        refusal.message,
        format!(
            "SignatureValidationFailed: {}: p/signed: failed to evaluate preconditions: failed to substitute variables in condition key: failed to resolve missing at path /0/all/0/key: JMESPath query failed: Unknown key \"missing\" in path",
            image.text()
        )
    );
}

#[tokio::test]
async fn a_rule_that_is_skipped_lets_pass_as_sent() {
    let node = Node::start(Setup::default()).await;
    node.enforce(&policy(&node, &only_if("{{ image.name }}", "other")));
    assert_eq!(node.pull(node.tagged()).await.unwrap().permit.source(), Source::Skipped);
}

#[tokio::test]
async fn s6_what_was_skipped_for_a_time_is_decided_again() {
    let node = Node::start(Setup::default()).await;
    let until = |time: &str| {
        json!({ "preconditions": { "all": [{
            "key": format!("{{{{ time_before('{time}', time_now_utc()) }}}}"), "operator": "Equals", "value": true,
        }] } })
    };
    // Not met as long as the time has not come.
    node.enforce(&policy(&node, &until("2999-01-01T00:00:00Z")));
    assert_eq!(node.look().await, Background::Fine);
    assert!(node.admission().is_none(), "what a time lets pass is nothing that the background keeps");
    // It has come: what was let pass under this very snapshot stands no longer.
    node.enforce(&policy(&node, &until("2000-01-01T00:00:00Z")));
    node.admit(Source::Skipped);
    assert_eq!(node.look().await, Background::Denied);
    assert!(node.admission().is_none(), "taken back");
}

#[tokio::test]
async fn m4_an_approved_digest_is_no_longer_listed_under_any_of_its_names() {
    let node = Node::start(Setup::default()).await;
    let policy = policy(&node, &json!({}));
    node.enforce(&policy);
    let names = [node.tagged().containerd_tag_name().unwrap(), node.pinned().text().to_owned()];
    let listed = || node.gate.would_deny().into_iter().map(|denied| denied.image).collect::<Vec<_>>();
    for name in &names {
        assert_eq!(node.gate.decide_present(name, node.image, None).await, Background::Denied);
    }
    assert_eq!(listed(), [names[0].clone()], "one image, by its tag");
    assert_eq!(node.gate.wrong(), Wrong { denied: 1, undecided: 0 });

    node.approve(&policy);
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Approved);
    for name in &names {
        assert_eq!(node.gate.decide_present(name, node.image, None).await, Background::Fine);
    }
    assert_eq!(listed(), Vec::<String>::new());
}

#[tokio::test]
async fn what_could_not_be_found_out_is_listed_in_audit_mode_too() {
    let node = Node::start(Setup::default()).await;
    let policy = policy(&node, &json!({}));
    node.answers(|_| Some(status(500)));
    for mode in [Mode::Enforce, Mode::Audit] {
        node.snapshot(&policy, mode);
        assert_eq!(node.look().await, Background::Undecided, "{mode:?}");
        let listed = node.gate.undecided();
        let [one] = listed.as_slice() else { panic!("{listed:?}") };
        assert_eq!((one.digest, one.reason), (node.image, "registry-error"), "{mode:?}");
        assert!(one.cause.contains("500"), "{}", one.cause);
    }
    node.answers(|_| None);
    assert_eq!(node.look().await, Background::Denied);
    assert_eq!(node.gate.wrong(), Wrong { denied: 1, undecided: 0 });
}

#[tokio::test]
async fn s5_what_a_fault_let_pass_is_not_decided() {
    let node = Node::start(Setup::default()).await;
    node.enforce(&policy(&node, &json!({})).replace(r#""rules""#, r#""failurePolicy":"Ignore","rules""#));
    assert_eq!(node.look().await, Background::Denied);
    node.stop();
    node.forget_denials();
    assert_eq!(node.look().await, Background::Undecided);
    assert_eq!(node.gate.wrong(), Wrong { denied: 1, undecided: 1 }, "what was known stands");
}

#[tokio::test]
async fn s6_what_was_ignored_is_replaced_by_a_proof() {
    let node = Node::start(Setup::default()).await;
    node.enforce(&node.keyed());
    node.sign(&[(&node.key, json!({}))]);
    node.admit(Source::Ignored);
    assert_eq!(node.look().await, Background::Fine);
    assert_eq!(node.admission().unwrap().source, Source::Verified.word());
}

/// An image of a registry that answers only ada, pulled by her.
async fn private() -> Node {
    let node = signed().await;
    node.answers(|seen| {
        let stranger = seen.authorization.as_deref() != Some("Basic YWRhOm9uZQ==");
        stranger.then(|| status(401).header("www-authenticate", "Basic realm=\"r\""))
    });
    let admitted = node.pull_as(node.tagged(), basic("ada", "one")).await.unwrap();
    node.gate.pulled(&admitted, ID, None);
    node
}

#[tokio::test]
async fn s5_a_proof_that_a_registry_lets_nobody_decide_again_stands_at_most_stale() {
    let (node, other) = (private().await, Key::generate());
    node.enforce(&node.policy(&[(&other, json!({}))], json!({})));
    let other_text = node.policy(&[(&other, json!({}))], json!({ "background": false }));
    for (passed, shown) in [(0, true), (WEEK - 1, true), (1, false)] {
        advance(passed);
        // Another reload in between gives it no more time.
        node.enforce(&other_text);
        assert_eq!(node.look().await, Background::Undecided, "{passed}");
        assert_eq!(is_shown(&node.status_by_tag(ID)), shown, "{passed}");
    }
}

#[tokio::test]
async fn s4_a_proof_stands_while_what_is_stored_proves_it_or_nobody_answers() {
    let (node, other) = (private().await, Key::generate());
    // The same key under another policy, with evidence of whatever age.
    node.enforce(&node.policy(&[(&node.key, json!({}))], json!({ "background": false })));
    for _ in 0..3 {
        advance(WEEK);
        assert_eq!(node.look().await, Background::Undecided);
    }
    assert!(is_shown(&node.status_by_tag(ID)));

    node.enforce(&node.policy(&[(&other, json!({}))], json!({})));
    node.stop();
    for _ in 0..3 {
        advance(WEEK);
        assert_eq!(node.look().await, Background::Undecided);
    }
    assert!(is_shown(&node.status_by_tag(ID)));
}
