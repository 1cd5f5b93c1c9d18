//! Makes the seeds of this layer and what they are verified with anew: `make fuzz-seeds`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::evidence::{ARTIFACT, SIGNATURE_ANNOTATIONS};
use super::log::{CLAIM, ENVELOPE, PAYLOAD, SIGNATURE};
use super::x509::STAMPED;
use super::{Certificate, Digest, TIME};
use crate::sigstore::SignatureEvidence;
use crate::sigstore::sct::Precertificate;
use crate::sigstore::test_pki::{Draft, TokenDraft, email, fulcio, names, uri, user};
use crate::sigstore::test_signer::{
    Signer, Verifier, attestation, claim, dsse_entry, hashedrekord, hashedrekord_v2, intoto, intoto_v2, pem,
    rekord, statement,
};
use crate::sigstore::test_sigstore::{Instance, Signature, image};

/// The sha256 of everything that was signed or logged.
type Genuine = Rc<RefCell<BTreeSet<String>>>;

/// The signers of the seeds; they tell what they sign.
struct Scene {
    instance: Instance,
    alice: Signer,
    certificate: Certificate,
    key: Signer,
    genuine: Genuine,
}

#[test]
#[ignore = "writes into fuzz/seeds and fuzz/trust"]
fn writes_the_seeds() {
    let scene = Scene::new();
    let cosign = fs::read(root().join("../tests/fixtures/sigstore/cosign.json")).unwrap();
    let cosign: Value = serde_json::from_slice(&cosign).unwrap();
    scene.bundles(&cosign["p256"]);
    scene.layers(&cosign["p256"]);
    scene.payloads(&cosign["p256"]);
    scene.log_entries();
    scene.log_bodies();
    scene.certificates();
    scene.timestamps();
    scene.trust(cosign["p256"]["key"].as_str().unwrap());
}

impl Scene {
    fn new() -> Self {
        let genuine = Genuine::default();
        let telling = |signer: Signer| {
            let genuine = Rc::clone(&genuine);
            signer.telling(move |message| {
                genuine.borrow_mut().insert(Digest::of(message).hex());
            })
        };
        let instance = Instance::new().with_signers(telling);
        let [alice, key] = [Signer::p256(), Signer::p256()].map(telling);
        let certificate = instance.certify(&alice, &Instance::draft());
        Self { instance, alice, certificate, key, genuine }
    }

    fn is_genuine(&self, message: &[u8]) {
        self.genuine.borrow_mut().insert(Digest::of(message).hex());
    }

    /// A signature by Alice's certificate.
    fn by_alice(&self, chain: Vec<Certificate>, statement: &str) -> Signature {
        Signature::statement(self.alice.clone(), Some(self.certificate.clone()), chain, statement.to_owned())
    }

    fn by_key(&self, statement: &str) -> Signature {
        Signature::statement(self.key.clone(), None, Vec::new(), statement.to_owned())
    }

    /// Has it logged by Rekor v1.
    fn entry(&self, kind: &str, body: &str) -> Vec<Value> {
        self.is_genuine(body.as_bytes());
        vec![self.instance.log.entry(kind, body, TIME)]
    }

    /// Has it logged by Rekor v1, for a layer.
    fn annotation(&self, body: &str) -> Vec<Value> {
        self.is_genuine(body.as_bytes());
        vec![self.instance.log.annotation(body, TIME)]
    }

    /// Has it logged by Rekor v2.
    fn tiles(&self, signature: &Signature) -> Vec<Value> {
        let body = signature.hashedrekord_v2();
        self.is_genuine(body.as_bytes());
        vec![self.instance.tiles.entry(&body)]
    }

    fn stamp(&self, signature: &Signature) -> Vec<Vec<u8>> {
        vec![self.instance.stamp(&signature.signature, TIME)]
    }

