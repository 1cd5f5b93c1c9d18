//! Referrers in all their forms: what counts for whom, what hints may do, and how much is read.

use super::evidence::{
    BUNDLE, Content, QUERY, SBOM, bundle, cosign, entry, index, layer, manifest, pieces, signature_layer,
    subject, unreachable, wanted, whole,
};
use super::*;
use std::sync::Arc;

const SIGNATURES: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const ATTESTATIONS: &str = "application/vnd.in-toto+json";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

async fn fetch(client: &Client, server: &Server, wanted: &Wanted, budget: &Budget) -> Looked {
    client.referrers(request(&server.repository("app"), &subject(), budget), wanted).await
}

fn request<'a>(repository: &'a Repository, digest: &'a Digest, budget: &'a Budget) -> EvidenceRequest<'a> {
    EvidenceRequest {
        repository,
        digest,
        credentials: &Credentials::Anonymous,
        manifest: ManifestAccess::Unknown,
        budget,
    }
}

/// What is found at first, and what later.
async fn both(
    client: &Client,
    server: &Server,
    wanted: &Wanted,
) -> (Vec<SignatureEvidence>, Result<Vec<SignatureEvidence>, Fault>) {
    let budget = Budget::verdict();
    match fetch(client, server, wanted, &budget).await.lookup {
        Lookup::Found(Fetched { pieces, rest }) => {
            let (repository, digest) = (server.repository("app"), subject());
            (pieces, whole(client.rest(request(&repository, &digest, &budget), rest).await))
        }
        other @ (Lookup::Absent | Lookup::Unreachable(_)) => panic!("{other:?}"),
    }
}

fn annotated(manifest: &[u8], predicate: &str) -> serde_json::Value {
    let mut entry = entry(manifest, BUNDLE);
    entry["annotations"] = serde_json::json!({ PREDICATE: predicate });
    entry
}

fn attestation(bytes: &[u8]) -> SignatureEvidence {
    let annotations = [("dev.cosignproject.cosign/signature".to_owned(), "0".to_owned())].into();
    SignatureEvidence::AttestationLayer { envelope: bytes.to_vec(), annotations }
}

/// Two artifacts of signatures, one of attestations, one bundle, behind API or tag.
fn all_forms() -> (Content, Vec<serde_json::Value>) {
    let one = manifest(&[signature_layer(b"a", 1), signature_layer(b"b", 2)]);
    let two = manifest(&[signature_layer(b"c", 3), layer("text/plain", b"x", 0)]);
    let attested = manifest(&[layer(media_type::DSSE, b"{att}", 0)]);
    let bundled = manifest(&[layer(BUNDLE, b"{bundle}", 0)]);
    let entries = vec![
        entry(&one, SIGNATURES),
        entry(&attested, ATTESTATIONS),
        entry(&bundled, BUNDLE),
        entry(&two, SIGNATURES),
        entry(b"an SBOM", "application/spdx+json"),
    ];
    let content = [one, two, attested, bundled].into_iter().fold(Content::default(), Content::by_digest);
    let blobs: [&[u8]; 5] = [b"a", b"b", b"c", b"{att}", b"{bundle}"];
    (blobs.into_iter().fold(content, |content, blob| content.blob(blob)), entries)
}

#[tokio::test]
async fn every_artifact_counts_and_only_what_is_asked_for_is_opened() {
    let signatures = [cosign(b"a", 1), cosign(b"b", 2), cosign(b"c", 3)];
    let only_attestations = |forms| Wanted { forms, predicates: [SBOM.to_owned()].into() };
    let table = [
        (
            wanted(ReferrerForms::All, &[]),
            vec![signatures[0].clone(), signatures[1].clone(), bundle("{bundle}"), signatures[2].clone()],
            3,
        ),
        (wanted(ReferrerForms::Artifacts, &[]), signatures.to_vec(), 2),
        (wanted(ReferrerForms::Bundles, &[]), vec![bundle("{bundle}")], 1),
        (only_attestations(ReferrerForms::Artifacts), vec![attestation(b"{att}")], 1),
        (only_attestations(ReferrerForms::All), vec![attestation(b"{att}"), bundle("{bundle}")], 2),
    ];
    for (wanted, expected, opened) in table {
        for by_tag in [false, true] {
            let (content, entries) = all_forms();
            let content = if by_tag {
                content.tag_index(&entries)
            } else {
                content.api(QUERY, &entries, false).api("", &entries, false)
            };
            let (server, client) = (content.serve().await, client());
            let found = fetch(&client, &server, &wanted, &Budget::verdict()).await.lookup;
            let Lookup::Found(Fetched { pieces, rest }) = found else { panic!("{found:?}") };
            assert_eq!(pieces, expected, "{wanted:?}");
            assert!(rest.is_empty());
            assert_eq!(client.requests().manifest, opened + u64::from(by_tag), "{wanted:?}");
        }
    }
}

