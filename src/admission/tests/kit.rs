//! A gate, its registry and its clock, in one process.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::registry::Registry as Metrics;
use serde_json::{Value, json};

use super::super::audit::Audit;
use super::super::words::Refusal;
use super::super::{
    Admitted, Background, Gate, ImageFacts, PullRequest, Record, ServePresent, Settings, Shown, Snapshot,
};
use crate::cache::{Admission, Age, Clock, Durability, Options, Stamp, Store, VerdictKey};
use crate::oci::{Digest, Reference, RequestedImage, media_type};
use crate::policy::evaluate::{Approved, Mode, Source, Unmatched};
use crate::policy::{Compatibility, LoadOptions, OnlineRekor, PodFacts, PolicySet, PolicySource, RootSource};
use crate::registry::tests::server::{Body, Reply, Seen, Server};
use crate::registry::{self, Credentials, RegistryOptions, Timeouts};
use crate::sigstore::TrustRoot;

pub(super) const REPOSITORY: &str = "app";
/// Of the gate.
pub(super) const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// `cache.fresh` of these tests, in seconds.
pub(super) const DAY: u64 = 86_400;
/// `cache.stale` of these tests, in seconds.
pub(super) const WEEK: u64 = 7 * DAY;
/// Longer than a busy machine makes any test wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    /// Seconds since 1970. A test and all its tasks run on one thread.
    static NOW: Cell<u64> = const { Cell::new(1_800_000_000) };
}

/// Lets seconds pass.
pub(super) fn advance(seconds: u64) {
    NOW.set(NOW.get() + seconds);
}

fn now() -> Stamp {
    Stamp::new(NOW.get(), 1, NOW.get())
}

/// An ECDSA key.
pub(super) struct Key(EcdsaKeyPair);

