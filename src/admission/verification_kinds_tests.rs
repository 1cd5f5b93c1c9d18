//! Evidence of every kind is decided again from the disk: under a changed policy, and under a changed
//! trust root of the node (rules C1, C6, S5).

use std::slice;

use super::*;
use crate::sigstore::test_pki::{CODE_SIGNING, Draft, email, fulcio, key_usage, names, usages};
use crate::sigstore::test_signer::{Signer, TIME, attestation, claim, pem, statement};
use crate::sigstore::test_sigstore::{ISSUER, Instance, SUBJECT, Signature};

const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const TLOGS: &str = "tlogs";
const AUTHORITIES: &str = "certificateAuthorities";
const CTLOGS: &str = "ctlogs";
const STAMPS: &str = "timestampAuthorities";
const HOUR: Duration = Duration::from_secs(3600);

/// An image with one piece of evidence, and the attestors of three policies: two that take it, which is
/// another question each time, and one that does not.
struct Kind {
    name: &'static str,
    content: Content,
    /// The parts of the node's trust root without which it does not verify.
    rests_on: &'static [&'static str],
    good: [Value; 2],
    bad: Value,
    /// A log that is asked for the entry.
    asked: Option<Server>,
}

impl Kind {
    fn of(name: &'static str, content: Content, good: [Value; 2], bad: Value) -> Self {
        Self { name, content, rests_on: &[], good, bad, asked: None }
    }

    /// Taken from this attestor, alone or as the second of two.
    fn by(name: &'static str, content: Content, ours: &Value, theirs: &Value) -> Self {
        let good = [attestors(slice::from_ref(ours)), attestors(&[theirs.clone(), ours.clone()])];
        Self::of(name, content, good, attestors(slice::from_ref(theirs)))
    }

    fn resting_on(self, rests_on: &'static [&'static str]) -> Self {
        Self { rests_on, ..self }
    }

    const fn online(&self) -> OnlineRekor {
        if self.asked.is_some() { OnlineRekor::Allowed } else { OnlineRekor::Never }
    }
}

async fn kinds(instance: &Instance) -> Vec<Kind> {
    let digest = Digest::of(&image());
    let mut all = Vec::from(by_key(&digest));
    all.extend([attested(&digest), certified(&digest), looked_up(&digest).await]);
    all.extend(logged_by_key(instance, &digest));
    all.extend(keyless(instance, &digest));
    all
}

/// By a key, without a log.
fn by_key(digest: &Digest) -> [Kind; 3] {
    let (holder, other) = (Holder::new(), Holder::new());
    let [ours, theirs] = [&holder, &other].map(|holder| json!({ "keys": key(holder, &unlogged()) }));
    let layer = unlogged_layer(&holder, digest);
    let bundles = Content::image().bundles(&[(&bundle(&holder), SIGNATURE_PREDICATE)]);
    [
        Kind::by("signature", Content::image().signature(&layer), &ours, &theirs),
        Kind::by("bundle", bundles, &ours, &theirs),
        Kind::by("OCI 1.1 artifact", Content::image().artifact(&layer), &ours, &theirs),
    ]
}

impl Content {
    /// A signature as an artifact of OCI 1.1, on the fallback tag.
    fn artifact(mut self, layer: &SignatureEvidence) -> Self {
        let SignatureEvidence::CosignLayer { payload, annotations } = layer else { panic!("a signature") };
        let referrer = manifest(&[described(media_type::SIMPLE_SIGNING, payload, &json!(annotations))]);
        let mut entry = described(media_type::OCI_MANIFEST, &referrer, &json!({}));
        entry["artifactType"] = ARTIFACT.into();
        self.blob(payload);
        self.manifest("unused", referrer);
        self.referrers(&[entry]);
        self
    }
}

/// Elements that ask for an attestation by this attestor: without conditions, with one that holds, and with
/// one that does not.
fn asking(attestor: &Value) -> ([Value; 2], Value) {
    let asking = |conditions: Value| {
        json!({ "attestations": [{
            "type": SBOM, "attestors": [{ "entries": [attestor] }], "conditions": conditions,
        }] })
    };
    let passed = |value: bool| {
        asking(json!([{ "all": [{ "key": "{{ passed }}", "operator": "Equals", "value": value }] }]))
    };
    ([asking(json!([])), passed(true)], passed(false))
}

