//! Words for answers: what was denied and why, what could not be found out and why.
//!
//! A *denial* is an answer. A *fault* means that no answer was reached; it never becomes an allow
//! except under `failurePolicy: Ignore`, and only for [`Contact::None`] while resolving (rule D4).
//! Absent is an answer too; unreachable is not absent: [`Lookup`] keeps the three apart.
//!
//! The codes are stable: they stand in JSON, metrics and logs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a look-up of evidence found. Three values, never two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It is there.
    Found(T),
    /// A definite answer: it is not there.
    Absent,
    /// No definite answer.
    Unreachable(Fault),
}

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $code:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every code, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.code())
            }
        }
    };
}

codes! {
    /// Why an image is denied.
    DenialReason {
        /// No signature at all is stored for the image.
        SignatureNotFound => "signature-not-found",
        /// Signatures are stored, but none by a required attestor.
        SignatureInvalid => "signature-invalid",
        /// The signer is not who the policy asks for.
        IdentityMismatch => "identity-mismatch",
        /// The signature lacks a required annotation.
        AnnotationMismatch => "annotation-mismatch",
        /// The transparency log does not prove the signature.
        TransparencyLog => "transparency-log",
        /// The certificate does not hold.
        Certificate => "certificate",
        /// No attestation of the required type is stored.
        AttestationNotFound => "attestation-not-found",
        /// An attestation is stored, but does not verify.
        AttestationInvalid => "attestation-invalid",
        /// A condition on an attestation is not met.
        ConditionFailed => "condition-failed",
        /// The reference carries no digest where the policy asks for one.
        DigestMissing => "digest-missing",
        /// No rule covers the image and `unmatched: deny`.
        Unmatched => "unmatched",
        /// The image is on the node but was never admitted.
        UnverifiedOnNode => "unverified-on-node",
        /// No policy is loaded.
        NoPolicy => "no-policy",
        /// The registry's manifest is not one.
        ManifestInvalid => "manifest-invalid",
        /// Something is larger or more than is read.
        LimitExceeded => "limit-exceeded",
    }
}

codes! {
    /// Why no answer was reached.
    FaultReason {
        /// The image reference is not one.
        ReferenceInvalid => "reference-invalid",
        /// No answer from the registry at all.
        RegistryUnreachable => "registry-unreachable",
        /// The registry answered 401 or 403.
        RegistryDenied => "registry-denied",
        /// The registry answered, but not with what was asked (429, 5xx, a broken body).
        RegistryError => "registry-error",
        /// The registry says that the image does not exist.
        ImageNotFound => "image-not-found",
        /// Key material could not be fetched.
        KeyUnavailable => "key-unavailable",
        /// The trust root could not be loaded.
        TrustRootUnavailable => "trust-root-unavailable",
        /// A variable, a context entry or a precondition of a rule has no value.
        PolicyUnresolved => "policy-unresolved",
        /// A transparency log could not be asked.
        LogUnavailable => "log-unavailable",
        /// Time ran out.
        Timeout => "timeout",
        /// Our own fault.
        Internal => "internal",
    }
}

impl DenialReason {
    /// What a short cause such as `invalid signature` (rule E3) leaves open; none where it says it all.
    #[must_use]
    pub const fn plainly(self) -> Option<&'static str> {
        match self {
            Self::TransparencyLog => {
                Some("the signature itself is good, but no transparency log entry proves it")
            }
            Self::AnnotationMismatch => {
                Some("a required signer signed, but not with the required annotations")
            }
            Self::IdentityMismatch => Some("signed, but by nobody whom the policy names"),
            Self::Certificate => Some("signed, but the certificate or its time does not hold"),
            Self::DigestMissing => Some(
                "the rule has mutateDigest: false, and verifyDigest wants the digest in the reference itself",
            ),
            Self::SignatureNotFound
            | Self::SignatureInvalid
            | Self::AttestationNotFound
            | Self::AttestationInvalid
            | Self::ConditionFailed
            | Self::Unmatched
            | Self::UnverifiedOnNode
            | Self::NoPolicy
            | Self::ManifestInvalid
            | Self::LimitExceeded => None,
        }
    }
}

/// Whether any host gave any HTTP answer during the step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contact {
    /// Not one byte of HTTP came back: refused, no route, no name, timed out while connecting, TLS never up.
    None,
    /// Some host answered something.
    Answered,
}

/// No answer was reached. `message` names the thing; it carries no time, latency, id or secret,
/// since it ends up in texts that the kubelet compares byte by byte (rule E2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Fault {
    /// The stable reason.
    pub reason: FaultReason,
    /// Whether anyone answered.
    pub contact: Contact,
    /// One line that names the thing.
    pub message: String,
}

impl Fault {
    /// A fault in which a host answered, or in which no host is concerned.
    #[must_use]
    pub fn new(reason: FaultReason, message: impl Into<String>) -> Self {
        Self { reason, contact: Contact::Answered, message: message.into() }
    }

    /// A fault in which no host answered anything.
    #[must_use]
    pub fn unanswered(reason: FaultReason, message: impl Into<String>) -> Self {
        Self { reason, contact: Contact::None, message: message.into() }
    }
}

/// One rule does not allow the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The stable reason.
    pub reason: DenialReason,
    /// The policy, `name` or `namespace/name`; empty where no policy is concerned.
    pub policy: String,
    /// The rule in it.
    pub rule: String,
    /// The short cause that the kubelet shows (rule E3).
    pub cause: String,
    /// Kyverno's message for the same thing, for `--explain` and JSON.
    pub detail: String,
}

impl Denial {
    /// The cause, and what it leaves open: for people who can read a line to its end, not for the kubelet.
    #[must_use]
    pub fn told(&self) -> String {
        match self.reason.plainly() {
            Some(words) => format!("{} ({words})", self.cause),
            None => self.cause.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_serde_writes() {
        for reason in DenialReason::ALL {
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        }
        for reason in FaultReason::ALL {
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        }
    }

    #[test]
    fn a_missing_log_entry_is_told_apart_from_a_wrong_key() {
        let told = |reason| {
            let (policy, rule, detail) = (String::new(), String::new(), String::new());
            Denial { reason, policy, rule, cause: "invalid signature".into(), detail }.told()
        };
        assert_eq!(
            told(DenialReason::TransparencyLog),
            "invalid signature (the signature itself is good, but no transparency log entry proves it)"
        );
        assert_eq!(told(DenialReason::SignatureInvalid), "invalid signature");
    }

    /// The codes in the first column of the table under this heading.
    fn documented(heading: &str) -> Vec<&'static str> {
        let section = include_str!("../docs/reasons.md").split_once(&format!("\n## {heading}\n"));
        let section = section.and_then(|(_, rest)| rest.split("\n## ").next()).unwrap_or("");
        section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(code, _)| code)
            .collect()
    }

    #[test]
    fn every_code_is_documented_and_no_other() {
        let denials: Vec<_> = DenialReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(documented("Denials"), denials);
        let faults: Vec<_> = FaultReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(documented("Faults"), faults);
    }
}
