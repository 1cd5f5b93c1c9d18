//! A signer and a transparency log for tests. They share no code with what they test: encodings,
//! the Merkle tree, checkpoints and canonical JSON are written here once more, by hand.

use std::rc::Rc;

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA256_ASN1_SIGNING,
    ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::oci::Digest;
use crate::sigstore::{PublicKey, SignatureEvidence};

pub(crate) const TIME: u64 = 1_700_000_000;

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) spki: Vec<u8>,
    sign: Rc<Sign>,
}

fn der(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().unwrap().as_ref().to_vec()
}

impl Signer {
    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let spki = der(pair.public_key());
        let sign = move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        Self { spki, sign: Rc::new(sign) }
    }

    fn rsa_with(encoding: &'static dyn RsaEncoding) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki = der(pair.public_key());
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        Self { spki, sign: Rc::new(sign) }
    }

    pub(crate) fn p256() -> Self {
        Self::ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)
    }

    pub(crate) fn p384() -> Self {
        Self::ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)
    }

    pub(crate) fn p521_sha256() -> Self {
        Self::ecdsa(&ECDSA_P521_SHA256_ASN1_SIGNING)
    }

    pub(crate) fn p521_sha512() -> Self {
        Self::ecdsa(&ECDSA_P521_SHA512_ASN1_SIGNING)
    }

    pub(crate) fn rsa() -> Self {
        Self::rsa_with(&RSA_PKCS1_SHA256)
    }

    pub(crate) fn rsa_sha512() -> Self {
        Self::rsa_with(&RSA_PKCS1_SHA512)
    }

    pub(crate) fn rsa_pss() -> Self {
        Self::rsa_with(&RSA_PSS_SHA256)
    }

    pub(crate) fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let spki = der(pair.public_key());
        Self { spki, sign: Rc::new(move |message: &[u8]| pair.sign(message).as_ref().to_vec()) }
    }

    /// The same signer, which tells of each message that it signs.
    pub(crate) fn telling(self, told: impl Fn(&[u8]) + 'static) -> Self {
        let Self { spki, sign } = self;
        let sign = move |message: &[u8]| {
            told(message);
            sign(message)
        };
        Self { spki, sign: Rc::new(sign) }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        (self.sign)(message)
    }

    pub(crate) fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki)
    }

    pub(crate) fn key(&self) -> PublicKey {
        PublicKey::from_pem(&self.pem()).unwrap()
    }

    /// A `.sig` layer with this payload.
    pub(crate) fn layer(&self, payload: &str) -> SignatureEvidence {
        let signature = STANDARD.encode(self.sign(payload.as_bytes()));
        SignatureEvidence::CosignLayer {
            payload: payload.as_bytes().to_vec(),
            annotations: [("dev.cosignproject.cosign/signature".to_owned(), signature)].into(),
        }
    }

    /// The envelope around this statement, as it is stored in an `.att` layer.
    pub(crate) fn envelope(&self, statement: &str) -> String {
        const TYPE: &str = "application/vnd.in-toto+json";
        let signed = format!("DSSEv1 28 {TYPE} {} {statement}", statement.len());
        format!(
            r#"{{"payloadType":"{TYPE}","payload":"{}","signatures":[{{"keyid":"","sig":"{}"}}]}}"#,
            STANDARD.encode(statement),
            STANDARD.encode(self.sign(signed.as_bytes()))
        )
    }

    /// A bundle around this statement, without a log entry.
    pub(crate) fn bundle(&self, statement: &str) -> Value {
        const TYPE: &str = "application/vnd.in-toto+json";
        let signed = format!("DSSEv1 28 {TYPE} {} {statement}", statement.len());
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "publicKey": {"hint": STANDARD.encode(sha256(&self.spki))},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": STANDARD.encode(statement),
                "payloadType": TYPE,
                "signatures": [{"sig": STANDARD.encode(self.sign(signed.as_bytes()))}],
            },
        })
    }
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// The payload that cosign writes.
pub(crate) fn claim(image: &Digest, optional: &str) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.test/app"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"cosign container image signature"}},"optional":{optional}}}"#
    )
}

/// An attestation about an image, with this predicate.
pub(crate) fn attestation(image: &Digest, predicate_type: &str, predicate: &str) -> String {
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v0.1","subject":[{{"name":"registry.test/app","digest":{{"sha256":"{}"}}}}],"predicateType":"{predicate_type}","predicate":{predicate}}}"#,
        image.hex()
    )
}

