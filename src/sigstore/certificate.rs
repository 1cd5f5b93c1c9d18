//! X.509 certificates of signers and authorities, read once.
//!
//! Reading says what a certificate claims, not whether it may be believed: that is `chain`'s business.
//! Refused are more than [`CERTIFICATE_LIMIT`] bytes, what is not DER, trailing bytes, an extension
//! that is there twice, a key that [`PublicKey`] refuses, and an extension that is read here and
//! malformed: names, key usages, basic constraints and Fulcio's own.
//!
//! Fulcio's extensions are 1.3.6.1.4.1.57264.1.n (fulcio/docs/oid-info.md): 1 to 6 are raw text, 7 is
//! the otherName of a user, 8 to 24 are DER UTF8Strings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use der::asn1::Utf8StringRef;
use der::{Decode as _, Encode as _, Tag};
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier};

use crate::oci::Digest;
use crate::sigstore::key::{KeyError, PublicKey};

/// A parsed certificate. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Parsed>);

#[derive(PartialEq, Eq)]
struct Parsed {
    der: Vec<u8>,
    key: PublicKey,
    subjects: Vec<Subject>,
    fulcio: BTreeMap<u32, String>,
    not_before: SystemTime,
    not_after: SystemTime,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    serial: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
    is_authority: bool,
    path_length: Option<u8>,
    key_usage: Option<KeyUsage>,
    extended_usages: Option<ExtendedUsages>,
}

/// One subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its text; an IP address in its usual form.
    pub text: String,
}

/// What a subject alternative name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// An e-mail address.
    Email,
    /// A URI.
    Uri,
    /// A DNS name.
    Dns,
    /// An IP address.
    Ip,
    /// Fulcio's user name (otherName 1.3.6.1.4.1.57264.1.7).
    FulcioName,
}

/// The extended key usages, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtendedUsages {
    pub(super) list: Vec<ObjectIdentifier>,
    pub(super) critical: bool,
}