#[tokio::test]
async fn a_filtered_list_comes_first_and_the_whole_one_later() {
    let (content, entries) = all_forms();
    let server = content.api(QUERY, &entries[2..3], true).api("", &entries, false).serve().await;
    let client = client();
    let (first, later) = both(&client, &server, &wanted(ReferrerForms::All, &[])).await;
    assert_eq!(first, [bundle("{bundle}")]);
    assert_eq!(later, Ok(vec![cosign(b"a", 1), cosign(b"b", 2), cosign(b"c", 3)]));
    assert_eq!(
        client.requests(),
        RequestCounts { referrers: 2, manifest: 3, blob: 4, ..RequestCounts::default() }
    );
}

#[tokio::test]
async fn a_lying_predicate_annotation_of_a_referrer_delays_and_hides_nothing() {
    let [lies, right, silent] =
        [b"{lies}".as_slice(), b"{right}", b"{silent}"].map(|json| manifest(&[layer(BUNDLE, json, 0)]));
    let entries = [annotated(&lies, SBOM), entry(&silent, BUNDLE), annotated(&right, SIGNATURE_PREDICATE)];
    let content = || {
        [b"{lies}".as_slice(), b"{right}", b"{silent}"]
            .into_iter()
            .fold(Content::default(), |content, blob| content.blob(blob))
            .by_digest(lies.clone())
            .by_digest(right.clone())
            .by_digest(silent.clone())
    };
    let (server, client) = (content().tag_index(&entries).serve().await, client());
    let (first, later) = both(&client, &server, &wanted(ReferrerForms::Bundles, &[])).await;
    assert_eq!(first, [bundle("{silent}"), bundle("{right}")]);
    assert_eq!(later, Ok(vec![bundle("{lies}")]));
    // Nothing but the liar: found, with an empty list, and the rest.
    let server = content().tag_index(&entries[..1]).serve().await;
    let (first, later) = both(&client, &server, &wanted(ReferrerForms::Bundles, &[])).await;
    assert_eq!((first, later), (vec![], Ok(vec![bundle("{lies}")])));
}

#[tokio::test]
async fn bundles_have_ten_mebibytes_where_attestations_are_looked_for() {
    let large = vec![b'x'; EVIDENCE_LIMIT + 1];
    let too_large = vec![b'y'; ATTESTATION_LIMIT + 1];
    let manifests = [&large, &too_large].map(|bytes| manifest(&[layer(BUNDLE, bytes, 0)]));
    let entries: Vec<_> = manifests.iter().map(|manifest| entry(manifest, BUNDLE)).collect();
    let content = manifests.into_iter().fold(Content::default(), Content::by_digest);
    let server = content.tag_index(&entries).blob(large.clone()).blob(too_large).serve().await;
    let budget = Budget::verdict();
    let signatures = fetch(&client(), &server, &wanted(ReferrerForms::All, &[]), &budget).await;
    assert_eq!(pieces(signatures), Lookup::Found(vec![]));
    let all = fetch(&client(), &server, &wanted(ReferrerForms::All, &[SBOM]), &budget).await;
    assert_eq!(pieces(all), Lookup::Found(vec![SignatureEvidence::Bundle { json: large }]));
}

