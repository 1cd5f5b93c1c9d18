//! Judging: each field about trust, when it is wrong, denies, and only then.
//!
//! One signer with a certificate of one authority, one log, one certificate log and one timestamp
//! authority; each test changes one field of a policy that names all of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::oci::Repository;
use crate::outcome::{Contact, DenialReason, Fault, FaultReason, Lookup};
use crate::sigstore::test_pki::{self, CODE_SIGNING, Draft, TIME_STAMPING, TokenDraft, at};
use crate::sigstore::test_signer::{self, Log, Signer, TIME, pem};
use crate::sigstore::{SignatureEvidence, TrustRoot};

const CLAIM: &str = "dev.cosignproject.cosign/signature";
const SUBJECT: &str = "build@example.test";
const ISSUER: &str = "https://issuer.test";
const SBOM: &str = "https://spdx.dev/Document";
const OTHER: &str = "https://slsa.dev/provenance/v1";

/// Everything that a policy can trust.
struct World {
    root: Signer,
    authority: Signer,
    log: Log,
    certificate_log: Signer,
    signer: Signer,
    timestamps: Signer,
    leaf: String,
}

fn image() -> Digest {
    Digest::of(b"image")
}

fn day() -> SystemTime {
    at(TIME + 86_400)
}

fn text(signer: &Signer, draft: &Draft, issuer: &str, by: &Signer) -> String {
    pem("CERTIFICATE", &draft.der(signer, issuer, by))
}

impl World {
    fn new() -> Self {
        let world = Self {
            root: Signer::p256(),
            authority: Signer::p256(),
            log: Log::new(),
            certificate_log: Signer::p256(),
            signer: Signer::p256(),
            timestamps: Signer::p256(),
            leaf: String::new(),
        };
        Self { leaf: world.leaf_of(SUBJECT), ..world }
    }

    fn root(&self) -> String {
        text(&self.root, &Draft::authority("root").valid(0, TIME * 2), "root", &self.root)
    }

    fn intermediate(&self) -> String {
        text(&self.authority, &Draft::authority("issuing").valid(0, TIME * 2), "root", &self.root)
    }

    /// The signer's certificate, with an SCT, valid for an hour around [`TIME`].
    fn leaf(&self) -> String {
        self.leaf.clone()
    }

    fn leaf_of(&self, subject: &str) -> String {
        let draft = Draft::new("leaf")
            .with(test_pki::key_usage(0b1000_0000))
            .with(test_pki::usages(false, &[CODE_SIGNING]))
            .with(test_pki::names(true, &[test_pki::email(subject)]))
            .with(test_pki::fulcio(1, ISSUER))
            .with(test_pki::fulcio(5, "org/app"));
        let body = draft.body(&self.signer, "issuing", &test_pki::algorithm(&self.authority));
        let sct = test_pki::sct(&self.certificate_log, TIME * 1000, &self.authority.spki, &body);
        text(&self.signer, &draft.with(test_pki::sct_list(&[sct])), "issuing", &self.authority)
    }

    fn timestamp_chain(&self) -> String {
        let draft = Draft::new("tsa").with(test_pki::usages(true, &[TIME_STAMPING])).valid(0, TIME * 2);
        text(&self.timestamps, &draft, "root", &self.root) + &self.root()
    }

    /// A `keyless` that names all of it.
    fn keyless(&self) -> Value {
        json!({
            "subject": SUBJECT, "issuer": ISSUER, "roots": self.root(),
            "rekor": { "url": "https://log.test", "pubkey": self.log.0.pem() },
            "ctlog": { "pubkey": self.certificate_log.pem() },
        })
    }

    /// A `.sig` layer with the certificate, its chain and a log entry.
    fn signature(&self) -> SignatureEvidence {
        self.signature_with(&self.leaf(), "null")
    }

    fn signature_with(&self, leaf: &str, optional: &str) -> SignatureEvidence {
        let payload = test_signer::claim(&image(), optional);
        let SignatureEvidence::CosignLayer { payload, mut annotations } = self.signer.layer(&payload) else {
            panic!("a layer")
        };
        let signature = STANDARD.decode(&annotations[CLAIM]).unwrap();
        let body = test_signer::hashedrekord(&payload, &signature, leaf);
        annotations.insert("dev.sigstore.cosign/certificate".into(), leaf.into());
        annotations.insert("dev.sigstore.cosign/chain".into(), self.intermediate() + &self.root());
        annotations.insert("dev.sigstore.cosign/bundle".into(), self.log.annotation(&body, TIME).to_string());
        SignatureEvidence::CosignLayer { payload, annotations }
    }

