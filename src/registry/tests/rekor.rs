//! Look-ups in a transparency log, against a log of ours: a real Rekor v1 keeps its tree in Trillian and
//! a database, which a unit test cannot start. The fake does what counts here: it takes a proposed
//! entry, makes its canonical form, and answers with the entry of exactly that form, signed; it knows
//! entries by hash too; it refuses what a log would not take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::outcome::Lookup;
use crate::sigstore::{
    Attestor, HashAlgorithm, KeySigner, LogTrust, Logs, PublicKey, SignatureEvidence, Signer,
    TimestampAuthorities, verify_signature,
};

const TIME: u64 = 1_700_000_000;

pub(crate) struct Holder(EcdsaKeyPair);

impl Holder {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    pub(crate) fn pem(&self) -> String {
        let text = STANDARD.encode(self.spki());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &text[..64], &text[64..])
    }

    pub(crate) fn key(&self) -> PublicKey {
        PublicKey::from_pem(&self.pem()).unwrap()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), message).unwrap())
    }
}

fn image() -> Digest {
    Digest::of(b"the image")
}

fn layer(holder: &Holder) -> SignatureEvidence {
    unlogged_layer(holder, &image())
}

/// A signature without its log entry, as `cosign sign` and a lost annotation leave it.
pub(crate) fn unlogged_layer(holder: &Holder, image: &Digest) -> SignatureEvidence {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"a.io/b"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        image
    );
    let signature = holder.sign(payload.as_bytes());
    let annotations = [("dev.cosignproject.cosign/signature".to_owned(), signature)].into();
    SignatureEvidence::CosignLayer { payload: payload.into_bytes(), annotations }
}

pub(crate) fn attached(layer: &SignatureEvidence, bundle: &str) -> SignatureEvidence {
    let mut layer = layer.clone();
    if let SignatureEvidence::CosignLayer { annotations, .. } = &mut layer {
        annotations.insert(LOG_BUNDLE.to_owned(), bundle.to_owned());
    }
    layer
}

/// The same with the entry that this log gave.
pub(crate) fn logged(layer: &SignatureEvidence, log: &FakeRekor) -> SignatureEvidence {
    let answer = log.entry(&log.entries[0]);
    let entry = answer.as_object().unwrap().values().next().unwrap();
    let bundle = json!({
        "SignedEntryTimestamp": entry["verification"]["signedEntryTimestamp"],
        "Payload": {
            "body": entry["body"], "integratedTime": entry["integratedTime"],
            "logIndex": entry["logIndex"], "logID": entry["logID"],
        },
    });
    attached(layer, &bundle.to_string())
}

/// The body that the log keeps for a signature.
pub(crate) fn body(layer: &SignatureEvidence, holder: &Holder) -> Value {
    let SignatureEvidence::CosignLayer { payload, annotations } = layer else { panic!("a signature") };
    json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
        "data": {"hash": {"algorithm": "sha256", "value": Digest::of(payload).hex()}},
        "signature": {
            "content": annotations["dev.cosignproject.cosign/signature"],
            "publicKey": {"content": STANDARD.encode(holder.pem())},
        },
    }})
}

/// The log: the bodies that it holds, and by which hash its index finds them.
#[derive(Clone)]
pub(crate) struct FakeRekor {
    pub(crate) holder: Arc<Holder>,
    entries: Vec<Value>,
    index: BTreeMap<String, Vec<usize>>,
}

impl FakeRekor {
    pub(crate) fn new(entries: Vec<Value>) -> Self {
        Self { holder: Arc::new(Holder::new()), entries, index: BTreeMap::new() }
    }

    pub(crate) fn indexed(mut self, hash: &Digest, entries: &[usize]) -> Self {
        self.index.insert(hash.to_string(), entries.to_vec());
        self
    }

    pub(crate) async fn serve(self) -> Server {
        Server::start(move |seen| self.answer(&seen.line, &serde_json::from_str(&seen.body).unwrap())).await
    }

