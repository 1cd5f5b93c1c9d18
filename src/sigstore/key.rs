//! Public keys of policies, and signatures by them.
//!
//! A key is one PEM block `PUBLIC KEY` (SPKI): ECDSA P-256, P-384, P-521, RSA from 2048 to 8192 bits,
//! Ed25519. Anything else is refused with a word for what it is, since a private key or a certificate
//! in a policy is a mistake that its author must hear of.
//!
//! Which hash a signer used is not stored beside a signature. The candidates are those of cosign: the
//! hash that the policy names and, where that is the default sha256, also the one that belongs to the
//! curve (cosign 2 signs P-384 and P-521 with SHA-256, newer signers with SHA-384 and SHA-512).
//! An Ed25519 key may have signed the message (the pure variant) or its SHA-512 (Ed25519ph, without a
//! context): cosign does the latter for log entries that only know a hash. The two cannot be taken for
//! each other. An artifact of which only a digest is at hand cannot have been signed with pure Ed25519.

use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use der::{Decode as _, Reader as _};
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::ed25519::signature::digest as digest_traits;
use spki::SubjectPublicKeyInfoRef;

use crate::oci::Digest;

/// A parsed public key. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Arc<[u8]>,
    /// What the SPKI's bit string holds: the point, the RSA structure or the Ed25519 key.
    raw: Arc<[u8]>,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// RSA, 2048 to 8192 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// The hash of a policy's `signatureAlgorithm`. (Kyverno also lists sha224, for which there is no
/// verifier here: the policy loader refuses it.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// The default.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The way in which a signature did verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Ecdsa(HashAlgorithm),
    RsaPkcs1(HashAlgorithm),
    RsaPss(HashAlgorithm),
    Ed25519,
    /// Over the SHA-512 of the message (RFC 8032, 5.1).
    Ed25519ph,
}

/// Why a text is not a usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM block in it.
    #[error("no PEM block (-----BEGIN PUBLIC KEY-----) in the key")]
    NotPem,
    /// More than one PEM block, or one that does not end.
    #[error("the key must be exactly one complete PEM block")]
    NotOneBlock,
    /// A private key.
    #[error("this is a private key (PEM type `{label}`): give the public key, and treat this one as leaked")]
    PrivateKey {
        /// The PEM type.
        label: String,
    },
    /// A certificate.
    #[error("this is a certificate, not a public key (PEM type `PUBLIC KEY`)")]
    Certificate,
    /// A PKCS#1 key.
    #[error(
        "this is a PKCS#1 key (PEM type `RSA PUBLIC KEY`): convert it to the PEM type `PUBLIC KEY` (SPKI)"
    )]
    Pkcs1,
    /// Some other PEM block.
    #[error("PEM type `{label}` is not a public key, only `PUBLIC KEY` is")]
    OtherBlock {
        /// The PEM type, cut to 40 characters.
        label: String,
    },
    /// The block is not base64 of an SPKI structure.
    #[error("the PEM block does not hold a public key (SPKI DER)")]
    Malformed,
    /// A key type that is not supported.
    #[error("key type {oid} is not supported (ECDSA P-256, P-384, P-521, RSA and Ed25519 are)")]
    UnsupportedType {
        /// The algorithm.
        oid: ObjectIdentifier,
    },
    /// An elliptic curve that is not supported.
    #[error("elliptic curve {oid} is not supported (P-256, P-384 and P-521 are)")]
    UnsupportedCurve {
        /// The curve.
        oid: ObjectIdentifier,
    },
    /// An RSA key outside of 2048 to 8192 bits.
    #[error("RSA key of {bits} bits (2048 to 8192 are accepted)")]
    RsaSize {
        /// Its length.
        bits: usize,
    },
}

