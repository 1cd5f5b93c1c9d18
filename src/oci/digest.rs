//! Content digests.
//!
//! Only `sha256` is accepted: it is what containerd, cosign and every registry in use write, and a
//! second algorithm would let one image have two names. The strict grammar
//! (`sha256:` and 64 lower-case hex digits) is checked before a digest gets into a URL, a path or
//! a tag (CVE-2024-3727: unvalidated digest strings became odd paths).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sha256 content digest, printed as `sha256:<64 lower-case hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The part before the colon is not `sha256`.
    #[error("digest algorithm `{0}` is not supported, only sha256")]
    Algorithm(String),
    /// Not `algorithm:hex`, or not 64 lower-case hex digits.
    #[error("`{0}` is not a digest (sha256: and 64 lower-case hex digits)")]
    Malformed(String),
}

impl Digest {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = [0_u8; 32];
        hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
        Self(hash)
    }

    /// Wraps a finished sha256 hash.
    #[must_use]
    pub const fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The tag that cosign derives from a digest: `sha256-<hex>` and `suffix` (`.sig`, `.att` or nothing).
    #[must_use]
    pub fn cosign_tag(&self, suffix: &str) -> String {
        format!("sha256-{}{suffix}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(80).collect());
        let (algorithm, digits) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(algorithm.chars().take(20).collect()));
        }
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 64 || !digits.bytes().all(lower_hex) {
            return Err(malformed());
        }
        let mut hash = [0_u8; 32];
        hex::decode_to_slice(digits, &mut hash).map_err(|_| malformed())?;
        Ok(Self(hash))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn prints_as_it_is_parsed() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.cosign_tag(".sig"), format!("sha256-{}.sig", digest.hex()));
    }

    #[test]
    fn pitfall_17_refuses_other_algorithms_and_odd_text() {
        assert_eq!("sha512:00".parse::<Digest>(), Err(DigestError::Algorithm("sha512".into())));
        for odd in [
            "",
            "sha256",
            "sha256:",
            &EMPTY.to_uppercase()[..],
            &EMPTY[..70],
            "sha256:../../x",
            &format!("{EMPTY}0"),
        ] {
            assert!(odd.parse::<Digest>().is_err(), "{odd}");
        }
        let upper = format!("sha256:{}", &EMPTY[7..].to_uppercase());
        assert_eq!(upper.parse::<Digest>(), Err(DigestError::Malformed(upper)));
    }
}
