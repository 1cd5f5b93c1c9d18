//! RFC 3161 timestamp tokens: when a signature was there already.
//!
//! A token counts if one authority to believe made it over exactly these bytes, at a time within that
//! authority's own window (one authority never lends another its window or its certificates). In order:
//! size, shape, the imprint, then for each authority: the signer's certificate, the signature over the
//! signed attributes, which name the content's hash, the certificate's usage, the path to the authority's root at
//! the stated time, the window.
//!
//! The signer must be the authority's own certificate, found by issuer and serial number, or key
//! identifier. Only where an authority names no such certificate (a policy's `tsaCertChain` of just
//! authorities) is it looked for among those in the token, and must lead to the authority like any other.
//! Certificates in the token are worth nothing else (CVE-2026-39984).
//!
//! Read are tokens and whole responses, ECDSA, RSA and Ed25519, SHA-2, times with fractions of a second.
//! Accuracy, ordering, nonce and policy say nothing that is asked here. The signing-certificate
//! attribute (ESSCertID) is not looked at: the certificate that is used is the one whose key signed and
//! that leads to the authority.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, OctetStringRef};
use der::{DateTime, Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _};
use spki::AlgorithmIdentifierRef;

use crate::sigstore::authorities::{Authority, TimestampAuthorities};
use crate::sigstore::certificate::Certificate;
use crate::sigstore::chain::{self, End, Purpose, TIME_STAMPING};
use crate::sigstore::key::HashAlgorithm;
use crate::sigstore::rejection::{Limited, Rejection};

/// The time at which a token by one of the authorities says that `over` was there.
///
/// [`Rejection::TimestampUnknownAuthority`] says that none of them has anything to do with the token; any
/// other rejection of a token over these bytes that it is one of theirs and does not hold.
pub(super) fn verify(
    token: &[u8],
    over: &[u8],
    authorities: &TimestampAuthorities,
) -> Result<SystemTime, Rejection> {
    if token.len() > TOKEN {
        return Err(Rejection::LimitExceeded { what: Limited::TimestampToken, limit: TOKEN });
    }
    let token = Token::read(token).map_err(|_| Rejection::TimestampMalformed)?;
    if hash(token.imprint_algorithm, over).as_ref() != token.imprint {
        return Err(Rejection::TimestampForeign);
    }
    let mut nearest = Rejection::TimestampUnknownAuthority;
    for authority in authorities.all() {
        match token.by(authority) {
            Ok(()) => return Ok(token.time),
            // An authority that did sign says more than one that the token has nothing to do with.
            Err(Rejection::TimestampUnknownAuthority) => {}
            Err(rejection) => nearest = rejection,
        }
    }
    Err(nearest)
}

/// A token, unverified.
struct Token {
    time: SystemTime,
    imprint_algorithm: HashAlgorithm,
    imprint: Vec<u8>,
    content: Vec<u8>,
    signer: SignerInfo,
    embedded: Vec<Certificate>,
}

impl Token {
    /// Reads a `TimeStampResp` that was granted, or the token in it.
    fn read(bytes: &[u8]) -> der::Result<Self> {
        let signed = signed_data(bytes)?;
        let malformed = || Tag::Sequence.value_error();
        let content = signed.encap_content_info.econtent.ok_or_else(malformed)?;
        if signed.encap_content_info.econtent_type != TIMESTAMP_INFO {
            return Err(malformed());
        }
        let content = content.decode_as::<OctetStringRef<'_>>()?.as_bytes().to_vec();
        let mut signers = signed.signer_infos.0.into_vec();
        let signer = signers.pop().ok_or_else(malformed)?;
        if !signers.is_empty() {
            return Err(malformed());
        }
        let certificates = signed.certificates.map(|set| set.0.into_vec()).unwrap_or_default();
        if certificates.len() > EMBEDDED {
            return Err(malformed());
        }
        // Certificates that cannot be read cannot be the signer's.
        let embedded = certificates.iter().filter_map(|choice| match choice {
            CertificateChoices::Certificate(found) => Certificate::from_der(&found.to_der().ok()?).ok(),
            CertificateChoices::Other(_) => None,
        });
        let embedded = embedded.collect();

        let mut info = SliceReader::new(&content)?;
        let (time, imprint_algorithm, imprint) = info.sequence(|fields| {
            if u8::decode(fields)? != 1 {
                return Err(Tag::Integer.value_error());
            }
            ObjectIdentifier::decode(fields)?;
            let (algorithm, imprint) = fields.sequence(|imprint| {
                let algorithm = AlgorithmIdentifierRef::decode(imprint)?;
                Ok((hash_of(algorithm.oid)?, OctetStringRef::decode(imprint)?.as_bytes().to_vec()))
            })?;
            let serial = AnyRef::decode(fields)?;
            serial.tag().assert_eq(Tag::Integer)?;
            let time = AnyRef::decode(fields)?;
            time.tag().assert_eq(Tag::GeneralizedTime)?;
            while !fields.is_finished() {
                AnyRef::decode(fields)?;
            }
            Ok((generalized_time(time.value())?, algorithm, imprint))
        })?;
        info.finish(())?;
        Ok(Self { time, imprint_algorithm, imprint, content, signer, embedded })
    }

