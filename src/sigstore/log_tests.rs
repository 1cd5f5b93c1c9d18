use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::oci::Digest;
use crate::outcome::DenialReason;
use crate::sigstore::test_signer::{
    Log, Signer, TIME, TiledLog, Verifier, claim, dsse_entry, hashedrekord, hashedrekord_v2,
    hashedrekord_with, pem, statement,
};
use crate::sigstore::{
    Attestor, KeySigner, Limited, LogTrust, PublicKey, SignatureEvidence, Signer as Who,
    TimestampAuthorities, TrustRoot, verify_signature,
};

fn image() -> Digest {
    Digest::of(b"image")
}

fn key_attestor(key: PublicKey, log: LogTrust) -> Attestor {
    Attestor {
        signer: Who::Key(KeySigner { key, hash: HashAlgorithm::Sha256 }),
        annotations: Default::default(),
        log,
        timestamps: Arc::new(TimestampAuthorities::none()),
    }
}

/// A layer that cosign itself signed, and its key.
fn signed_by_cosign(name: &str) -> (SignatureEvidence, PublicKey) {
    let fixture = include_str!("../../tests/fixtures/sigstore/cosign.json");
    let signed = serde_json::from_str::<Value>(fixture).unwrap()[name].take();
    let layer = SignatureEvidence::CosignLayer {
        payload: signed["layer"]["payload"].as_str().unwrap().as_bytes().to_vec(),
        annotations: serde_json::from_value(signed["layer"]["annotations"].clone()).unwrap(),
    };
    (layer, PublicKey::from_pem(signed["key"].as_str().unwrap()).unwrap())
}

fn judge_at(evidence: &SignatureEvidence, signer: &Signer, log: LogTrust, now: u64) -> Result<(), Rejection> {
    let attestor = key_attestor(signer.key(), log);
    verify_signature(evidence, &image(), &attestor, UNIX_EPOCH + Duration::from_secs(now)).map(drop)
}

fn trust(log: &Log) -> LogTrust {
    LogTrust::Required(Arc::new(Logs::from_keys(&[log.0.key()])))
}

fn judge(evidence: &SignatureEvidence, signer: &Signer, log: &Log) -> Result<(), Rejection> {
    judge_at(evidence, signer, trust(log), TIME)
}

/// A signed layer, with its payload and signature.
fn layer(signer: &Signer) -> (SignatureEvidence, Vec<u8>, Vec<u8>) {
    let evidence = signer.layer(&claim(&image(), "null"));
    let SignatureEvidence::CosignLayer { payload, annotations } = &evidence else { unreachable!() };
    let signature = STANDARD.decode(&annotations["dev.cosignproject.cosign/signature"]).unwrap();
    let payload = payload.clone();
    (evidence, payload, signature)
}

fn with_annotation(mut layer: SignatureEvidence, annotation: &Value) -> SignatureEvidence {
    let SignatureEvidence::CosignLayer { annotations, .. } = &mut layer else { unreachable!() };
    annotations.insert("dev.sigstore.cosign/bundle".to_owned(), annotation.to_string());
    layer
}

/// A layer with the annotation that its log wrote, in which one thing is changed.
fn judge_layer(change: impl FnOnce(&mut Value)) -> Result<(), Rejection> {
    let (signer, log) = (Signer::p256(), Log::new());
    let (evidence, payload, signature) = layer(&signer);
    let mut annotation = log.annotation(&hashedrekord(&payload, &signature, &signer.pem()), TIME);
    change(&mut annotation);
    judge(&with_annotation(evidence, &annotation), &signer, &log)
}

/// A layer with an entry over the body that `body` writes of payload, signature and key.
fn judge_body(body: impl FnOnce(&[u8], &[u8], &str) -> String) -> Result<(), Rejection> {
    let (signer, log) = (Signer::p256(), Log::new());
    let (evidence, payload, signature) = layer(&signer);
    let annotation = log.annotation(&body(&payload, &signature, &signer.pem()), TIME);
    judge(&with_annotation(evidence, &annotation), &signer, &log)
}

struct Logged {
    signer: Signer,
    log: Log,
    bundle: Value,
    payload: String,
    signature: String,
}

impl Logged {
    fn new(signer: Signer) -> Self {
        let payload = statement(&image(), "{}");
        let log = Log::new();
        let bundle = signer.bundle(&payload);
        let signature = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap().to_owned();
        let mut logged = Self { signer, log, bundle, payload, signature };
        let entry = logged.log.entry("dsse", &logged.body(), TIME);
        logged.set_entries(vec![entry]);
        logged
    }