#[tokio::test]
async fn fifty_referrers_are_opened_over_both_steps() {
    let manifests: Vec<Vec<u8>> =
        (0..60).map(|n| manifest(&[layer(BUNDLE, format!("{{{n}}}").as_bytes(), n)])).collect();
    let annotation = |n| if n < 30 { SIGNATURE_PREDICATE } else { SBOM };
    let entries: Vec<_> =
        manifests.iter().enumerate().map(|(n, manifest)| annotated(manifest, annotation(n))).collect();
    let content = manifests.into_iter().fold(Content::default(), Content::by_digest);
    let content = (0..60).fold(content, |content, n| content.blob(format!("{{{n}}}")));
    let (server, client) = (content.tag_index(&entries).serve().await, client());
    let (first, later) = both(&client, &server, &wanted(ReferrerForms::All, &[])).await;
    assert_eq!(first.len(), 30);
    assert_eq!(later.unwrap(), (30..50).map(|n| bundle(&format!("{{{n}}}"))).collect::<Vec<_>>());
    assert_eq!(client.requests().manifest, 51);
}

#[tokio::test]
async fn a_million_referrers_cost_a_thousand_descriptors() {
    // As many pages as anyone likes, a thousand on each.
    let page = index(&vec![entry(b"sbom", "x/y"); 1000]);
    let next = format!("</v2/app/referrers/{}?page=next>; rel=\"next\"", subject());
    let server = Server::start(move |seen| {
        if seen.line.contains("/referrers/") {
            Reply::manifest(media_type::OCI_INDEX, page.clone()).header("link", next.clone())
        } else {
            gone()
        }
    })
    .await;
    let client = client();
    let budget = Budget::verdict();
    let found = fetch(&client, &server, &wanted(ReferrerForms::All, &[]), &budget).await;
    let fault = unreachable(pieces(found));
    assert!(fault.message.ends_with("more referrers than are read"), "{fault}");
    // The second page shows that there are more.
    assert!(client.requests().referrers <= 2, "{:?}", client.requests());
    assert!(budget.remaining() > 31 * 1024 * 1024);
    // All on one page.
    let server = Server::start(|_| {
        Reply::new(200, "").header("content-type", media_type::OCI_INDEX).body(Body::Endless)
    })
    .await;
    let fault = unreachable(pieces(fetch(&client, &server, &wanted(ReferrerForms::All, &[]), &budget).await));
    assert!(fault.message.ends_with("registry sent more than 4194304 bytes"), "{fault}");
}

#[tokio::test]
async fn of_an_artifact_with_ten_thousand_layers_a_thousand_are_read() {
    let artifact = manifest(&(0..10_000).map(|n| signature_layer(b"payload", n)).collect::<Vec<_>>());
    let server = Content::default()
        .tag_index(&[entry(&artifact, SIGNATURES)])
        .by_digest(artifact)
        .blob(b"payload")
        .serve()
        .await;
    let found = fetch(&client(), &server, &wanted(ReferrerForms::All, &[]), &Budget::verdict()).await;
    let expected = (0..1000).map(|n| cosign(b"payload", n)).collect();
    assert_eq!(pieces(found), Lookup::Found(expected));
}

#[tokio::test]
async fn an_artifact_of_another_image_or_with_broken_layers_does_not_count() {
    let mut foreign: serde_json::Value =
        serde_json::from_slice(&manifest(&[signature_layer(b"a", 1)])).unwrap();
    foreign["subject"] =
        serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(b"other"), "size": 1});
    let foreign = foreign.to_string().into_bytes();
    let gzip = format!("{}+gzip", media_type::SIMPLE_SIGNING);
    let compressed = manifest(&[layer(&gzip, b"a", 1)]);
    let entries = [entry(&foreign, SIGNATURES), entry(&compressed, SIGNATURES)];
    let content = || Content::default().by_digest(foreign.clone()).by_digest(compressed.clone());
    let server = content().tag_index(&entries).blob(b"a").serve().await;
    let wants = wanted(ReferrerForms::All, &[]);
    assert_eq!(pieces(fetch(&client(), &server, &wants, &Budget::verdict()).await), Lookup::Found(vec![]));

    let broken = manifest(&[signature_layer(b"a", 1)]);
    let server = Content::default()
        .tag_index(&[entry(&broken, SIGNATURES)])
        .by_digest(broken)
        .with(format!("blobs/{}", Digest::of(b"a")), || Reply::new(200, "b"))
        .serve()
        .await;
    let fault = unreachable(pieces(fetch(&client(), &server, &wants, &Budget::verdict()).await));
    assert!(fault.message.ends_with("registry sent other bytes than the digest names"), "{fault}");
}

