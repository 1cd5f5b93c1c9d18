//! What is fetched for a verdict, in which order, and what a fault on the way makes of it. The
//! registry and the log are ours: what counts here are hostile and failing answers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::admission::audit::{Audit, Phases};
use crate::admission::{Gate, PullRequest, ServePresent, Settings, Snapshot};
use crate::cache::{Clock, Options, Store};
use crate::oci::{Digest, Reference, media_type};
use crate::outcome::{Contact, DenialReason, FaultReason};
use crate::policy::evaluate::{Approved, Decision, Mode, Source, Unmatched};
use crate::policy::{Compatibility, LoadOptions, OnlineRekor, PodFacts, PolicySet, PolicySource, RootSource};
use crate::registry::tests::rekor::{FakeRekor, Holder, body, logged, unlogged_layer};
use crate::registry::tests::server::{Body, Reply, Seen, Server};
use crate::registry::{Client, Credentials, RegistryOptions, RequestCounts, SIGNATURE_PREDICATE};
use crate::sigstore::{SignatureEvidence, TrustRoot};

#[path = "verification_kinds_tests.rs"]
mod kinds;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SBOM: &str = "https://spdx.dev/Document";

/// The image: a manifest under the tag `1`.
fn image() -> Vec<u8> {
    manifest(&[])
}

fn manifest(layers: &[Value]) -> Vec<u8> {
    let config = json!({"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2});
    json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes()
}

fn described(kind: &str, bytes: &[u8], annotations: &Value) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len(), "annotations": annotations})
}

/// What a repository holds, by its path below `/v2/app/`.
#[derive(Clone, Default)]
struct Content(Vec<(String, &'static str, Vec<u8>)>);

impl Content {
    fn image() -> Self {
        let mut content = Self::default();
        content.manifest("1", image());
        content
    }

    fn manifest(&mut self, tag: &str, bytes: Vec<u8>) {
        self.add(&format!("manifests/{}", Digest::of(&bytes)), media_type::OCI_MANIFEST, &bytes);
        self.add(&format!("manifests/{tag}"), media_type::OCI_MANIFEST, &bytes);
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.add(&format!("blobs/{}", Digest::of(bytes)), "application/octet-stream", bytes);
    }

    fn add(&mut self, path: &str, kind: &'static str, bytes: &[u8]) {
        self.0.push((path.to_owned(), kind, bytes.to_vec()));
    }

    /// The `.sig` tag with one layer.
    fn signature(mut self, layer: &SignatureEvidence) -> Self {
        let SignatureEvidence::CosignLayer { payload, annotations } = layer else { panic!("a signature") };
        self.blob(payload);
        let layer = described(media_type::SIMPLE_SIGNING, payload, &json!(annotations));
        self.manifest(&Digest::of(&image()).cosign_tag(".sig"), manifest(&[layer]));
        self
    }

    /// The `.att` tag with one layer, of this predicate type.
    fn attestation(mut self, layer: &SignatureEvidence, predicate: &str) -> Self {
        let SignatureEvidence::AttestationLayer { envelope, annotations } = layer else {
            panic!("an attestation")
        };
        let mut annotations = json!(annotations);
        annotations["predicateType"] = predicate.into();
        self.blob(envelope);
        let layer = described("application/vnd.dsse.envelope.v1+json", envelope, &annotations);
        self.manifest(&Digest::of(&image()).cosign_tag(".att"), manifest(&[layer]));
        self
    }

    /// The fallback tag with these bundles, each under the annotation of a predicate type.
    fn bundles(mut self, bundles: &[(&[u8], &str)]) -> Self {
        let mut entries = Vec::new();
        for (bundle, predicate) in bundles {
            let referrer = manifest(&[described(BUNDLE, bundle, &json!({}))]);
            let annotations = json!({"dev.sigstore.bundle.predicateType": predicate});
            let mut entry = described(media_type::OCI_MANIFEST, &referrer, &annotations);
            entry["artifactType"] = BUNDLE.into();
            entries.push(entry);
            self.blob(bundle);
            self.manifest("unused", referrer);
        }
        self.referrers(&entries);
        self
    }

    /// The fallback tag.
    fn referrers(&mut self, entries: &[Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
        let tag = Digest::of(&image()).cosign_tag("");
        self.add(&format!("manifests/{tag}"), media_type::OCI_INDEX, index.to_string().as_bytes());
    }

    /// Other bytes than its digest names.
    fn broken(mut self, blob: &[u8]) -> Self {
        let path = format!("blobs/{}", Digest::of(blob));
        for (_, _, bytes) in self.0.iter_mut().filter(|(known, _, _)| *known == path) {
            bytes.reverse();
        }
        self
    }

    async fn serve(self) -> Server {
        self.serve_after(|_| {}).await
    }

    /// Answers once `before` has seen the request.
    async fn serve_after(self, before: impl Fn(&Seen) + Send + Sync + 'static) -> Server {
        self.serve_unless(move |seen| {
            before(seen);
            None
        })
        .await
    }

    /// Answers what `instead` does not.
    async fn serve_unless(self, instead: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Server {
        Server::start(move |seen: &Seen| {
            if let Some(reply) = instead(seen) {
                return reply;
            }
            let (_, name) = seen.line.split_once("/v2/").unwrap();
            let (repository, tail) = name.split_once('/').unwrap();
            // The image is in every repository, what is signed in one.
            let there = repository == "app" || tail == "manifests/1";
            match self.0.iter().find(|(path, _, _)| there && path == tail) {
                Some((_, kind, bytes)) => Reply::manifest(kind, bytes.clone())
                    .header("docker-content-digest", Digest::of(bytes).to_string()),
                None => Reply::error(404, "MANIFEST_UNKNOWN", "unknown"),
            }
        })
        .await
    }
}

/// A bundle as cosign 3 writes it with a key and without a log.
fn bundle(holder: &Holder) -> Vec<u8> {
    const TYPE: &str = "application/vnd.in-toto+json";
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": Digest::of(&image()).hex()}}],
        "predicateType": SIGNATURE_PREDICATE, "predicate": {},
    })
    .to_string();
    let signed = format!("DSSEv1 {} {TYPE} {} {statement}", TYPE.len(), statement.len());
    let hint = STANDARD.encode(Digest::of(&holder.spki()).as_bytes());
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": STANDARD.encode(&statement), "payloadType": TYPE,
            "signatures": [{"sig": holder.sign(signed.as_bytes())}],
        },
    })
    .to_string()
    .into_bytes()
}