    fn body(&self) -> String {
        dsse_entry(self.payload.as_bytes(), &self.signature, &self.signer.pem())
    }

    fn set_entries(&mut self, entries: Vec<Value>) {
        self.bundle["verificationMaterial"]["tlogEntries"] = entries.into();
    }

    fn entry(&mut self) -> &mut Value {
        &mut self.bundle["verificationMaterial"]["tlogEntries"][0]
    }

    fn evidence(&self) -> SignatureEvidence {
        SignatureEvidence::Bundle { json: self.bundle.to_string().into_bytes() }
    }

    fn judge(&self) -> Result<(), Rejection> {
        judge(&self.evidence(), &self.signer, &self.log)
    }

    /// Judges the bundle with an entry over another body.
    fn judge_body(mut self, body: &str) -> Result<(), Rejection> {
        let entry = self.log.entry("dsse", body, TIME);
        self.set_entries(vec![entry]);
        self.judge()
    }
}

#[test]
fn accepts_a_logged_layer_by_each_type_of_key() {
    for (signer, hash) in [
        (Signer::p256(), "sha256"),
        (Signer::p384(), "sha384"),
        (Signer::p521_sha256(), "sha256"),
        (Signer::p521_sha512(), "sha512"),
        (Signer::rsa(), "sha256"),
        (Signer::rsa_pss(), "sha256"),
        (Signer::ed25519(), "sha256"),
        (Signer::ed25519(), "sha512"),
    ] {
        let log = Log::new();
        let (evidence, payload, signature) = layer(&signer);
        let body = hashedrekord_with(hash, &payload, &signature, &signer.pem());
        let annotation = log.annotation(&body, TIME);
        assert_eq!(judge(&with_annotation(evidence, &annotation), &signer, &log), Ok(()));
    }
}

#[test]
fn accepts_a_logged_layer_by_p384_with_sha256_as_cosign_2_signs() {
    let (signed, key) = signed_by_cosign("p384");
    let SignatureEvidence::CosignLayer { payload, annotations } = &signed else { unreachable!() };
    let signature = STANDARD.decode(&annotations["dev.cosignproject.cosign/signature"]).unwrap();
    let log = Log::new();
    let body = hashedrekord(payload, &signature, &pem("PUBLIC KEY", key.spki_der()));
    let evidence = with_annotation(signed.clone(), &log.annotation(&body, TIME));
    let image = "sha256:f20c43161d73848408ef247f0ec7111b19fe58ffebc0cbcaa0d2c8bda4967268".parse().unwrap();
    let attestor = key_attestor(key, trust(&log));
    let now = UNIX_EPOCH + Duration::from_secs(TIME);
    assert_eq!(verify_signature(&evidence, &image, &attestor, now).map(drop), Ok(()));
}

#[test]
fn survives_any_changed_byte_and_any_cut_of_logged_evidence() {
    let logged = Logged::new(Signer::p256());
    let root = trust(&logged.log);
    let good = logged.bundle.to_string().into_bytes();
    let judge_bytes =
        |json: Vec<u8>| judge_at(&SignatureEvidence::Bundle { json }, &logged.signer, root.clone(), TIME);
    assert_eq!(judge_bytes(good.clone()), Ok(()));
    let mut accepted = Vec::new();
    for at in 0..good.len() {
        assert!(judge_bytes(good[..at].to_vec()).is_err());
        let mut changed = good.clone();
        changed[at] ^= 1;
        if judge_bytes(changed.clone()).is_ok() {
            accepted.push(serde_json::from_slice::<Value>(&changed).unwrap());
        }
    }
    // What may differ: the hint, names that are not known, and what those names made absent.
    for mut bundle in accepted {
        bundle["verificationMaterial"]["publicKey"] =
            logged.bundle["verificationMaterial"]["publicKey"].clone();
        assert_eq!(bundle["dsseEnvelope"], logged.bundle["dsseEnvelope"]);
        let entry =
            |bundle: &Value| bundle["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"].clone();
        assert_eq!(entry(&bundle), entry(&logged.bundle));
    }
}

#[test]
fn accepts_a_logged_bundle_by_each_type_of_key() {
    for signer in [
        Signer::p256(),
        Signer::p384(),
        Signer::p521_sha256(),
        Signer::p521_sha512(),
        Signer::rsa(),
        Signer::rsa_pss(),
        Signer::ed25519(),
    ] {
        assert_eq!(Logged::new(signer).judge(), Ok(()));
    }
}

