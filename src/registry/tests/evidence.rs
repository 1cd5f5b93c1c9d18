//! Signatures and bundles: what is found, what is absent, what is no answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use super::*;
use crate::outcome::Lookup;
use crate::sigstore::{SignatureEvidence, standard_payload};

const SUBJECT: &[u8] = b"the image";
pub(super) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub(super) const QUERY: &str = "?artifactType=application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";

pub(super) const SBOM: &str = "https://spdx.dev/Document";

type Make = Box<dyn Fn() -> Reply + Send + Sync>;

/// Answers by path below `/v2/app/`; everything else is a 404.
#[derive(Default)]
pub(super) struct Content(HashMap<String, Make>);

impl Content {
    pub(super) fn with(
        mut self,
        tail: impl Into<String>,
        make: impl Fn() -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(tail.into(), Box::new(make));
        self
    }

    pub(super) fn blob(self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        self.with(format!("blobs/{}", Digest::of(&bytes)), move || Reply::new(200, bytes.clone()))
    }

    pub(super) fn sig(self, layers: &[serde_json::Value]) -> Self {
        let manifest = manifest(layers);
        self.with(format!("manifests/{}", subject().cosign_tag(".sig")), move || {
            Reply::manifest(media_type::OCI_MANIFEST, manifest.clone())
        })
    }

    pub(super) fn att(self, layers: &[serde_json::Value]) -> Self {
        let manifest = manifest(layers);
        self.with(format!("manifests/{}", subject().cosign_tag(".att")), move || {
            Reply::manifest(media_type::OCI_MANIFEST, manifest.clone())
        })
    }

    pub(super) fn by_digest(self, manifest: Vec<u8>) -> Self {
        self.with(format!("manifests/{}", Digest::of(&manifest)), move || {
            Reply::manifest(media_type::OCI_MANIFEST, manifest.clone())
        })
    }

    pub(super) fn tag_index(self, entries: &[serde_json::Value]) -> Self {
        let index = index(entries);
        self.with(format!("manifests/{}", subject().cosign_tag("")), move || {
            Reply::manifest(media_type::OCI_INDEX, index.clone())
        })
    }

    pub(super) fn api(self, query: &str, entries: &[serde_json::Value], filtered: bool) -> Self {
        let index = index(entries);
        self.with(format!("referrers/{}{query}", subject()), move || {
            let reply = Reply::manifest(media_type::OCI_INDEX, index.clone());
            if filtered { reply.header("oci-filters-applied", "artifactType") } else { reply }
        })
    }

    pub(super) async fn serve(self) -> Server {
        Server::start(move |seen| {
            let tail = seen.line.split_once("/v2/app/").map_or("", |(_, tail)| tail);
            // What a mirror is told besides.
            let tail = tail.split_once("ns=").map_or(tail, |(tail, _)| tail.trim_end_matches(['?', '&']));
            self.0.get(tail).map_or_else(gone, |make| make())
        })
        .await
    }
}

pub(super) fn subject() -> Digest {
    Digest::of(SUBJECT)
}

pub(super) fn layer(kind: &str, bytes: &[u8], signature: usize) -> serde_json::Value {
    serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len(),
        "annotations": {"dev.cosignproject.cosign/signature": signature.to_string()}})
}

pub(super) fn signature_layer(bytes: &[u8], signature: usize) -> serde_json::Value {
    layer(media_type::SIMPLE_SIGNING, bytes, signature)
}

pub(super) fn manifest(layers: &[serde_json::Value]) -> Vec<u8> {
    let config =
        serde_json::json!({"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2});
    serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes()
}

pub(super) fn index(entries: &[serde_json::Value]) -> Vec<u8> {
    serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries})
        .to_string()
        .into_bytes()
}

pub(super) fn entry(manifest: &[u8], kind: &str) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(manifest),
        "size": manifest.len(), "artifactType": kind})
}

pub(super) fn cosign(payload: &[u8], signature: usize) -> SignatureEvidence {
    let annotations =
        BTreeMap::from([("dev.cosignproject.cosign/signature".to_owned(), signature.to_string())]);
    SignatureEvidence::CosignLayer { payload: payload.to_vec(), annotations }
}

