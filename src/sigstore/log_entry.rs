//! Entries of transparency logs, as a bundle or a `.sig` layer's annotation carries them.
//!
//! An entry has a body (what was logged), a place in a log, and a proof: a promise (Rekor v1's signed
//! entry timestamp), an inclusion proof with the log's checkpoint, or both. Here it is only read. The
//! body must be of the kind and version that the entry says, and repeats no key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sigstore_types::{Checkpoint, Sha256Hash};

use crate::sigstore::json;
use crate::sigstore::material::limit;
use crate::sigstore::rejection::{Limited, Rejection};

/// One entry, unverified.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) log: Vec<u8>,
    /// Its index in the whole log.
    pub(super) index: u64,
    pub(super) kind: Kind,
    /// Seconds since 1970; zero where there is none.
    pub(super) integrated: u64,
    pub(super) promise: Option<Vec<u8>>,
    pub(super) proof: Option<Proof>,
    /// The exact bytes that were logged.
    pub(super) body: Vec<u8>,
    /// `spec` of the body.
    pub(super) spec: Value,
}

/// What was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `hashedrekord` 0.0.1.
    HashedRekord,
    /// `hashedrekord` 0.0.2, the one kind of Rekor v2.
    HashedRekordV2,
    /// `rekord` 0.0.1.
    Rekord,
    /// `dsse` 0.0.1.
    Dsse,
    /// `intoto` 0.0.1.
    Intoto,
    /// `intoto` 0.0.2.
    IntotoV2,
}

/// That an entry is in the tree of a checkpoint. The first three are of the signer's making, and Rekor v2
/// leaves them out.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) index: u64,
    pub(super) size: u64,
    pub(super) root: Option<Sha256Hash>,
    pub(super) hashes: Vec<Sha256Hash>,
    pub(super) checkpoint: Checkpoint,
}

/// Which proof a version of bundles asks of every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    Promise,
    Proof,
}

impl Entry {
    /// Reads an entry of a bundle.
    pub(super) fn of_bundle(entry: &Value, demand: Demand) -> Result<Self, Rejection> {
        let proof = json::field(entry, "inclusionProof");
        let hashes = proof.and_then(|proof| json::field(proof, "hashes")).and_then(Value::as_array);
        limit(Limited::ProofHashes, hashes.map_or(0, Vec::len), PROOF_LIMIT)?;
        let proof = proof.map(Proof::read).transpose()?;
        let malformed = Rejection::LogEntryMalformed;
        let log = json::field(entry, "logId").and_then(|id| bytes(id, "keyId")).ok_or(malformed.clone())?;
        let promise = match json::field(entry, "inclusionPromise") {
            Some(promise) => Some(bytes(promise, "signedEntryTimestamp").ok_or(malformed.clone())?),
            None => None,
        };
        let body = bytes(entry, "canonicalizedBody").ok_or(malformed.clone())?;
        let (kind, spec) = kind_and_spec(&body)?;
        let text =
            |name| json::field(entry, "kindVersion").and_then(|kind| json::field(kind, name)?.as_str());
        if text("kind").zip(text("version")) != Some(kind.names()) {
            return Err(malformed);
        }
        let unproven = match demand {
            Demand::Promise => promise.is_none(),
            Demand::Proof => proof.is_none(),
        };
        if unproven {
            return Err(Rejection::LogEntryUnproven);
        }
        let index = number(entry, "logIndex").ok_or(malformed.clone())?;
        let integrated = number(entry, "integratedTime").ok_or(malformed)?;
        Ok(Self { log, index, kind, integrated, promise, proof, body, spec })
    }

    /// Reads a layer's annotation: `{"SignedEntryTimestamp":"..","Payload":{"body":"..",..}}`.
    pub(super) fn of_layer(annotation: &str) -> Result<Self, Rejection> {
        let parsed = json::parse(annotation.as_bytes()).map_err(|_| Rejection::LogEntryMalformed)?;
        let read = || {
            let payload = json::field(&parsed, "Payload")?;
            let number = |name| json::field(payload, name)?.as_u64();
            let log = hex::decode(json::field(payload, "logID")?.as_str()?).ok()?;
            let promise = bytes(&parsed, "SignedEntryTimestamp")?;
            Some((log, number("logIndex")?, number("integratedTime")?, promise, bytes(payload, "body")?))
        };
        let (log, index, integrated, promise, body) = read().ok_or(Rejection::LogEntryMalformed)?;
        let (kind, spec) = kind_and_spec(&body)?;
        Ok(Self { log, index, kind, integrated, promise: Some(promise), proof: None, body, spec })
    }
}

impl Proof {
    fn read(proof: &Value) -> Result<Self, Rejection> {
        let read = || {
            let root = match json::field(proof, "rootHash") {
                Some(root) => Some(sha256(root)?),
                None => None,
            };
            let hashes = match json::field(proof, "hashes") {
                Some(hashes) => hashes.as_array()?.iter().map(sha256).collect::<Option<_>>()?,
                None => Vec::new(),
            };
            let checkpoint = json::field(json::field(proof, "checkpoint")?, "envelope")?.as_str()?;
            let checkpoint = Checkpoint::from_text(checkpoint).ok()?;
            Some(Self {
                index: number(proof, "logIndex")?,
                size: number(proof, "treeSize")?,
                root,
                hashes,
                checkpoint,
            })
        };
        let proof = read().ok_or(Rejection::LogProofInvalid)?;
        limit(Limited::CheckpointSignatures, proof.checkpoint.signatures().len(), SIGNATURE_LIMIT)?;
        Ok(proof)
    }
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::HashedRekord, Self::HashedRekordV2, Self::Rekord, Self::Dsse, Self::Intoto, Self::IntotoV2];

    /// Its name and version.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::HashedRekord => ("hashedrekord", "0.0.1"),
            Self::HashedRekordV2 => ("hashedrekord", "0.0.2"),
            Self::Rekord => ("rekord", "0.0.1"),
            Self::Dsse => ("dsse", "0.0.1"),
            Self::Intoto => ("intoto", "0.0.1"),
            Self::IntotoV2 => ("intoto", "0.0.2"),
        }
    }
}

/// Takes a body apart.
pub(super) fn kind_and_spec(body: &[u8]) -> Result<(Kind, Value), Rejection> {
    let mut body = json::parse(body).map_err(|_| Rejection::LogEntryMalformed)?;
    let text = |name| json::field(&body, name).and_then(Value::as_str);
    let names = text("kind").zip(text("apiVersion"));
    let kind = Kind::ALL.into_iter().find(|kind| Some(kind.names()) == names);
    let kind = kind.ok_or(Rejection::LogEntryMalformed)?;
    let spec = body.get_mut("spec").map(Value::take).ok_or(Rejection::LogEntryMalformed)?;
    Ok((kind, spec))
}

/// A number that is not negative; a text too, and zero if absent, as in the proto3 JSON mapping.
fn number(parent: &Value, name: &str) -> Option<u64> {
    match json::field(parent, name) {
        None => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    }
}

/// Bytes in base64.
pub(super) fn bytes(parent: &Value, name: &str) -> Option<Vec<u8>> {
    STANDARD.decode(json::field(parent, name)?.as_str()?).ok()
}

fn sha256(value: &Value) -> Option<Sha256Hash> {
    Sha256Hash::try_from(STANDARD.decode(value.as_str()?).ok()?.as_slice()).ok()
}

/// A tree of 2^64 leaves needs 64.
const PROOF_LIMIT: usize = 64;
/// The log's own signature and those of witnesses, of which a log has a handful.
const SIGNATURE_LIMIT: usize = 32;