#[test]
fn accepts_a_log_of_a_trust_root() {
    let logged = Logged::new(Signer::p256());
    let keys = [Signer::p256().key(), logged.log.0.key()];
    let root = LogTrust::Required(Arc::new(Logs::from_keys(&keys)));
    assert_eq!(judge_at(&logged.evidence(), &logged.signer, root, TIME), Ok(()));
    let foreign = LogTrust::Required(TrustRoot::public_good().unwrap().logs());
    let result = judge_at(&logged.evidence(), &logged.signer, foreign, TIME);
    assert_eq!(result, Err(Rejection::LogUnknown));
}

#[test]
fn pitfall_02_denies_a_signature_without_a_log_entry() {
    let (signer, log) = (Signer::p256(), Log::new());
    let (evidence, ..) = layer(&signer);
    assert_eq!(judge(&evidence, &signer, &log), Err(Rejection::LogEntryMissing));
    let mut logged = Logged::new(signer);
    logged.set_entries(Vec::new());
    assert_eq!(logged.judge(), Err(Rejection::LogEntryMissing));
    assert_eq!(Rejection::LogEntryMissing.reason(), DenialReason::TransparencyLog);
}

#[test]
fn does_not_look_at_entries_when_the_log_is_ignored() {
    let signer = Signer::p256();
    let (evidence, ..) = layer(&signer);
    let evidence = with_annotation(evidence, &"no entry".into());
    assert_eq!(judge_at(&evidence, &signer, LogTrust::Ignored, TIME), Ok(()));
    let mut logged = Logged::new(signer);
    logged.set_entries(vec!["no entry".into()]);
    assert_eq!(judge_at(&logged.evidence(), &logged.signer, LogTrust::Ignored, TIME), Ok(()));
}

// The next tests are the class of CVE-2022-36056: the entry is genuine, and about something else.

#[test]
fn pitfall_01_denies_when_the_log_entry_is_for_another_payload() {
    let result = judge_body(|_, signature, pem| hashedrekord(b"other", signature, pem));
    assert_eq!(result, Err(Rejection::LogEntryForeign));
    let logged = Logged::new(Signer::p256());
    let body = dsse_entry(b"other", &logged.signature, &logged.signer.pem());
    assert_eq!(logged.judge_body(&body), Err(Rejection::LogEntryForeign));
}

#[test]
fn pitfall_01_denies_when_the_log_entry_is_for_another_signature() {
    // By the same key over the same payload: ECDSA signatures differ each time.
    let signer = Signer::p256();
    let result = judge_body(|payload, _, pem| hashedrekord(payload, &signer.sign(payload), pem));
    assert_eq!(result, Err(Rejection::LogEntryForeign));
    let logged = Logged::new(signer);
    let other = STANDARD.encode(logged.signer.sign(b"x"));
    let body = dsse_entry(logged.payload.as_bytes(), &other, &logged.signer.pem());
    assert_eq!(logged.judge_body(&body), Err(Rejection::LogEntryForeign));
}

#[test]
fn pitfall_01_denies_when_the_log_entry_is_for_another_key() {
    let other = Signer::p256().pem();
    let result = judge_body(|payload, signature, _| hashedrekord(payload, signature, &other));
    assert_eq!(result, Err(Rejection::LogEntryForeign));
    let logged = Logged::new(Signer::p256());
    let body = dsse_entry(logged.payload.as_bytes(), &logged.signature, &other);
    assert_eq!(logged.judge_body(&body), Err(Rejection::LogEntryForeign));
}

