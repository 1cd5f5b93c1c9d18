//! A certificate authority of the tests.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::folder;

/// An authority that no machine knows.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// A file of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        let file = folder().join("authority.pem");
        fs::write(&file, &self.pem).expect("a file");
        file
    }

    /// Files of a certificate for loopback that holds for a day, and of its key.
    pub(crate) fn issue_valid(&self) -> (PathBuf, PathBuf) {
        self.issue(SystemTime::now() + Duration::from_secs(86_400))
    }

    /// The same until then.
    pub(crate) fn issue(&self, end: SystemTime) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.not_before = (end - Duration::from_secs(30 * 86_400)).into();
        parameters.not_after = end.into();
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let folder = folder();
        let (certificate_file, key_file) = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&certificate_file, certificate.pem()).expect("a file");
        fs::write(&key_file, key.serialize_pem()).expect("a file");
        (certificate_file, key_file)
    }
}