/// The statement that cosign 3 writes.
pub(crate) fn statement(image: &Digest, annotations: &str) -> String {
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}},"annotations":{annotations}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#,
        image.hex()
    )
}

/// The body of a `hashedrekord` entry.
pub(crate) fn hashedrekord(payload: &[u8], signature: &[u8], key_pem: &str) -> String {
    hashedrekord_with("sha256", payload, signature, key_pem)
}

/// The body of a `hashedrekord` entry with this hash.
pub(crate) fn hashedrekord_with(hash: &str, payload: &[u8], signature: &[u8], key_pem: &str) -> String {
    let algorithm = match hash {
        "sha256" => &SHA256,
        "sha384" => &SHA384,
        "sha512" => &SHA512,
        _ => unreachable!(),
    };
    format!(
        r#"{{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{{"data":{{"hash":{{"algorithm":"{hash}","value":"{}"}}}},"signature":{{"content":"{}","publicKey":{{"content":"{}"}}}}}}}}"#,
        hex::encode(digest(algorithm, payload)),
        STANDARD.encode(signature),
        STANDARD.encode(key_pem)
    )
}

/// The body of a `dsse` entry.
pub(crate) fn dsse_entry(payload: &[u8], signature: &str, key_pem: &str) -> String {
    format!(
        r#"{{"apiVersion":"0.0.1","kind":"dsse","spec":{{"envelopeHash":{{"algorithm":"sha256","value":"{}"}},"payloadHash":{{"algorithm":"sha256","value":"{}"}},"signatures":[{{"signature":"{signature}","verifier":"{}"}}]}}}}"#,
        hex::encode(sha256(b"not looked at")),
        hex::encode(sha256(payload)),
        STANDARD.encode(key_pem)
    )
}

/// The body of a `rekord` entry, cosign 1's.
pub(crate) fn rekord(payload: &[u8], signature: &[u8], key_pem: &str) -> String {
    format!(
        r#"{{"apiVersion":"0.0.1","kind":"rekord","spec":{{"data":{{"hash":{{"algorithm":"sha256","value":"{}"}}}},"signature":{{"content":"{}","format":"x509","publicKey":{{"content":"{}"}}}}}}}}"#,
        hex::encode(sha256(payload)),
        STANDARD.encode(signature),
        STANDARD.encode(key_pem)
    )
}

/// The body of a `hashedrekord` 0.0.2 entry, Rekor v2's; the verifier is `certificate` or the key.
pub(crate) fn hashedrekord_v2(signed: &[u8], signature: &[u8], verifier: &Verifier<'_>) -> String {
    let verifier = match verifier {
        Verifier::Key(spki) => format!(r#""publicKey":{{"rawBytes":"{}"}}"#, STANDARD.encode(spki)),
        Verifier::Certificate(der) => {
            format!(r#""x509Certificate":{{"rawBytes":"{}"}}"#, STANDARD.encode(der))
        }
    };
    format!(
        r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"data":{{"algorithm":"SHA2_256","digest":"{}"}},"signature":{{"content":"{}","verifier":{{"keyDetails":"PKIX_ECDSA_P256_SHA_256",{verifier}}}}}}}}}}}"#,
        STANDARD.encode(sha256(signed)),
        STANDARD.encode(signature),
    )
}