fn key(holder: &Holder, rekor: &Value) -> Value {
    json!({"publicKeys": holder.pem(), "rekor": rekor})
}

fn unlogged() -> Value {
    json!({"ignoreTlog": true})
}

/// A gate with one policy, on a cache in `folder`.
struct Rig {
    gate: Gate,
    client: Arc<Client>,
}

impl Rig {
    /// With a cache whose records are old at once.
    fn new(folder: &Path, keys: &Value, online_rekor: OnlineRekor) -> Self {
        Self::fresh_for(Duration::ZERO, folder, keys, online_rekor)
    }

    fn fresh_for(fresh: Duration, folder: &Path, keys: &Value, online_rekor: OnlineRekor) -> Self {
        Self::of_entry(fresh, folder, attestors(&[json!({ "keys": keys })]), online_rekor)
    }

    fn of_entry(fresh: Duration, folder: &Path, entry: Value, online_rekor: OnlineRekor) -> Self {
        Self::of(fresh, folder, snapshot(entry, online_rekor))
    }

    fn of(fresh: Duration, folder: &Path, snapshot: Snapshot) -> Self {
        let settings = Settings {
            verification: Duration::from_secs(60),
            concurrency: 4,
            serve_present: ServePresent::Never,
            shown: None,
            salt: Vec::new(),
        };
        let store = Store::open(Options {
            path: folder.join("cache"),
            max_entries: 100,
            max_size: 1 << 20,
            fresh,
            stale: Duration::from_secs(3600),
            patience: Duration::from_secs(10),
            clock: Clock::system(),
        })
        .unwrap();
        let client = Arc::new(Client::new(&RegistryOptions::default()).unwrap());
        let audit = Arc::new(Audit::new(&mut Registry::default()));
        Self { gate: Gate::new(Arc::new(snapshot), Arc::clone(&client), store, audit, settings), client }
    }

    async fn judge(&self, server: &Server) -> Decision {
        self.judge_in(server, "app").await
    }

    async fn judge_in(&self, server: &Server, repository: &str) -> Decision {
        self.judge_as(&format!("{}/{repository}:1", server.address)).await
    }