/// Why something is not a usable certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No PEM block of a certificate.
    #[error("no PEM block (-----BEGIN CERTIFICATE-----) in the certificate")]
    NotPem,
    /// A PEM block that does not end or holds something else than base64.
    #[error("the certificate must be a list of complete PEM blocks")]
    BrokenPem,
    /// A private key.
    #[error("this is a private key (PEM type `{label}`): give the certificate, and treat this one as leaked")]
    PrivateKey {
        /// The PEM type.
        label: String,
    },
    /// Some other PEM block, such as a public key.
    #[error("PEM type `{label}` is not a certificate, only `CERTIFICATE` is")]
    OtherBlock {
        /// The PEM type, cut to 40 characters.
        label: String,
    },
    /// More certificates than are read.
    #[error("more than {limit} certificates")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// More bytes than are read.
    #[error("the certificate has more than {CERTIFICATE_LIMIT} bytes")]
    TooLarge,
    /// Not a certificate.
    #[error("the certificate cannot be read")]
    Malformed,
    /// An extension is there twice.
    #[error("the certificate has extension {oid} twice")]
    RepeatedExtension {
        /// Which one.
        oid: ObjectIdentifier,
    },
    /// An extension that is read here and malformed.
    #[error("the certificate's extension {oid} cannot be read")]
    MalformedExtension {
        /// Which one.
        oid: ObjectIdentifier,
    },
    /// Its key cannot be used.
    #[error("the certificate's key cannot be used: {0}")]
    Key(#[source] KeyError),
}

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_LIMIT {
            return Err(CertificateError::TooLarge);
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let body = parsed.tbs_certificate;
        let encoded = |name: &x509_cert::name::Name| name.to_der().map_err(|_| CertificateError::Malformed);
        let spki = body.subject_public_key_info.to_der().map_err(|_| CertificateError::Malformed)?;
        let extensions = Extensions::read(body.extensions.as_deref().unwrap_or_default())?;
        Ok(Self(Arc::new(Parsed {
            der: der.to_vec(),
            key: PublicKey::from_spki(&spki).map_err(CertificateError::Key)?,
            subjects: extensions.subjects,
            fulcio: extensions.fulcio,
            not_before: body.validity.not_before.to_system_time(),
            not_after: body.validity.not_after.to_system_time(),
            issuer: encoded(&body.issuer)?,
            subject: encoded(&body.subject)?,
            serial: body.serial_number.as_bytes().to_vec(),
            key_identifier: extensions.key_identifier,
            is_authority: extensions.is_authority,
            path_length: extensions.path_length,
            key_usage: extensions.key_usage,
            extended_usages: extensions.extended_usages,
        })))
    }

    /// Reads every certificate of a PEM text, at most `limit`; at least one. Text around the blocks is ignored.
    ///
    /// # Errors
    /// [`CertificateError`], which names what the text is instead.
    pub fn list_from_pem(pem: &str, limit: usize) -> Result<Vec<Self>, CertificateError> {
        let mut list = Vec::new();
        let mut text = pem;
        while let Some((_, rest)) = text.split_once(BEGIN) {
            let (label, rest) = rest.split_once(DASHES).ok_or(CertificateError::BrokenPem)?;
            if label != "CERTIFICATE" {
                let label: String = label.chars().take(40).filter(|found| !found.is_control()).collect();
                let secret = label.ends_with("PRIVATE KEY");
                return Err(if secret {
                    CertificateError::PrivateKey { label }
                } else {
                    CertificateError::OtherBlock { label }
                });
            }
            if list.len() == limit {
                return Err(CertificateError::TooMany { limit });
            }
            let (body, rest) = rest.split_once(END).ok_or(CertificateError::BrokenPem)?;
            if body.len() > 2 * CERTIFICATE_LIMIT {
                return Err(CertificateError::TooLarge);
            }
            let body: String = body.chars().filter(|found| !found.is_ascii_whitespace()).collect();
            let der = STANDARD.decode(body).map_err(|_| CertificateError::BrokenPem)?;
            list.push(Self::from_der(&der)?);
            text = rest;
        }
        if list.is_empty() { Err(CertificateError::NotPem) } else { Ok(list) }
    }

    /// Its exact bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// sha256 of its bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0.der)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.0.key
    }

    /// All its subject alternative names of the kinds in [`SubjectKind`].
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.0.subjects
    }

    /// The text of a Fulcio extension (1.3.6.1.4.1.57264.1.n), raw (1.1 to 1.6) or as a DER UTF8String.
    #[must_use]
    pub fn fulcio_extension(&self, arc: u32) -> Option<&str> {
        self.0.fulcio.get(&arc).map(String::as_str)
    }

    /// The OIDC issuer: extension 1.8, or 1.1; none where both are there and differ.
    #[must_use]
    pub fn oidc_issuer(&self) -> Option<&str> {
        match (self.fulcio_extension(1), self.fulcio_extension(8)) {
            (Some(old), Some(new)) if old != new => None,
            (old, new) => new.or(old),
        }
    }

    /// From when it is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// The last moment at which it is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// Whether it says that it may issue certificates (basic constraints, cA).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.0.is_authority
    }

    /// How many certificates may lie between it and a signer's (basic constraints, pathLenConstraint).
    pub(super) fn path_length(&self) -> Option<u8> {
        self.0.path_length
    }

    /// Whether its issuer has its own name, as a root's has.
    #[must_use]
    pub fn self_issued(&self) -> bool {
        self.0.issuer == self.0.subject
    }

    /// Whether both issuer extensions are there and say different things.
    pub(super) fn contradicts_itself(&self) -> bool {
        matches!((self.fulcio_extension(1), self.fulcio_extension(8)), (Some(old), Some(new)) if old != new)
    }

    /// Whether `time` is within its validity; both ends belong to it.
    pub(super) fn valid_at(&self, time: SystemTime) -> bool {
        self.0.not_before <= time && time <= self.0.not_after
    }

    /// The DER bytes of its issuer's name.
    pub(super) fn issuer(&self) -> &[u8] {
        &self.0.issuer
    }

    /// The DER bytes of its own name.
    pub(super) fn subject(&self) -> &[u8] {
        &self.0.subject
    }

    /// The bytes of its serial number.
    pub(super) fn serial(&self) -> &[u8] {
        &self.0.serial
    }

    /// Its subject key identifier.
    pub(super) fn key_identifier(&self) -> Option<&[u8]> {
        self.0.key_identifier.as_deref()
    }

    /// Whether its key may sign messages: no key usage is given, or digitalSignature is among them.
    pub(super) fn may_sign(&self) -> bool {
        self.0.key_usage.is_none_or(|usage| usage.digital_signature())
    }

    /// Whether its key may sign certificates: no key usage is given, or keyCertSign is among them.
    pub(super) fn may_issue(&self) -> bool {
        self.0.key_usage.is_none_or(|usage| usage.key_cert_sign())
    }

    pub(super) fn extended_usages(&self) -> Option<&ExtendedUsages> {
        self.0.extended_usages.as_ref()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// What is read of the extensions.
struct Extensions {
    subjects: Vec<Subject>,
    fulcio: BTreeMap<u32, String>,
    key_identifier: Option<Vec<u8>>,
    is_authority: bool,
    path_length: Option<u8>,
    key_usage: Option<KeyUsage>,
    extended_usages: Option<ExtendedUsages>,
}

impl Extensions {
    fn read(list: &[x509_cert::ext::Extension]) -> Result<Self, CertificateError> {
        let mut read = Self {
            subjects: Vec::new(),
            fulcio: BTreeMap::new(),
            key_identifier: None,
            is_authority: false,
            path_length: None,
            key_usage: None,
            extended_usages: None,
        };
        let mut seen = BTreeSet::new();
        for extension in list {
            let (oid, value) = (extension.extn_id, extension.extn_value.as_bytes());
            // RFC 5280, 4.2. Two readers could go by different ones.
            if !seen.insert(oid) {
                return Err(CertificateError::RepeatedExtension { oid });
            }
            read.one(oid, value, extension.critical)
                .map_err(|_| CertificateError::MalformedExtension { oid })?;
        }
        Ok(read)
    }

    fn one(&mut self, oid: ObjectIdentifier, value: &[u8], critical: bool) -> der::Result<()> {
        match oid {
            SUBJECT_ALT_NAME => self.subjects = subjects(value)?,
            BASIC_CONSTRAINTS => {
                let constraints = BasicConstraints::from_der(value)?;
                (self.is_authority, self.path_length) = (constraints.ca, constraints.path_len_constraint);
            }
            KEY_USAGE => self.key_usage = Some(KeyUsage::from_der(value)?),
            EXTENDED_KEY_USAGE => {
                let list = ExtendedKeyUsage::from_der(value)?.0;
                self.extended_usages = Some(ExtendedUsages { list, critical });
            }
            SUBJECT_KEY_IDENTIFIER => {
                let identifier = SubjectKeyIdentifier::from_der(value)?;
                self.key_identifier = Some(identifier.0.as_bytes().to_vec());
            }
            _ => {
                if let Some(arc) = fulcio_arc(oid) {
                    let text = match arc {
                        1..=6 => str::from_utf8(value).map_err(|_| Tag::Utf8String.value_error())?,
                        _ => Utf8StringRef::from_der(value)?.as_str(),
                    };
                    self.fulcio.insert(arc, text.to_owned());
                }
            }
        }
        Ok(())
    }
}

/// The last number of a Fulcio extension that holds a text.
fn fulcio_arc(oid: ObjectIdentifier) -> Option<u32> {
    let arc = oid.arcs().last()?;
    (oid.parent() == Some(FULCIO) && matches!(arc, 1..=6 | 8..=FULCIO_LAST)).then_some(arc)
}

/// Every name of a kind that can be a signer's. The others (directory names, foreign otherNames and
/// the like) name nobody that a policy could ask for.
fn subjects(value: &[u8]) -> der::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for name in GeneralNames::from_der(value)? {
        let (kind, text) = match name {
            GeneralName::Rfc822Name(text) => (SubjectKind::Email, text.as_str().to_owned()),
            GeneralName::UniformResourceIdentifier(text) => (SubjectKind::Uri, text.as_str().to_owned()),
            GeneralName::DnsName(text) => (SubjectKind::Dns, text.as_str().to_owned()),
            GeneralName::IpAddress(address) => (SubjectKind::Ip, ip_address(address.as_bytes())?),
            GeneralName::OtherName(name) if name.type_id == FULCIO_NAME => {
                (SubjectKind::FulcioName, name.value.decode_as::<Utf8StringRef<'_>>()?.as_str().to_owned())
            }
            GeneralName::OtherName(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EdiPartyName(_)
            | GeneralName::RegisteredId(_) => continue,
        };
        subjects.push(Subject { kind, text });
    }
    Ok(subjects)
}

/// As Go writes it: an IPv4 address in IPv6 clothes is an IPv4 address.
fn ip_address(bytes: &[u8]) -> der::Result<String> {
    let address = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(four), _) => IpAddr::from(four),
        (_, Ok(sixteen)) => Ipv6Addr::from(sixteen).to_canonical(),
        _ => return Err(Tag::OctetString.length_error()),
    };
    Ok(address.to_string())
}

/// The largest certificate that is read. (webpki reads no larger ones; Fulcio's have 1 KiB.)
pub(super) const CERTIFICATE_LIMIT: usize = 64 << 10;
/// The last extension that Fulcio documents.
pub(super) const FULCIO_LAST: u32 = 24;

const DASHES: &str = "-----";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END CERTIFICATE-----";

const FULCIO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1");
const FULCIO_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.7");
// RFC 5280, 4.2.1.
const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
