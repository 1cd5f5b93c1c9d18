//! What is known to be wrong with the images on the node: for `status`, the metrics and the log, never for
//! a verdict.
//!
//! One finding an image (repository and digest), whatever number of names it has: the record of a tag and
//! that of its digest are one image, and are counted and listed once, by a name with a tag where there is
//! one. A definite denial stands until there is another definite answer; that the last look gave none
//! stands beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cache::ImageName;
use crate::oci::Digest;
use crate::outcome::{Denial, Fault};

/// A present image that policy refuses, or would.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WouldDeny {
    /// Its name.
    pub image: String,
    /// Its digest.
    pub digest: Digest,
    /// The policy.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// The reason code.
    pub reason: &'static str,
    /// The cause.
    pub cause: String,
    /// What the cause leaves open.
    pub why: Option<&'static str>,
}

/// A present image of which the last look could not find out whether policy refuses it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Undecided {
    /// Its name.
    pub image: String,
    /// Its digest.
    pub digest: Digest,
    /// The reason code.
    pub reason: &'static str,
    /// What could not be found out, and why.
    pub cause: String,
}

/// How many images there is something to say of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// Denied, or would be.
    pub denied: usize,
    /// Not decided.
    pub undecided: usize,
}

/// The findings of all images.
#[derive(Default)]
pub(super) struct Findings(Mutex<BTreeMap<ImageName, Finding>>);

#[derive(Default)]
struct Finding {
    /// As containerd's records and pulls name it.
    names: BTreeSet<String>,
    denials: Vec<Denial>,
    fault: Option<Fault>,
}

impl Findings {
    /// A definite answer: these denials, or none.
    pub(super) fn decided(&self, name: &str, image: ImageName, denials: &[Denial]) {
        let mut findings = self.lock();
        if denials.is_empty() {
            findings.remove(&image);
        } else {
            let finding = findings.entry(image).or_default();
            finding.names.insert(name.to_owned());
            finding.denials = denials.to_vec();
            finding.fault = None;
        }
    }

    /// No definite answer.
    pub(super) fn undecided(&self, name: &str, image: ImageName, fault: Fault) {
        let mut findings = self.lock();
        let finding = findings.entry(image).or_default();
        finding.names.insert(name.to_owned());
        finding.fault = Some(fault);
    }

    /// Forgets what is no longer on the node under any of these names.
    pub(super) fn retain(&self, present: &BTreeSet<(&str, Digest)>) {
        self.lock().retain(|image, finding| {
            finding.names.retain(|name| present.contains(&(name.as_str(), image.digest)));
            !finding.names.is_empty()
        });
    }

    /// How many there are.
    pub(super) fn count(&self) -> Wrong {
        let findings = self.lock();
        Wrong {
            denied: findings.values().filter(|finding| !finding.denials.is_empty()).count(),
            undecided: findings.values().filter(|finding| finding.fault.is_some()).count(),
        }
    }

    /// Every denial of every image.
    pub(super) fn would_deny(&self) -> Vec<WouldDeny> {
        let findings = self.lock();
        let of_image = |(image, finding): (&ImageName, &Finding)| -> Vec<WouldDeny> {
            let denial = |denial: &Denial| WouldDeny {
                image: finding.name(),
                digest: image.digest,
                policy: denial.policy.clone(),
                rule: denial.rule.clone(),
                reason: denial.reason.code(),
                cause: denial.cause.clone(),
                why: denial.reason.plainly(),
            };
            finding.denials.iter().map(denial).collect()
        };
        findings.iter().flat_map(of_image).collect()
    }

    /// Every image without a definite answer.
    pub(super) fn without_answer(&self) -> Vec<Undecided> {
        let findings = self.lock();
        let of_image = |(image, finding): (&ImageName, &Finding)| {
            finding.fault.as_ref().map(|fault| Undecided {
                image: finding.name(),
                digest: image.digest,
                reason: fault.reason.code(),
                cause: fault.message.clone(),
            })
        };
        findings.iter().filter_map(of_image).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageName, Finding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Finding {
    /// Pods are written with tags.
    fn name(&self) -> String {
        let tagged = self.names.iter().find(|name| !name.contains('@'));
        tagged.or_else(|| self.names.first()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Repository;
    use crate::outcome::{DenialReason, FaultReason};

    fn image(content: &str) -> ImageName {
        ImageName {
            repository: Repository::parse("a.io/app").unwrap(),
            digest: Digest::of(content.as_bytes()),
        }
    }

    fn denial(rule: &str) -> Denial {
        Denial {
            reason: DenialReason::SignatureNotFound,
            policy: "p".into(),
            rule: rule.into(),
            cause: "signature not found".into(),
            detail: String::new(),
        }
    }

    fn listed(findings: &Findings) -> Vec<(String, String)> {
        findings.would_deny().into_iter().map(|denied| (denied.image, denied.rule)).collect()
    }

    fn fault() -> Fault {
        Fault::new(FaultReason::RegistryError, "a.io answered 500")
    }

    #[test]
    fn an_image_is_counted_and_listed_once_by_its_tag() {
        let findings = Findings::default();
        let pinned = format!("a.io/app@{}", image("x").digest);
        for name in [pinned.as_str(), "a.io/app:v2", "a.io/app:v1"] {
            findings.decided(name, image("x"), &[denial("one"), denial("two")]);
        }
        assert_eq!(findings.count(), Wrong { denied: 1, undecided: 0 });
        let tagged = |rule: &str| ("a.io/app:v1".to_owned(), rule.to_owned());
        assert_eq!(listed(&findings), [tagged("one"), tagged("two")]);
    }

    #[test]
    fn a_good_answer_about_one_name_is_one_about_the_image() {
        let findings = Findings::default();
        let pinned = format!("a.io/app@{}", image("x").digest);
        findings.decided(&pinned, image("x"), &[denial("one")]);
        findings.decided("a.io/app:v1", image("x"), &[]);
        assert_eq!(listed(&findings), []);
        assert_eq!(findings.count(), Wrong { denied: 0, undecided: 0 });
    }

    #[test]
    fn a_denial_stands_while_nothing_can_be_found_out() {
        let findings = Findings::default();
        findings.decided("a.io/app:v1", image("x"), &[denial("one")]);
        findings.undecided("a.io/app:v1", image("x"), fault());
        findings.undecided("a.io/app:v2", image("y"), fault());
        assert_eq!(findings.count(), Wrong { denied: 1, undecided: 2 });
        assert_eq!(listed(&findings).len(), 1);
        let undecided = |name: &str, content: &str| Undecided {
            image: name.into(),
            digest: image(content).digest,
            reason: "registry-error",
            cause: "a.io answered 500".into(),
        };
        let mut wanted = [undecided("a.io/app:v1", "x"), undecided("a.io/app:v2", "y")];
        wanted.sort_by_key(|one| one.digest);
        assert_eq!(findings.without_answer(), wanted);
        findings.decided("a.io/app:v1", image("x"), &[denial("one")]);
        assert_eq!(findings.count(), Wrong { denied: 1, undecided: 1 });
    }

    #[test]
    fn what_left_the_node_is_forgotten_and_so_is_a_tag_that_moved() {
        let findings = Findings::default();
        findings.decided("a.io/app:v1", image("x"), &[denial("one")]);
        findings.undecided("a.io/app:v2", image("y"), fault());
        findings.retain(&BTreeSet::from([
            ("a.io/app:v1", image("moved").digest),
            ("a.io/app:v2", image("y").digest),
        ]));
        assert_eq!(findings.count(), Wrong { denied: 0, undecided: 1 });
    }
}