    async fn judge_as(&self, image: &str) -> Decision {
        let request = PullRequest {
            reference: Reference::parse(image).unwrap(),
            pod: PodFacts::default(),
            credentials: Credentials::Anonymous,
        };
        self.gate.judge(&self.gate.snapshot(), &request, &mut Phases::start()).await.decision
    }
}

/// The fields of one `verifyImages` element.
fn attestors(attestors: &[Value]) -> Value {
    json!({ "attestors": [{ "count": 1, "entries": attestors }] })
}

/// One policy with one `verifyImages` element of these fields.
fn snapshot(entry: Value, online_rekor: OnlineRekor) -> Snapshot {
    snapshot_under(TrustRoot::public_good().unwrap(), entry, online_rekor)
}

/// The same on a node with this trust root.
fn snapshot_under(root: TrustRoot, mut entry: Value, online_rekor: OnlineRekor) -> Snapshot {
    entry["imageReferences"] = json!(["*"]);
    let rule = json!({
        "name": "signed", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]}, "verifyImages": [entry],
    });
    let policy = json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "keyed"},
        "spec": {"validationFailureAction": "Enforce", "rules": [rule]},
    });
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Ready(Arc::new(root)),
        online_rekor,
        now: SystemTime::now(),
    };
    let source = PolicySource { file: "p.yaml".into(), text: policy.to_string() };
    let policies = PolicySet::load(&[source], &options).unwrap().set;
    let fingerprint = policies.fingerprint();
    Snapshot {
        policies,
        mode: Mode::Enforce,
        unmatched: Unmatched::Deny,
        exempt_namespaces: Vec::new(),
        approved: Approved::default(),
        loaded_at: SystemTime::now(),
        fingerprint,
    }
}

fn source(decision: &Decision) -> Source {
    match decision {
        Decision::Allow(permit) => permit.source(),
        Decision::Deny(_) | Decision::Undecided(_) => panic!("{decision:?}"),
    }
}

fn reason(decision: &Decision) -> DenialReason {
    match decision {
        Decision::Deny(denials) => denials[0].reason,
        Decision::Allow(_) | Decision::Undecided(_) => panic!("{decision:?}"),
    }
}

fn fault(decision: &Decision) -> FaultReason {
    match decision {
        Decision::Undecided(fault) => fault.reason,
        Decision::Allow(_) | Decision::Deny(_) => panic!("{decision:?}"),
    }
}

#[tokio::test]
async fn what_hints_call_something_else_is_read_before_a_denial() {
    let (ours, theirs) = (Holder::new(), Holder::new());
    let (good, bad) = (bundle(&ours), bundle(&theirs));
    let annotated = |good: &'static str, bad: &'static str| [(good, bad)];
    // Where the annotations are right, the other type is not even opened.
    for [(ours_says, theirs_says)] in
        [annotated(SIGNATURE_PREDICATE, SBOM), annotated(SBOM, SIGNATURE_PREDICATE)]
    {
        let folder = tempfile::tempdir().unwrap();
        let content = Content::image().bundles(&[(&good, ours_says), (&bad, theirs_says)]);
        let server = content.serve().await;
        let rig = Rig::new(folder.path(), &key(&ours, &unlogged()), OnlineRekor::Never);
        assert_eq!(source(&rig.judge(&server).await), Source::Verified);
        let lies = u64::from(ours_says == SBOM);
        // HEAD; the `.sig` tag, the API, the fallback tag; then the referrers and their blobs.
        let expected = RequestCounts {
            resolve: 1,
            manifest: 3 + lies,
            referrers: 1,
            blob: 1 + lies,
            ..RequestCounts::default()
        };
        assert_eq!(rig.client.requests(), expected, "{ours_says}");
    }
}

/// What was asked, without what names hosts and digests.
fn asked(server: &Server) -> Vec<String> {
    let digest = Digest::of(&image());
    let short = |line: String| {
        let tail = line.split_once("/v2/app/").unwrap().1.split('?').next().unwrap();
        tail.replace(&digest.cosign_tag(""), "tag").replace(&digest.to_string(), "image")
    };
    server.lines().into_iter().map(short).collect()
}