impl Key {
    pub(super) fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn pem(&self) -> String {
        let der: PublicKeyX509Der<'static> = self.0.public_key().as_der().unwrap();
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

/// What is trusted beside the keys of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Trust {
    #[default]
    PublicGood,
    Nothing,
}

/// What a test may want to have otherwise.
#[derive(Default)]
pub(super) struct Setup {
    /// The database of another node instead of one of its own.
    pub(super) store: Option<PathBuf>,
    pub(super) trust: Trust,
    /// How long a silent registry is waited for, if not [`PATIENCE`].
    pub(super) idle: Option<Duration>,
    /// If not `anonymous`.
    pub(super) serve_present: Option<ServePresent>,
}

type Answer = Box<dyn Fn(&Seen) -> Option<Reply> + Send>;

struct Content {
    index: Vec<u8>,
    child: Vec<u8>,
    /// The manifest at the `.sig` tag and its payloads.
    signatures: Option<Vec<u8>>,
    blobs: Vec<Vec<u8>>,
    first: Answer,
}

/// A gate before a registry with one image: an index, at tag `v1` of `app`, with one child.
pub(super) struct Node {
    pub(super) gate: Gate,
    /// The key that [`Self::keyed`] asks for.
    pub(super) key: Key,
    /// The digest of the index.
    pub(super) image: Digest,
    child: Digest,
    server: Mutex<Option<Server>>,
    host: String,
    content: Arc<Mutex<Content>>,
    registry: Arc<registry::Client>,
    folder: Arc<tempfile::TempDir>,
    trust: Trust,
    serve_present: ServePresent,
}

impl Node {
    pub(super) async fn start(setup: Setup) -> Self {
        let config = json!({"mediaType": "c", "digest": Digest::of(b"{}"), "size": 2});
        let child = json!({"schemaVersion": 2, "config": config, "layers": []}).to_string().into_bytes();
        let entry =
            json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(&child), "size": child.len()});
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry]});
        let index = index.to_string().into_bytes();
        let (image, child_digest) = (Digest::of(&index), Digest::of(&child));
        let content =
            Content { index, child, signatures: None, blobs: Vec::new(), first: Box::new(|_| None) };
        let content = Arc::new(Mutex::new(content));
        let answers = Arc::clone(&content);
        let server = Server::start(move |seen| answers.lock().unwrap().answer(seen)).await;
        let host = server.address.to_string();
        let idle = setup.idle.unwrap_or(PATIENCE);
        let timeouts = Timeouts { connect: PATIENCE, idle, request: PATIENCE, look_up: PATIENCE };
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config_path = Some(folder.path().join("certs.d"));
        let options = RegistryOptions { timeouts, config_path, ..RegistryOptions::default() };
        let registry = Arc::new(registry::Client::new(&options).unwrap());
        let path = setup.store.clone().unwrap_or_else(|| folder.path().join("cache"));
        let store = Store::start(store_options(path));
        if setup.store.is_none() {
            assert!(store.opened(PATIENCE).await);
        }
        let serve_present = setup.serve_present.unwrap_or(ServePresent::Anonymous);
        let (gate, key) = (gate(&registry, store, setup.trust, serve_present), Key::generate());
        let server = Mutex::new(Some(server));
        Self {
            gate,
            key,
            image,
            child: child_digest,
            server,
            host,
            content,
            registry,
            folder,
            trust: setup.trust,
            serve_present,
        }
    }

    /// The same node with a new process.
    pub(super) async fn restart(self) -> Self {
        self.gate.store().close();
        let store = Store::start(store_options(self.store_path()));
        assert!(store.opened(PATIENCE).await);
        let gate = gate(&self.registry, store, self.trust, self.serve_present);
        Self { gate, ..self }
    }

    pub(super) fn store_path(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(super) fn host(&self) -> String {
        self.host.clone()
    }

    pub(super) fn tagged(&self) -> Reference {
        Reference::parse(&format!("{}/{REPOSITORY}:v1", self.host)).unwrap()
    }

    pub(super) fn pinned(&self) -> Reference {
        Reference::parse(&format!("{}/{REPOSITORY}@{}", self.host, self.image)).unwrap()
    }

    pub(super) fn child(&self) -> Reference {
        Reference::parse(&format!("{}/{REPOSITORY}@{}", self.host, self.child)).unwrap()
    }

    /// A policy that asks one key.
    pub(super) fn keyed(&self) -> String {
        self.policy(&[(&self.key, json!({}))], json!({}))
    }

    /// A policy `keyed` with the rule `signed` for this repository, as text.
    pub(super) fn policy(&self, keys: &[(&Key, Value)], spec: Value) -> String {
        let entries: Vec<Value> = keys.iter().map(|(key, fields)| entry(key, fields)).collect();
        let pattern = format!("{}/{REPOSITORY}*", self.host);
        let mut document = json!({
            "apiVersion": "kyverno.io/v1",
            "kind": "ClusterPolicy",
            "metadata": {"name": "keyed"},
            "spec": {
                "validationFailureAction": "Enforce",
                "rules": [{
                    "name": "signed",
                    "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
                    "verifyImages": [{"imageReferences": [pattern], "attestors": [{"entries": entries}]}],
                }],
            },
        });
        merge(&mut document["spec"], &spec);
        document.to_string()
    }

    /// The attestors of a `verifyImages` element: this key, with more fields.
    pub(super) fn attestors(&self, key: &Key, fields: Value) -> Value {
        json!([{ "entries": [entry(key, &fields)] }])
    }

    pub(super) fn enforce(&self, policy: &str) {
        self.snapshot(policy, Mode::Enforce);
    }

    pub(super) fn snapshot(&self, policy: &str, mode: Mode) {
        self.gate.swap(Arc::new(snapshot(policy, mode, self.trust)));
    }

    /// This policy, with the index on the list of approved images.
    pub(super) fn approve(&self, policy: &str) {
        let approved = Approved::parse(self.pinned().text()).unwrap();
        let snapshot = snapshot(policy, Mode::Enforce, self.trust);
        let fingerprint = Digest::of(b"another list");
        self.gate.swap(Arc::new(Snapshot { approved, fingerprint, ..snapshot }));
    }

    /// The same snapshot anew: what was denied a moment ago is asked again.
    pub(super) fn forget_denials(&self) {
        self.gate.swap(self.gate.snapshot());
    }

    /// Stores these signatures for the index, and no others.
    pub(super) fn sign(&self, signatures: &[(&Key, Value)]) {
        let (manifest, blobs) = self.signatures(signatures);
        let mut content = self.content.lock().unwrap();
        content.blobs = blobs;
        content.signatures = (!signatures.is_empty()).then_some(manifest);
    }

    /// Answers of another repository of the registry, which has one signature of the index.
    pub(super) fn signed_in(
        &self,
        repository: &str,
        key: &Key,
    ) -> impl Fn(&Seen) -> Option<Reply> + Send + use<> {
        let (manifest, blobs) = self.signatures(&[(key, json!({}))]);
        let (start, tag) = (format!("/v2/{repository}/"), self.image.cosign_tag(".sig"));
        move |seen| {
            let (_, path) = seen.line.split_once(&start)?;
            if path == format!("manifests/{tag}") {
                return Some(Reply::manifest(media_type::OCI_MANIFEST, manifest.clone()));
            }
            let blob = blobs.iter().find(|blob| path == format!("blobs/{}", Digest::of(blob)))?;
            Some(Reply::new(200, blob.clone()))
        }
    }

    /// A manifest of these signatures of the index, and their payloads.
    fn signatures(&self, signatures: &[(&Key, Value)]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut layers, mut blobs) = (Vec::new(), Vec::new());
        for (key, annotations) in signatures {
            let payload = json!({
                "critical": {
                    "identity": {"docker-reference": self.host},
                    "image": {"docker-manifest-digest": self.image},
                    "type": "cosign container image signature",
                },
                "optional": annotations,
            });
            let payload = payload.to_string().into_bytes();
            let signature = key.0.sign(&SystemRandom::new(), &payload).unwrap();
            layers.push(json!({
                "mediaType": media_type::SIMPLE_SIGNING,
                "digest": Digest::of(&payload),
                "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": STANDARD.encode(signature.as_ref())},
            }));
            blobs.push(payload);
        }
        let config = json!({"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2});
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        (manifest.to_string().into_bytes(), blobs)
    }

    /// Asked before the registry's own answer is given.
    pub(super) fn answers(&self, first: impl Fn(&Seen) -> Option<Reply> + Send + 'static) {
        self.content.lock().unwrap().first = Box::new(first);
    }

    /// From now on the mirror is asked before the registry.
    pub(super) fn mirror(&self, mirror: &Server) {
        let folder = self.folder.path().join("certs.d").join(&self.host);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("hosts.toml"), format!("[host.'http://{}']\n", mirror.address)).unwrap();
    }

    /// The registry is gone: connections are refused.
    pub(super) fn stop(&self) {
        drop(self.server.lock().unwrap().take());
    }

    /// How often the registry was asked anything.
    pub(super) fn asked(&self) -> usize {
        self.server.lock().unwrap().as_ref().unwrap().lines().len()
    }

    /// How often the manifest of the index was fetched by its digest.
    pub(super) fn asked_for_index(&self) -> usize {
        let line = format!("GET /v2/{REPOSITORY}/manifests/{}", self.image);
        let server = self.server.lock().unwrap();
        server.as_ref().unwrap().lines().iter().filter(|seen| **seen == line).count()
    }

    pub(super) async fn pull(&self, reference: Reference) -> Result<Admitted, Refusal> {
        self.pull_as(reference, Credentials::Anonymous).await
    }

    pub(super) async fn pull_as(
        &self,
        reference: Reference,
        credentials: Credentials,
    ) -> Result<Admitted, Refusal> {
        self.pull_in(None, reference, credentials).await
    }

    /// The same for a pod of that namespace.
    pub(super) async fn pull_in(
        &self,
        namespace: Option<&str>,
        reference: Reference,
        credentials: Credentials,
    ) -> Result<Admitted, Refusal> {
        let pod = PodFacts { namespace: namespace.map(str::to_owned), ..PodFacts::default() };
        self.gate.admit(PullRequest { reference, pod, credentials }).await
    }

    /// The background's look at the image by its tag.
    pub(super) async fn look(&self) -> Background {
        let name = self.tagged().containerd_tag_name().unwrap();
        self.gate.decide_present(&name, self.image, None).await
    }

    /// ImageStatus of `asked`, as the kubelet writes it.
    pub(super) fn image_status(&self, asked: &str, record: Record, facts: &ImageFacts) -> Shown {
        self.gate.image_status(asked, RequestedImage::parse(asked).ok().as_ref(), record, facts)
    }

    pub(super) fn status_by_tag(&self, id: &str) -> Shown {
        self.image_status(self.tagged().text(), Record::Target(self.image), &self.facts(id))
    }

    pub(super) fn status_by_digest(&self, id: &str) -> Shown {
        self.image_status(self.pinned().text(), Record::Absent, &self.facts(id))
    }

    pub(super) fn status_by_id(&self, id: &str) -> Shown {
        self.image_status(id, Record::Absent, &self.facts(id))
    }

    /// What CRI says of the image after a pull by tag.
    fn facts(&self, id: &str) -> ImageFacts {
        let names = [self.tagged(), self.pinned()].map(|name| name.text().to_owned()).to_vec();
        ImageFacts { id: id.to_owned(), names }
    }

    /// The admission of the index.
    pub(super) fn admission(&self) -> Option<Admission> {
        self.gate.store().admission(self.tagged().repository(), &self.image)
    }

    /// As if a pull had been let pass for this reason under the policy in force.
    pub(super) fn admit(&self, source: Source) {
        let admission = Admission {
            repository: self.tagged().repository().clone(),
            digest: self.image,
            source: source.word().to_owned(),
            snapshot: self.gate.snapshot().fingerprint,
            image_id: None,
            at: self.gate.store().now(),
            pulled_by: Vec::new(),
            parent: None,
            undecided_since: None,
        };
        self.gate.store().admit(admission, Durability::Durable);
    }

    /// How old the verdicts of the policy in force on the index are.
    pub(super) fn verdict_ages(&self) -> Vec<Age> {
        let keys = self.verdict_keys(RELEASE, &self.pinned());
        keys.iter().filter_map(|key| self.gate.store().verdict(key)).collect()
    }

    /// As if the policy in force had just allowed the index under this name.
    pub(super) fn keep_verdict(&self, reference: &Reference) {
        self.keep_verdict_of(RELEASE, reference);
    }

    /// As if another release had, on the same disk.
    pub(super) fn keep_verdict_of(&self, release: &str, reference: &Reference) {
        for key in self.verdict_keys(release, reference) {
            self.gate.store().put_verdict(key, now(), None);
        }
    }

    fn verdict_keys(&self, release: &str, reference: &Reference) -> Vec<VerdictKey> {
        let (reference, pod) = (reference.clone(), PodFacts::default());
        let request = PullRequest { reference, pod, credentials: Credentials::Anonymous };
        let snapshot = self.gate.snapshot();
        let applications = snapshot.policies.matching(&request.reference, &request.pod, SystemTime::now());
        let entries = applications.iter().flat_map(|application| &application.entries);
        let key = |entry| super::super::verdict_key_of(release, entry, &request, self.image);
        entries.map(|covered| key(&covered.entry)).collect()
    }
}

