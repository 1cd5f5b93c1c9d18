//! How many requests were sent, by what they ask for: figures for metrics and benchmarks, no part of any
//! decision.

use std::sync::atomic::{AtomicU64, Ordering};

/// What requests are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestClass {
    /// HEAD of a tag.
    Resolve,
    /// GET of a manifest, by tag or digest.
    Manifest,
    /// GET of a blob.
    Blob,
    /// GET of a page of referrers.
    Referrers,
    /// A token from a realm.
    Token,
    /// A question to a transparency log.
    Log,
}

/// How many requests were sent, redirects and retries included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// [`RequestClass::Resolve`].
    pub resolve: u64,
    /// [`RequestClass::Manifest`].
    pub manifest: u64,
    /// [`RequestClass::Blob`].
    pub blob: u64,
    /// [`RequestClass::Referrers`].
    pub referrers: u64,
    /// [`RequestClass::Token`].
    pub token: u64,
    /// [`RequestClass::Log`].
    pub log: u64,
}

impl RequestClass {
    /// Every class.
    pub const ALL: &'static [Self] =
        &[Self::Resolve, Self::Manifest, Self::Blob, Self::Referrers, Self::Token, Self::Log];

    /// Its name in metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Referrers => "referrers",
            Self::Token => "token",
            Self::Log => "log",
        }
    }
}

impl RequestCounts {
    /// The requests of one class.
    #[must_use]
    pub const fn of(&self, class: RequestClass) -> u64 {
        match class {
            RequestClass::Resolve => self.resolve,
            RequestClass::Manifest => self.manifest,
            RequestClass::Blob => self.blob,
            RequestClass::Referrers => self.referrers,
            RequestClass::Token => self.token,
            RequestClass::Log => self.log,
        }
    }

    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        RequestClass::ALL.iter().map(|class| self.of(*class)).sum()
    }

    const fn set(&mut self, class: RequestClass, count: u64) {
        match class {
            RequestClass::Resolve => self.resolve = count,
            RequestClass::Manifest => self.manifest = count,
            RequestClass::Blob => self.blob = count,
            RequestClass::Referrers => self.referrers = count,
            RequestClass::Token => self.token = count,
            RequestClass::Log => self.log = count,
        }
    }
}

/// Requests sent, by class.
#[derive(Default)]
pub(super) struct Counts([AtomicU64; RequestClass::ALL.len()]);

impl Counts {
    pub(super) fn add(&self, class: RequestClass) {
        for (counter, each) in self.0.iter().zip(RequestClass::ALL) {
            if *each == class {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn read(&self) -> RequestCounts {
        let mut counts = RequestCounts::default();
        for (counter, class) in self.0.iter().zip(RequestClass::ALL) {
            counts.set(*class, counter.load(Ordering::Relaxed));
        }
        counts
    }
}