/// A front end that answers for its registry for a moment must not hide evidence for an hour.
#[tokio::test]
async fn d4_that_a_host_has_no_referrers_api_is_remembered_and_denies_nothing() {
    let [old, new] = [b"{old}".as_slice(), b"{new}"].map(|json| manifest(&[layer(BUNDLE, json, 0)]));
    for at_tag in [false, true] {
        let deployed = Arc::new(AtomicUsize::new(0));
        let api = |query: &str, filtered: bool| {
            let (page, now) = (index(&[entry(&new, BUNDLE)]), Arc::clone(&deployed));
            let make = move || match now.load(Ordering::SeqCst) {
                0 => Reply::new(404, "default backend - 404"),
                _ if filtered => Reply::manifest(media_type::OCI_INDEX, page.clone())
                    .header("oci-filters-applied", "artifactType"),
                _ => Reply::manifest(media_type::OCI_INDEX, page.clone()),
            };
            (format!("referrers/{}{query}", subject()), make)
        };
        let content = Content::default().by_digest(old.clone()).by_digest(new.clone());
        let content = content.blob(b"{old}").blob(b"{new}");
        let content = if at_tag { content.tag_index(&[entry(&old, BUNDLE)]) } else { content };
        let ((filtered, one), (whole, other)) = (api(QUERY, true), api("", false));
        let server = content.with(filtered, one).with(whole, other).serve().await;
        let client = client();
        let wants = wanted(ReferrerForms::Bundles, &[]);
        let first = pieces(fetch(&client, &server, &wants, &Budget::verdict()).await);
        let expected = if at_tag { Lookup::Found(vec![bundle("{old}")]) } else { Lookup::Absent };
        assert_eq!(first, expected);
        deployed.store(1, Ordering::SeqCst);
        let (first, later) = both(&client, &server, &wants).await;
        let expected = if at_tag { ["{old}", "{new}"] } else { ["{new}", ""] };
        let expected: Vec<_> = expected.into_iter().filter(|json| !json.is_empty()).map(bundle).collect();
        assert_eq!([first, later.unwrap()].concat(), expected);
    }
}

#[tokio::test]
async fn a_tag_without_evidence_is_nothing_found_each_time() {
    let [signatures, other] =
        [signature_layer(b"a", 1), layer("text/plain", b"x", 0)].map(|it| manifest(&[it]));
    for (listed, kind) in [(&signatures, SIGNATURES), (&other, media_type::OCI_EMPTY)] {
        let content = Content::default().by_digest(listed.clone()).tag_index(&[entry(listed, kind)]);
        let bare = || Reply::new(404, "404 page not found");
        let path = format!("referrers/{}", subject());
        let server = content.with(format!("{path}{QUERY}"), bare).with(path, bare).serve().await;
        let client = client();
        for _ in 0..2 {
            let (wanted, budget) = (wanted(ReferrerForms::Bundles, &[]), Budget::verdict());
            let found = fetch(&client, &server, &wanted, &budget).await;
            assert_eq!(pieces(found), Lookup::Absent, "{kind}");
        }
    }
}

#[tokio::test]
async fn the_next_page_is_the_one_that_is_called_so() {
    let next = "</v2/p1?a=1,2>; rel=\"prev\", </v2/p3>; rel=\"next\", </v2/p9>; rel=last";
    for (link, expected) in [
        (next, Some("/v2/p3")),
        ("</v2/p2>;rel=next", Some("/v2/p2")),
        ("</v2/p1>; rel=\"prev\"", None),
        ("/v2/p2; rel=\"next\"", None),
        ("</v2/p2", None),
        ("", None),
    ] {
        let server = Server::start(move |_| Reply::new(200, "").header("link", link)).await;
        let ask = Ask::manifest("x", 1);
        let (step, repository) = (Step::new("a test"), server.repository("app"));
        let client = client();
        let route = client.route(&step, &repository).await.unwrap();
        let at = route.pulling().next().unwrap();
        let answer = client.ask_at(&step, at, &repository, &Credentials::Anonymous, &ask).await.unwrap();
        assert_eq!(referrers::next_link(&answer).as_deref(), expected, "{link}");
    }
}