    /// Whether `authority` made the token.
    fn by(&self, authority: &Authority) -> Result<(), Rejection> {
        let mut own = authority.certificates.iter().filter(|found| !found.is_authority()).peekable();
        if own.peek().is_some() {
            let signer = own.find(|found| self.names(found)).ok_or(Rejection::TimestampUnknownAuthority)?;
            if !self.signed_by(signer) {
                return Err(Rejection::TimestampInvalid);
            }
            self.may_stamp(signer, authority)?;
        } else {
            // Whoever does not lead to the authority has nothing to do with it.
            let theirs = |found: &&Certificate| self.names(found) && self.may_stamp(found, authority).is_ok();
            let mut theirs = self.embedded.iter().filter(theirs).peekable();
            if theirs.peek().is_none() {
                return Err(Rejection::TimestampUnknownAuthority);
            }
            if !theirs.any(|found| self.signed_by(found)) {
                return Err(Rejection::TimestampInvalid);
            }
        }
        if !authority.window.holds(self.time) {
            return Err(Rejection::TimestampOutsideWindow);
        }
        Ok(())
    }

    /// Whether `authority` lets the holder of a certificate sign timestamps at the token's time.
    fn may_stamp(&self, signer: &Certificate, authority: &Authority) -> Result<(), Rejection> {
        // RFC 3161, 2.3: this usage alone, and critical.
        if !signer.extended_usages().is_some_and(|usages| usages.critical && usages.list == [TIME_STAMPING]) {
            return Err(Rejection::TimestampSigner);
        }
        let between: Vec<&Certificate> = authority.certificates.iter().collect();
        // A policy may give its chain in any order; a trust root's may end before the root.
        let end = |certificate| End { certificate, until: None };
        let mut roots: Vec<_> =
            authority.certificates.iter().filter(|found| found.self_issued()).map(end).collect();
        if roots.is_empty() {
            roots.extend(authority.certificates.last().map(end));
        }
        chain::path(signer, &between, &roots, self.time, Purpose::TimeStamping)
            .map(drop)
            .map_err(|_| Rejection::TimestampSigner)
    }

    /// Whether the signer's identifier is this certificate's.
    fn names(&self, certificate: &Certificate) -> bool {
        match &self.signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(sid) => {
                sid.serial_number.as_bytes() == certificate.serial()
                    && sid.issuer.to_der().is_ok_and(|issuer| issuer == certificate.issuer())
            }
            SignerIdentifier::SubjectKeyIdentifier(sid) => {
                certificate.key_identifier() == Some(sid.0.as_bytes())
            }
        }
    }

    /// Whether the certificate's key signed the attributes, and they are about the content (RFC 5652, 5.4).
    fn signed_by(&self, certificate: &Certificate) -> bool {
        let Some(attributes) = &self.signer.signed_attrs else { return false };
        let Ok(algorithm) = hash_of(self.signer.digest_alg.oid) else { return false };
        let one_value = |oid| {
            let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
            let (first, second) = (found.next()?, found.next());
            let value = first.values.get(0).filter(|_| first.values.len() == 1 && second.is_none())?;
            value.to_der().ok()
        };
        let content_type = one_value(CONTENT_TYPE).and_then(|der| ObjectIdentifier::from_der(&der).ok());
        let digest = one_value(MESSAGE_DIGEST);
        let digest = digest.as_deref().and_then(|der| OctetStringRef::from_der(der).ok());
        if content_type != Some(TIMESTAMP_INFO)
            || digest.map(|digest| digest.as_bytes()) != Some(hash(algorithm, &self.content).as_ref())
        {
            return false;
        }
        // What is signed is the set itself, not the implicit tag that it has in the token.
        let Ok(signed) = attributes.to_der() else { return false };
        let signature = self.signer.signature.as_bytes();
        // Signers differ in whether the hash of the signature is that of the content.
        let named = signature_hash(self.signer.signature_algorithm.oid);
        [Some(algorithm), named]
            .into_iter()
            .flatten()
            .any(|hash| certificate.key().verify(&signed, signature, hash).is_some())
    }
}

