//! Conditions on attestations in the gate: whose verdicts they are, and what only a pull can decide.

use serde_json::{Value, json};

use super::kit::{DAY, Node, Setup, advance};
use crate::admission::{Background, PullRequest};
use crate::oci::{Digest, media_type};
use crate::policy::PodFacts;
use crate::policy::evaluate::Source;
use crate::registry::Credentials;
use crate::registry::tests::server::Reply;
use crate::sigstore::test_signer::{Signer, attestation};

const KIND: &str = "https://scan.test/v1";

/// A node whose image has one attestation by a key that is made here.
async fn attested(predicate: Value) -> (Node, Signer) {
    let (node, signer) = (Node::start(Setup::default()).await, Signer::p256());
    let envelope = signer.envelope(&attestation(&node.image, KIND, &predicate.to_string())).into_bytes();
    let config = json!({ "mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2 });
    let layer = json!({
        "mediaType": "application/vnd.dsse.envelope.v1+json",
        "digest": Digest::of(&envelope), "size": envelope.len(),
        "annotations": { "dev.cosignproject.cosign/signature": "", "predicateType": KIND },
    });
    let manifest =
        json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string().into_bytes();
    let (tag, blob) = (node.image.cosign_tag(".att"), Digest::of(&envelope));
    node.answers(move |seen| {
        if seen.line.ends_with(&format!("/manifests/{tag}")) {
            return Some(Reply::manifest(media_type::OCI_MANIFEST, manifest.clone()));
        }
        let is_blob = seen.line.ends_with(&format!("/blobs/{blob}"));
        is_blob.then(|| Reply::new(200, envelope.clone()))
    });
    (node, signer)
}

/// A policy with one condition: this key is this value.
fn policy(node: &Node, signer: &Signer, key: &str, value: &str) -> String {
    let keys = json!({ "publicKeys": signer.pem(), "rekor": { "ignoreTlog": true } });
    let conditions = json!([{ "all": [{ "key": key, "operator": "Equals", "value": value }] }]);
    let attestation =
        json!({ "type": KIND, "attestors": [{ "entries": [{ "keys": keys }] }], "conditions": conditions });
    let entry = json!({ "imageReferences": [format!("{}/*", node.host())], "attestations": [attestation] });
    let pods = json!({ "any": [{ "resources": { "kinds": ["Pod"] } }] });
    let rule = json!({ "name": "scanned", "match": pods, "verifyImages": [entry] });
    json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": { "name": "p" },
        "spec": { "validationFailureAction": "Enforce", "rules": [rule] },
    })
    .to_string()
}

/// Where the permit of a pull for a pod of this namespace comes from; none if it is refused.
async fn pulled(node: &Node, namespace: &str) -> Option<Source> {
    let pod = PodFacts { namespace: Some(namespace.into()), ..PodFacts::default() };
    let request = PullRequest { reference: node.tagged(), pod, credentials: Credentials::Anonymous };
    node.gate.admit(request).await.ok().map(|admitted| admitted.permit.source())
}

#[tokio::test]
async fn c1_a_verdict_is_of_those_whom_its_conditions_read() {
    let (node, signer) = attested(json!({ "for": "prod" })).await;
    node.enforce(&policy(&node, &signer, "{{ request.namespace }}", "{{ for }}"));
    assert_eq!(pulled(&node, "prod").await, Some(Source::Verified));
    assert_eq!(pulled(&node, "prod").await, Some(Source::Fresh));
    assert_eq!(pulled(&node, "dev").await, None);
    assert_eq!(pulled(&node, "prod").await, Some(Source::Fresh));
}

#[tokio::test]
async fn e3_the_kubelet_hears_a_short_cause() {
    let (node, signer) = attested(json!({ "for": "prod" })).await;
    node.enforce(&policy(&node, &signer, "{{ for }}", "dev"));
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    let image = node.tagged();
    assert_eq!(
        refusal.message,
        format!("SignatureValidationFailed: {}: p/scanned: attestation conditions not met", image.text())
    );
}

#[tokio::test]
async fn s6_the_background_admits_nothing_where_a_condition_reads_the_pull() {
    let (node, signer) = attested(json!({ "for": "prod" })).await;
    for (key, value, admitted) in [
        ("{{ request.namespace || 'none' }}", "none", false),
        ("{{ image.tag }}", "", false),
        ("{{ for }}", "prod", true),
    ] {
        node.enforce(&policy(&node, &signer, key, value));
        assert_eq!(node.look().await, Background::Fine, "{key}");
        assert_eq!(node.admission().is_some(), admitted, "{key}");
    }
}

#[tokio::test]
async fn s4_the_background_takes_nothing_back_where_a_condition_reads_the_pull() {
    let (node, signer) = attested(json!({ "for": "prod" })).await;
    node.enforce(&policy(&node, &signer, "{{ request.namespace }}", "prod"));
    assert_eq!(pulled(&node, "prod").await, Some(Source::Verified));
    advance(DAY);
    assert_eq!(node.look().await, Background::Denied);
    assert!(node.admission().is_some(), "no pod is known there");
}
