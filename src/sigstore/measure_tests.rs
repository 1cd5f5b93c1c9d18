//! How long one verification of each kind takes in this process: a measurement, not a test of time.
//!
//! `tests/bench/run core` runs it in a release build and prints the rows of a Markdown table. Every
//! kind is first shown to verify, so that no refusal is measured. Proofs are those of a log with two
//! entries: a real one has some 30 hashes more, each well under a microsecond.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::test_pki::at;
use super::test_signer::{Signer, TIME, attestation, claim};
use super::test_sigstore::{Instance, Signature, image};
use super::{Attestor, HashAlgorithm, LogTrust, SignatureEvidence, TimestampAuthorities};
use super::{verify_signature, verify_statement};

/// One verification, done over and over.
struct Kind {
    name: &'static str,
    evidence: SignatureEvidence,
    attestor: Attestor,
    statement: bool,
}

impl Kind {
    fn signature(name: &'static str, evidence: SignatureEvidence, attestor: Attestor) -> Self {
        Self { name, evidence, attestor, statement: false }
    }

    fn statement(name: &'static str, evidence: SignatureEvidence, attestor: Attestor) -> Self {
        Self { name, evidence, attestor, statement: true }
    }

    fn verify(&self, now: SystemTime) -> bool {
        if self.statement {
            verify_statement(&self.evidence, &image(), &self.attestor, now).is_ok()
        } else {
            verify_signature(&self.evidence, &image(), &self.attestor, now).is_ok()
        }
    }
}

/// Signed by a key, without a log.
fn unlogged(instance: &Instance, signer: &Signer) -> Attestor {
    let timestamps = Arc::new(TimestampAuthorities::none());
    Attestor { log: LogTrust::Ignored, timestamps, ..instance.key(signer) }
}

/// Signed by Alice, in a log of the first version.
fn logged(instance: &Instance, bundle: bool) -> Signature {
    let signer = Signer::p256();
    let certificate = Some(instance.certify(&signer, &Instance::draft()));
    let chain = vec![instance.intermediate()];
    let mut signature = if bundle {
        Signature::cosign(signer, certificate, chain)
    } else {
        Signature::claim(signer, certificate, chain)
    };
    signature.entries = vec![if bundle {
        instance.log.entry("dsse", &signature.dsse(), TIME)
    } else {
        instance.log.annotation(&signature.hashedrekord(), TIME)
    }];
    signature
}

/// The same in a log of the second version, whose time is a timestamp.
fn tiled(instance: &Instance) -> Signature {
    let mut signature = logged(instance, true);
    signature.entries = vec![instance.tiles.entry(&signature.hashedrekord_v2())];
    signature.stamps = vec![instance.stamp(&signature.signature, TIME)];
    signature
}

fn kinds(instance: &Instance, signer: &Signer) -> Vec<Kind> {
    let claim = claim(&image(), "null");
    let keyed = |predicate: &str| {
        let statement = attestation(&image(), "https://spdx.dev/Document", predicate);
        let envelope = signer.envelope(&statement).into_bytes();
        SignatureEvidence::AttestationLayer { envelope, annotations: Default::default() }
    };
    let large = format!("[{}]", vec![r#"{"name":"a package","version":"1.2.3"}"#; 25_000].join(","));
    vec![
        Kind::signature("key, legacy signature", signer.layer(&claim), unlogged(instance, signer)),
        Kind::signature(
            "keyless, legacy signature with SET",
            logged(instance, false).layer(),
            instance.alice(),
        ),
        Kind::signature(
            "keyless, bundle v0.2 with chain, promise and proof",
            logged(instance, true).bundle_evidence(),
            instance.alice(),
        ),
        Kind::signature(
            "keyless, bundle with the proof of a Rekor v2 log and a timestamp",
            tiled(instance).bundle_evidence(),
            instance.alice(),
        ),
        Kind::statement(
            "key, attestation of 1 KiB",
            keyed(&format!("[{}]", vec!["7"; 400].join(","))),
            unlogged(instance, signer),
        ),
        Kind::statement("key, attestation of 1 MiB", keyed(&large), unlogged(instance, signer)),
    ]
}

/// The median of many runs of `work`.
fn time(mut work: impl FnMut() -> bool) -> Duration {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            assert!(black_box(work()), "what is measured must verify");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[test]
#[ignore = "a measurement: tests/bench/run core"]
fn times_of_each_kind() {
    let (instance, signer) = (Instance::new(), Signer::p256());
    let now = at(TIME + 60);
    let message = claim(&image(), "null");
    let signature = signer.sign(message.as_bytes());
    let key = signer.key();
    let bare = time(|| key.verify(message.as_bytes(), &signature, HashAlgorithm::Sha256).is_some());
    println!("| bare check of one ECDSA P-256 signature | {:.1} µs | | |", micros(bare));
    for kind in kinds(&instance, &signer) {
        let took = time(|| kind.verify(now));
        let ratio = took.as_secs_f64() / bare.as_secs_f64();
        println!("| {} | {:.1} µs ({ratio:.2} bare checks) | | |", kind.name, micros(took));
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

const RUNS: usize = 2_000;
