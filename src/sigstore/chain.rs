//! Whether a certificate was issued by an authority to believe, and was valid at a time.
//!
//! The path is built and its signatures, validity, basic constraints, name constraints and extended key
//! usages are checked by rustls-webpki. What it leaves out is checked here: the key usages, and
//! everything about the certificates at which a path ends, their path length included, which webpki takes
//! as they come.
//!
//! The last certificate of an authority ends paths, its others only lead there: an authority's
//! intermediate that is expired, or that its own root did not sign, is worth nothing. A policy's `roots`
//! are one authority each, as in Go's pools, so each of them may end a path. A path may only use
//! authorities whose window holds the time, and certificates that are valid at it, the root included
//! (CVE-2026-24122). Certificates that came with the signature may only lead to an authority.
//!
//! Extended key usages, where a certificate of the path has any, must allow the purpose (RFC 5280,
//! 4.2.1.12); cosign wants no more of a certificate of a private authority. Key usages, where given,
//! must allow signing, or issuing. A certificate that is itself the end of a path is accepted without
//! one, as in Go: that is what `cert` together with itself as `certChain` says.
//!
//! Refused, although Go and so cosign would accept it (`tests/differences.md`):
//!
//! * by webpki: a signer's certificate that may itself issue certificates, unless it is the end of a path;
//!   certificates before version 3, which `openssl x509 -req` made for years; name constraints on URIs,
//!   e-mail addresses and directory names; critical policy extensions; more than six intermediates;
//! * here: roots before version 3, and of the certificates that came along the third of one name.
//!
//! A private authority is served by certificates of version 3 with CA:FALSE. Fulcio's are all of that kind.

use std::time::{SystemTime, UNIX_EPOCH};

use const_oid::ObjectIdentifier;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext,
    VerifiedPath, anchor_from_trusted_cert, aws_lc_rs as algorithms,
};

use crate::sigstore::authorities::Authorities;
use crate::sigstore::certificate::Certificate;
use crate::sigstore::rejection::{ChainFault, Limited, Rejection};

/// The SPKI (DER) of the certificate that issued a verified one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issuer(pub(super) Vec<u8>);

/// A path from a certificate to an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// Who issued the certificate.
    pub(super) issuer: Issuer,
    /// The last moment at which every certificate of the path is valid and its end is believed.
    pub(super) until: SystemTime,
}

/// A certificate at which a path may end.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) certificate: &'a Certificate,
    /// The last moment at which its authority is believed, if there is one.
    pub(super) until: Option<SystemTime>,
}

/// What a certificate must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    CodeSigning,
    TimeStamping,
}

/// Whether `leaf` leads to one of the authorities at `time`, by way of `intermediates` if need be.
pub(super) fn verify(
    leaf: &Certificate,
    intermediates: &[Certificate],
    authorities: &Authorities,
    time: SystemTime,
) -> Result<Path, Rejection> {
    if intermediates.len() > INTERMEDIATES {
        return Err(Rejection::LimitExceeded { what: Limited::Intermediates, limit: INTERMEDIATES });
    }
    let mut between: Vec<&Certificate> = Vec::new();
    for candidate in intermediates {
        if between.iter().filter(|known| known.subject() == candidate.subject()).count() < NAMESAKES {
            between.push(candidate);
        }
    }
    let mut ends = Vec::new();
    for authority in authorities.all().iter().filter(|authority| authority.window.holds(time)) {
        if let Some((certificate, others)) = authority.certificates.split_last() {
            ends.push(End { certificate, until: authority.window.end });
            between.extend(others);
        }
    }
    path(leaf, &between, &ends, time, Purpose::CodeSigning)
}