impl Content {
    fn answer(&self, seen: &Seen) -> Reply {
        if let Some(reply) = (self.first)(seen) {
            return reply;
        }
        let path = seen.line.split_once(&format!("/v2/{REPOSITORY}/")).map_or("", |(_, path)| path);
        let index = Digest::of(&self.index);
        if path == "manifests/v1" || path == format!("manifests/{index}") {
            let reply = Reply::manifest(media_type::OCI_INDEX, self.index.clone());
            return reply.header("docker-content-digest", index.to_string());
        }
        if path == format!("manifests/{}", Digest::of(&self.child)) {
            return Reply::manifest(media_type::OCI_MANIFEST, self.child.clone());
        }
        if path == format!("manifests/{}", index.cosign_tag(".sig"))
            && let Some(signatures) = &self.signatures
        {
            return Reply::manifest(media_type::OCI_MANIFEST, signatures.clone());
        }
        let blob = self.blobs.iter().find(|blob| path == format!("blobs/{}", Digest::of(blob)));
        blob.map_or_else(|| status(404), |blob| Reply::new(200, blob.clone()))
    }
}

fn entry(key: &Key, fields: &Value) -> Value {
    let mut entry = json!({"keys": {"publicKeys": key.pem(), "rekor": {"ignoreTlog": true}}});
    merge(&mut entry, fields);
    entry
}

