//! What the kubelet is told (rules E1 to E4).
//!
//! The kubelet shows a reason of its own only if the code is UNKNOWN and the text starts with it,
//! and it tries every credential in turn: if two attempts give two different texts, the reason is
//! lost. So a text depends on the image, the first failing policy and rule in sorted order, and the
//! cause alone. It is cut at [`LIMIT`] bytes, and control characters are dropped.

use crate::oci::Reference;
use crate::outcome::{Denial, Fault, FaultReason};
use crate::policy::cause;

/// A refusal for the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which gRPC code it travels under.
    pub code: RefusalCode,
    /// The text.
    pub message: String,
}

/// The gRPC codes that a refusal uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// UNKNOWN: the only code under which the kubelet reads the reason off the text.
    Unknown,
    /// INVALID_ARGUMENT: the request itself is wrong.
    InvalidArgument,
    /// UNAVAILABLE: try again, containerd or the gate is away.
    Unavailable,
    /// INTERNAL: our own fault.
    Internal,
}

impl Refusal {
    /// An image that policy denies. `denials` is sorted by policy and rule and not empty; an empty
    /// list is our own fault and still a refusal.
    #[must_use]
    pub fn denied(image: &str, denials: &[Denial]) -> Self {
        let Some(first) = denials.first() else {
            return Self::internal(image);
        };
        let by = match (first.policy.as_str(), first.rule.as_str()) {
            ("", _) => String::new(),
            (policy, "") => format!("{policy}: "),
            (policy, rule) => format!("{policy}/{rule}: "),
        };
        Self::unknown(format!("SignatureValidationFailed: {image}: {by}{}", first.cause))
    }

    /// An image for which no answer was reached.
    #[must_use]
    pub fn undecided(reference: &Reference, fault: &Fault) -> Self {
        let (image, cause) = (reference.text(), cause(reference, fault));
        match fault.reason {
            FaultReason::ReferenceInvalid => {
                Self { code: RefusalCode::InvalidArgument, message: clean(&fault.message) }
            }
            FaultReason::RegistryUnreachable
            | FaultReason::RegistryError
            | FaultReason::Timeout
            | FaultReason::KeyUnavailable
            | FaultReason::TrustRootUnavailable
            | FaultReason::LogUnavailable => Self::unknown(format!("RegistryUnavailable: {image}: {cause}")),
            FaultReason::PolicyUnresolved => {
                Self::unknown(format!("SignatureValidationFailed: {image}: {cause}"))
            }
            FaultReason::RegistryDenied | FaultReason::ImageNotFound => {
                Self::unknown(format!("{image}: {cause}"))
            }
            FaultReason::Internal => Self::internal(image),
        }
    }

    /// Our own fault; the log says which.
    #[must_use]
    pub fn internal(image: &str) -> Self {
        Self {
            code: RefusalCode::Internal,
            message: clean(&format!("pullgate: {image}: internal fault, see its log")),
        }
    }

    fn unknown(text: String) -> Self {
        Self { code: RefusalCode::Unknown, message: clean(&text) }
    }
}

/// Drops control characters and cuts at a character's edge.
fn clean(text: &str) -> String {
    let mut cleaned: String = text.chars().filter(|character| !character.is_control()).collect();
    if cleaned.len() > LIMIT {
        let edge =
            (0..=LIMIT - ELLIPSIS.len()).rev().find(|edge| cleaned.is_char_boundary(*edge)).unwrap_or(0);
        cleaned.truncate(edge);
        cleaned.push_str(ELLIPSIS);
    }
    cleaned
}

/// Rule E4: under 400 bytes.
const LIMIT: usize = 399;
const ELLIPSIS: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::DenialReason;

    fn denial(policy: &str, rule: &str, cause: &str) -> Denial {
        Denial {
            reason: DenialReason::SignatureNotFound,
            policy: policy.into(),
            rule: rule.into(),
            cause: cause.into(),
            detail: String::new(),
        }
    }

    #[test]
    fn e1_a_denial_starts_with_the_kubelets_reason() {
        let refusal = Refusal::denied(
            "a.io/b:1",
            &[denial("check", "rule", "signature not found"), denial("z", "z", "z")],
        );
        assert_eq!(refusal.code, RefusalCode::Unknown);
        assert_eq!(refusal.message, "SignatureValidationFailed: a.io/b:1: check/rule: signature not found");
        assert_eq!(
            Refusal::denied("a", &[denial("", "", "no policy loaded")]).message,
            "SignatureValidationFailed: a: no policy loaded"
        );
    }

    #[test]
    fn e1_faults_have_their_codes() {
        let table = [
            (FaultReason::RegistryUnreachable, RefusalCode::Unknown, "RegistryUnavailable: a: m"),
            (FaultReason::RegistryError, RefusalCode::Unknown, "RegistryUnavailable: a: m"),
            (FaultReason::Timeout, RefusalCode::Unknown, "RegistryUnavailable: a: m"),
            (FaultReason::KeyUnavailable, RefusalCode::Unknown, "RegistryUnavailable: a: m"),
            (FaultReason::TrustRootUnavailable, RefusalCode::Unknown, "RegistryUnavailable: a: m"),
            (FaultReason::LogUnavailable, RefusalCode::Unknown, "RegistryUnavailable: a: m"),
            (FaultReason::PolicyUnresolved, RefusalCode::Unknown, "SignatureValidationFailed: a: m"),
            (FaultReason::RegistryDenied, RefusalCode::Unknown, "a: m"),
            (FaultReason::ImageNotFound, RefusalCode::Unknown, "a: m"),
            (FaultReason::ReferenceInvalid, RefusalCode::InvalidArgument, "m"),
            (FaultReason::Internal, RefusalCode::Internal, "pullgate: a: internal fault, see its log"),
        ];
        assert_eq!(table.len(), FaultReason::ALL.len());
        for (reason, code, message) in table {
            let refusal = Refusal::undecided(&Reference::parse("a").unwrap(), &Fault::new(reason, "m"));
            assert_eq!(refusal, Refusal { code, message: message.into() });
        }
    }

    #[test]
    fn e1_an_image_is_named_once() {
        for (image, subject) in [
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("busybox", "docker.io/library/busybox:latest"),
        ] {
            let reference = Reference::parse(image).unwrap();
            let message = format!("{subject}: connection refused");
            let fault = Fault::unanswered(FaultReason::RegistryUnreachable, message);
            let refusal = Refusal::undecided(&reference, &fault);
            assert_eq!(refusal.message, format!("RegistryUnavailable: {image}: connection refused"));
        }
        // Another thing than the image keeps its name.
        let reference = Reference::parse("a.io/b:1").unwrap();
        let fault = Fault::new(FaultReason::RegistryError, "a.io/b:1.sig: registry answered 500");
        let refusal = Refusal::undecided(&reference, &fault);
        assert_eq!(refusal.message, "RegistryUnavailable: a.io/b:1: a.io/b:1.sig: registry answered 500");
    }

    #[test]
    fn e4_texts_are_short_and_clean() {
        let long = Refusal::denied(&"ä".repeat(400), &[denial("p", "r", "c")]);
        assert!(long.message.len() < 400 && long.message.ends_with("..."));
        assert_eq!(
            Refusal::denied("a\n\u{1b}[31mb", &[denial("p", "r", "c")]).message,
            "SignatureValidationFailed: a[31mb: p/r: c"
        );
    }

    #[test]
    fn an_empty_list_of_denials_is_still_a_refusal() {
        assert_eq!(Refusal::denied("a", &[]).code, RefusalCode::Internal);
    }
}
