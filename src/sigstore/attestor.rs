//! Who must have signed, and how that is proven: what a policy's attestor says, ready for use.
//!
//! An attestor without a key, a certificate or authorities cannot be built, and each trust model has
//! only the fields that it uses. Everything here is prepared at load: a regular expression that does
//! not compile or a certificate that cannot be read is an error of the policy, not of an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::oci::Digest;
use crate::sigstore::authorities::{Authorities, TimestampAuthorities};
use crate::sigstore::certificate::Certificate;
use crate::sigstore::identity::Identity;
use crate::sigstore::key::{HashAlgorithm, PublicKey};
use crate::sigstore::logs::Logs;

/// One attestor. All its conditions hold on the same signature (rule D3).
#[derive(Clone, Debug)]
pub struct Attestor {
    /// Who signed.
    pub signer: Signer,
    /// The pairs that the signer must have signed along.
    pub annotations: BTreeMap<String, String>,
    /// Which transparency logs must know the signature.
    pub log: LogTrust,
    /// Whose timestamps prove when the signature was made; may be none at all.
    pub timestamps: Arc<TimestampAuthorities>,
}

/// Who signed.
#[derive(Clone, Debug)]
pub enum Signer {
    /// The holder of a key. A policy's `certificates.cert` without a chain is one too: upstream takes
    /// its key and looks at nothing else of it.
    Key(KeySigner),
    /// The holder of a certificate that the policy names together with its chain.
    Certificate(CertificateSigner),
    /// Whoever has a certificate of these authorities and fits the identity.
    Identity(IdentitySigner),
}

/// The holder of a key.
#[derive(Clone, Debug)]
pub struct KeySigner {
    /// The key.
    pub key: PublicKey,
    /// The hash that the policy names.
    pub hash: HashAlgorithm,
}

/// The holder of a certificate.
#[derive(Clone, Debug)]
pub struct CertificateSigner {
    /// The certificate.
    pub certificate: Certificate,
    /// Certificates between it and the authorities.
    pub intermediates: Vec<Certificate>,
    /// The roots that it must chain to, at every proven time.
    pub authorities: Arc<Authorities>,
    /// The hash that the policy names.
    pub hash: HashAlgorithm,
    /// Which certificate transparency logs must know the certificate.
    pub sct: SctTrust,
}

/// Whoever has a certificate of these authorities and fits the identity.
#[derive(Clone, Debug)]
pub struct IdentitySigner {
    /// Who issues the certificates: the trust root's, or a policy's own roots.
    pub authorities: Arc<Authorities>,
    /// Whom the certificate must name.
    pub identity: Identity,
    /// Which certificate transparency logs must know the certificate.
    pub sct: SctTrust,
}

/// Which transparency logs must know a signature.
#[derive(Clone, Debug)]
pub enum LogTrust {
    /// None (`rekor.ignoreTlog: true`). Entries that come with a signature are not looked at.
    Ignored,
    /// One of these.
    Required(Arc<Logs>),
}

/// Which certificate transparency logs must know a certificate.
#[derive(Clone, Debug)]
pub enum SctTrust {
    /// None (`ctlog.ignoreSCT: true`).
    Ignored,
    /// One of these.
    Required(Arc<Logs>),
}

impl Attestor {
    /// Everything that it asks for, as canonical JSON: two attestors that can differ in a verdict differ here.
    #[must_use]
    pub fn describe(&self) -> Value {
        let signer = match &self.signer {
            Signer::Key(signer) => {
                json!({ "key": signer.key.fingerprint(), "hash": format!("{:?}", signer.hash) })
            }
            Signer::Certificate(signer) => json!({
                "certificate": signer.certificate.fingerprint(),
                "intermediates": signer.intermediates.iter().map(Certificate::fingerprint).collect::<Vec<_>>(),
                "authorities": signer.authorities.fingerprint(),
                "hash": format!("{:?}", signer.hash),
                "sct": signer.sct.logs().map(Logs::fingerprint),
            }),
            Signer::Identity(signer) => json!({
                "authorities": signer.authorities.fingerprint(),
                "identity": signer.identity.describe(),
                "sct": signer.sct.logs().map(Logs::fingerprint),
            }),
        };
        json!({
            "signer": signer,
            "annotations": self.annotations,
            "log": self.log.logs().map(Logs::fingerprint),
            "timestamps": self.timestamps.fingerprint(),
        })
    }

    /// The trust material that comes from outside the policy's own signers: empty for keys without a log
    /// (rules C1, O3).
    #[must_use]
    pub fn trust(&self) -> Vec<Digest> {
        let mut trust: Vec<Digest> = self.log.logs().map(Logs::fingerprint).into_iter().collect();
        let sct = match &self.signer {
            Signer::Key(_) => None,
            Signer::Certificate(signer) => {
                trust.push(signer.authorities.fingerprint());
                signer.sct.logs()
            }
            Signer::Identity(signer) => {
                trust.push(signer.authorities.fingerprint());
                signer.sct.logs()
            }
        };
        trust.extend(sct.map(Logs::fingerprint));
        if !self.timestamps.is_empty() {
            trust.push(self.timestamps.fingerprint());
        }
        trust
    }
}

impl LogTrust {
    pub(super) fn logs(&self) -> Option<&Logs> {
        match self {
            Self::Ignored => None,
            Self::Required(logs) => Some(logs),
        }
    }
}

impl SctTrust {
    pub(super) fn logs(&self) -> Option<&Logs> {
        match self {
            Self::Ignored => None,
            Self::Required(logs) => Some(logs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigstore::test_signer::Signer as Keys;
    use crate::sigstore::test_sigstore::Instance;

    #[test]
    fn c1_o3_names_all_trust_that_is_not_the_signers_own_key() {
        let (instance, keys) = (Instance::new(), Keys::p256());
        let log = instance.logs().fingerprint();
        let timestamps = instance.timestamps();
        let sct = instance.sct();
        let certificates = sct.logs().unwrap().fingerprint();

        let key = Attestor { timestamps: Arc::clone(&timestamps), ..instance.key(&keys) };
        assert_eq!(key.trust(), [log, timestamps.fingerprint()]);
        let none = Arc::new(TimestampAuthorities::none());
        let bare = Attestor { log: LogTrust::Ignored, timestamps: none, ..key };
        assert_eq!(bare.trust(), []);

        let holder = instance.holder(&instance.certify(&keys, &Instance::draft()));
        for attestor in [instance.alice(), holder] {
            let attestor = Attestor { timestamps: Arc::clone(&timestamps), ..attestor };
            let (Signer::Certificate(CertificateSigner { authorities, .. })
            | Signer::Identity(IdentitySigner { authorities, .. })) = &attestor.signer
            else {
                unreachable!()
            };
            let authorities = authorities.fingerprint();
            assert_eq!(attestor.trust(), [log, authorities, certificates, timestamps.fingerprint()]);
        }
    }
}
