//! Entries of transparency logs and what proves them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sigstore_merkle::{hash_children, hash_leaf, verify_inclusion_proof};
use sigstore_types::{Checkpoint, Sha256Hash};

use super::{TRUST, is_genuine, now};
use crate::oci::Digest;
use crate::sigstore::bundle::STATEMENT_PAYLOAD;
use crate::sigstore::json as strict;
use crate::sigstore::key::{HashAlgorithm, Scheme};
use crate::sigstore::log_body::{Logged, compare};
use crate::sigstore::log_entry::{Demand, Entry, Kind, kind_and_spec};
use crate::sigstore::material::{Envelope, Signed};
use crate::sigstore::{PublicKey, log};

/// What the bodies among the seeds are about.
pub(super) const CLAIM: &[u8] = b"a claim";
pub(super) const PAYLOAD: &[u8] = b"a payload";
pub(super) const ENVELOPE: &[u8] = b"an envelope";
pub(super) const SIGNATURE: &[u8] = b"a signature";

/// An entry in a bundle.
pub(crate) fn log_entry(data: &[u8]) -> Option<()> {
    let parsed = strict::parse(data).ok()?;
    let [promise, proof] =
        [Demand::Promise, Demand::Proof].map(|demand| Entry::of_bundle(&parsed, demand).ok());
    assert!(promise.as_ref().is_none_or(|entry| entry.promise.is_some()));
    assert!(proof.as_ref().is_none_or(|entry| entry.proof.is_some()));
    proven(&promise.or(proof)?)
}

/// The annotation of a layer.
pub(crate) fn log_annotation(data: &[u8]) -> Option<()> {
    proven(&Entry::of_layer(str::from_utf8(data).ok()?).ok()?)
}

/// What a log's own words prove must be what they are about.
fn proven(entry: &Entry) -> Option<()> {
    let logs = TRUST.root.logs();
    log::proven(entry, log::log_of(entry, &logs)?, now()).ok()?;
    assert!(is_genuine(&entry.body), "a body that was never logged");
    if entry.promise.is_some() {
        let promised = json!({
            "body": STANDARD.encode(&entry.body),
            "integratedTime": entry.integrated,
            "logID": hex::encode(&entry.log),
            "logIndex": entry.index,
        });
        assert!(is_genuine(promised.to_string().as_bytes()), "a promise that was never given");
    }
    if let Some(proof) = &entry.proof {
        assert!(is_genuine(proof.checkpoint.signed_data()), "a checkpoint that was never signed");
    }
    Some(())
}

/// The body of an entry, held against signatures of both kinds.
pub(crate) fn log_body(data: &[u8]) -> Option<()> {
    let (kind, spec) = kind_and_spec(data).ok()?;
    let parsed: Value = serde_json::from_slice(data).expect("what was read strictly is JSON");
    let entry = Entry {
        log: Vec::new(),
        index: 0,
        kind,
        integrated: 0,
        promise: None,
        proof: None,
        body: data.to_vec(),
        spec,
    };
    let envelope = |stored: Option<&[u8]>| Envelope {
        payload_type: STATEMENT_PAYLOAD.to_owned(),
        payload: PAYLOAD.to_vec(),
        stored: stored.map(<[u8]>::to_vec),
    };
    let mut about = None;
    for envelope in [None, Some(envelope(None)), Some(envelope(Some(ENVELOPE)))] {
        let signed = envelope.as_ref().map_or_else(|| CLAIM.to_vec(), Envelope::signed_bytes);
        for certificate in [None, Some(&TRUST.certificate)] {
            let key: &PublicKey = certificate.map_or(&TRUST.key, |certificate| certificate.key());
            let logged = Logged {
                signed: &Signed::Bytes(signed.as_slice().into()),
                envelope: envelope.as_ref(),
                signature: SIGNATURE,
                scheme: Scheme::Ecdsa(HashAlgorithm::Sha256),
                key,
                certificate,
            };
            if compare(&entry, &logged).is_ok() {
                assert!(names(&parsed.to_string(), kind, &signed), "about something else");
                about = Some(());
            }
        }
    }
    about
}

/// Whether a body has in it what its kind must say of the signature.
fn names(body: &str, kind: Kind, signed: &[u8]) -> bool {
    let hex = |bytes: &[u8]| body.to_lowercase().contains(&Digest::of(bytes).hex());
    let signature = STANDARD.encode(SIGNATURE);
    match kind {
        Kind::HashedRekord | Kind::Rekord => hex(signed) && body.contains(&signature),
        Kind::HashedRekordV2 => {
            body.contains(&STANDARD.encode(Digest::of(signed).as_bytes())) && body.contains(&signature)
        }
        Kind::Dsse => hex(PAYLOAD) && body.contains(&signature),
        Kind::Intoto => hex(ENVELOPE),
        Kind::IntotoV2 => hex(PAYLOAD) && body.contains(&STANDARD.encode(signature)),
    }
}

/// A checkpoint.
pub(crate) fn checkpoint(data: &[u8]) -> Option<()> {
    let text = str::from_utf8(data).ok()?;
    let checkpoint = Checkpoint::from_text(text).ok()?;
    let signed = checkpoint.signed_data();
    assert!(text.as_bytes().starts_with(signed), "what is signed is not what came");
    let logs = TRUST.root.logs();
    let by_a_log = logs.all().iter().any(|log| log::signed_by(&checkpoint, &log.id, log));
    if !by_a_log {
        return None;
    }
    assert!(is_genuine(signed), "a checkpoint that was never signed");
    let root = STANDARD.encode(checkpoint.root_hash().as_bytes());
    let said = format!("{}\n{}\n{root}\n", checkpoint.origin(), checkpoint.tree_size());
    assert_eq!(said.as_bytes(), signed, "what is read is not what is signed");
    Some(())
}

/// Index and size of eight bytes each, then hashes: beside the algorithm of RFC 9162, 2.1.3.2.
pub(crate) fn inclusion_proof(data: &[u8]) -> Option<()> {
    let (index, rest) = data.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (index, size) = (u64::from_be_bytes(*index), u64::from_be_bytes(*size));
    let path: Vec<Sha256Hash> =
        rest.chunks_exact(32).filter_map(|hash| Sha256Hash::try_from(hash).ok()).collect();
    let leaf = hash_leaf(b"leaf");
    let verify = |root: &Sha256Hash| verify_inclusion_proof(&leaf, index, size, &path, root).is_ok();
    let root = root_of(leaf, index, size, &path);
    match &root {
        Some(root) => assert!(verify(root), "refuses the right root"),
        None => assert!(!verify(&leaf), "accepts a path of the wrong length"),
    }
    assert!(!verify(&hash_leaf(b"another")), "accepts another root");
    root.map(drop)
}

fn root_of(leaf: Sha256Hash, index: u64, size: u64, path: &[Sha256Hash]) -> Option<Sha256Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut root) = (index, size - 1, leaf);
    for hash in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            root = hash_children(hash, &root);
            while at != 0 && at % 2 == 0 {
                (at, last) = (at / 2, last / 2);
            }
        } else {
            root = hash_children(&root, hash);
        }
        (at, last) = (at / 2, last / 2);
    }
    (last == 0).then_some(root)
}