/// An attestation, and conditions that are read only from the second policy on.
fn attested(digest: &Digest) -> Kind {
    let signer = Signer::p256();
    let signature = Signature::statement(signer.clone(), None, Vec::new(), passed(digest));
    let content = Content::image().attestation(&signature.attestation_layer(), SBOM);
    let (good, bad) = asking(&json!({ "keys": { "publicKeys": signer.pem(), "rekor": unlogged() } }));
    Kind::of("attestation", content, good, bad)
}

fn passed(digest: &Digest) -> String {
    attestation(digest, SBOM, r#"{"passed":true}"#)
}

/// A signature by a certificate, which the second policy asks other authorities for as well: another trust.
fn certified(digest: &Digest) -> Kind {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let valid = |draft: Draft| draft.valid(now - 3600, now + 3600);
    let [authority, stranger, leaf] = [(); 3].map(|()| Signer::p256());
    let root = |signer: &Signer| pem("CERTIFICATE", &valid(Draft::authority("ca")).der(signer, "ca", signer));
    let draft = Draft::new("").with(key_usage(0b1000_0000)).with(usages(false, &[CODE_SIGNING]));
    let draft = valid(draft.with(names(true, &[email("a@b.test")])).with(fulcio(1, "https://issuer.test")));
    let certificate = pem("CERTIFICATE", &draft.der(&leaf, "ca", &authority));
    let mut layer = leaf.layer(&claim(digest, "null"));
    if let SignatureEvidence::CosignLayer { annotations, .. } = &mut layer {
        annotations.insert("dev.sigstore.cosign/certificate".to_owned(), certificate);
    }
    let keyless = |roots: String| {
        attestors(&[json!({ "keyless": {
            "subject": "a@b.test", "issuer": "https://issuer.test", "roots": roots,
            "rekor": { "url": "https://rekor.test", "ignoreTlog": true }, "ctlog": { "ignoreSCT": true },
        } })])
    };
    let (ours, theirs) = (root(&authority), root(&stranger));
    let content = Content::image().signature(&layer);
    let good = [keyless(ours.clone()), keyless(format!("{theirs}{ours}"))];
    Kind::of("certificate", content, good, keyless(theirs))
}

/// A signature without its log entry, which the log is asked for.
async fn looked_up(digest: &Digest) -> Kind {
    let (holder, other) = (Holder::new(), Holder::new());
    let layer = unlogged_layer(&holder, digest);
    let log = FakeRekor::new(vec![body(&layer, &holder)]);
    let pubkey = log.holder.pem();
    let server = log.serve().await;
    let rekor = json!({ "url": format!("http://{}", server.address), "pubkey": pubkey });
    let [ours, theirs] = [&holder, &other].map(|holder| json!({ "keys": key(holder, &rekor) }));
    let kind = Kind::by("entry that a log was asked for", Content::image().signature(&layer), &ours, &theirs);
    Kind { asked: Some(server), ..kind }
}

/// By a key, in the node's logs: with a promise, an inclusion proof, or a checkpoint of Rekor v2.
fn logged_by_key(instance: &Instance, digest: &Digest) -> [Kind; 3] {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let [ours, theirs] = [&signer, &other].map(|signer| json!({ "keys": { "publicKeys": signer.pem() } }));
    let mut promised = Signature::simple(signer.clone(), None, Vec::new(), claim(digest, "null"));
    promised.entries = vec![instance.log.annotation(&promised.hashedrekord(), TIME)];
    let cosign = || Signature::statement(signer.clone(), None, Vec::new(), statement(digest, "{}"));
    let mut proven = cosign();
    let mut entry = instance.log.entry("dsse", &proven.dsse(), TIME);
    entry.as_object_mut().unwrap().remove("inclusionPromise");
    proven.entries = vec![entry];
    let mut tiled = cosign();
    tiled.entries = vec![instance.tiles.entry(&tiled.hashedrekord_v2())];
    [
        ("promise of a log", Content::image().signature(&promised.layer())),
        ("inclusion proof", bundled(&proven, SIGNATURE_PREDICATE)),
        ("Rekor v2", bundled(&tiled, SIGNATURE_PREDICATE)),
    ]
    .map(|(name, content)| Kind::by(name, content, &ours, &theirs).resting_on(&[TLOGS]))
}

fn bundled(signature: &Signature, predicate: &str) -> Content {
    Content::image().bundles(&[(signature.bundle().to_string().as_bytes(), predicate)])
}

/// By certificates of the node's authority, dated by a log or by a timestamp.
fn keyless(instance: &Instance, digest: &Digest) -> [Kind; 6] {
    let signer = Signer::p256();
    let certificate = instance.certify(&signer, &Instance::draft());
    let sign = |payload: String| {
        let (signer, certificate) = (signer.clone(), Some(certificate.clone()));
        Signature::statement(signer, certificate, vec![instance.intermediate()], payload)
    };
    let simple = || {
        let (signer, certificate) = (signer.clone(), Some(certificate.clone()));
        Signature::simple(signer, certificate, vec![instance.intermediate()], claim(digest, "null"))
    };
    let stamped = |mut signature: Signature| {
        signature.stamps = vec![instance.stamp(&signature.signature, TIME)];
        signature
    };
    let logged = |mut signature: Signature| {
        signature.entries = vec![instance.log.entry("dsse", &signature.dsse(), TIME)];
        signature
    };
    let mut layer = simple();
    layer.entries = vec![instance.log.annotation(&layer.hashedrekord(), TIME)];
    let mut tiled = stamped(sign(statement(digest, "{}")));
    tiled.entries = vec![instance.tiles.entry(&tiled.hashedrekord_v2())];
    let mut attested = sign(passed(digest));
    attested.entries = vec![instance.log.annotation(&attested.dsse(), TIME)];

    let identity = |subject: &str, ignored: bool| {
        let rekor = json!({ "url": "https://rekor.test", "ignoreTlog": ignored });
        json!({ "keyless": { "subject": subject, "issuer": ISSUER, "rekor": rekor } })
    };
    let identities = |ignored| [SUBJECT, "mallory@signer.test"].map(|subject| identity(subject, ignored));
    let ([ours, theirs], [ours_unlogged, theirs_unlogged]) = (identities(false), identities(true));
    let by = |name, content, rests_on| Kind::by(name, content, &ours, &theirs).resting_on(rests_on);
    let by_log: &[&str] = &[TLOGS, AUTHORITIES, CTLOGS];
    let (good, bad) = asking(&ours);
    let attestation = |name, content| Kind::of(name, content, good.clone(), bad.clone()).resting_on(by_log);
    let stamp = Content::image().signature(&stamped(simple()).layer());
    [
        by("keyless signature", Content::image().signature(&layer.layer()), by_log),
        by("keyless bundle", bundled(&logged(sign(statement(digest, "{}"))), SIGNATURE_PREDICATE), by_log),
        by(
            "keyless bundle in Rekor v2",
            bundled(&tiled, SIGNATURE_PREDICATE),
            &[TLOGS, AUTHORITIES, CTLOGS, STAMPS],
        ),
        Kind::by("RFC 3161 timestamp", stamp, &ours_unlogged, &theirs_unlogged).resting_on(&[
            AUTHORITIES,
            CTLOGS,
            STAMPS,
        ]),
        attestation("keyless attestation", Content::image().attestation(&attested.attestation_layer(), SBOM)),
        attestation("keyless attestation bundle", bundled(&logged(sign(passed(digest))), SBOM)),
    ]
}

/// What is asked over the network, by image and log.
fn asked(server: &Server, log: Option<&Server>) -> usize {
    server.lines().len() + log.map_or(0, |log| log.lines().len())
}

#[tokio::test]
async fn c6_a_changed_policy_is_decided_from_disk_without_a_request() {
    let instance = Instance::new();
    for kind in kinds(&instance).await {
        let online = kind.online();
        let Kind { name, content, good: [first, second], bad, asked: log, .. } = kind;
        let server = content.serve().await;
        let pinned = format!("{}/app@{}", server.address, Digest::of(&image()));
        let folder = tempfile::tempdir().unwrap();
        let policy = |entry: &Value| snapshot_under(root(&instance.trusted_root()), entry.clone(), online);
        let before = Rig::of(HOUR, folder.path(), policy(&first));
        assert_eq!(source(&before.judge_as(&pinned).await), Source::Verified, "{name}");
        // A reload.
        before.gate.swap(Arc::new(policy(&second)));
        let requests = asked(&server, log.as_ref());
        assert!(requests > 0, "{name}");
        assert_eq!(source(&before.judge_as(&pinned).await), Source::Fresh, "{name}");
        assert_eq!(asked(&server, log.as_ref()), requests, "{name}: {:?}", server.lines());
        assert!(before.gate.store().flush().await);
        before.gate.store().close();
        drop(before);
        // A start with changed policies.
        let mut third = second;
        third["verifyDigest"] = false.into();
        let after = Rig::of(HOUR, folder.path(), policy(&third));
        assert_eq!(source(&after.judge_as(&pinned).await), Source::Fresh, "{name}");
        assert_eq!(asked(&server, log.as_ref()), requests, "{name}: {:?}", server.lines());
        // What is on disk does not refuse: there may be more by now.
        after.gate.swap(Arc::new(policy(&bad)));
        assert!(matches!(after.judge_as(&pinned).await, Decision::Deny(_)), "{name}");
        assert!(asked(&server, log.as_ref()) > requests, "{name}");
        after.gate.store().close();
    }
}

/// A `trusted_root.json`.
fn root(json: &Value) -> TrustRoot {
    TrustRoot::from_json(json.to_string().as_bytes()).unwrap()
}

/// The first with one part of the second beside its own.
fn with_both(mut one: Value, other: &Value, part: &str) -> Value {
    one[part].as_array_mut().unwrap().extend(other[part].as_array().unwrap().clone());
    one
}

#[tokio::test]
async fn c6_a_changed_trust_root_is_decided_from_disk_without_a_request() {
    let (instance, strangers) = (Instance::new(), Instance::new().trusted_root());
    let ours = instance.trusted_root();
    for kind in kinds(&instance).await {
        let (name, online) = (kind.name, kind.online());
        let Kind { content, rests_on, good: [entry, _], asked: log, .. } = kind;
        let server = content.serve().await;
        let pinned = format!("{}/app@{}", server.address, Digest::of(&image()));
        let folder = tempfile::tempdir().unwrap();
        let under = |json: &Value| snapshot_under(root(json), entry.clone(), online);
        let rig = Rig::of(HOUR, folder.path(), under(&ours));
        assert_eq!(source(&rig.judge_as(&pinned).await), Source::Verified, "{name}");
        for part in [TLOGS, AUTHORITIES, CTLOGS, STAMPS] {
            let requests = asked(&server, log.as_ref());
            rig.gate.swap(Arc::new(under(&with_both(ours.clone(), &strangers, part))));
            assert_eq!(source(&rig.judge_as(&pinned).await), Source::Fresh, "{name}: more {part}");
            assert_eq!(asked(&server, log.as_ref()), requests, "{name}: more {part}: {:?}", server.lines());
            // What the evidence rests on is gone: no older verdict serves, and the registry may have more.
            let mut without = ours.clone();
            without[part] = strangers[part].clone();
            rig.gate.swap(Arc::new(under(&without)));
            let decision = rig.judge_as(&pinned).await;
            if rests_on.contains(&part) {
                assert!(matches!(decision, Decision::Deny(_)), "{name}: other {part}: {decision:?}");
                assert!(asked(&server, log.as_ref()) > requests, "{name}: other {part}");
            } else {
                assert_eq!(source(&decision), Source::Fresh, "{name}: other {part}");
                assert_eq!(asked(&server, log.as_ref()), requests, "{name}: other {part}");
            }
        }
        assert!(rig.gate.store().flush().await);
        rig.gate.store().close();
        drop(rig);
        // A start with a root that has everything beside its own.
        let requests = asked(&server, log.as_ref());
        let both = [TLOGS, AUTHORITIES, CTLOGS, STAMPS]
            .into_iter()
            .fold(ours.clone(), |root, part| with_both(root, &strangers, part));
        let rig = Rig::of(HOUR, folder.path(), under(&both));
        assert_eq!(source(&rig.judge_as(&pinned).await), Source::Fresh, "{name}: more of all");
        assert_eq!(asked(&server, log.as_ref()), requests, "{name}: more of all: {:?}", server.lines());
        rig.gate.store().close();
    }
}
