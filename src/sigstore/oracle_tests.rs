//! This core beside another verifier (sigstore-verify, which reads bundles only): bundles by keys and by
//! certificates, each of them whole and with each single part changed, get the same answer, or
//! the difference is listed here with its reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sigstore_trust_root::TrustedRoot;
use sigstore_types::{Bundle, DerPublicKey};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, Verifier};

use crate::sigstore::test_pki::{
    CODE_SIGNING, Draft, algorithm, at, fulcio, key_usage, names, sct, sct_list, uri, usages,
};
use crate::sigstore::test_signer::{Log, Signer, TIME, dsse_entry, hashedrekord, pem, sha256, statement};
use crate::sigstore::{
    Artifact, Attestor, HashAlgorithm, Identity, IdentitySigner, IdentityText, KeySigner, LogTrust, SctTrust,
    Signer as Who, TrustRoot, verify_artifact,
};

const ARTIFACT: &[u8] = b"an artifact";
const WHO: &str = "https://ci.test/build";
const ISSUER: &str = "https://issuer.test";

/// What vouches for the signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Key,
    Certificate,
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Message,
    Statement,
}

/// An authority, a certificate transparency log, a transparency log and a signer.
struct Scene {
    authority: Signer,
    certificates: Signer,
    log: Log,
    signer: Signer,
}

impl Scene {
    fn new(signer: Signer) -> Self {
        Self { authority: Signer::p384(), certificates: Signer::p256(), log: Log::new(), signer }
    }

    fn root(&self) -> Value {
        let certificate = Draft::authority("ca").self_signed(&self.authority);
        let log = |key: &Signer| {
            json!({
                "baseUrl": "https://log.test",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(&key.spki),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2023-01-01T00:00:00Z"},
                },
                "logId": {"keyId": STANDARD.encode(sha256(&key.spki))},
            })
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.log.0)],
            "certificateAuthorities": [{
                "subject": {"organization": "test", "commonName": "ca"},
                "uri": "https://ca.test",
                "certChain": {"certificates": [{"rawBytes": STANDARD.encode(certificate.der())}]},
                "validFor": {"start": "2023-01-01T00:00:00Z"},
            }],
            "ctlogs": [log(&self.certificates)],
            "timestampAuthorities": [],
        })
    }

    fn certificate(&self) -> Vec<u8> {
        let mut draft = Draft::new("leaf")
            .with(key_usage(0b1000_0000))
            .with(usages(false, &[CODE_SIGNING]))
            .with(names(true, &[uri(WHO)]))
            .with(fulcio(1, ISSUER))
            .with(fulcio(8, ISSUER));
        let body = draft.body(&self.signer, "ca", &algorithm(&self.authority));
        let promise = sct(&self.certificates, TIME * 1000, &self.authority.spki, &body);
        draft.extensions.push(sct_list(&[promise]));
        draft.der(&self.signer, "ca", &self.authority)
    }

    fn bundle(&self, by: By, what: What) -> Value {
        let statement = statement(&crate::oci::Digest::of(ARTIFACT), "{}");
        let mut bundle = self.signer.bundle(&statement);
        let (material, verifier) = match by {
            By::Key => (json!({"publicKey": {"hint": "any"}}), self.signer.pem()),
            By::Certificate => {
                let der = self.certificate();
                let material = json!({"certificate": {"rawBytes": STANDARD.encode(&der)}});
                (material, pem("CERTIFICATE", &der))
            }
        };
        bundle["verificationMaterial"] = material;
        let entry = match what {
            What::Statement => {
                let signature = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap();
                self.log.entry("dsse", &dsse_entry(statement.as_bytes(), signature, &verifier), TIME)
            }
            What::Message => {
                let signature = self.signer.sign(ARTIFACT);
                bundle.as_object_mut().unwrap().remove("dsseEnvelope");
                bundle["messageSignature"] = json!({
                    "messageDigest": {"algorithm": "SHA2_256", "digest": STANDARD.encode(sha256(ARTIFACT))},
                    "signature": STANDARD.encode(&signature),
                });
                self.log.entry("hashedrekord", &hashedrekord(ARTIFACT, &signature, &verifier), TIME)
            }
        };
        bundle["verificationMaterial"]["tlogEntries"] = json!([entry]);
        bundle
    }

    fn ours(&self, by: By) -> impl Fn(&Value) -> bool {
        let root = TrustRoot::from_json(self.root().to_string().as_bytes()).unwrap();
        let signer = match by {
            By::Key => Who::Key(KeySigner { key: self.signer.key(), hash: HashAlgorithm::Sha256 }),
            By::Certificate => {
                let text = IdentityText { subject: WHO, issuer: ISSUER, ..IdentityText::default() };
                Who::Identity(IdentitySigner {
                    authorities: root.authorities(),
                    identity: Identity::new(&text).unwrap(),
                    sct: SctTrust::Required(root.certificate_logs()),
                })
            }
        };
        let attestor = Attestor {
            signer,
            annotations: Default::default(),
            log: LogTrust::Required(root.logs()),
            timestamps: root.timestamps(),
        };
        let attestor = Arc::new(attestor);
        move |bundle| {
            let artifact = Artifact::Bytes(ARTIFACT);
            verify_artifact(bundle.to_string().as_bytes(), &artifact, &attestor, at(TIME + 60)).is_ok()
        }
    }

    fn others(&self, by: By) -> impl Fn(&Value) -> bool {
        let root = TrustedRoot::from_json(&self.root().to_string()).unwrap();
        let verifier = Verifier::new(&root).unwrap();
        let key = DerPublicKey::new(self.signer.spki.clone());
        move |bundle| {
            let Ok(bundle) = Bundle::from_json(&bundle.to_string()) else { return false };
            match by {
                By::Key => verifier.verify(ARTIFACT, &bundle, &PublicKeyVerificationPolicy::new(key.clone())),
                By::Certificate => verifier.verify(ARTIFACT, &bundle, &VerificationPolicy::new(WHO, ISSUER)),
            }
            .is_ok()
        }
    }
}

