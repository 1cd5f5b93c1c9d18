//! Which of several logs an entry is of, and when its key was one.

use super::*;

/// A log that is believed from and to these times.
fn windowed(log: &Log, start: u64, end: u64) -> LogTrust {
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    let key = log.0.key();
    let id = key.fingerprint().as_bytes().to_vec();
    let window = crate::sigstore::logs::Window { start: at(start), end: at(end) };
    LogTrust::Required(Arc::new(Logs::new(vec![LogKey { id, key, window, origin: None }])))
}

#[test]
fn pitfall_10_denies_a_promise_from_outside_of_the_log_keys_validity() {
    let (signer, log) = (Signer::p256(), Log::new());
    let (evidence, payload, signature) = layer(&signer);
    let annotation = log.annotation(&hashedrekord(&payload, &signature, &signer.pem()), TIME);
    let evidence = with_annotation(evidence, &annotation);
    let within = |start, end| judge_at(&evidence, &signer, windowed(&log, start, end), TIME + 100);
    assert_eq!(within(TIME, TIME), Ok(()));
    assert_eq!(within(TIME + 1, TIME + 2), Err(Rejection::LogUnknown));
    assert_eq!(within(TIME - 2, TIME - 1), Err(Rejection::LogUnknown));
}

#[test]
fn pitfall_10_an_entry_without_a_time_needs_a_log_key_that_has_begun() {
    let mut logged = Logged::new(Signer::p256());
    logged.entry().as_object_mut().unwrap().remove("inclusionPromise");
    let within =
        |start, end| judge_at(&logged.evidence(), &logged.signer, windowed(&logged.log, start, end), TIME);
    assert_eq!(within(TIME, TIME + 1), Ok(()));
    assert_eq!(within(TIME + 1, TIME + 2), Err(Rejection::LogUnknown));
    // It was logged before now, whenever the key ended.
    assert_eq!(within(TIME - 2, TIME - 1), Ok(()));
}

#[test]
fn finds_the_log_among_several() {
    let logged = Logged::new(Signer::p256());
    let keys = [Signer::p256().key(), Signer::ed25519().key(), logged.log.0.key()];
    let trust = LogTrust::Required(Arc::new(Logs::from_keys(&keys)));
    assert_eq!(judge_at(&logged.evidence(), &logged.signer, trust, TIME), Ok(()));
}

#[test]
fn denies_a_promise_by_another_trusted_log_than_the_entrys() {
    let (mut logged, other) = (Logged::new(Signer::p256()), Log::new());
    let both = LogTrust::Required(Arc::new(Logs::from_keys(&[logged.log.0.key(), other.0.key()])));
    let body = logged.body();
    let foreign = other.entry("dsse", &body, TIME);
    logged.entry()["inclusionPromise"] = foreign["inclusionPromise"].clone();
    let result = judge_at(&logged.evidence(), &logged.signer, both.clone(), TIME);
    assert_eq!(result, Err(Rejection::LogProofInvalid));
    let mut logged = Logged { log: logged.log, ..Logged::new(logged.signer) };
    let entry = logged.log.entry("dsse", &logged.body(), TIME);
    let foreign = other.entry("dsse", &logged.body(), TIME);
    logged.set_entries(vec![entry]);
    logged.entry()["inclusionProof"] = foreign["inclusionProof"].clone();
    assert_eq!(judge_at(&logged.evidence(), &logged.signer, both, TIME), Err(Rejection::LogProofInvalid));
}