#[test]
fn pitfall_01_denies_a_log_entry_of_another_kind() {
    for (kind, rejection) in [
        (r#""kind":"other""#, Rejection::LogEntryMalformed),
        (r#""kind":"dsse""#, Rejection::LogUnsupported),
        (r#""kind":"intoto""#, Rejection::LogUnsupported),
    ] {
        let result = judge_body(|payload, signature, pem| {
            hashedrekord(payload, signature, pem).replace(r#""kind":"hashedrekord""#, kind)
        });
        assert_eq!(result, Err(rejection));
    }
    let newer = |payload: &[u8], signature: &[u8], pem: &str| {
        hashedrekord(payload, signature, pem).replace(r#""apiVersion":"0.0.1""#, r#""apiVersion":"0.0.9""#)
    };
    assert_eq!(judge_body(newer), Err(Rejection::LogEntryMalformed));
    let logged = Logged::new(Signer::p256());
    let body = logged.body().replace(r#""kind":"dsse""#, r#""kind":"intoto""#);
    assert_eq!(logged.judge_body(&body), Err(Rejection::LogEntryMalformed));
}

#[test]
fn denies_a_log_entry_whose_body_repeats_a_key() {
    let result = judge_body(|payload, signature, pem| {
        hashedrekord(payload, signature, pem).replacen('{', r#"{"x":1,"x":1,"#, 1)
    });
    assert_eq!(result, Err(Rejection::LogEntryMalformed));
}

#[test]
fn denies_a_layer_when_the_logs_promise_does_not_hold() {
    assert_eq!(judge_layer(|_| {}), Ok(()));
    let time = judge_layer(|annotation| annotation["Payload"]["integratedTime"] = (TIME - 1).into());
    assert_eq!(time, Err(Rejection::LogProofInvalid));
    let index = judge_layer(|annotation| annotation["Payload"]["logIndex"] = 8.into());
    assert_eq!(index, Err(Rejection::LogProofInvalid));
    let promise = judge_layer(|annotation| {
        let other = Signer::p256().sign(b"x");
        annotation["SignedEntryTimestamp"] = STANDARD.encode(other).into();
    });
    assert_eq!(promise, Err(Rejection::LogProofInvalid));
    let none = judge_layer(|annotation| annotation["SignedEntryTimestamp"] = Value::Null);
    assert_eq!(none, Err(Rejection::LogEntryMalformed));
    let negative = judge_layer(|annotation| annotation["Payload"]["logIndex"] = (-1).into());
    assert_eq!(negative, Err(Rejection::LogEntryMalformed));
}

#[test]
fn denies_an_annotation_that_repeats_a_key() {
    let (signer, log) = (Signer::p256(), Log::new());
    let (evidence, payload, signature) = layer(&signer);
    let good = log.annotation(&hashedrekord(&payload, &signature, &signer.pem()), TIME).to_string();
    let mut evidence = with_annotation(evidence, &Value::Null);
    let SignatureEvidence::CosignLayer { annotations, .. } = &mut evidence else { unreachable!() };
    let repeated = good.replacen('{', r#"{"x":1,"x":1,"#, 1);
    annotations.insert("dev.sigstore.cosign/bundle".to_owned(), repeated);
    assert_eq!(judge(&evidence, &signer, &log), Err(Rejection::LogEntryMalformed));
}

#[test]
fn pitfall_02_denies_an_entry_of_a_log_that_is_not_trusted() {
    let logged = Logged::new(Signer::p256());
    let result = judge(&logged.evidence(), &logged.signer, &Log::new());
    assert_eq!(result, Err(Rejection::LogUnknown));
}

#[test]
fn an_entry_of_a_log_that_is_not_trusted_counts_as_not_there() {
    let mut logged = Logged::new(Signer::p256());
    let (trusted, other) = (logged.entry().clone(), Logged::new(Signer::p256()).entry().clone());
    for entries in [[trusted.clone(), other.clone()], [other.clone(), trusted.clone()]] {
        logged.set_entries(entries.to_vec());
        assert_eq!(logged.judge(), Ok(()));
    }
    logged.set_entries(vec![other.clone(), other.clone()]);
    assert_eq!(logged.judge(), Err(Rejection::LogUnknown));
    // One that names the trusted log must hold, whatever else does.
    let mut claims = other;
    claims["logId"] = trusted["logId"].clone();
    logged.set_entries(vec![trusted, claims]);
    assert_eq!(logged.judge(), Err(Rejection::LogProofInvalid));
}

#[test]
fn pitfall_02_denies_an_entry_that_claims_the_id_of_a_trusted_log() {
    let mut logged = Logged::new(Signer::p256());
    let trusted = Log::new();
    let id = STANDARD.encode(trusted.0.key().fingerprint().as_bytes());
    logged.entry()["logId"]["keyId"] = id.into();
    assert_eq!(judge(&logged.evidence(), &logged.signer, &trusted), Err(Rejection::LogProofInvalid));
}

#[test]
fn denies_a_bundle_when_any_part_of_the_logs_proof_does_not_hold() {
    let changed = |change: fn(&mut Value)| {
        let mut logged = Logged::new(Signer::p256());
        change(logged.entry());
        logged.judge()
    };
    assert_eq!(changed(|_| {}), Ok(()));
    // The promise alone.
    let promise = changed(|entry| entry["integratedTime"] = (TIME - 1).to_string().into());
    assert_eq!(promise, Err(Rejection::LogProofInvalid));
    // The Merkle path alone.
    let path = changed(|entry| entry["inclusionProof"]["hashes"][0] = STANDARD.encode([0; 32]).into());
    assert_eq!(path, Err(Rejection::LogProofInvalid));
    let index = changed(|entry| entry["inclusionProof"]["logIndex"] = "1".into());
    assert_eq!(index, Err(Rejection::LogProofInvalid));
    // The checkpoint alone.
    let unsigned = changed(|entry| {
        let checkpoint = entry["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap().to_owned();
        let changed = checkpoint.replacen("log.test - 1", "log.test - 2", 1);
        entry["inclusionProof"]["checkpoint"]["envelope"] = changed.into();
    });
    assert_eq!(unsigned, Err(Rejection::LogProofInvalid));
    let none = changed(|entry| entry["inclusionProof"]["checkpoint"] = json!({"envelope": ""}));
    assert_eq!(none, Err(Rejection::LogProofInvalid));
}

#[test]
fn accepts_a_bundle_whose_entry_has_a_proof_and_no_promise() {
    let mut logged = Logged::new(Signer::p256());
    logged.entry().as_object_mut().unwrap().remove("inclusionPromise");
    assert_eq!(logged.judge(), Ok(()));
}

#[test]
fn denies_a_bundle_whose_entry_has_a_promise_and_no_proof() {
    let mut logged = Logged::new(Signer::p256());
    logged.entry().as_object_mut().unwrap().remove("inclusionProof");
    assert_eq!(logged.judge(), Err(Rejection::LogEntryUnproven));
}

#[test]
fn pitfall_11_denies_an_unproven_entry_beside_a_proven_one() {
    let mut logged = Logged::new(Signer::p256());
    let proven = logged.entry().clone();
    let mut unproven = proven.clone();
    unproven.as_object_mut().unwrap().remove("inclusionProof");
    unproven.as_object_mut().unwrap().remove("inclusionPromise");
    logged.set_entries(vec![proven, unproven]);
    assert_eq!(logged.judge(), Err(Rejection::LogEntryUnproven));
}

#[test]
fn pitfall_01_denies_a_foreign_entry_beside_a_right_one() {
    let mut logged = Logged::new(Signer::p256());
    let right = logged.entry().clone();
    let body = dsse_entry(b"other", &logged.signature, &logged.signer.pem());
    let foreign = logged.log.entry("dsse", &body, TIME);
    logged.set_entries(vec![right, foreign]);
    assert_eq!(logged.judge(), Err(Rejection::LogEntryForeign));
}

#[test]
fn denies_an_entry_from_the_future() {
    let (signer, log) = (Signer::p256(), Log::new());
    let (evidence, payload, signature) = layer(&signer);
    let annotation = log.annotation(&hashedrekord(&payload, &signature, &signer.pem()), TIME);
    let evidence = with_annotation(evidence, &annotation);
    let at = |now| judge_at(&evidence, &signer, trust(&log), now);
    assert_eq!(at(TIME), Ok(()));
    assert_eq!(at(TIME - 1), Err(Rejection::LogEntryInFuture));
}

#[test]
fn pitfall_07_refuses_an_inclusion_proof_without_end() {
    let mut logged = Logged::new(Signer::p256());
    let hashes = vec![Value::from(STANDARD.encode([0; 32])); 65];
    logged.entry()["inclusionProof"]["hashes"] = hashes.into();
    let rejection = Rejection::LimitExceeded { what: Limited::ProofHashes, limit: 64 };
    assert_eq!(logged.judge(), Err(rejection));
}

#[test]
fn denies_every_entry_where_no_key_fits() {
    let logged = Logged::new(Signer::p256());
    for keys in [Vec::new(), vec![Signer::p521_sha512().key()]] {
        let result = judge_at(
            &logged.evidence(),
            &logged.signer,
            LogTrust::Required(Arc::new(Logs::from_keys(&keys))),
            TIME,
        );
        assert_eq!(result, Err(Rejection::LogUnknown));
    }
}

// Windows of keys, and versions of logs and bundles.

#[test]
fn denies_a_promise_without_a_time() {
    let none = judge_layer(|annotation| annotation["Payload"]["integratedTime"] = 0.into());
    assert_eq!(none, Err(Rejection::LogEntryMalformed));
    let (signer, log) = (Signer::p256(), Log::new());
    let (evidence, payload, signature) = layer(&signer);
    let annotation = log.annotation(&hashedrekord(&payload, &signature, &signer.pem()), 0);
    let result = judge(&with_annotation(evidence, &annotation), &signer, &log);
    assert_eq!(result, Err(Rejection::LogEntryMalformed));
}

#[test]
fn denies_a_rekor_v1_proof_whose_root_is_not_the_checkpoints() {
    for root in [Value::from(STANDARD.encode([0; 32])), Value::Null] {
        let mut logged = Logged::new(Signer::p256());
        logged.entry()["inclusionProof"]["rootHash"] = root;
        assert_eq!(logged.judge(), Err(Rejection::LogProofInvalid));
    }
    for root in ["AAAA", "%"] {
        let mut logged = Logged::new(Signer::p256());
        logged.entry()["inclusionProof"]["rootHash"] = root.into();
        assert_eq!(logged.judge(), Err(Rejection::LogProofInvalid));
    }
}

#[test]
fn denies_a_checkpoint_with_a_signature_of_another_key_hint() {
    let mut logged = Logged::new(Signer::p256());
    let checkpoint = &mut logged.entry()["inclusionProof"]["checkpoint"]["envelope"];
    let (note, line) = checkpoint.as_str().unwrap().split_once("\n\n").unwrap();
    let (name, signature) = line.trim_end().rsplit_once(' ').unwrap();
    let mut signature = STANDARD.decode(signature).unwrap();
    signature[0] ^= 1;
    *checkpoint = format!("{note}\n\n{name} {}\n", STANDARD.encode(signature)).into();
    assert_eq!(logged.judge(), Err(Rejection::LogProofInvalid));
}

#[test]
fn pitfall_07_refuses_a_checkpoint_with_signatures_without_end() {
    let with = |count: usize| {
        let mut logged = Logged::new(Signer::p256());
        let checkpoint = &mut logged.entry()["inclusionProof"]["checkpoint"]["envelope"];
        let (note, line) = checkpoint.as_str().unwrap().split_once("\n\n").unwrap();
        *checkpoint = format!("{note}\n\n{}", line.repeat(count)).into();
        logged.judge()
    };
    assert_eq!(with(32), Ok(()));
    let rejection = Rejection::LimitExceeded { what: Limited::CheckpointSignatures, limit: 32 };
    assert_eq!(with(33), Err(rejection));
}

#[test]
fn each_version_of_bundles_asks_for_its_own_proof() {
    let without = |version: &str, part: &str| {
        let mut logged = Logged::new(Signer::p256());
        logged.bundle["mediaType"] =
            format!("application/vnd.dev.sigstore.bundle+json;version={version}").into();
        logged.entry().as_object_mut().unwrap().remove(part);
        logged.judge()
    };
    let unproven = Err(Rejection::LogEntryUnproven);
    assert_eq!(without("0.1", "inclusionProof"), Ok(()));
    assert_eq!(without("0.1", "inclusionPromise"), unproven);
    for version in ["0.2", "0.3"] {
        assert_eq!(without(version, "inclusionProof"), unproven);
        assert_eq!(without(version, "inclusionPromise"), Ok(()));
    }
}

#[test]
fn reads_numbers_as_texts_or_numbers_and_an_index_of_zero_that_is_left_out() {
    let changed = |change: fn(&mut Value)| {
        let mut logged = Logged::new(Signer::p256());
        change(logged.entry());
        logged.judge()
    };
    assert_eq!(changed(|entry| entry["logIndex"] = 7.into()), Ok(()));
    assert_eq!(changed(|entry| entry["inclusionProof"]["logIndex"] = Value::Null), Ok(()));
    let malformed = Err(Rejection::LogEntryMalformed);
    for index in ["-1", "seven", "7.0", ""] {
        let mut logged = Logged::new(Signer::p256());
        logged.entry()["logIndex"] = index.into();
        assert_eq!(logged.judge(), malformed);
    }
    assert_eq!(changed(|entry| entry["integratedTime"] = (-1).into()), malformed);
    assert_eq!(changed(|entry| entry["logId"] = json!({})), malformed);
    assert_eq!(changed(|entry| entry["kindVersion"] = Value::Null), malformed);
    assert_eq!(changed(|entry| entry["canonicalizedBody"] = "%".into()), malformed);
    assert_eq!(changed(|entry| entry["inclusionPromise"] = json!({})), malformed);
}

#[path = "log_keys_tests.rs"]
mod keys;
#[path = "log_tiles_tests.rs"]
mod tiles;