pub(super) fn bundle(json: &str) -> SignatureEvidence {
    SignatureEvidence::Bundle { json: json.as_bytes().to_vec() }
}

#[derive(Clone, Copy)]
enum Kind {
    Signatures,
    Attestations,
    Bundles,
}

async fn look_up(
    client: &Client,
    server: &Server,
    kind: Kind,
    manifest: ManifestAccess,
    budget: &Budget,
) -> Lookup<Vec<SignatureEvidence>> {
    let request = EvidenceRequest {
        repository: &server.repository("app"),
        digest: &subject(),
        credentials: &Credentials::Anonymous,
        manifest,
        budget,
    };
    let found = match kind {
        Kind::Signatures => client.signatures(request).await,
        Kind::Attestations => client.attestations(request, &[SBOM.to_owned()].into()).await,
        Kind::Bundles => client.referrers(request, &wanted(ReferrerForms::Bundles, &[])).await,
    };
    pieces(found)
}

/// Signatures, and attestations of these types.
pub(super) fn wanted(forms: ReferrerForms, predicates: &[&str]) -> Wanted {
    let predicates = predicates.iter().copied().chain([SIGNATURE_PREDICATE]).map(str::to_owned).collect();
    Wanted { forms, predicates }
}

pub(super) fn pieces(found: Looked) -> Lookup<Vec<SignatureEvidence>> {
    match found.lookup {
        Lookup::Found(fetched) => Lookup::Found(fetched.pieces),
        Lookup::Absent => Lookup::Absent,
        Lookup::Unreachable(fault) => Lookup::Unreachable(fault),
    }
}

/// What was read later, if all of it was.
pub(super) fn whole(later: Later) -> Result<Vec<SignatureEvidence>, Fault> {
    later.fault.map_or(Ok(later.pieces), Err)
}

async fn signatures(server: &Server) -> Lookup<Vec<SignatureEvidence>> {
    look_up(&client(), server, Kind::Signatures, ManifestAccess::Unknown, &Budget::verdict()).await
}

async fn bundles(client: &Client, server: &Server) -> Lookup<Vec<SignatureEvidence>> {
    look_up(client, server, Kind::Bundles, ManifestAccess::Unknown, &Budget::verdict()).await
}

