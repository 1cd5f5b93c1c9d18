//! Rekor v2: entries that are proven by a checkpoint alone.

use super::*;
use crate::sigstore::log_entry::Demand;

/// A bundle in a log of Rekor v2.
struct Tiled {
    logged: Logged,
    log: TiledLog,
}

impl Tiled {
    fn new() -> Self {
        let (mut logged, log) = (Logged::new(Signer::p256()), TiledLog::new());
        let entry = log.entry(&Self::body(&logged));
        logged.set_entries(vec![entry]);
        Self { logged, log }
    }

    fn body(logged: &Logged) -> String {
        let signed =
            format!("DSSEv1 28 application/vnd.in-toto+json {} {}", logged.payload.len(), logged.payload);
        let signature = STANDARD.decode(&logged.signature).unwrap();
        hashedrekord_v2(signed.as_bytes(), &signature, &Verifier::Key(&logged.signer.spki))
    }

    fn judge(&self) -> Result<(), Rejection> {
        self.judge_by(LogKey {
            id: self.log.id(),
            key: self.log.0.key(),
            window: crate::sigstore::logs::Window::ALWAYS,
            origin: Some(TiledLog::ORIGIN.to_owned()),
        })
    }

    fn judge_by(&self, log: LogKey) -> Result<(), Rejection> {
        let trust = LogTrust::Required(Arc::new(Logs::new(vec![log])));
        judge_at(&self.logged.evidence(), &self.logged.signer, trust, TIME)
    }
}

#[test]
fn accepts_an_entry_of_rekor_v2_whose_checkpoint_a_witness_has_signed_first() {
    assert_eq!(Tiled::new().judge(), Ok(()));
}

#[test]
fn believes_the_checkpoint_of_a_rekor_v2_entry_and_not_what_is_beside_it() {
    let mut tiled = Tiled::new();
    let proof = &mut tiled.logged.entry()["inclusionProof"];
    (proof["logIndex"], proof["treeSize"]) = ("77".into(), "99".into());
    proof["rootHash"] = STANDARD.encode([0; 32]).into();
    assert_eq!(tiled.judge(), Ok(()));
    tiled.logged.entry()["logIndex"] = "0".into();
    assert_eq!(tiled.judge(), Err(Rejection::LogProofInvalid));
}

#[test]
fn denies_a_rekor_v2_entry_whose_proof_does_not_hold() {
    let changed = |change: fn(&mut Value)| {
        let mut tiled = Tiled::new();
        change(tiled.logged.entry());
        tiled.judge()
    };
    let path = changed(|entry| entry["inclusionProof"]["hashes"][0] = STANDARD.encode([0; 32]).into());
    assert_eq!(path, Err(Rejection::LogProofInvalid));
    let unsigned = changed(|entry| {
        let checkpoint = entry["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap().to_owned();
        let unsigned: Vec<&str> = checkpoint.split_inclusive('\n').take(5).collect();
        entry["inclusionProof"]["checkpoint"]["envelope"] = unsigned.concat().into();
    });
    assert_eq!(unsigned, Err(Rejection::LogProofInvalid));
    let other = changed(|entry| entry["logId"]["keyId"] = STANDARD.encode([0; 32]).into());
    assert_eq!(other, Err(Rejection::LogUnknown));
}

#[test]
fn denies_a_rekor_v2_checkpoint_of_another_name() {
    let mut tiled = Tiled::new();
    let entry = tiled.log.entry_named("other.test", &Tiled::body(&tiled.logged));
    tiled.logged.set_entries(vec![entry]);
    assert_eq!(tiled.judge(), Err(Rejection::LogProofInvalid));
}

#[test]
fn pitfall_03_denies_a_promise_in_a_rekor_v2_entry() {
    let mut tiled = Tiled::new();
    tiled.logged.entry()["integratedTime"] = TIME.into();
    // The log's own, over everything that a promise is over.
    let promised = json!({
        "body": tiled.logged.entry()["canonicalizedBody"],
        "integratedTime": TIME,
        "logID": hex::encode(tiled.log.id()),
        "logIndex": 1,
    });
    let promise = STANDARD.encode(tiled.log.0.sign(promised.to_string().as_bytes()));
    tiled.logged.entry()["inclusionPromise"] = json!({"signedEntryTimestamp": promise});
    assert_eq!(tiled.judge(), Err(Rejection::LogEntryMalformed));
}

#[test]
fn pitfall_02_denies_an_entry_with_neither_promise_nor_proof_however_it_was_read() {
    let mut logged = Logged::new(Signer::p256());
    let mut entry = Entry::of_bundle(logged.entry(), Demand::Proof).unwrap();
    let logs = Logs::from_keys(&[logged.log.0.key()]);
    let log = &logs.all()[0];
    let now = UNIX_EPOCH + Duration::from_secs(TIME);
    assert_eq!(proven(&entry, log, now), Ok(Some(now)));
    (entry.promise, entry.proof) = (None, None);
    assert_eq!(proven(&entry, log, now), Err(Rejection::LogEntryUnproven));
}

#[test]
fn knows_a_rekor_v2_log_by_its_key_alone() {
    let tiled = Tiled::new();
    let keys = [Signer::ed25519().key(), tiled.log.0.key()];
    let trust = LogTrust::Required(Arc::new(Logs::from_keys(&keys)));
    assert_eq!(judge_at(&tiled.logged.evidence(), &tiled.logged.signer, trust, TIME), Ok(()));
    let mut other = Tiled::new();
    let entry = other.log.entry_named("other.test", &Tiled::body(&other.logged));
    other.logged.set_entries(vec![entry]);
    let trust = LogTrust::Required(Arc::new(Logs::from_keys(&[other.log.0.key()])));
    // The id does not belong to that name.
    let result = judge_at(&other.logged.evidence(), &other.logged.signer, trust, TIME);
    assert_eq!(result, Err(Rejection::LogUnknown));
}
