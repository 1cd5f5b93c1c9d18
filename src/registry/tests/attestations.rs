//! Attestations at the `.att` tag: what is read, in which order, and how much of it.

use std::collections::BTreeMap;

use super::evidence::{Content, SBOM, layer, pieces, subject, unreachable, whole};
use super::*;

const OTHER: &str = "https://slsa.dev/provenance/v1";

/// A layer with the annotation that cosign writes beside an attestation.
fn typed(bytes: &[u8], predicate: &str) -> serde_json::Value {
    let mut layer = plain(bytes);
    layer["annotations"]["predicateType"] = predicate.into();
    layer
}

fn plain(bytes: &[u8]) -> serde_json::Value {
    let mut layer = layer(media_type::DSSE, bytes, 0);
    layer["annotations"] = serde_json::json!({"dev.cosignproject.cosign/signature": ""});
    layer
}

fn attestation(bytes: &[u8], predicate: Option<&str>) -> SignatureEvidence {
    let mut annotations = BTreeMap::from([("dev.cosignproject.cosign/signature".to_owned(), String::new())]);
    annotations.extend(predicate.map(|predicate| ("predicateType".to_owned(), predicate.to_owned())));
    SignatureEvidence::AttestationLayer { envelope: bytes.to_vec(), annotations }
}

async fn fetch(client: &Client, server: &Server, budget: &Budget) -> Looked {
    client.attestations(request(&server.repository("app"), budget), &[SBOM.to_owned()].into()).await
}

fn request<'a>(repository: &'a Repository, budget: &'a Budget) -> EvidenceRequest<'a> {
    static SUBJECT: std::sync::OnceLock<Digest> = std::sync::OnceLock::new();
    EvidenceRequest {
        repository,
        digest: SUBJECT.get_or_init(subject),
        credentials: &Credentials::Anonymous,
        manifest: ManifestAccess::Unknown,
        budget,
    }
}

#[tokio::test]
async fn attestations_are_the_envelopes_at_the_att_tag() {
    let gzip = format!("{}+gzip", media_type::DSSE);
    let layers = [
        plain(b"{1}"),
        layer(media_type::SIMPLE_SIGNING, b"a signature", 0),
        layer(&gzip, b"compressed", 0),
        typed(b"{2}", SBOM),
    ];
    let server = Content::default().att(&layers).blob(b"{1}").blob(b"{2}").serve().await;
    let client = client();
    let found = fetch(&client, &server, &Budget::verdict()).await;
    assert_eq!(
        pieces(found),
        Lookup::Found(vec![attestation(b"{1}", None), attestation(b"{2}", Some(SBOM))])
    );
    assert_eq!(client.requests(), RequestCounts { manifest: 1, blob: 2, ..RequestCounts::default() });
    let server = Content::default().att(&layers[1..3]).serve().await;
    assert_eq!(pieces(fetch(&client, &server, &Budget::verdict()).await), Lookup::Found(vec![]));
}

#[tokio::test]
async fn a_lying_predicate_annotation_delays_and_hides_nothing() {
    let layers = [typed(b"{lies}", OTHER), typed(b"{sbom}", SBOM), plain(b"{says nothing}")];
    let server =
        Content::default().att(&layers).blob(b"{lies}").blob(b"{sbom}").blob(b"{says nothing}").serve().await;
    let (client, budget) = (client(), Budget::verdict());
    let Lookup::Found(Fetched { pieces, rest }) = fetch(&client, &server, &budget).await.lookup else {
        panic!("it is there");
    };
    assert_eq!(pieces, [attestation(b"{sbom}", Some(SBOM)), attestation(b"{says nothing}", None)]);
    assert!(!rest.is_empty());
    assert_eq!(client.requests().blob, 2);
    let later = client.rest(request(&server.repository("app"), &budget), rest).await;
    assert_eq!(whole(later), Ok(vec![attestation(b"{lies}", Some(OTHER))]));
    assert_eq!(client.requests(), RequestCounts { manifest: 1, blob: 3, ..RequestCounts::default() });
}

#[tokio::test]
async fn an_attestation_of_ten_mebibytes_is_read_and_a_larger_one_passed_over() {
    let (fits, large) = (vec![b'x'; ATTESTATION_LIMIT], vec![b'y'; ATTESTATION_LIMIT + 1]);
    let server =
        Content::default().att(&[plain(&large), plain(&fits)]).blob(large).blob(fits.clone()).serve().await;
    let client = client();
    let found = pieces(fetch(&client, &server, &Budget::verdict()).await);
    assert_eq!(found, Lookup::Found(vec![attestation(&fits, None)]));
    assert_eq!(client.requests().blob, 1);
}

#[tokio::test]
async fn endless_attestations_end_at_the_layers_and_at_the_budget() {
    let layers: Vec<_> = (0..10_000).map(|_| plain(b"{}")).collect();
    let server = Content::default().att(&layers).blob(b"{}").serve().await;
    let found = pieces(fetch(&client(), &server, &Budget::verdict()).await);
    assert_eq!(found, Lookup::Found(vec![attestation(b"{}", None); 1000]));

    let large: Vec<Vec<u8>> = (0..5).map(|n| vec![n; ATTESTATION_LIMIT]).collect();
    let layers: Vec<_> = large.iter().map(|bytes| plain(bytes)).collect();
    let content =
        large.iter().fold(Content::default().att(&layers), |content, bytes| content.blob(bytes.clone()));
    let server = content.serve().await;
    let (client, budget) = (client(), Budget::verdict());
    let Lookup::Found(found) = pieces(fetch(&client, &server, &budget).await) else {
        panic!("it is there");
    };
    assert_eq!((found.len(), client.requests().blob), (3, 3));
    assert!(budget.remaining() < ATTESTATION_LIMIT);
}

#[tokio::test]
async fn a_broken_attestation_is_no_answer() {
    const ENVELOPE: &[u8] = br#"{"1":1}"#;
    type Make = fn() -> Reply;
    let table: [(Make, &str); 5] = [
        (|| Reply::new(200, "{\"1\":2}"), "registry sent other bytes than the digest names"),
        (|| Reply::new(200, "").body(Body::Endless), "registry sent more than 7 bytes"),
        (
            || Reply::new(200, "").body(Body::Stalls(b"{".to_vec())),
            "registry stopped in the middle of its answer",
        ),
        (|| Reply::new(200, "").body(Body::Cut(b"{\"1".to_vec())), "registry's answer broke off"),
        (gone, "registry lists what it does not have"),
    ];
    for (make, words) in table {
        let server = Content::default()
            .att(&[plain(ENVELOPE)])
            .with(format!("blobs/{}", Digest::of(ENVELOPE)), make)
            .serve()
            .await;
        let fault = unreachable(pieces(fetch(&impatient(), &server, &Budget::verdict()).await));
        let message = format!("attestations of {}/app@{}: {words}", server.address, subject());
        assert_eq!(fault, Fault::new(fault.reason, message));
    }
}

#[tokio::test]
async fn an_index_at_the_attestation_tag_is_no_answer() {
    let tag = format!("manifests/{}", subject().cosign_tag(".att"));
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    for kind in [media_type::OCI_INDEX, media_type::OCI_MANIFEST] {
        let server =
            Content::default().with(tag.clone(), move || Reply::manifest(kind, index.to_vec())).serve().await;
        let fault = unreachable(pieces(fetch(&client(), &server, &Budget::verdict()).await));
        assert_eq!(fault.reason, FaultReason::RegistryError);
    }
}