    /// The same with a timestamp.
    fn stamped(&self) -> SignatureEvidence {
        let mut signature = self.signature();
        let annotations = annotations_of(&mut signature);
        let over = STANDARD.decode(&annotations[CLAIM]).unwrap();
        let token = TokenDraft::new(&over, "root").signed(&self.timestamps);
        let token = json!({ "SignedRFC3161Timestamp": STANDARD.encode(token) }).to_string();
        annotations.insert("dev.sigstore.cosign/rfc3161timestamp".into(), token);
        signature
    }

    /// An `.att` layer with the certificate and its chain, without a log entry.
    fn attestation(&self, predicate_type: &str) -> SignatureEvidence {
        let mut layer = envelope(&self.signer, &image(), predicate_type);
        let annotations = annotations_of(&mut layer);
        annotations.insert("dev.sigstore.cosign/certificate".into(), self.leaf());
        annotations.insert("dev.sigstore.cosign/chain".into(), self.intermediate() + &self.root());
        layer
    }
}

fn annotations_of(evidence: &mut SignatureEvidence) -> &mut std::collections::BTreeMap<String, String> {
    match evidence {
        SignatureEvidence::CosignLayer { annotations, .. }
        | SignatureEvidence::AttestationLayer { annotations, .. } => annotations,
        SignatureEvidence::Bundle { .. } => panic!("a bundle has no annotations"),
    }
}

/// A statement of this type.
fn statement(image: &Digest, predicate_type: &str) -> String {
    test_signer::statement(image, "{}").replace("https://sigstore.dev/cosign/sign/v1", predicate_type)
}

/// An `.att` layer by a key.
fn envelope(signer: &Signer, image: &Digest, predicate_type: &str) -> SignatureEvidence {
    const TYPE: &str = "application/vnd.in-toto+json";
    let statement = statement(image, predicate_type);
    let signed = format!("DSSEv1 28 {TYPE} {} {statement}", statement.len());
    let envelope = json!({
        "payloadType": TYPE,
        "payload": STANDARD.encode(&statement),
        "signatures": [{ "keyid": "", "sig": STANDARD.encode(signer.sign(signed.as_bytes())) }],
    });
    SignatureEvidence::AttestationLayer {
        envelope: envelope.to_string().into_bytes(),
        annotations: [("predicateType".to_owned(), predicate_type.to_owned())].into(),
    }
}

fn bundle(signer: &Signer, predicate_type: &str) -> SignatureEvidence {
    SignatureEvidence::Bundle {
        json: signer.bundle(&statement(&image(), predicate_type)).to_string().into_bytes(),
    }
}

/// `keys` without a log.
fn key(signer: &Signer) -> Value {
    json!({ "keys": { "publicKeys": signer.pem(), "rekor": { "ignoreTlog": true } } })
}

fn options() -> LoadOptions {
    LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Ready(Arc::new(TrustRoot::public_good().unwrap())),
        online_rekor: OnlineRekor::Never,
        now: at(TIME),
    }
}

/// A policy of one entry with these fields.
fn source_with(fields: &Value) -> PolicySource {
    let mut entry = json!({ "imageReferences": ["*"] });
    entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let policy = json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": { "name": "p" },
        "spec": { "rules": [{
            "name": "r", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] }, "verifyImages": [entry],
        }] },
    });
    PolicySource { file: PathBuf::from("p.yaml"), text: policy.to_string() }
}

/// The entry with these fields.
fn entry_with(fields: Value, options: &LoadOptions) -> Arc<Entry> {
    let source = source_with(&fields);
    let loaded = PolicySet::load(&[source], options).unwrap();
    Arc::clone(&loaded.set.policies[0].rules[0].entries[0])
}

fn entry(fields: Value) -> Arc<Entry> {
    entry_with(fields, &options())
}

/// An entry with this one attestor.
fn one(attestor: Value) -> Arc<Entry> {
    entry(json!({ "attestors": [{ "entries": [attestor] }] }))
}

