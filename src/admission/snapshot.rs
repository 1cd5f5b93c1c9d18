//! One consistent view of everything that decides: policies, mode, exemptions, approvals.
//!
//! A request takes one [`Snapshot`] at its start and uses nothing else. A reload builds a whole new
//! one and swaps it in; if anything in it fails, the old one stays.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use crate::oci::{Digest, Reference};
use crate::policy::evaluate::{Approved, Case, Mode, Unmatched};
use crate::policy::{Application, PodFacts, PolicySet};

/// Everything that decides a pull.
pub struct Snapshot {
    /// The policies.
    pub policies: PolicySet,
    /// Enforce or audit, for the whole node.
    pub mode: Mode,
    /// What happens to an image that no rule covers.
    pub unmatched: Unmatched,
    /// Namespaces whose pods are not judged.
    pub exempt_namespaces: Vec<String>,
    /// Digests that the administrator approved.
    pub approved: Approved,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// Changes with anything above but the time.
    pub fingerprint: Digest,
}

impl Snapshot {
    /// The question that a pull of `reference` for `pod` puts to the policies.
    #[must_use]
    pub fn case<'a>(
        &'a self,
        reference: &'a Reference,
        pod: &'a PodFacts,
        applications: &'a [Application],
    ) -> Case<'a> {
        Case {
            reference,
            pod,
            policies: &self.policies,
            applications,
            mode: self.mode,
            unmatched: self.unmatched,
            exempt_namespaces: &self.exempt_namespaces,
            approved: &self.approved,
        }
    }
}

/// The snapshot in force.
pub(super) struct Current(RwLock<Arc<Snapshot>>);

impl Current {
    pub(super) const fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(RwLock::new(snapshot))
    }

    pub(super) fn take(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn swap(&self, snapshot: Arc<Snapshot>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}