#[tokio::test]
async fn a_digest_costs_one_request_less_than_a_tag() {
    let holder = Holder::new();
    let digest = Digest::of(&image());
    let layer = unlogged_layer(&holder, &digest);
    let SignatureEvidence::CosignLayer { payload, .. } = &layer else { panic!("a signature") };
    let payload = format!("blobs/{}", Digest::of(payload));
    let signature = Content::image().signature(&layer).serve().await;
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), &key(&holder, &unlogged()), OnlineRekor::Never);
    assert_eq!(source(&rig.judge(&signature).await), Source::Verified);
    assert_eq!(asked(&signature), ["manifests/1", "manifests/tag.sig", &payload]);
    let pinned = format!("{}/app@{digest}", signature.address);
    assert_eq!(source(&rig.judge_as(&pinned).await), Source::Verified);
    assert_eq!(asked(&signature)[3..], ["manifests/tag.sig", &payload]);
}

/// The manifest is asked for beside a slow look-up, to know whether the registry is away. One that answers the
/// look-up is not, and nothing waits for the manifest then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_look_up_that_succeeds_does_not_wait_for_what_is_asked_beside_it() {
    let holder = Holder::new();
    let digest = Digest::of(&image());
    let (probed, probes) = std::sync::mpsc::channel();
    let (probed, probes) = (Mutex::new(probed), Mutex::new(probes));
    let content = Content::image().signature(&unlogged_layer(&holder, &digest));
    let server = content
        .serve_unless(move |seen| {
            if seen.line.ends_with(&format!("/manifests/{digest}")) {
                let _ = probed.lock().unwrap().send(());
                return Some(Reply::new(200, "").body(Body::Silence));
            }
            if seen.line.ends_with(".sig") {
                // Others work on while this one waits.
                let asked = || probes.lock().unwrap().recv_timeout(Duration::from_secs(10));
                tokio::task::block_in_place(asked).expect("the manifest is asked for");
            }
            None
        })
        .await;
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), &key(&holder, &unlogged()), OnlineRekor::Never);
    let pinned = format!("{}/app@{digest}", server.address);
    // The manifest alone would take as long as a registry may be silent, ten seconds.
    let judged = tokio::time::timeout(Duration::from_secs(8), rig.judge_as(&pinned)).await;
    assert_eq!(source(&judged.expect("no waiting for the manifest")), Source::Verified);
}

/// The `.sig` tag is answered once the list of referrers was asked for, or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_of_referrers_are_asked_for_along_with_tags_where_they_will_be_needed() {
    let holder = Holder::new();
    let held = Arc::new(AtomicBool::new(false));
    let (listed, lists) = std::sync::mpsc::channel();
    let (listed, lists) = (Mutex::new(listed), Mutex::new(lists));
    let content = Content::image().bundles(&[(&bundle(&holder), SIGNATURE_PREDICATE)]);
    let server = content
        .serve_after({
            let held = Arc::clone(&held);
            move |seen| match seen.line.as_str() {
                line if !held.load(Ordering::SeqCst) || line.starts_with("HEAD") => {}
                line if line.ends_with(".sig") => {
                    lists
                        .lock()
                        .unwrap()
                        .recv_timeout(Duration::from_secs(10))
                        .expect("the list of referrers");
                }
                _ => drop(listed.lock().unwrap().send(())),
            }
        })
        .await;
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), &key(&holder, &unlogged()), OnlineRekor::Never);
    assert_eq!(source(&rig.judge(&server).await), Source::Verified);
    // From here on it is known that this repository has bundles.
    held.store(true, Ordering::SeqCst);
    let before = asked(&server).len();
    assert_eq!(source(&rig.judge(&server).await), Source::Verified);
    let again = asked(&server).split_off(before);
    assert_eq!(again.iter().filter(|path| path.ends_with("tag.sig")).count(), 1, "{again:?}");
    // What counts bundles alone asks for no tag.
    let bundles = json!({ "type": "SigstoreBundle", "attestors": [{ "entries": [{ "keys": key(&holder, &unlogged()) }] }] });
    let rig = Rig::of_entry(Duration::ZERO, &folder.path().join("2"), bundles, OnlineRekor::Never);
    held.store(false, Ordering::SeqCst);
    let before = asked(&server).len();
    assert_eq!(source(&rig.judge(&server).await), Source::Verified);
    // HEAD, the API, the fallback tag of a registry without it, the referrer, its blob: four steps with the API.
    assert_eq!(asked(&server).split_off(before).len(), 5);
}