/// Signatures and attestations by tag, and bundles; what is empty is absent.
fn evidence(
    legacy: Vec<SignatureEvidence>,
    attestations: Vec<SignatureEvidence>,
    bundles: Vec<SignatureEvidence>,
) -> Evidence {
    let lookup = |found: Vec<_>| if found.is_empty() { Lookup::Absent } else { Lookup::Found(found) };
    let repository = reference().repository().clone();
    Evidence {
        legacy: [(repository.clone(), lookup(legacy))].into(),
        attestations: [(repository.clone(), lookup(attestations))].into(),
        bundles: [(repository, lookup(bundles))].into(),
    }
}

fn signed(signature: SignatureEvidence) -> Evidence {
    evidence(vec![signature], vec![], vec![])
}

fn attested(attestation: SignatureEvidence) -> Evidence {
    evidence(vec![], vec![attestation], vec![])
}

fn reference() -> Reference {
    Reference::parse("registry.test/app:1").unwrap()
}

fn judged(entry: &Entry, evidence: &Evidence, now: SystemTime) -> EntryVerdict {
    explained(entry, evidence, now).0
}

fn explained(entry: &Entry, evidence: &Evidence, now: SystemTime) -> (EntryVerdict, Explanation) {
    let pull = Pull { reference: &reference(), digest: &image(), pod: &PodFacts::default() };
    judge(entry, pull, evidence, now)
}

/// The reason of a denial.
fn reason(verdict: &EntryVerdict) -> Option<DenialReason> {
    match verdict {
        EntryVerdict::Denied(denial) => Some(denial.reason),
        EntryVerdict::Satisfied(_) => None,
        EntryVerdict::Undecided(_) | EntryVerdict::NeedsBundles => panic!("{verdict:?}"),
    }
}

fn denial(verdict: EntryVerdict) -> crate::outcome::Denial {
    match verdict {
        EntryVerdict::Denied(denial) => denial,
        EntryVerdict::Satisfied(_) | EntryVerdict::Undecided(_) | EntryVerdict::NeedsBundles => {
            panic!("{verdict:?}")
        }
    }
}

/// `value` with the member at `pointer` set, or taken out where it is null.
fn with(mut value: Value, pointer: &str, member: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if member.is_null() {
        parent.remove(name);
    } else {
        parent.insert(name.to_owned(), member);
    }
    value
}

// Pitfall 13: each field, when it is wrong, denies.

#[test]
fn pitfall_13_each_field_of_keyless_denies_when_it_is_wrong() {
    let (world, other) = (World::new(), World::new());
    let right = [
        ("", json!({})),
        ("/subject", json!("*@example.test")),
        ("/subject", json!("")),
        ("/subjectRegExp", json!("^build@")),
        ("/issuer", json!("https://*")),
        ("/issuerRegExp", json!("^https://issuer[.]test$")),
        ("/additionalExtensions", json!({ "githubWorkflowRepository": "org/*" })),
        ("/additionalExtensions", json!({ "1.3.6.1.4.1.57264.1.5": "org/app" })),
        ("/roots", json!(other.root() + &world.root())),
        ("/roots", json!(STANDARD.encode(world.root()))),
        ("/rekor/pubkey", json!(other.log.0.pem() + &world.log.0.pem())),
        ("/ctlog", json!({ "pubKey": world.certificate_log.pem() })),
        ("/ctlog", json!({ "ignoreSCT": true })),
    ];
    let wrong = [
        ("/subject", json!("deploy@example.test"), DenialReason::IdentityMismatch),
        ("/issuer", json!("https://other.test"), DenialReason::IdentityMismatch),
        ("/issuerRegExp", json!("^https://other[.]test$"), DenialReason::IdentityMismatch),
        (
            "/additionalExtensions",
            json!({ "githubWorkflowRepository": "org/other" }),
            DenialReason::IdentityMismatch,
        ),
        ("/additionalExtensions", json!({ "githubWorkflowSha": "0" }), DenialReason::IdentityMismatch),
        ("/roots", json!(other.root()), DenialReason::Certificate),
        ("/roots", Value::Null, DenialReason::Certificate),
        ("/rekor/pubkey", json!(other.log.0.pem()), DenialReason::TransparencyLog),
        ("/rekor/pubkey", Value::Null, DenialReason::TransparencyLog),
        ("/ctlog/pubkey", json!(other.certificate_log.pem()), DenialReason::Certificate),
        ("/ctlog", Value::Null, DenialReason::Certificate),
        // Without a log nothing proves a time, and by now the certificate has ended.
        ("/rekor/ignoreTlog", json!(true), DenialReason::Certificate),
    ];
    let evidence = signed(world.signature());
    for (pointer, value) in right {
        let keyless =
            if pointer.is_empty() { world.keyless() } else { with(world.keyless(), pointer, value) };
        let verdict = judged(&one(json!({ "keyless": keyless })), &evidence, day());
        assert!(matches!(verdict, EntryVerdict::Satisfied(_)), "{pointer}: {verdict:?}");
    }
    for (pointer, value, expected) in wrong {
        let keyless = with(world.keyless(), pointer, value.clone());
        let verdict = judged(&one(json!({ "keyless": keyless })), &evidence, day());
        assert_eq!(reason(&verdict), Some(expected), "{pointer} {value}");
    }
    let regexp = |text: &str| {
        let keyless = with(with(world.keyless(), "/subject", Value::Null), "/subjectRegExp", json!(text));
        reason(&judged(&one(json!({ "keyless": keyless })), &evidence, day()))
    };
    assert_eq!(regexp("^build@example[.]test$"), None);
    assert_eq!(regexp("^deploy@example[.]test$"), Some(DenialReason::IdentityMismatch));
}