    pub(crate) fn answer(&self, line: &str, question: &Value) -> Reply {
        let json =
            |value: Value| Reply::new(200, value.to_string()).header("content-type", "application/json");
        match line {
            "POST /api/v1/index/retrieve" => {
                let found = self.index.get(question["hash"].as_str().unwrap());
                json(found.into_iter().flatten().map(|n| Self::uuid(&self.entries[*n])).collect())
            }
            "POST /api/v1/log/entries/retrieve" => {
                let proposed = question["entries"].as_array().into_iter().flatten();
                let mut ids: Vec<String> = proposed.map(Self::uuid).collect();
                let asked = question["entryUUIDs"].as_array().into_iter().flatten();
                ids.extend(asked.map(|id| id.as_str().unwrap().to_owned()));
                let known = self.entries.iter().filter(|entry| ids.contains(&Self::uuid(entry)));
                json(known.map(|entry| self.entry(entry)).collect())
            }
            _ => gone(),
        }
    }

    /// The hash of the leaf; the canonical form has sorted keys and no blanks.
    pub(crate) fn uuid(body: &Value) -> String {
        Digest::of(&[b"\0", body.to_string().as_bytes()].concat()).hex()
    }

    pub(crate) fn entry(&self, body: &Value) -> Value {
        let (encoded, id) = (STANDARD.encode(body.to_string()), Digest::of(&self.holder.spki()).hex());
        let signed = format!(r#"{{"body":"{encoded}","integratedTime":{TIME},"logID":"{id}","logIndex":7}}"#);
        json!({ Self::uuid(body): {
            "attestation": {"data": "not looked at"},
            "body": encoded, "integratedTime": TIME, "logID": id, "logIndex": 7,
            "verification": {
                "inclusionProof": {"checkpoint": "", "hashes": [], "logIndex": 7, "rootHash": "", "treeSize": 8},
                "signedEntryTimestamp": self.holder.sign(signed.as_bytes()),
            },
        }})
    }
}

async fn ask(
    client: &Client,
    server: &Server,
    layer: &SignatureEvidence,
    key: Option<&PublicKey>,
) -> Lookup<Vec<String>> {
    let url = format!("http://{}/", server.address);
    client.log_entries(LogQuestion { url: &url, evidence: layer, key }).await
}

fn attestor(key: PublicKey, log: PublicKey) -> Attestor {
    Attestor {
        signer: Signer::Key(KeySigner { key, hash: HashAlgorithm::Sha256 }),
        annotations: BTreeMap::new(),
        log: LogTrust::Required(Arc::new(Logs::from_keys(&[log]))),
        timestamps: Arc::new(TimestampAuthorities::none()),
    }
}

#[tokio::test]
async fn the_entry_of_a_signature_is_found_and_verifies() {
    let (holder, stranger) = (Holder::new(), Holder::new());
    let layer = layer(&holder);
    let log = FakeRekor::new(vec![body(&self::layer(&stranger), &stranger), body(&layer, &holder)]);
    let log_key = log.holder.key();
    let (server, client) = (log.serve().await, client());
    let Lookup::Found(found) = ask(&client, &server, &layer, Some(&holder.key())).await else {
        panic!("it is logged");
    };
    assert_eq!(found.len(), 1);
    let now = SystemTime::now();
    let attestor = attestor(holder.key(), log_key);
    assert!(verify_signature(&layer, &image(), &attestor, now).is_err());
    let verified = verify_signature(&attached(&layer, &found[0]), &image(), &attestor, now).unwrap();
    assert_eq!(verified.digest(), image());
    assert_eq!(client.requests(), RequestCounts { log: 1, ..RequestCounts::default() });
    // It is remembered.
    assert_eq!(ask(&client, &server, &layer, Some(&holder.key())).await, Lookup::Found(found));
    assert_eq!(client.requests().log, 1);
}

#[tokio::test]
async fn an_entry_by_another_log_is_found_and_does_not_verify() {
    let holder = Holder::new();
    let layer = layer(&holder);
    let (server, client) = (FakeRekor::new(vec![body(&layer, &holder)]).serve().await, client());
    let Lookup::Found(found) = ask(&client, &server, &layer, Some(&holder.key())).await else {
        panic!("it is logged");
    };
    let attestor = attestor(holder.key(), Holder::new().key());
    let attached = attached(&layer, &found[0]);
    assert!(verify_signature(&attached, &image(), &attestor, SystemTime::now()).is_err());
}

#[tokio::test]
async fn no_entry_is_a_definite_nothing_and_is_asked_again() {
    let holder = Holder::new();
    let layer = layer(&holder);
    let (server, client) = (FakeRekor::new(Vec::new()).serve().await, client());
    for asked in [2, 4] {
        assert_eq!(ask(&client, &server, &layer, Some(&holder.key())).await, Lookup::Absent);
        assert_eq!(client.requests().log, asked);
    }
    let lines = ["POST /api/v1/log/entries/retrieve", "POST /api/v1/index/retrieve"];
    assert_eq!(server.lines()[..2], lines);
    // A log does not hold what it would not take, and need not have an index.
    for status in [400, 422] {
        let server = Server::start(move |_| Reply::new(status, r#"{"code":400}"#)).await;
        assert_eq!(ask(&client, &server, &layer, Some(&holder.key())).await, Lookup::Absent, "{status}");
    }
    for status in [404, 501] {
        let server = Server::start(move |seen| {
            if seen.line.contains("/index/") { Reply::new(status, "") } else { Reply::new(200, "[]") }
        })
        .await;
        assert_eq!(ask(&client, &server, &layer, Some(&holder.key())).await, Lookup::Absent, "{status}");
    }
}

#[tokio::test]
async fn the_index_finds_entries_of_other_kinds_and_only_ours() {
    let holder = Holder::new();
    let layer = layer(&holder);
    let SignatureEvidence::CosignLayer { payload, .. } = &layer else { panic!("a signature") };
    let rekord = {
        let mut body = body(&layer, &holder);
        body["kind"] = "rekord".into();
        body
    };
    let stranger = Holder::new();
    let foreign = body(&self::layer(&stranger), &stranger);
    let log = FakeRekor::new(vec![foreign, rekord.clone()]).indexed(&Digest::of(payload), &[0, 1]);
    let expected = log.entry(&rekord);
    let (server, client) = (log.serve().await, client());
    let Lookup::Found(found) = ask(&client, &server, &layer, Some(&holder.key())).await else {
        panic!("it is logged");
    };
    let bodies: Vec<Value> = found.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(bodies[0]["Payload"]["body"], expected.as_object().unwrap().values().next().unwrap()["body"]);
}

#[tokio::test]
async fn an_attestation_is_asked_for_as_a_dsse_entry_then_by_hash() {
    let holder = Holder::new();
    let envelope = br#"{"payloadType":"t","payload":"","signatures":[{"sig":"AA=="}]}"#;
    let layer =
        SignatureEvidence::AttestationLayer { envelope: envelope.to_vec(), annotations: BTreeMap::new() };
    let kept = json!({"apiVersion": "0.0.2", "kind": "intoto", "spec": {}});
    let log = FakeRekor::new(vec![kept]).indexed(&Digest::of(envelope), &[0]);
    let (server, client) = (log.serve().await, client());
    let found = ask(&client, &server, &layer, Some(&holder.key())).await;
    assert!(matches!(&found, Lookup::Found(found) if found.len() == 1), "{found:?}");
    let proposed: Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    let content =
        json!({"envelope": str::from_utf8(envelope).unwrap(), "verifiers": [STANDARD.encode(holder.pem())]});
    let expected =
        json!({"entries": [{"apiVersion": "0.0.1", "kind": "dsse", "spec": {"proposedContent": content}}]});
    assert_eq!(proposed, expected);
}

#[tokio::test]
async fn without_a_key_the_certificate_beside_the_signature_is_asked_with() {
    let holder = Holder::new();
    let mut layer = layer(&holder);
    let (server, client) = (FakeRekor::new(Vec::new()).serve().await, client());
    assert_eq!(ask(&client, &server, &layer, None).await, Lookup::Absent);
    assert_eq!(client.requests().log, 0);
    if let SignatureEvidence::CosignLayer { annotations, .. } = &mut layer {
        annotations.insert("dev.sigstore.cosign/certificate".to_owned(), "a certificate\n".to_owned());
    }
    assert_eq!(ask(&client, &server, &layer, None).await, Lookup::Absent);
    let proposed: Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    let verifier = &proposed["entries"][0]["spec"]["signature"]["publicKey"]["content"];
    assert_eq!(*verifier, json!(STANDARD.encode("a certificate\n")));
}

#[tokio::test]
async fn a_log_that_gives_no_answer_is_unreachable_and_never_absent() {
    type Make = fn() -> Reply;
    let table: [(Make, &str); 8] = [
        (|| Reply::new(500, ""), "gives no usable answer"),
        (|| Reply::new(429, ""), "gives no usable answer"),
        (|| Reply::new(403, ""), "gives no usable answer"),
        (|| Reply::new(200, "<html>"), "gives no usable answer"),
        (|| Reply::new(200, r#"[{"x":{"body":7}}]"#), "gives no usable answer"),
        (|| Reply::new(307, "").header("location", "/elsewhere"), "gives no usable answer"),
        (|| Reply::new(200, "").body(Body::Endless), "gives no usable answer"),
        (|| Reply::new(200, "").body(Body::Stalls(b"[".to_vec())), "does not answer in time"),
    ];
    let holder = Holder::new();
    let layer = layer(&holder);
    for (make, words) in table {
        let (server, client) = (Server::start(move |_| make()).await, impatient());
        let fault = match ask(&client, &server, &layer, Some(&holder.key())).await {
            Lookup::Unreachable(fault) => fault,
            other @ (Lookup::Found(_) | Lookup::Absent) => panic!("{other:?}"),
        };
        let message = format!("transparency log http://{}/ {words}", server.address);
        assert_eq!(fault, Fault::new(FaultReason::LogUnavailable, message));
        assert_eq!(client.requests().log, 1, "one try: {words}");
    }
    let client = client();
    for (url, words) in [
        ("http://127.0.0.1:1", "cannot be reached"),
        ("ftp://127.0.0.1", "cannot be reached"),
        ("nonsense", "cannot be reached"),
    ] {
        let question = LogQuestion { url, evidence: &layer, key: Some(&holder.key()) };
        let expected = Fault::new(FaultReason::LogUnavailable, format!("transparency log {url} {words}"));
        assert_eq!(client.log_entries(question).await, Lookup::Unreachable(expected));
    }
}

#[tokio::test]
async fn of_endless_entries_four_are_used() {
    let holder = Holder::new();
    let layer = layer(&holder);
    let log = FakeRekor::new(vec![body(&layer, &holder)]);
    let one = log.entry(&log.entries[0]);
    let many = Value::Array(vec![one; 200]).to_string();
    let (server, client) = (Server::start(move |_| Reply::new(200, many.clone())).await, client());
    let found = ask(&client, &server, &layer, Some(&holder.key())).await;
    assert!(matches!(&found, Lookup::Found(found) if found.len() == 4), "{found:?}");
}

#[tokio::test]
async fn a_large_attestation_is_not_sent_to_the_log() {
    let envelope = vec![b' '; 1024 * 1024 + 1];
    let digest = Digest::of(&envelope);
    let layer = SignatureEvidence::AttestationLayer { envelope, annotations: BTreeMap::new() };
    let kept = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {}});
    let log = FakeRekor::new(vec![kept]).indexed(&digest, &[0]);
    let (server, client) = (log.serve().await, client());
    let found = ask(&client, &server, &layer, Some(&Holder::new().key())).await;
    assert!(matches!(&found, Lookup::Found(found) if found.len() == 1), "{found:?}");
    assert_eq!(server.lines(), ["POST /api/v1/index/retrieve", "POST /api/v1/log/entries/retrieve"]);
    assert!(server.seen().iter().all(|seen| seen.body.len() < 200));
}
