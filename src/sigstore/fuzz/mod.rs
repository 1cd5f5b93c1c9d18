//! Fuzz targets of this layer, and the instance of Sigstore that signed their seeds.
//!
//! Its public parts are in `fuzz/trust` and its keys were thrown away, so nobody can sign by them any
//! more: whatever the targets see verified must be among the messages that were signed then.

mod evidence;
mod log;
#[cfg(test)]
mod seeds;
mod x509;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::oci::Digest;
use crate::sigstore::{
    Attestor, Authorities, Certificate, CertificateSigner, HashAlgorithm, Identity, IdentitySigner,
    IdentityText, KeySigner, LogTrust, PublicKey, SctTrust, Signer, TimestampAuthorities, TrustRoot,
};

pub(crate) use evidence::{attestation, bundle, json, signature, simple_signing, statement};
pub(crate) use log::{checkpoint, inclusion_proof, log_annotation, log_body, log_entry};
pub(crate) use x509::{certificate, public_key, sct, timestamp, trust_root};

/// Whom the targets believe.
struct Trust {
    root: TrustRoot,
    /// The key of some seeds.
    key: PublicKey,
    /// The certificate of the others.
    certificate: Certificate,
    /// One of each trust model.
    attestors: Vec<Attestor>,
}

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let root = TrustRoot::from_json(ROOT).expect("the seeds' trust root");
    let [key, cosign] = [KEY, COSIGN_KEY].map(|pem| PublicKey::from_pem(pem).expect("a key of the seeds"));
    let mut list = Certificate::list_from_pem(CERTIFICATE, 1).expect("the seeds' certificate");
    let certificate = list.remove(0);
    let attestors = attestors(&root, &[key.clone(), cosign], &certificate);
    Trust { root, key, certificate, attestors }
});

fn attestors(root: &TrustRoot, keys: &[PublicKey], certificate: &Certificate) -> Vec<Attestor> {
    let logged = || LogTrust::Required(root.logs());
    let attestor =
        |signer, log, timestamps| Attestor { signer, annotations: BTreeMap::new(), log, timestamps };
    let none = || Arc::new(TimestampAuthorities::none());
    let sct = || SctTrust::Required(root.certificate_logs());
    let hash = HashAlgorithm::Sha256;
    let text = IdentityText { subject: SUBJECT, issuer: ISSUER, ..IdentityText::default() };
    let identity = Identity::new(&text).expect("patterns");
    let identity = || {
        Signer::Identity(IdentitySigner {
            authorities: root.authorities(),
            identity: identity.clone(),
            sct: sct(),
        })
    };
    // The chain as a policy has it: the root apart.
    let chain =
        root.authorities().all().iter().flat_map(|found| found.certificates.clone()).collect::<Vec<_>>();
    let (last, intermediates) = chain.split_last().expect("an authority");
    let holder = Signer::Certificate(CertificateSigner {
        certificate: certificate.clone(),
        intermediates: intermediates.to_vec(),
        authorities: Arc::new(Authorities::from_roots(vec![last.clone()])),
        hash,
        sct: sct(),
    });
    let mut attestors = vec![
        attestor(identity(), logged(), root.timestamps()),
        attestor(identity(), LogTrust::Ignored, root.timestamps()),
        attestor(holder, logged(), none()),
    ];
    for key in keys {
        let key = Signer::Key(KeySigner { key: key.clone(), hash });
        attestors.push(attestor(key.clone(), logged(), root.timestamps()));
        attestors.push(attestor(key, LogTrust::Ignored, none()));
    }
    attestors
}

/// When the seeds were signed.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(TIME)
}

/// The image of the seeds' signatures.
fn image() -> Digest {
    Digest::of(b"image")
}

/// That of the signatures which cosign itself made.
fn cosign_image() -> Digest {
    COSIGN_IMAGE.parse().expect("a digest")
}

/// Whether one of the keys ever signed this message, or a log ever logged it.
fn is_genuine(message: &[u8]) -> bool {
    GENUINE.contains(&Digest::of(message).hex())
}

const TIME: u64 = 1_700_000_000;
const SUBJECT: &str = "alice@signer.test";
const ISSUER: &str = "https://issuer.test";

const COSIGN_IMAGE: &str = "sha256:f20c43161d73848408ef247f0ec7111b19fe58ffebc0cbcaa0d2c8bda4967268";

const ROOT: &[u8] = include_bytes!("../../../fuzz/trust/trusted_root.json");
const KEY: &str = include_str!("../../../fuzz/trust/key.pub");
const COSIGN_KEY: &str = include_str!("../../../fuzz/trust/cosign.pub");
const CERTIFICATE: &str = include_str!("../../../fuzz/trust/certificate.pem");
/// sha256 of each message, one a line.
const GENUINE: &str = include_str!("../../../fuzz/trust/genuine");