#[tokio::test]
async fn a_fault_in_what_was_left_for_later_is_undecided_and_never_a_denial() {
    let (ours, theirs) = (Holder::new(), Holder::new());
    let (good, bad) = (bundle(&ours), bundle(&theirs));
    let content = || Content::image().bundles(&[(&good, SBOM), (&bad, SIGNATURE_PREDICATE)]);
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(folder.path(), &key(&ours, &unlogged()), OnlineRekor::Never);
    assert_eq!(fault(&rig.judge(&content().broken(&good).serve().await).await), FaultReason::RegistryError);
    let rig = Rig::new(folder.path().join("2").as_path(), &key(&theirs, &unlogged()), OnlineRekor::Never);
    // What satisfies is satisfied, whatever else is broken.
    assert_eq!(source(&rig.judge(&content().broken(&good).serve().await).await), Source::Verified);
}

#[tokio::test]
async fn a_signature_without_its_log_entry_is_looked_up_once_and_kept() {
    let holder = Holder::new();
    let layer = unlogged_layer(&holder, &Digest::of(&image()));
    let log = FakeRekor::new(vec![body(&layer, &holder)]);
    let log_key = log.holder.pem();
    let (registry, log) = (Content::image().signature(&layer).serve().await, log.serve().await);
    let keys = key(&holder, &json!({"url": format!("http://{}", log.address), "pubkey": log_key}));
    let folder = tempfile::tempdir().unwrap();
    {
        let rig = Rig::new(folder.path(), &keys, OnlineRekor::Allowed);
        assert_eq!(source(&rig.judge(&registry).await), Source::Verified);
        assert_eq!(rig.client.requests().log, 1);
        assert!(rig.gate.store().flush().await);
        rig.gate.store().close();
    }
    // Over a restart the stored evidence has the entry; the log may be away.
    drop(log);
    let rig = Rig::new(folder.path(), &keys, OnlineRekor::Allowed);
    assert_eq!(source(&rig.judge(&registry).await), Source::Verified);
    assert_eq!(rig.client.requests().log, 0);
}

#[tokio::test]
async fn a_log_that_is_away_is_undecided_and_one_without_the_entry_a_denial() {
    let holder = Holder::new();
    let layer = unlogged_layer(&holder, &Digest::of(&image()));
    let log_key = Holder::new().pem();
    let registry = Content::image().signature(&layer).serve().await;
    let rekor = |server: &Server| json!({"url": format!("http://{}", server.address), "pubkey": log_key});
    let ill = Server::start(|_| Reply::new(503, "")).await;
    let empty = FakeRekor::new(Vec::new()).serve().await;
    let foreign = FakeRekor::new(vec![body(&layer, &holder)]).serve().await;
    let folder = tempfile::tempdir().unwrap();
    let rig = |name: &str, log: &Server, online| {
        Rig::new(&folder.path().join(name), &key(&holder, &rekor(log)), online)
    };
    assert_eq!(
        fault(&rig("ill", &ill, OnlineRekor::Allowed).judge(&registry).await),
        FaultReason::LogUnavailable
    );
    let empty = rig("empty", &empty, OnlineRekor::Allowed).judge(&registry).await;
    assert_eq!(reason(&empty), DenialReason::TransparencyLog);
    // An entry by another log than the policy's proves nothing.
    let foreign = rig("foreign", &foreign, OnlineRekor::Allowed).judge(&registry).await;
    assert_eq!(reason(&foreign), DenialReason::TransparencyLog);
    // Where the node does not allow it, nobody is asked.
    let never = rig("never", &ill, OnlineRekor::Never);
    assert_eq!(reason(&never.judge(&registry).await), DenialReason::TransparencyLog);
    assert_eq!(never.client.requests().log, 0);
}