/// Who a Rekor v2 entry says that signed.
pub(crate) enum Verifier<'a> {
    Key(&'a [u8]),
    Certificate(&'a [u8]),
}

/// The body of an `intoto` 0.0.1 entry for this envelope.
pub(crate) fn intoto(envelope: &[u8], key_pem: &str) -> String {
    format!(
        r#"{{"apiVersion":"0.0.1","kind":"intoto","spec":{{"content":{{"hash":{{"algorithm":"sha256","value":"{}"}}}},"publicKey":"{}"}}}}"#,
        hex::encode(sha256(envelope)),
        STANDARD.encode(key_pem)
    )
}

/// The body of an `intoto` 0.0.2 entry for this envelope.
pub(crate) fn intoto_v2(envelope: &[u8], payload: &[u8], signature: &[u8], key_pem: &str) -> String {
    format!(
        r#"{{"apiVersion":"0.0.2","kind":"intoto","spec":{{"content":{{"envelope":{{"payloadType":"application/vnd.in-toto+json","signatures":[{{"publicKey":"{}","sig":"{}"}}]}},"hash":{{"algorithm":"sha256","value":"{}"}},"payloadHash":{{"algorithm":"sha256","value":"{}"}}}}}}}}"#,
        STANDARD.encode(key_pem),
        STANDARD.encode(STANDARD.encode(signature)),
        hex::encode(sha256(envelope)),
        hex::encode(sha256(payload)),
    )
}

/// A transparency log, Rekor v1.
pub(crate) struct Log(pub(crate) Signer);

impl Log {
    pub(crate) fn new() -> Self {
        Self(Signer::p256())
    }

    fn id(&self) -> Vec<u8> {
        sha256(&self.0.spki)
    }

    fn promise(&self, body: &str, time: u64) -> String {
        let body = STANDARD.encode(body);
        // RFC 8785: keys in code point order, no blanks.
        let canonical = format!(
            r#"{{"body":"{body}","integratedTime":{time},"logID":"{}","logIndex":7}}"#,
            hex::encode(self.id())
        );
        STANDARD.encode(self.0.sign(canonical.as_bytes()))
    }

    /// The annotation that cosign 2 puts on a layer.
    pub(crate) fn annotation(&self, body: &str, time: u64) -> Value {
        json!({
            "SignedEntryTimestamp": self.promise(body, time),
            "Payload": {
                "body": STANDARD.encode(body),
                "integratedTime": time,
                "logIndex": 7,
                "logID": hex::encode(self.id()),
            },
        })
    }

    /// The entry in a bundle: the first of two leaves, with promise, proof and checkpoint.
    pub(crate) fn entry(&self, kind: &str, body: &str, time: u64) -> Value {
        self.entry_of(kind, "0.0.1", body, time)
    }

    pub(crate) fn entry_of(&self, kind: &str, version: &str, body: &str, time: u64) -> Value {
        let leaf = sha256(&[b"\0", body.as_bytes()].concat());
        let other = sha256(b"\0other leaf");
        let root = sha256(&[b"\x01".as_slice(), &leaf, &other].concat());
        let note = format!("log.test - 1\n2\n{}\n", STANDARD.encode(&root));
        let signature = [&self.id()[..4], &self.0.sign(note.as_bytes())].concat();
        json!({
            "logIndex": "7",
            "logId": {"keyId": STANDARD.encode(self.id())},
            "kindVersion": {"kind": kind, "version": version},
            "integratedTime": time.to_string(),
            "inclusionPromise": {"signedEntryTimestamp": self.promise(body, time)},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": STANDARD.encode(&root),
                "treeSize": "2",
                "hashes": [STANDARD.encode(&other)],
                "checkpoint": {"envelope": format!("{note}\n\u{2014} log.test {}\n", STANDARD.encode(signature))},
            },
            "canonicalizedBody": STANDARD.encode(body),
        })
    }
}

/// A transparency log, Rekor v2. Its entry is the second of two leaves.
pub(crate) struct TiledLog(pub(crate) Signer);

impl TiledLog {
    pub(crate) const ORIGIN: &'static str = "log2.test";

    pub(crate) fn new() -> Self {
        Self(Signer::ed25519())
    }

    pub(crate) fn id(&self) -> Vec<u8> {
        sha256(&[Self::ORIGIN.as_bytes(), b"\n\x01", &self.0.spki[12..]].concat())
    }

    /// The entry in a bundle. Fields that are not signed are left out.
    pub(crate) fn entry(&self, body: &str) -> Value {
        self.entry_named(Self::ORIGIN, body)
    }

    /// An entry whose checkpoint has another first line.
    pub(crate) fn entry_named(&self, origin: &str, body: &str) -> Value {
        let other = sha256(b"\0other leaf");
        let leaf = sha256(&[b"\0", body.as_bytes()].concat());
        let root = sha256(&[b"\x01".as_slice(), &other, &leaf].concat());
        let note = format!("{origin}\n2\n{}\n", STANDARD.encode(&root));
        let signature = STANDARD.encode([&self.id()[..4], &self.0.sign(note.as_bytes())].concat());
        let witness = STANDARD.encode([&b"wtns"[..], &[7; 72]].concat());
        let lines = format!("\u{2014} witness.test {witness}\n\u{2014} {origin} {signature}\n");
        json!({
            "logIndex": "1",
            "logId": {"keyId": STANDARD.encode(self.id())},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "inclusionProof": {
                "hashes": [STANDARD.encode(&other)],
                "checkpoint": {"envelope": format!("{note}\n{lines}")},
            },
            "canonicalizedBody": STANDARD.encode(body),
        })
    }
}