fn signed_data(bytes: &[u8]) -> der::Result<SignedData> {
    let mut reader = SliceReader::new(bytes)?;
    let response = reader.sequence(|fields| {
        // A token begins with its type, a response with its status.
        if fields.peek_tag()? != Tag::Sequence {
            return fields.read_slice(fields.remaining_len()).map(|_| None);
        }
        let status = AnyRef::decode(fields)?;
        let mut status = SliceReader::new(status.value())?;
        // RFC 3161, 2.4.2: granted, or granted with modifications.
        if !matches!(u8::decode(&mut status)?, 0 | 1) {
            return Err(Tag::Integer.value_error());
        }
        AnyRef::decode(fields)?.to_der().map(Some)
    })?;
    reader.finish(())?;
    let token = ContentInfo::from_der(response.as_deref().unwrap_or(bytes))?;
    if token.content_type != SIGNED_DATA {
        return Err(Tag::ObjectIdentifier.value_error());
    }
    token.content.decode_as()
}

/// `YYYYMMDDhhmmss[.f…]Z` (RFC 3161, 2.4.2), with up to nine digits of a fraction.
fn generalized_time(text: &[u8]) -> der::Result<SystemTime> {
    let malformed = || Tag::GeneralizedTime.value_error();
    let text = str::from_utf8(text).ok().and_then(|text| text.strip_suffix('Z')).ok_or_else(malformed)?;
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 14 || !digits(whole) {
        return Err(malformed());
    }
    let number = |range: std::ops::Range<usize>| -> der::Result<u8> {
        whole.get(range).and_then(|text| text.parse().ok()).ok_or_else(malformed)
    };
    let year = u16::from(number(0..2)?) * 100 + u16::from(number(2..4)?);
    let time =
        DateTime::new(year, number(4..6)?, number(6..8)?, number(8..10)?, number(10..12)?, number(12..14)?)?;
    let nanoseconds = match fraction {
        None => 0,
        Some(text) if digits(text) && (1..=9).contains(&text.len()) => {
            format!("{text:0<9}").parse().map_err(|_| malformed())?
        }
        Some(_) => return Err(malformed()),
    };
    UNIX_EPOCH
        .checked_add(time.unix_duration())
        .and_then(|whole| whole.checked_add(Duration::from_nanos(nanoseconds)))
        .ok_or_else(malformed)
}

fn hash_of(oid: ObjectIdentifier) -> der::Result<HashAlgorithm> {
    match oid {
        SHA_256 => Ok(HashAlgorithm::Sha256),
        SHA_384 => Ok(HashAlgorithm::Sha384),
        SHA_512 => Ok(HashAlgorithm::Sha512),
        _ => Err(Tag::ObjectIdentifier.value_error()),
    }
}

/// The hash that a signature algorithm names, where it names one.
const fn signature_hash(oid: ObjectIdentifier) -> Option<HashAlgorithm> {
    match oid {
        ECDSA_SHA_256 | RSA_SHA_256 => Some(HashAlgorithm::Sha256),
        ECDSA_SHA_384 | RSA_SHA_384 => Some(HashAlgorithm::Sha384),
        ECDSA_SHA_512 | RSA_SHA_512 => Some(HashAlgorithm::Sha512),
        _ => None,
    }
}

fn hash(algorithm: HashAlgorithm, bytes: &[u8]) -> digest::Digest {
    digest::digest(algorithm.implementation(), bytes)
}

/// A token with three certificates has 5 KiB.
const TOKEN: usize = 64 << 10;
const EMBEDDED: usize = 16;

// RFC 5652 and RFC 3161.
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const TIMESTAMP_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
// RFC 5754 and RFC 5758.
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const ECDSA_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const RSA_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");

#[cfg(test)]
#[path = "timestamp_tests.rs"]
mod tests;