#[test]
fn pitfall_13_each_field_around_an_attestor_denies_when_it_is_wrong() {
    let world = World::new();
    let evidence = signed(world.signature_with(&world.leaf(), r#"{"stage":"released"}"#));
    let attestor = |more: Value| with(json!({ "keyless": world.keyless() }), "/annotations", more);
    let annotations = |value: &str| judged(&one(attestor(json!({ "stage": value }))), &evidence, day());
    assert_eq!(reason(&annotations("released")), None);
    assert_eq!(reason(&annotations("built")), Some(DenialReason::AnnotationMismatch));
    // A default of the entry counts where the attestor has none.
    let default = |value: &str, own: Value| {
        let set = json!([{ "entries": [attestor(own)] }]);
        let entry = entry(json!({ "annotations": { "stage": value }, "attestors": set }));
        reason(&judged(&entry, &evidence, day()))
    };
    assert_eq!(default("built", Value::Null), Some(DenialReason::AnnotationMismatch));
    assert_eq!(default("built", json!({ "stage": "released" })), None);
    // Signatures elsewhere are not those of the image's own repository, and the other way round.
    for fields in [
        json!({ "repository": "other.test/sigs", "attestors": [{ "entries": [attestor(Value::Null)] }] }),
        json!({ "attestors": [{ "entries": [with(attestor(Value::Null), "/repository", json!("other.test/sigs"))] }] }),
    ] {
        let entry = entry(fields);
        let elsewhere = Repository::parse("other.test/sigs").unwrap();
        assert_eq!(entry.repositories(reference().repository()), std::slice::from_ref(&elsewhere));
        assert_eq!(judged(&entry, &evidence, day()), EntryVerdict::NeedsBundles);
        let mut moved = Evidence::default();
        moved.legacy.insert(elsewhere.clone(), evidence.legacy[reference().repository()].clone());
        moved.bundles.insert(elsewhere, Lookup::Absent);
        assert_eq!(reason(&judged(&entry, &moved, day())), None);
    }
}

#[test]
fn pitfall_13_each_field_of_keys_denies_when_it_is_wrong() {
    let (signer, other, log) = (Signer::rsa_sha512(), Signer::rsa(), Log::new());
    let mut signature = signer.layer(&test_signer::claim(&image(), "null"));
    let SignatureEvidence::CosignLayer { payload, annotations } = &mut signature else { panic!("a layer") };
    let bytes = STANDARD.decode(&annotations[CLAIM]).unwrap();
    let body = test_signer::hashedrekord_with("sha512", payload, &bytes, &signer.pem());
    annotations.insert("dev.sigstore.cosign/bundle".into(), log.annotation(&body, TIME).to_string());
    let evidence = signed(signature);
    let keys = |change: &dyn Fn(&mut Value)| {
        let mut keys = json!({
            "publicKeys": signer.pem(), "signatureAlgorithm": "sha512", "rekor": { "pubkey": log.0.pem() },
        });
        change(&mut keys);
        reason(&judged(&one(json!({ "keys": keys })), &evidence, day()))
    };
    assert_eq!(keys(&|_| {}), None);
    assert_eq!(keys(&|keys| keys["publicKeys"] = json!(other.pem())), Some(DenialReason::SignatureInvalid));
    assert_eq!(
        keys(&|keys| keys["signatureAlgorithm"] = json!("sha384")),
        Some(DenialReason::SignatureInvalid)
    );
    assert_eq!(
        keys(&|keys| keys["rekor"]["pubkey"] = json!(Log::new().0.pem())),
        Some(DenialReason::TransparencyLog)
    );
    assert_eq!(keys(&|keys| keys["rekor"] = Value::Null), Some(DenialReason::TransparencyLog));
    assert_eq!(keys(&|keys| keys["rekor"] = json!({ "ignoreTlog": true })), None);
    // The attestor's own algorithm counts where the keys name none.
    let outer = |algorithm: &str| {
        let attestor = json!({
            "signatureAlgorithm": algorithm,
            "keys": { "publicKeys": signer.pem(), "rekor": { "ignoreTlog": true } },
        });
        reason(&judged(&one(attestor), &evidence, day()))
    };
    assert_eq!(outer("sha512"), None);
    assert_eq!(outer("sha256"), Some(DenialReason::SignatureInvalid));
}

#[test]
fn pitfall_13_each_field_of_certificates_denies_when_it_is_wrong() {
    let (world, other) = (World::new(), World::new());
    let chain = world.intermediate() + &world.root();
    let rekor = json!({ "pubkey": world.log.0.pem() });
    let ctlog = json!({ "pubkey": world.certificate_log.pem() });
    let all = json!({ "cert": world.leaf(), "certChain": chain, "rekor": rekor, "ctlog": ctlog });
    let chain_only = json!({ "certChain": world.root(), "rekor": rekor, "ctlog": ctlog });
    let cert_only = json!({ "cert": world.leaf(), "rekor": { "ignoreTlog": true } });
    let (log, certificate) = (Some(DenialReason::TransparencyLog), Some(DenialReason::Certificate));
    let evidence = signed(world.signature());
    for (base, pointer, value, expected) in [
        (&all, "/cert", json!(world.leaf()), None),
        (&all, "/cert", json!(STANDARD.encode(world.leaf())), None),
        (&all, "/cert", json!(other.leaf()), certificate),
        (&all, "/certChain", json!(other.intermediate() + &other.root()), certificate),
        (&all, "/certChain", json!(world.root()), certificate),
        (&all, "/certChain", json!(STANDARD.encode(&chain)), None),
        (&all, "/rekor/pubkey", json!(other.log.0.pem()), log),
        (&all, "/rekor", Value::Null, log),
        (&all, "/ctlog/pubkey", json!(other.certificate_log.pem()), certificate),
        (&all, "/ctlog", Value::Null, certificate),
        (&all, "/ctlog", json!({ "ignoreSCT": true }), None),
        (&chain_only, "/certChain", json!(world.root()), None),
        (&chain_only, "/certChain", json!(other.root()), certificate),
        (&chain_only, "/rekor/pubkey", json!(other.log.0.pem()), log),
        (&chain_only, "/ctlog/pubkey", json!(other.certificate_log.pem()), certificate),
        // Its key alone counts: no end, no SCT.
        (&cert_only, "/cert", json!(world.leaf()), None),
        (&cert_only, "/cert", json!(other.leaf()), Some(DenialReason::SignatureInvalid)),
    ] {
        let certificates = with(base.clone(), pointer, value);
        let verdict = judged(&one(json!({ "certificates": certificates })), &evidence, day());
        assert_eq!(reason(&verdict), expected, "{pointer} of {base}");
    }
}

#[test]
fn pitfall_13_a_timestamp_counts_by_the_policys_own_authority_alone() {
    let (world, other) = (World::new(), World::new());
    let ctlog = |chain: Value| json!({ "pubkey": world.certificate_log.pem(), "tsaCertChain": chain });
    let keyless = |chain: Value| {
        let keyless =
            with(world.keyless(), "/rekor", json!({ "url": "https://log.test", "ignoreTlog": true }));
        let keyless = with(keyless, "/ctlog", ctlog(chain));
        reason(&judged(&one(json!({ "keyless": keyless })), &signed(world.stamped()), day()))
    };
    assert_eq!(keyless(json!(world.timestamp_chain())), None);
    assert_eq!(keyless(json!(other.timestamp_chain())), Some(DenialReason::Certificate));
    // No authority, no time: the certificate has ended.
    assert_eq!(keyless(Value::Null), Some(DenialReason::Certificate));
}

#[test]
fn pitfall_13_count_and_nested_sets() {
    let (first, second, third) = (Signer::p256(), Signer::p256(), Signer::p256());
    let layer = |signer: &Signer| signer.layer(&test_signer::claim(&image(), "null"));
    let evidence = evidence(vec![layer(&first), layer(&second)], vec![], vec![]);
    let verdict = |set: Value| reason(&judged(&entry(json!({ "attestors": [set] })), &evidence, day()));
    let invalid = Some(DenialReason::SignatureInvalid);
    let both = |count: Value| json!({ "count": count, "entries": [key(&first), key(&third)] });
    assert_eq!(verdict(both(json!(1))), None);
    assert_eq!(verdict(both(json!(2))), invalid);
    assert_eq!(verdict(both(Value::Null)), invalid);
    assert_eq!(verdict(both(json!(0))), invalid);
    let nested = |count: u32| json!({ "entries": [key(&first), { "attestor": { "count": count, "entries": [key(&second), key(&third)] } }] });
    assert_eq!(verdict(nested(1)), None);
    assert_eq!(verdict(nested(2)), invalid);
    // Two sets: both must hold.
    let sets = json!({ "attestors": [{ "entries": [key(&first)] }, { "entries": [key(&third)] }] });
    assert_eq!(reason(&judged(&entry(sets), &evidence, day())), invalid);
}

#[test]
fn pitfall_13_the_deprecated_fields_deny_when_they_are_wrong() {
    let (world, other) = (World::new(), World::new());
    let signer = Signer::p256();
    let by_key = signed(signer.layer(&test_signer::claim(&image(), "null")));
    // `key` asks for the public log, as a `keys` without `rekor`.
    let denied = denial(judged(&entry(json!({ "key": signer.pem() })), &by_key, day()));
    assert_eq!(denied.reason, DenialReason::TransparencyLog);
    let denied = denial(judged(&entry(json!({ "key": other.signer.pem() })), &by_key, day()));
    assert_eq!(denied.reason, DenialReason::SignatureInvalid);
    // `issuer` is `keyless` with the public certificate and transparency logs.
    let issuer = |issuer: &str, subject: &str, roots: &World| {
        let entry = entry(json!({ "issuer": issuer, "subject": subject, "roots": roots.root(),
            "additionalExtensions": { "githubWorkflowRepository": "org/app" } }));
        let signers = &entry.sets[0].attestors;
        let entry::Attestor::Signer(signer) = &signers[0] else { panic!("a signer") };
        signer.attestor.as_ref().unwrap().describe()
    };
    let first = issuer(ISSUER, SUBJECT, &world);
    for (what, changed) in [
        ("issuer", issuer("x", SUBJECT, &world)),
        ("subject", issuer(ISSUER, "x", &world)),
        ("roots", issuer(ISSUER, SUBJECT, &other)),
    ] {
        assert_ne!(first, changed, "{what}");
    }
}

// Pitfall 26.

#[test]
fn pitfall_26_an_identity_and_an_annotation_of_two_signatures_do_not_add_up() {
    let world = World::new();
    let attestor = json!({ "annotations": { "stage": "released" }, "keyless": world.keyless() });
    let ours = world.signature_with(&world.leaf(), "null");
    let theirs = world.signature_with(&world.leaf_of("deploy@example.test"), r#"{"stage":"released"}"#);
    let verdict = judged(&one(attestor.clone()), &evidence(vec![ours, theirs], vec![], vec![]), day());
    assert_eq!(reason(&verdict), Some(DenialReason::AnnotationMismatch));
    let both = world.signature_with(&world.leaf(), r#"{"stage":"released"}"#);
    assert_eq!(reason(&judged(&one(attestor), &signed(both), day())), None);
}

#[path = "judge_attestation_tests.rs"]
mod attestations;
#[path = "judge_strict_tests.rs"]
mod strict;

#[path = "judge_condition_tests.rs"]
mod conditions;
