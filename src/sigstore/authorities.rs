//! Certificate authorities and timestamp authorities to believe.
//!
//! An authority is one unit: its certificates count only within its own window, and what one authority
//! proves is never completed with another's. How its certificates are used is said in `chain` and
//! `timestamp`.

use crate::oci::Digest;
use crate::sigstore::certificate::Certificate;
use crate::sigstore::logs::Window;

/// Certificate authorities of one trust domain: a trust root's, or a policy's own roots.
#[derive(Clone, Debug)]
pub struct Authorities {
    list: Vec<Authority>,
    fingerprint: Digest,
}

/// Timestamp authorities of one trust domain.
#[derive(Clone, Debug)]
pub struct TimestampAuthorities {
    list: Vec<Authority>,
    fingerprint: Digest,
}

/// One authority: its certificates, leaf or issuing certificate first, root last.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) certificates: Vec<Certificate>,
    pub(super) window: Window,
}

impl Authorities {
    /// Authorities without limits in time, each certificate an anchor of its own.
    #[must_use]
    pub fn from_roots(roots: Vec<Certificate>) -> Self {
        let authority = |certificate| Authority { certificates: vec![certificate], window: Window::ALWAYS };
        Self::new(roots.into_iter().map(authority).collect())
    }

    pub(super) fn new(list: Vec<Authority>) -> Self {
        Self { fingerprint: fingerprint(&list), list }
    }

    /// Changes with any certificate or window.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    pub(super) fn all(&self) -> &[Authority] {
        &self.list
    }
}

impl TimestampAuthorities {
    /// None: no timestamp proves anything.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Vec::new())
    }

    /// One authority with these certificates in any order (`ctlog.tsaCertChain`), without limits in time.
    ///
    /// The one that may not issue certificates signs the timestamps, if there is one; the self-issued ones are the roots.
    #[must_use]
    pub fn from_chain(certificates: Vec<Certificate>) -> Self {
        Self::new(vec![Authority { certificates, window: Window::ALWAYS }])
    }

    pub(super) fn new(list: Vec<Authority>) -> Self {
        Self { fingerprint: fingerprint(&list), list }
    }

    /// Changes with any certificate or window.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn all(&self) -> &[Authority] {
        &self.list
    }
}

fn fingerprint(list: &[Authority]) -> Digest {
    let text: Vec<String> = list
        .iter()
        .map(|authority| {
            let certificates: Vec<_> =
                authority.certificates.iter().map(|found| found.fingerprint().to_string()).collect();
            format!("{} {:?}", certificates.join(","), authority.window)
        })
        .collect();
    Digest::of(text.join("\n").as_bytes())
}