/// Whether `leaf` leads to one of `ends` at `time`, by way of certificates of `between`.
pub(super) fn path(
    leaf: &Certificate,
    between: &[&Certificate],
    ends: &[End<'_>],
    time: SystemTime,
    purpose: Purpose,
) -> Result<Path, Rejection> {
    let fault = |fault| Err(Rejection::CertificateChain(fault));
    if !leaf.valid_at(time) {
        return Err(Rejection::CertificateTime);
    }
    if !leaf.may_sign() {
        return Err(Rejection::CertificateUsage);
    }
    let ends: Vec<End<'_>> = ends.iter().copied().filter(|end| end.certificate.valid_at(time)).collect();
    if ends.is_empty() {
        return fault(ChainFault::NoAuthorityAtTime);
    }
    if let Some(end) = ends.iter().filter(|end| end.certificate == leaf).max_by_key(|end| end.last_moment()) {
        return if purpose.allowed_by(leaf) {
            Ok(Path { issuer: Issuer(leaf.key().spki_der().to_vec()), until: end.last_moment() })
        } else {
            Err(Rejection::CertificateUsage)
        };
    }
    let ends: Vec<(End<'_>, CertificateDer<'_>)> = ends
        .into_iter()
        .filter(|End { certificate, .. }| {
            certificate.is_authority() && certificate.may_issue() && purpose.allowed_by(certificate)
        })
        .map(|end| (end, CertificateDer::from(end.certificate.der())))
        .collect();
    let (ends, anchors): (Vec<End<'_>>, Vec<TrustAnchor<'_>>) =
        ends.iter().filter_map(|(end, der)| Some((*end, anchor_from_trusted_cert(der).ok()?))).unzip();
    let between: Vec<&Certificate> =
        between.iter().copied().filter(|certificate| certificate.may_issue()).collect();
    let between_der: Vec<CertificateDer<'_>> =
        between.iter().map(|certificate| CertificateDer::from(certificate.der())).collect();
    let Ok(since_epoch) = time.duration_since(UNIX_EPOCH) else {
        return Err(Rejection::CertificateTime);
    };

    // Several certificates of one key and name are one anchor: the last of those that reach so far counts.
    let reached = |path: &VerifiedPath<'_>| {
        let length = path.intermediate_certificates().count();
        let named = ends.iter().zip(&anchors).filter(|(_, anchor)| *anchor == path.anchor());
        let far =
            named.filter(|(end, _)| end.certificate.path_length().is_none_or(|most| length <= most.into()));
        far.map(|(end, _)| end.last_moment()).max()
    };
    let reaches = |path: &VerifiedPath<'_>| reached(path).map(drop).ok_or(Error::PathLenConstraintViolated);
    let der = CertificateDer::from(leaf.der());
    let end_entity = EndEntityCert::try_from(&der).map_err(rejection)?;
    let verified = end_entity
        .verify_for_usage(
            ALGORITHMS,
            &anchors,
            &between_der,
            UnixTime::since_unix_epoch(since_epoch),
            purpose,
            None,
            Some(&reaches),
        )
        .map_err(rejection)?;
    let used = |certificate: &&&Certificate| {
        verified.intermediate_certificates().any(|used| used.der().as_ref() == certificate.der())
    };
    let ends = between.iter().filter(used).map(|certificate| certificate.not_after());
    let until = ends.chain(reached(&verified)).fold(leaf.not_after(), SystemTime::min);
    Ok(Path { issuer: Issuer(verified.issuer_spki().as_ref().to_vec()), until })
}

impl End<'_> {
    fn last_moment(&self) -> SystemTime {
        let of_certificate = self.certificate.not_after();
        self.until.map_or(of_certificate, |until| until.min(of_certificate))
    }
}

impl Purpose {
    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::CodeSigning => CODE_SIGNING,
            Self::TimeStamping => TIME_STAMPING,
        }
    }

    /// Whether the extended key usages of a certificate, if it has any, allow the purpose.
    fn allowed_by(self, certificate: &Certificate) -> bool {
        certificate
            .extended_usages()
            .is_none_or(|usages| usages.list.contains(&self.oid()) || usages.list.contains(&ANY_USAGE))
    }
}

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let wanted = |oid: ObjectIdentifier| {
            oid.arcs().filter_map(|arc| usize::try_from(arc).ok()).collect::<Vec<usize>>()
        };
        let mut present = Vec::new();
        for usage in usages {
            present.push(usage?.to_decoded_oid());
        }
        if present.is_empty() || present.contains(&wanted(self.oid())) || present.contains(&wanted(ANY_USAGE))
        {
            return Ok(());
        }
        // The context is for people; the variant is what is looked at.
        let required = KeyUsage::required_if_present(&[]);
        Err(Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present }))
    }
}

/// webpki's errors in Go's words. It reports the one of the path that came furthest.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open; what is not named denies as well")]
fn rejection(error: Error) -> Rejection {
    Rejection::CertificateChain(match error {
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } | Error::InvalidCertValidity => {
            ChainFault::Expired
        }
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            return Rejection::CertificateUsage;
        }
        Error::CaUsedAsEndEntity => ChainFault::AuthorityAsLeaf,
        Error::EndEntityUsedAsCa | Error::PathLenConstraintViolated => ChainFault::MayNotIssue,
        Error::NameConstraintViolation => ChainFault::NameConstraint,
        Error::UnsupportedCriticalExtension => ChainFault::CriticalExtension,
        Error::UnsupportedCertVersion => ChainFault::OldVersion,
        _ => ChainFault::UnknownAuthority,
    })
}

/// Kyverno reads as many.
const INTERMEDIATES: usize = 10;
/// How many of the certificates that came with a signature may have one name; further ones lead nowhere.
/// An authority that signed another anew, or crosswise, has two. webpki verifies no signature
/// before it reaches an authority, so ten that seem to issue each other take it a second.
const NAMESAKES: usize = 2;

// RFC 5280, 4.2.1.12.
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
pub(super) const TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// The signatures of certificates that are accepted: the keys of `key`, SHA-2 only.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