/// A digest is not resolved: before it is denied for want of signatures, and only then, the registry is asked
/// for its manifest. What is stored still counts.
#[tokio::test]
async fn e1_an_image_that_is_not_there_by_its_digest_is_not_called_unsigned() {
    let (holder, folder) = (Holder::new(), tempfile::tempdir().unwrap());
    let rig = Rig::new(folder.path(), &key(&holder, &unlogged()), OnlineRekor::Never);
    let judge = async |content: Content| {
        let server = content.serve().await;
        let pinned = format!("{}/app@{}", server.address, Digest::of(&image()));
        (rig.judge_as(&pinned).await, server.lines().len(), pinned)
    };
    let (unsigned, unsigned_requests, _) = judge(Content::image()).await;
    assert_eq!(reason(&unsigned), DenialReason::SignatureNotFound);

    let (absent, requests, pinned) = judge(Content::default()).await;
    let Decision::Undecided(fault) = absent else { panic!("{absent:?}") };
    assert_eq!((fault.reason, fault.contact), (FaultReason::ImageNotFound, Contact::Answered));
    assert_eq!(fault.message, format!("{pinned}: registry answered 404 \"MANIFEST_UNKNOWN: unknown\""));
    // The tag of signatures, the list of referrers and the tag in its place; the manifest.
    assert_eq!((requests, unsigned_requests), (4, 4));

    // Signatures are judged, whatever became of the image that they are for.
    let signed_by =
        |holder: &Holder| Content::default().signature(&unlogged_layer(holder, &Digest::of(&image())));
    let (ours, requests, _) = judge(signed_by(&holder)).await;
    assert_eq!((source(&ours), requests), (Source::Verified, 2));
    let (theirs, _, _) = judge(signed_by(&Holder::new())).await;
    assert_eq!(reason(&theirs), DenialReason::SignatureInvalid);
}

/// The same digest each time; everything else that a verdict depends on changes once.
#[tokio::test]
async fn c1_no_verdict_serves_another_policy_trust_or_repository() {
    let (holder, other) = (Holder::new(), Holder::new());
    let bare = unlogged_layer(&holder, &Digest::of(&image()));
    let log = FakeRekor::new(vec![body(&bare, &holder)]);
    let (log_key, other_log) = (log.holder.pem(), Holder::new().pem());
    let layer = logged(&bare, &log);
    let here = Content::image().signature(&layer).serve().await;
    let folder = tempfile::tempdir().unwrap();
    let judge = async |keys: Value, repository: &str| {
        let hour = Duration::from_secs(3600);
        let rig = Rig::fresh_for(hour, folder.path(), &keys, OnlineRekor::Never);
        let decision = rig.judge_in(&here, repository).await;
        assert!(rig.gate.store().flush().await);
        rig.gate.store().close();
        decision
    };
    let trusting = |key: &Holder, log: &str| self::key(key, &json!({ "pubkey": log }));
    assert_eq!(source(&judge(trusting(&holder, &log_key), "app").await), Source::Verified);
    assert_eq!(source(&judge(trusting(&holder, &log_key), "app").await), Source::Fresh);
    assert_eq!(reason(&judge(trusting(&other, &log_key), "app").await), DenialReason::SignatureInvalid);
    assert_eq!(reason(&judge(trusting(&holder, &other_log), "app").await), DenialReason::TransparencyLog);
    let elsewhere = judge(trusting(&holder, &log_key), "elsewhere").await;
    assert_eq!(reason(&elsewhere), DenialReason::SignatureNotFound);
    assert_eq!(source(&judge(trusting(&holder, &log_key), "app").await), Source::Fresh);
}

/// So many signatures of 1 MiB each by somebody else, and ours behind them.
fn behind(others: usize, ours: &SignatureEvidence) -> Content {
    let SignatureEvidence::CosignLayer { payload, annotations } = ours else { panic!("a signature") };
    let mut content = Content::image();
    let mut layers = Vec::new();
    for n in 0..others {
        let mut large = vec![b'x'; 1 << 20];
        large[..8].copy_from_slice(format!("{n:8}").as_bytes());
        let theirs = json!({ "dev.cosignproject.cosign/signature": "AA==" });
        layers.push(described(media_type::SIMPLE_SIGNING, &large, &theirs));
        content.blob(&large);
    }
    layers.push(described(media_type::SIMPLE_SIGNING, payload, &json!(annotations)));
    content.blob(payload);
    content.manifest(&Digest::of(&image()).cosign_tag(".sig"), manifest(&layers));
    content
}

#[tokio::test]
async fn one_verdict_reads_32_mib_and_no_more() {
    let holder = Holder::new();
    let layer = unlogged_layer(&holder, &Digest::of(&image()));
    let folder = tempfile::tempdir().unwrap();
    for (others, allowed) in [(31, true), (32, false)] {
        let server = behind(others, &layer).serve().await;
        let place = folder.path().join(others.to_string());
        let rig = Rig::new(&place, &key(&holder, &unlogged()), OnlineRekor::Never);
        let decision = rig.judge(&server).await;
        if allowed {
            assert_eq!(source(&decision), Source::Verified);
        } else {
            // What was read before the bound counts, and is by somebody else.
            assert_eq!(reason(&decision), DenialReason::SignatureInvalid);
        }
    }
}