impl PublicKey {
    /// Parses one PEM block `PUBLIC KEY`. Text around the block is ignored, a second block is not.
    ///
    /// # Errors
    /// [`KeyError`], which names what the text is instead.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_spki(&single_block(pem)?)
    }

    /// The DER bytes of the SPKI structure.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// sha256 of the SPKI, which is also the log id of a transparency log with this key.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.spki)
    }

    /// What the key is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The 32 bytes of an Ed25519 key.
    pub(super) fn ed25519(&self) -> Option<&[u8]> {
        (self.kind == KeyKind::Ed25519).then_some(&self.raw)
    }

    /// Reads an SPKI structure.
    pub(super) fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Malformed)?;
        let raw = info.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
        let kind = match info.algorithm.oid {
            ID_EC_PUBLIC_KEY => ec_kind(&info, raw)?,
            // RFC 3279; Go's reader insists on the NULL as well.
            RSA_ENCRYPTION if info.algorithm.parameters.is_some_and(|value| value.is_null()) => {
                rsa_kind(raw)?
            }
            RSA_ENCRYPTION => return Err(KeyError::Malformed),
            ID_ED25519 if info.algorithm.parameters.is_none() && raw.len() == 32 => KeyKind::Ed25519,
            ID_ED25519 => return Err(KeyError::Malformed),
            oid => return Err(KeyError::UnsupportedType { oid }),
        };
        let key = Self { kind, spki: der.into(), raw: raw.into() };
        // The structure may be right and the key itself not, as with a point that is not on its curve.
        let (_, algorithm) = key.candidates(HashAlgorithm::Sha256).next().ok_or(KeyError::Malformed)?;
        UnparsedPublicKey::new(algorithm, &key.raw).parse().map_err(|_| KeyError::Malformed)?;
        Ok(key)
    }

    /// Verifies `signature` over `message` with each candidate hash; the scheme that fits, if any.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8], hash: HashAlgorithm) -> Option<Scheme> {
        let found = self.candidates(hash).find_map(|(scheme, algorithm)| {
            UnparsedPublicKey::new(algorithm, &self.raw).verify(message, signature).ok().map(|()| scheme)
        });
        found.or_else(|| {
            let prehashed = digest::digest(&digest::SHA512, message);
            self.verify_prehashed(prehashed.as_ref(), signature)
        })
    }

    /// Verifies `signature` over a message of which only the digest is known; the scheme that fits, if
    /// any. `hash` says what made the digest. Pure Ed25519 signs no digest and never fits.
    pub(super) fn verify_digest(
        &self,
        digest: &[u8],
        signature: &[u8],
        hash: HashAlgorithm,
    ) -> Option<Scheme> {
        let imported = digest::Digest::import_less_safe(digest, hash.implementation()).ok()?;
        // The library refuses a digest of another hash than the candidate's, and any for pure Ed25519.
        let found = self.candidates(hash).find_map(|(scheme, algorithm)| {
            let key = UnparsedPublicKey::new(algorithm, &self.raw);
            key.verify_digest(&imported, signature).ok().map(|()| scheme)
        });
        found.or_else(|| self.verify_prehashed(digest, signature))
    }

    /// Whether `signature` over `message` is one by this key in this very scheme.
    pub(super) fn verify_exactly(&self, message: &[u8], signature: &[u8], scheme: Scheme) -> bool {
        let hash = match scheme {
            Scheme::Ecdsa(hash) | Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => hash,
            Scheme::Ed25519 => HashAlgorithm::Sha512,
            Scheme::Ed25519ph => {
                let prehashed = digest::digest(&digest::SHA512, message);
                return self.verify_prehashed(prehashed.as_ref(), signature).is_some();
            }
        };
        self.candidates(hash).any(|(found, algorithm)| {
            found == scheme && UnparsedPublicKey::new(algorithm, &self.raw).verify(message, signature).is_ok()
        })
    }

    /// `digest` must be of 64 bytes, as of the hashes here only SHA-512 makes them.
    fn verify_prehashed(&self, digest: &[u8], signature: &[u8]) -> Option<Scheme> {
        let key = VerifyingKey::from_bytes(self.ed25519()?.try_into().ok()?).ok()?;
        let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
        let digest = Prehashed(<[u8; 64]>::try_from(digest).ok()?);
        // Strict: keys and signatures of small order, which no signer makes, fit any message.
        key.verify_prehashed_strict(digest, None, &signature).ok().map(|()| Scheme::Ed25519ph)
    }

    fn candidates(
        &self,
        hash: HashAlgorithm,
    ) -> impl Iterator<Item = (Scheme, &'static dyn VerificationAlgorithm)> {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        let of_curve = match self.kind {
            KeyKind::EcdsaP384 => Some(Sha384),
            KeyKind::EcdsaP521 => Some(Sha512),
            KeyKind::EcdsaP256 | KeyKind::Rsa | KeyKind::Ed25519 => None,
        };
        let of_curve = of_curve.filter(|_| hash == Sha256);
        let ecdsa = |hash| {
            let algorithm: &'static dyn VerificationAlgorithm = match (self.kind, hash) {
                (KeyKind::EcdsaP256, Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
                (KeyKind::EcdsaP256, Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
                (KeyKind::EcdsaP256, Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
                (KeyKind::EcdsaP384, Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
                (KeyKind::EcdsaP384, Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
                (KeyKind::EcdsaP384, Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
                (KeyKind::EcdsaP521, Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
                (KeyKind::EcdsaP521, Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
                (KeyKind::EcdsaP521, Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
                (KeyKind::Rsa | KeyKind::Ed25519, _) => return None,
            };
            Some((Scheme::Ecdsa(hash), algorithm))
        };
        let rsa = |pss: bool| {
            let (pkcs1, probabilistic): (
                &'static dyn VerificationAlgorithm,
                &'static dyn VerificationAlgorithm,
            ) = match hash {
                Sha256 => (&signature::RSA_PKCS1_2048_8192_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
                Sha384 => (&signature::RSA_PKCS1_2048_8192_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
                Sha512 => (&signature::RSA_PKCS1_2048_8192_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
            };
            if pss { (Scheme::RsaPss(hash), probabilistic) } else { (Scheme::RsaPkcs1(hash), pkcs1) }
        };
        let list: [Option<(Scheme, &'static dyn VerificationAlgorithm)>; 2] = match self.kind {
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                [ecdsa(hash), of_curve.and_then(ecdsa)]
            }
            KeyKind::Rsa => [Some(rsa(false)), Some(rsa(true))],
            KeyKind::Ed25519 => [Some((Scheme::Ed25519, &signature::ED25519)), None],
        };
        list.into_iter().flatten()
    }
}

impl HashAlgorithm {
    pub(super) fn implementation(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// A SHA-512 that was computed elsewhere, for an interface that takes a running one.
struct Prehashed([u8; 64]);

impl Default for Prehashed {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl digest_traits::HashMarker for Prehashed {}

impl digest_traits::OutputSizeUser for Prehashed {
    type OutputSize = digest_traits::consts::U64;
}

impl digest_traits::Update for Prehashed {
    /// Never called: the digest is finished.
    fn update(&mut self, _data: &[u8]) {}
}

impl digest_traits::FixedOutput for Prehashed {
    fn finalize_into(self, out: &mut digest_traits::Output<Self>) {
        out.copy_from_slice(&self.0);
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey")
            .field("kind", &self.kind)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// Decodes the one PEM block of a text. Line lengths are free, as in Go's reader, which policies are written for.
fn single_block(pem: &str) -> Result<Vec<u8>, KeyError> {
    let (_, rest) = pem.split_once(BEGIN).ok_or(KeyError::NotPem)?;
    let (label, rest) = rest.split_once(DASHES).ok_or(KeyError::NotPem)?;
    let label: String = label.chars().take(40).collect();
    match label.as_str() {
        "PUBLIC KEY" => {}
        "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => return Err(KeyError::Certificate),
        "RSA PUBLIC KEY" => return Err(KeyError::Pkcs1),
        _ if label.ends_with("PRIVATE KEY") => return Err(KeyError::PrivateKey { label }),
        _ => return Err(KeyError::OtherBlock { label }),
    }
    let (body, rest) = rest.split_once("-----END PUBLIC KEY-----").ok_or(KeyError::NotOneBlock)?;
    if body.contains(DASHES) || rest.contains(BEGIN) {
        return Err(KeyError::NotOneBlock);
    }
    let body: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map_err(|_| KeyError::Malformed)
}

fn ec_kind(info: &SubjectPublicKeyInfoRef<'_>, point: &[u8]) -> Result<KeyKind, KeyError> {
    let kind = match info.algorithm.parameters_oid().map_err(|_| KeyError::Malformed)? {
        SECP_256_R_1 => KeyKind::EcdsaP256,
        SECP_384_R_1 => KeyKind::EcdsaP384,
        SECP_521_R_1 => KeyKind::EcdsaP521,
        oid => return Err(KeyError::UnsupportedCurve { oid }),
    };
    // Uncompressed points only: a second encoding would give one key two fingerprints. That the point
    // is one of the curve, and so of its length, is for the library to say.
    if point.first() != Some(&4) {
        return Err(KeyError::Malformed);
    }
    Ok(kind)
}

fn rsa_kind(key: &[u8]) -> Result<KeyKind, KeyError> {
    let modulus = |key| -> der::Result<usize> {
        let mut reader = der::SliceReader::new(key)?;
        let bits = reader.sequence(|fields| {
            let modulus: der::asn1::UintRef<'_> = fields.decode()?;
            let _exponent: der::asn1::UintRef<'_> = fields.decode()?;
            let leading = modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
            Ok((modulus.as_bytes().len() * 8).saturating_sub(leading))
        })?;
        reader.finish(bits)
    };
    match modulus(key).map_err(|_| KeyError::Malformed)? {
        2048..=8192 => Ok(KeyKind::Rsa),
        bits => Err(KeyError::RsaSize { bits }),
    }
}

const DASHES: &str = "-----";
const BEGIN: &str = "-----BEGIN ";

// RFC 5480, RFC 8017 and RFC 8410.
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP_256_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP_384_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const SECP_521_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