/// An answer with this status and no words.
pub(super) fn status(code: u16) -> Reply {
    Reply::new(code, "")
}

/// Not one byte of an answer.
pub(super) fn hangs_up() -> Reply {
    status(200).body(Body::Silence)
}

/// `127.0.0.1:port` where nobody listens.
pub(super) fn away() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub(super) fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
        audience: registry::Audience::Mirrors,
    }
}

fn store_options(path: PathBuf) -> Options {
    Options {
        path,
        max_entries: 100,
        max_size: 1024 * 1024,
        fresh: Duration::from_secs(DAY),
        stale: Duration::from_secs(WEEK),
        patience: PATIENCE,
        clock: Clock { now },
    }
}

fn gate(registry: &Arc<registry::Client>, store: Store, trust: Trust, serve_present: ServePresent) -> Gate {
    let settings =
        Settings { verification: PATIENCE, concurrency: 4, serve_present, shown: None, salt: vec![7; 32] };
    let audit = Arc::new(Audit::new(&mut Metrics::default()));
    let none = Arc::new(snapshot("", Mode::Enforce, trust));
    Gate::new(none, Arc::clone(registry), store, audit, settings)
}

fn snapshot(policy: &str, mode: Mode, trust: Trust) -> Snapshot {
    let trust_root = match trust {
        Trust::PublicGood => TrustRoot::public_good(),
        Trust::Nothing => TrustRoot::from_json(
            br#"{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#,
        ),
    };
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Ready(Arc::new(trust_root.unwrap())),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::now(),
    };
    let sources = [PolicySource { file: "p.yaml".into(), text: policy.to_owned() }];
    let sources: &[PolicySource] = if policy.is_empty() { &[] } else { &sources };
    Snapshot {
        policies: PolicySet::load(sources, &options).unwrap().set,
        mode,
        unmatched: Unmatched::Allow,
        exempt_namespaces: Vec::new(),
        approved: Approved::default(),
        loaded_at: SystemTime::now(),
        fingerprint: Digest::of(format!("{mode:?} {policy}").as_bytes()),
    }
}

fn merge(base: &mut Value, more: &Value) {
    if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
        base.extend(more.clone());
    }
}