/// Each place of a document in each way that breaks it, with a name for the change.
fn changed(document: &Value) -> Vec<(String, Value)> {
    let mut places = Vec::new();
    collect(document, String::new(), &mut places);
    let mut changed = Vec::new();
    for place in places {
        let (parent, name) = place.rsplit_once('/').unwrap();
        let found = document.pointer(&place).unwrap();
        let mut set = |how: &str, value: Value| {
            let mut copy = document.clone();
            *copy.pointer_mut(&place).unwrap() = value;
            changed.push((format!("{how} {place}"), copy));
        };
        match found {
            Value::String(text) => {
                set("empty", "".into());
                if let Ok(number) = text.parse::<u64>() {
                    set("add to", (number + 1).to_string().into());
                    set("negate", format!("-{number}").into());
                } else if let Ok(bytes) = STANDARD.decode(text)
                    && !bytes.is_empty()
                {
                    let middle = bytes.len() / 2;
                    for at in BTreeSet::from([0, middle, bytes.len() - 1]) {
                        let mut flipped = bytes.clone();
                        flipped[at] ^= 1;
                        let part =
                            ["first of", "inside", "last of"][usize::from(at > 0) + usize::from(at > middle)];
                        set(part, STANDARD.encode(flipped).into());
                    }
                    set("extend", STANDARD.encode([&bytes[..], b"x"].concat()).into());
                } else {
                    set("extend", format!("{text}x").into());
                }
            }
            Value::Array(list) => {
                set("empty", json!([]));
                set("double", list.iter().chain(list).cloned().collect());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
        set("mistype", json!(true));
        if let Some(object) = document.pointer(parent).and_then(Value::as_object) {
            let mut copy = document.clone();
            let mut without = object.clone();
            without.remove(name);
            *copy.pointer_mut(parent).unwrap() = without.into();
            changed.push((format!("remove {place}"), copy));
        }
    }
    changed
}

fn collect(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(name, value)| collect(value, format!("{place}/{name}"), places));
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| collect(value, format!("{place}/{index}"), places));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if !place.is_empty() {
        places.push(place);
    }
}

#[test]
fn accepts_what_another_verifier_accepts() {
    for by in [By::Key, By::Certificate] {
        for what in [What::Message, What::Statement] {
            for signer in [Signer::p256(), Signer::rsa(), Signer::ed25519()] {
                let scene = Scene::new(signer);
                let bundle = scene.bundle(by, what);
                let answers = (scene.ours(by)(&bundle), scene.others(by)(&bundle));
                assert_eq!(answers, (true, true), "{by:?} {what:?} {:?}", scene.signer.key().kind());
            }
        }
    }
}

#[test]
fn refuses_every_change_that_another_verifier_refuses() {
    for by in [By::Key, By::Certificate] {
        for what in [What::Message, What::Statement] {
            let scene = Scene::new(Signer::p256());
            let (ours, others) = (scene.ours(by), scene.others(by));
            let answers: Vec<_> = changed(&scene.bundle(by, what))
                .into_iter()
                .map(|(change, bundle)| (change, ours(&bundle), others(&bundle)))
                .collect();
            let with = |ours: bool, others: bool| -> BTreeSet<&str> {
                answers
                    .iter()
                    .filter(|answer| (answer.1, answer.2) == (ours, others))
                    .map(|answer| answer.0.as_str())
                    .collect()
            };
            // One entry twice is still one entry, and enough. A number that is not there is zero.
            let mut harmless = BTreeSet::from([
                "double /verificationMaterial/tlogEntries",
                "remove /verificationMaterial/tlogEntries/0/inclusionProof/logIndex",
            ]);
            let mut laxer = BTreeSet::new();
            if by == By::Key {
                // The hint is not read here, and nobody needs the time.
                harmless.extend([
                    "empty /verificationMaterial/publicKey/hint",
                    "extend /verificationMaterial/publicKey/hint",
                    "remove /verificationMaterial/publicKey/hint",
                    "remove /verificationMaterial/tlogEntries/0/inclusionPromise",
                ]);
                laxer.insert("mistype /verificationMaterial/publicKey/hint");
            }
            if what == What::Message {
                harmless.insert("remove /messageSignature/messageDigest");
            }
            // A bundle without a type is none, and "-0" is no unsigned number.
            let stricter = BTreeSet::from([
                "remove /mediaType",
                "negate /verificationMaterial/tlogEntries/0/inclusionProof/logIndex",
            ]);
            assert_eq!(with(true, true), harmless, "{by:?} {what:?}");
            assert_eq!(with(true, false), laxer, "{by:?} {what:?}");
            assert_eq!(with(false, true), stricter, "{by:?} {what:?}");
            assert!(with(false, false).len() >= 112, "{by:?} {what:?}");
        }
    }
}