    fn bundles(&self, cosign: &Value) {
        let signed = statement(&image(), "{}");
        let attested = attestation(&image(), "https://spdx.dev/Document", r#"{"a":[1,2.5,null,"\u00e4"]}"#);
        let save = |name: &str, signature: &Signature| {
            write(&format!("bundle/{name}"), signature.bundle().to_string());
        };

        let mut key = self.by_key(&signed);
        save("key", &key);
        key.entries = self.entry("dsse", &key.dsse());
        save("key-rekor-v1", &key);
        let mut first = key.bundle();
        first["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1".into();
        write("bundle/key-version-0.1", first.to_string());

        let mut keyless = self.by_alice(Vec::new(), &signed);
        (keyless.entries, keyless.stamps) = (self.tiles(&keyless), self.stamp(&keyless));
        save("keyless-rekor-v2", &keyless);
        let mut chain = self.by_alice(vec![self.instance.intermediate()], &attested);
        chain.entries = self.entry("dsse", &chain.dsse());
        save("attestation-chain", &chain);

        let mut message = Signature::claim(self.key.clone(), None, Vec::new());
        message.payload = str::from_utf8(ARTIFACT).unwrap().to_owned();
        message.signature = self.key.sign(ARTIFACT);
        message.entries = self.entry("hashedrekord", &message.hashedrekord());
        let mut bundle = message.bundle();
        bundle["messageSignature"]["messageDigest"] =
            json!({"algorithm": "SHA2_256", "digest": STANDARD.encode(Digest::of(ARTIFACT).as_bytes())});
        write("bundle/message", bundle.to_string());

        let bundle = cosign["bundle"].as_str().unwrap();
        let parsed: Value = serde_json::from_str(bundle).unwrap();
        self.is_genuine(&super::evidence::signed_bytes(&parsed["dsseEnvelope"]));
        write("bundle/cosign", bundle);
    }

    fn layers(&self, cosign: &Value) {
        let leaf = || Some(self.certificate.clone());
        let mut key = Signature::claim(self.key.clone(), None, Vec::new());
        save_layer("signature/key", &key.layer());
        key.entries = self.annotation(&key.hashedrekord());
        save_layer("signature/key-logged", &key.layer());
        let mut keyless = Signature::claim(self.alice.clone(), leaf(), vec![self.instance.intermediate()]);
        keyless.entries = self.annotation(&keyless.hashedrekord());
        save_layer("signature/keyless", &keyless.layer());
        keyless.stamps = self.stamp(&keyless);
        save_layer("signature/keyless-stamped", &keyless.layer());
        let layer = &cosign["layer"];
        self.is_genuine(layer["payload"].as_str().unwrap().as_bytes());
        save_layer(
            "signature/cosign",
            &SignatureEvidence::CosignLayer {
                payload: layer["payload"].as_str().unwrap().as_bytes().to_vec(),
                annotations: serde_json::from_value(layer["annotations"].clone()).unwrap(),
            },
        );

        let attested = attestation(&image(), "https://slsa.dev/provenance/v1", r#"{"builder":{"id":"ci"}}"#);
        save_layer("attestation/key", &self.by_key(&attested).attestation_layer());
        let mut keyless = self.by_alice(vec![self.instance.intermediate()], &attested);
        keyless.entries = self.annotation(&keyless.dsse());
        save_layer("attestation/keyless", &keyless.attestation_layer());
        keyless.stamps = self.stamp(&keyless);
        save_layer("attestation/keyless-stamped", &keyless.attestation_layer());
    }

    fn payloads(&self, cosign: &Value) {
        write("simple-signing/plain", claim(&image(), "null"));
        write("simple-signing/annotated", claim(&image(), r#"{"env":"prod","number":1,"list":[]}"#));
        write("simple-signing/cosign", cosign["layer"]["payload"].as_str().unwrap());
        write("statement/signature", statement(&image(), r#"{"env":"prod"}"#));
        write(
            "statement/attestation",
            attestation(&image(), "https://spdx.dev/Document", r#"{"a":[1,2.5]}"#),
        );
    }

    fn log_entries(&self) {
        let signature = self.by_key(&statement(&image(), "{}"));
        for (name, entry) in [
            ("rekor-v1", self.entry("dsse", &signature.dsse()).remove(0)),
            ("rekor-v2", self.tiles(&signature).remove(0)),
        ] {
            let checkpoint = entry["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap();
            write(&format!("checkpoint/{name}"), checkpoint);
            write(&format!("log-entry/{name}"), entry.to_string());
        }
        let annotation = self.annotation(&signature.dsse()).remove(0);
        write("log-annotation/rekor-v1", annotation.to_string());
    }

    fn log_bodies(&self) {
        let spki = &self.key.spki;
        let [key, certificate] = [pem("PUBLIC KEY", spki), pem("CERTIFICATE", self.certificate.der())];
        let encoded = STANDARD.encode(SIGNATURE);
        let envelope = format!("DSSEv1 28 application/vnd.in-toto+json {} ", PAYLOAD.len());
        let envelope = [envelope.as_bytes(), PAYLOAD].concat();
        let bodies = [
            ("hashedrekord", hashedrekord(CLAIM, SIGNATURE, &key)),
            ("hashedrekord-certificate", hashedrekord(CLAIM, SIGNATURE, &certificate)),
            ("hashedrekord-v2", hashedrekord_v2(&envelope, SIGNATURE, &Verifier::Key(spki))),
            (
                "hashedrekord-v2-certificate",
                hashedrekord_v2(CLAIM, SIGNATURE, &Verifier::Certificate(self.certificate.der())),
            ),
            ("rekord", rekord(CLAIM, SIGNATURE, &key)),
            ("dsse", dsse_entry(PAYLOAD, &encoded, &certificate)),
            ("intoto", intoto(ENVELOPE, &key)),
            ("intoto-v2", intoto_v2(ENVELOPE, PAYLOAD, SIGNATURE, &certificate)),
        ];
        for (name, body) in bodies {
            write(&format!("log-body/{name}"), body);
        }
    }

    fn certificates(&self) {
        write("certificate/leaf", self.certificate.der());
        let chain = [&self.certificate, &self.instance.intermediate(), &self.instance.root()];
        let list: String = chain.iter().map(|found| pem("CERTIFICATE", found.der())).collect();
        write("certificate/chain.pem", list);
        let openssl = fs::read(root().join("../tests/fixtures/sigstore/openssl-tsa.pem")).unwrap();
        write("certificate/openssl.pem", openssl);
        let mut draft = Instance::draft();
        draft.extensions.remove(2);
        let mut draft =
            draft.with(names(false, &[email("a@b"), uri("https://a.test/b?c"), user("bob"), dns(), ip()]));
        for arc in [8, 9, 11, 24] {
            draft = draft.with(fulcio(arc, "text"));
        }
        for (name, signer) in
            [("ed25519", Signer::ed25519()), ("p384", Signer::p384()), ("rsa", Signer::rsa())]
        {
            write(&format!("certificate/{name}"), self.instance.certify(&signer, &draft).der());
            write(&format!("public-key/{name}"), signer.pem());
        }
        write("public-key/p256", self.key.pem());
        write("public-key/refused-certificate", pem("CERTIFICATE", self.certificate.der()));
        let list = Precertificate::of(self.certificate.der()).unwrap().list.unwrap();
        write("sct/one", list);
    }

    fn timestamps(&self) {
        write("timestamp/response", self.instance.stamp(STAMPED, TIME));
        let stamper = |draft: TokenDraft| self.instance.stamped(&draft);
        write("timestamp/token", stamper(TokenDraft { status: None, ..TokenDraft::new(STAMPED, "stamps") }));
        let embedded = vec![Draft::new("stamper").der(&self.key, "stamps", &self.key)];
        write("timestamp/embedded", stamper(TokenDraft { embedded, ..TokenDraft::new(STAMPED, "stamps") }));
        let openssl = fs::read(root().join("../tests/fixtures/sigstore/openssl.tsr")).unwrap();
        write("timestamp/openssl", openssl);
    }

    fn trust(&self, cosign_key: &str) {
        let mut trusted = self.instance.trusted_root();
        let openssl = fs::read_to_string(root().join("../tests/fixtures/sigstore/openssl-tsa.pem")).unwrap();
        let chain = Certificate::list_from_pem(&openssl, 2).unwrap();
        let raw: Vec<_> =
            chain.iter().map(|found| json!({"rawBytes": STANDARD.encode(found.der())})).collect();
        let authority = json!({"uri": "https://openssl.test", "certChain": {"certificates": raw}});
        trusted["timestampAuthorities"].as_array_mut().unwrap().push(authority);
        write("trust-root/instance", trusted.to_string());

        let write = |name: &str, text: &str| fs::write(root().join("trust").join(name), text).unwrap();
        write("trusted_root.json", &format!("{trusted:#}\n"));
        write("key.pub", &self.key.pem());
        write("cosign.pub", cosign_key);
        write("certificate.pem", &pem("CERTIFICATE", self.certificate.der()));
        let genuine: Vec<String> = self.genuine.borrow().iter().cloned().collect();
        write("genuine", &format!("{}\n", genuine.join("\n")));
    }
}

fn dns() -> Vec<u8> {
    b"\x82\x06a.test".to_vec()
}

fn ip() -> Vec<u8> {
    b"\x87\x04\x7f\0\0\x01".to_vec()
}

/// A layer in the form that the targets read.
fn save_layer(name: &str, evidence: &SignatureEvidence) {
    let none = BTreeMap::new();
    let (layer, annotations, names) = match evidence {
        SignatureEvidence::CosignLayer { payload, annotations } => {
            (payload, annotations, &SIGNATURE_ANNOTATIONS[..])
        }
        SignatureEvidence::AttestationLayer { envelope, annotations } => {
            (envelope, annotations, &SIGNATURE_ANNOTATIONS[1..])
        }
        SignatureEvidence::Bundle { json } => (json, &none, &[][..]),
    };
    let mut bytes = layer.clone();
    for name in names {
        bytes.push(0xff);
        bytes.extend(annotations.get(*name).map_or("", String::as_str).as_bytes());
    }
    write(name, bytes);
}

fn write(name: &str, bytes: impl AsRef<[u8]>) {
    let path = root().join("seeds").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