pub(super) fn unreachable(lookup: Lookup<Vec<SignatureEvidence>>) -> Fault {
    match lookup {
        Lookup::Unreachable(fault) => fault,
        other @ (Lookup::Found(_) | Lookup::Absent) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cold_legacy_look_up_by_tag_takes_three_requests() {
    let server = Content::default()
        .with("manifests/v1", || Reply::new(200, "").header("docker-content-digest", subject().to_string()))
        .sig(&[signature_layer(b"payload", 1), signature_layer(b"payload", 2)])
        .blob(b"payload")
        .serve()
        .await;
    let client = client();
    let resolved = client.resolve(&server.reference("app:v1"), &Credentials::Anonymous).await.unwrap();
    assert_eq!(resolved, ResolvedImage { repository: server.repository("app"), digest: subject() });
    let found = look_up(&client, &server, Kind::Signatures, ManifestAccess::Served, &Budget::verdict()).await;
    assert_eq!(found, Lookup::Found(vec![cosign(b"payload", 1), cosign(b"payload", 2)]));
    assert_eq!(
        client.requests(),
        RequestCounts { resolve: 1, manifest: 1, blob: 1, ..RequestCounts::default() }
    );
}

#[tokio::test]
async fn a_payload_that_follows_from_the_image_is_not_fetched() {
    for (longer, fetched) in [(0, false), (1, true)] {
        let listed = Arc::new(OnceLock::new());
        let own = Arc::clone(&listed);
        // The payload itself is nowhere.
        let server = Server::start(move |seen| match seen.line.ends_with(".sig") {
            true => Reply::manifest(media_type::OCI_MANIFEST, own.get().cloned().unwrap_or_default()),
            false => gone(),
        })
        .await;
        let payload = standard_payload(&server.repository("app"), &subject());
        let mut layers = [signature_layer(&payload, 1), signature_layer(&payload, 2)];
        layers.iter_mut().for_each(|layer| layer["size"] = (payload.len() + longer).into());
        listed.set(manifest(&layers)).unwrap();
        let found = signatures(&server).await;
        assert_eq!(server.seen().len(), if fetched { 2 } else { 1 });
        if fetched {
            assert_eq!(unreachable(found).reason, FaultReason::RegistryError);
        } else {
            assert_eq!(found, Lookup::Found(vec![cosign(&payload, 1), cosign(&payload, 2)]));
        }
    }
}

#[tokio::test]
async fn payloads_come_in_the_manifests_order() {
    let payloads: Vec<String> = (0..20).map(|n| format!("payload {n}")).collect();
    let layers: Vec<_> = payloads.iter().enumerate().map(|(n, p)| signature_layer(p.as_bytes(), n)).collect();
    let content =
        payloads.iter().fold(Content::default().sig(&layers), |content, p| content.blob(p.as_bytes()));
    let expected = payloads.iter().enumerate().map(|(n, p)| cosign(p.as_bytes(), n)).collect();
    assert_eq!(signatures(&content.serve().await).await, Lookup::Found(expected));
}

#[tokio::test]
async fn only_a_definite_no_is_absent() {
    use ManifestAccess::{Served, Unknown};
    let table = [
        (404, Unknown, None),
        (401, Served, None),
        (403, Served, None),
        (401, Unknown, Some(FaultReason::RegistryDenied)),
        (403, Unknown, Some(FaultReason::RegistryDenied)),
        (429, Served, Some(FaultReason::RegistryError)),
        (500, Served, Some(FaultReason::RegistryError)),
        (204, Served, Some(FaultReason::RegistryError)),
    ];
    for (status, access, reason) in table {
        for kind in [Kind::Signatures, Kind::Attestations, Kind::Bundles] {
            let server = Server::start(move |_| Reply::new(status, "").header("retry-after", "0")).await;
            let lookup = look_up(&client(), &server, kind, access, &Budget::verdict()).await;
            match reason {
                None => assert_eq!(lookup, Lookup::Absent, "{status}"),
                Some(reason) => assert_eq!(unreachable(lookup).reason, reason, "{status}"),
            }
        }
    }
}

#[tokio::test]
async fn pitfall_24_other_and_compressed_layers_are_passed_over() {
    let gzip = format!("{}+gzip", media_type::SIMPLE_SIGNING);
    let layers = [layer("text/plain", b"a", 0), layer(&gzip, b"b", 1), signature_layer(b"c", 2)];
    let server = Content::default().sig(&layers).blob(b"c").serve().await;
    assert_eq!(signatures(&server).await, Lookup::Found(vec![cosign(b"c", 2)]));
    let server = Content::default().sig(&layers[..2]).serve().await;
    assert_eq!(signatures(&server).await, Lookup::Found(vec![]));
}

#[tokio::test]
async fn pitfall_18_the_addresses_that_a_layer_lists_are_not_asked() {
    let elsewhere = Server::start(|_| Reply::new(200, "payload")).await;
    let mut layer = signature_layer(b"payload", 1);
    layer["urls"] = serde_json::json!([format!("http://{}/payload", elsewhere.address)]);
    let layers = [layer];
    let server = Content::default().sig(&layers).blob(b"payload").serve().await;
    assert_eq!(signatures(&server).await, Lookup::Found(vec![cosign(b"payload", 1)]));
    let server = Content::default().sig(&layers).serve().await;
    assert_eq!(unreachable(signatures(&server).await).reason, FaultReason::RegistryError);
    assert_eq!(elsewhere.seen(), []);
}

#[tokio::test]
async fn of_ten_thousand_layers_the_first_thousand_are_read() {
    let layers: Vec<_> = (0..10_000).map(|n| signature_layer(b"payload", n)).collect();
    let server = Content::default().sig(&layers).blob(b"payload").serve().await;
    let expected = (0..1000).map(|n| cosign(b"payload", n)).collect();
    assert_eq!(signatures(&server).await, Lookup::Found(expected));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_payload_over_the_limit_does_not_count_and_hides_no_other() {
    let large = vec![b'x'; EVIDENCE_LIMIT + 1];
    let server = Content::default()
        .sig(&[signature_layer(&large, 0), signature_layer(b"good", 1)])
        .blob(large)
        .blob(b"good")
        .serve()
        .await;
    assert_eq!(signatures(&server).await, Lookup::Found(vec![cosign(b"good", 1)]));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn what_lies_beyond_the_budget_is_not_read() {
    let payloads = [b"first".as_slice(), b"second", b"third"];
    let layers: Vec<_> = payloads.iter().enumerate().map(|(n, p)| signature_layer(p, n)).collect();
    let content = payloads.iter().fold(Content::default().sig(&layers), |content, p| content.blob(*p));
    let server = content.serve().await;
    let budget = Budget::of(manifest(&layers).len() + 11);
    let found = look_up(&client(), &server, Kind::Signatures, ManifestAccess::Unknown, &budget).await;
    assert_eq!(found, Lookup::Found(vec![cosign(b"first", 0), cosign(b"second", 1)]));
    assert_eq!(budget.remaining(), 0);
    let fault =
        unreachable(look_up(&client(), &server, Kind::Signatures, ManifestAccess::Unknown, &budget).await);
    assert_eq!(fault.reason, FaultReason::RegistryError);
}

#[tokio::test]
async fn a_broken_payload_is_no_answer() {
    type Make = fn() -> Reply;
    let table: [(Make, &str); 6] = [
        (|| Reply::new(200, "payloaX"), "registry sent other bytes than the digest names"),
        (|| Reply::new(200, "payload and more"), "registry sent more than 7 bytes"),
        (|| Reply::new(200, "").body(Body::Endless), "registry sent more than 7 bytes"),
        (|| Reply::new(200, "").body(Body::Cut(b"pay".to_vec())), "registry's answer broke off"),
        (
            || Reply::new(200, "").body(Body::Stalls(b"pay".to_vec())),
            "registry stopped in the middle of its answer",
        ),
        (gone, "registry lists what it does not have"),
    ];
    for (make, words) in table {
        let server = Content::default()
            .sig(&[signature_layer(b"payload", 0)])
            .with(format!("blobs/{}", Digest::of(b"payload")), make)
            .serve()
            .await;
        let (client, budget) = (impatient(), Budget::verdict());
        let lookup = look_up(&client, &server, Kind::Signatures, ManifestAccess::Unknown, &budget).await;
        let fault = unreachable(lookup);
        assert_eq!(fault.contact, Contact::Answered);
        let message = format!("signatures of {}/app@{}: {words}", server.address, subject());
        assert_eq!(fault.message, message);
    }
}

#[tokio::test]
async fn an_index_at_the_signature_tag_is_no_answer() {
    let tag = format!("manifests/{}", subject().cosign_tag(".sig"));
    for kind in [media_type::OCI_INDEX, media_type::OCI_MANIFEST] {
        let server =
            Content::default().with(tag.clone(), move || Reply::manifest(kind, index(&[]))).serve().await;
        assert_eq!(unreachable(signatures(&server).await).reason, FaultReason::RegistryError);
    }
}

#[tokio::test]
async fn bundles_come_from_the_filtered_list() {
    let (one, two) = (manifest(&[layer(BUNDLE, b"{1}", 0)]), manifest(&[layer(BUNDLE, b"{2}", 0)]));
    let server = Content::default()
        .api(QUERY, &[entry(&one, BUNDLE), entry(&two, BUNDLE)], true)
        .by_digest(one)
        .by_digest(two)
        .blob(b"{1}")
        .blob(b"{2}")
        .serve()
        .await;
    let client = client();
    assert_eq!(bundles(&client, &server).await, Lookup::Found(vec![bundle("{1}"), bundle("{2}")]));
    assert_eq!(
        client.requests(),
        RequestCounts { referrers: 1, manifest: 2, blob: 2, ..RequestCounts::default() }
    );
}

#[tokio::test]
async fn a_filter_hides_no_untyped_bundle() {
    let one = manifest(&[layer(BUNDLE, b"{1}", 0)]);
    let server = Content::default()
        .api(QUERY, &[], true)
        .api("", &[entry(&one, media_type::OCI_EMPTY), entry(b"sbom", "application/spdx+json")], false)
        .by_digest(one.clone())
        .blob(b"{1}")
        .serve()
        .await;
    assert_eq!(bundles(&client(), &server).await, Lookup::Found(vec![bundle("{1}")]));
    let server = Content::default().api(QUERY, &[], true).api("", &[], false).serve().await;
    assert_eq!(bundles(&client(), &server).await, Lookup::Absent);
    // The header may be missing though the filter was applied, unless the list shows the opposite.
    let (sbom, untyped) = (entry(b"sbom", "application/spdx+json"), entry(&one, media_type::OCI_EMPTY));
    for (shown, expected, requests) in
        [(vec![], Lookup::Found(vec![bundle("{1}")]), 2), (vec![sbom.clone()], Lookup::Absent, 1)]
    {
        let server = Content::default()
            .api(QUERY, &shown, false)
            .api("", &[sbom.clone(), untyped.clone()], false)
            .by_digest(one.clone())
            .blob(b"{1}")
            .serve()
            .await;
        let client = client();
        assert_eq!(bundles(&client, &server).await, expected);
        assert_eq!(client.requests().referrers, requests);
    }
}

#[tokio::test]
async fn a_host_without_referrers_api_is_asked_for_it_once() {
    let one = manifest(&[layer(BUNDLE, b"{1}", 0)]);
    let content = || {
        Content::default()
            .tag_index(&[entry(&one, media_type::OCI_EMPTY)])
            .by_digest(one.clone())
            .blob(b"{1}")
    };
    let api = format!("referrers/{}{QUERY}", subject());
    for status in [400, 404, 405, 406] {
        let server =
            content().with(api.clone(), move || Reply::new(status, "404 page not found")).serve().await;
        let plain_http = vec![server.address.to_string()];
        let client = Client::new(&RegistryOptions { plain_http, ..options() }).unwrap();
        for _ in 0..3 {
            assert_eq!(bundles(&client, &server).await, Lookup::Found(vec![bundle("{1}")]));
        }
        assert_eq!(client.requests().referrers, 1, "{status}");
    }
    // "No such repository" or "manifest" says nothing of the host, unless the manifest is there.
    for (access, asked) in [(ManifestAccess::Unknown, 2), (ManifestAccess::Served, 1)] {
        let server = content().serve().await;
        let client = client();
        for _ in 0..2 {
            let found = look_up(&client, &server, Kind::Bundles, access, &Budget::verdict()).await;
            assert_eq!(found, Lookup::Found(vec![bundle("{1}")]));
        }
        assert_eq!(client.requests().referrers, asked);
    }
    let server = content().with(api, || Reply::manifest("text/html", "<html>")).serve().await;
    assert_eq!(bundles(&client(), &server).await, Lookup::Found(vec![bundle("{1}")]));
}

#[tokio::test]
async fn what_is_no_single_readable_bundle_is_passed_over() {
    let large = vec![b'x'; EVIDENCE_LIMIT + 1];
    let gzip = format!("{BUNDLE}+gzip");
    let other_subject = {
        let mut value: serde_json::Value =
            serde_json::from_slice(&manifest(&[layer(BUNDLE, b"{1}", 0)])).unwrap();
        value["subject"] = serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(b"other"), "size": 1});
        value.to_string().into_bytes()
    };
    let odd = [
        manifest(&[]),
        manifest(&[layer(BUNDLE, b"{1}", 0), layer(BUNDLE, b"{1}", 0)]),
        manifest(&[layer("application/spdx+json", b"{1}", 0)]),
        manifest(&[layer(&gzip, b"{1}", 0)]),
        manifest(&[layer(BUNDLE, &large, 0)]),
        b"no manifest".to_vec(),
        other_subject,
    ];
    let good = manifest(&[layer(BUNDLE, b"{good}", 0)]);
    let mut entries: Vec<_> = odd.iter().map(|manifest| entry(manifest, BUNDLE)).collect();
    entries.push(entry(b"stale", BUNDLE));
    entries.push(entry(&good, BUNDLE));
    let content = odd.into_iter().fold(Content::default(), Content::by_digest);
    let server =
        content.by_digest(good).blob(b"{good}").blob(b"{1}").blob(large).tag_index(&entries).serve().await;
    assert_eq!(bundles(&client(), &server).await, Lookup::Found(vec![bundle("{good}")]));
}

#[tokio::test]
async fn pages_are_followed_on_the_same_registry_only() {
    let one = manifest(&[layer(BUNDLE, b"{1}", 0)]);
    let next = format!("/v2/app/referrers/{}?page=2", subject());
    let first = |link: String| {
        Content::default().with(format!("referrers/{}{QUERY}", subject()), move || {
            Reply::manifest(media_type::OCI_INDEX, index(&[entry(b"sbom", "x/y")]))
                .header("link", link.clone())
        })
    };
    let server = first(format!("<{next}>; rel=\"next\""))
        .api("?page=2", &[entry(&one, BUNDLE)], false)
        .by_digest(one)
        .blob(b"{1}")
        .serve()
        .await;
    assert_eq!(bundles(&client(), &server).await, Lookup::Found(vec![bundle("{1}")]));
    let server = first("<http://127.0.0.1:1/v2/>; rel=\"next\"".to_owned()).serve().await;
    let fault = unreachable(bundles(&client(), &server).await);
    assert!(fault.message.ends_with("registry's next page is elsewhere"), "{fault}");
    // For ever the same page.
    let this = format!("</v2/app/referrers/{}{QUERY}>; rel=\"next\"", subject());
    let server = first(this).serve().await;
    let fault = unreachable(bundles(&client(), &server).await);
    assert!(fault.message.ends_with("more referrers than are read"), "{fault}");
    assert!(server.seen().len() <= 21);
}

#[tokio::test]
async fn fifty_referrers_are_opened_and_typed_ones_first() {
    let untyped: Vec<Vec<u8>> =
        (0..60).map(|n| manifest(&[layer("x/y", format!("{n}").as_bytes(), n)])).collect();
    let good = manifest(&[layer(BUNDLE, b"{good}", 0)]);
    let mut entries: Vec<_> = untyped.iter().map(|manifest| entry(manifest, "")).collect();
    let content = || untyped.iter().cloned().fold(Content::default(), Content::by_digest);
    let server = content().tag_index(&entries).serve().await;
    let client = client();
    // None of those opened is a bundle, but not all were opened.
    assert_eq!(unreachable(bundles(&client, &server).await).reason, FaultReason::RegistryError);
    assert_eq!(client.requests().manifest, 51);
    entries.push(entry(&good, BUNDLE));
    let server = content().tag_index(&entries).by_digest(good).blob(b"{good}").serve().await;
    assert_eq!(bundles(&client, &server).await, Lookup::Found(vec![bundle("{good}")]));
}

#[tokio::test]
async fn descriptors_after_the_first_thousand_are_not_read() {
    let good = manifest(&[layer(BUNDLE, b"{good}", 0)]);
    let mut entries = vec![entry(b"sbom", "x/y"); 1000];
    entries.push(entry(&good, BUNDLE));
    let server = Content::default().tag_index(&entries).by_digest(good).blob(b"{good}").serve().await;
    let fault = unreachable(bundles(&client(), &server).await);
    assert!(fault.message.ends_with("more referrers than are read"), "{fault}");
}

#[tokio::test]
async fn a_bundle_with_other_bytes_is_no_answer() {
    let one = manifest(&[layer(BUNDLE, b"{1}", 0)]);
    let content = || Content::default().api(QUERY, &[entry(&one, BUNDLE)], true);
    let server = content()
        .by_digest(one.clone())
        .with(format!("blobs/{}", Digest::of(b"{1}")), || Reply::new(200, "{2}"))
        .serve()
        .await;
    assert_eq!(unreachable(bundles(&client(), &server).await).reason, FaultReason::RegistryError);
    let other = manifest(&[layer(BUNDLE, b"{2}", 0)]);
    let server = content()
        .with(format!("manifests/{}", Digest::of(&one)), move || {
            Reply::manifest(media_type::OCI_MANIFEST, other.clone())
        })
        .serve()
        .await;
    assert_eq!(unreachable(bundles(&client(), &server).await).reason, FaultReason::RegistryError);
}
