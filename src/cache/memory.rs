//! What the cache keeps in memory, and what it drops first.
//!
//! A node keeps some ten thousand images for months, so an image costs about half a KiB here: records
//! have a fixed size and lie in vectors without holes ([`IndexMap`]), digests are bytes, and what
//! repeats is kept once ([`Pool`]): repositories, and where admissions came from. The texts are on
//! disk; their form is `record`'s.
//!
//! A verdict is known by the hash of its whole key (SHA-256).

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};

use super::Durability;
use super::age::Stamp;
use super::evidence::Origin as EvidenceOrigin;
use super::record::{Admission, EvidenceRecord, TagRecord, VerdictKey, VerdictRecord};
use crate::oci::{Digest, Repository};

/// Everything that is looked up without the disk.
#[derive(Default)]
pub(super) struct State {
    /// By [`super::VerdictKey::hash`].
    pub(super) verdicts: IndexMap<Digest, Verdict>,
    pub(super) admissions: IndexMap<ImageKey, Admitted>,
    pub(super) evidence: IndexMap<ImageKey, Evidence>,
    pub(super) tags: IndexMap<String, TagRecord>,
    /// What the sets of evidence name.
    blobs: IndexMap<Digest, Blob>,
    /// Of all `blobs`.
    blob_bytes: u64,
    /// Images that are on the node: evicted last. `None` before the first look at the node.
    pub(super) present: Option<BTreeSet<Digest>>,
    repositories: Pool<Repository>,
    origins: Pool<Origin>,
    questions: Pool<Question>,
    /// When the process began, in seconds since 1970: uses are counted from there, so that every one is
    /// younger than the records of the disk.
    began: u64,
    uses: u64,
}

/// An image, as the key of a record.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ImageKey {
    pub(super) repository: Arc<Repository>,
    pub(super) digest: Digest,
}

/// An image, to look a record up with.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct ImageRef<'a>(pub(super) &'a Repository, pub(super) &'a Digest);

/// An allowing verdict.
pub(super) struct Verdict {
    pub(super) image: ImageKey,
    /// What it answers.
    question: Arc<Question>,
    pub(super) at: Stamp,
    pub(super) used: u64,
}

/// What many verdicts have in common: a [`VerdictKey`] without its image, and the second in which they
/// end, if they do (rule D8).
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    entry: Digest,
    trust: Option<Digest>,
    pod: Digest,
    until: Option<u64>,
}

/// An admission without its image.
pub(super) struct Admitted {
    origin: Arc<Origin>,
    image_id: ImageId,
    at: Stamp,
    used: u64,
}

/// What many admissions have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Origin {
    durability: Durability,
    source: String,
    snapshot: Digest,
    pulled_by: Vec<Digest>,
    parent: Option<Digest>,
    undecided_since: Option<Stamp>,
}

enum ImageId {
    Unknown,
    /// `sha256:…`, as containerd writes every id.
    Digest(Digest),
    Other(Box<str>),
}

/// Which blobs verdicts about an image rest on.
pub(super) struct Evidence {
    blobs: Blobs,
    at: Stamp,
    origin: EvidenceOrigin,
    used: u64,
}

/// Nearly every image has one signature.
enum Blobs {
    One(Digest),
    Many(Box<[Digest]>),
}

/// A piece of evidence on disk.
#[derive(Default)]
struct Blob {
    bytes: u32,
    /// Sets of evidence that name it.
    named: u32,
}

/// Equal values, kept once.
struct Pool<T> {
    values: HashSet<Arc<T>>,
    /// How many there may be before the unused ones are looked for.
    room: usize,
}

impl Equivalent<ImageKey> for ImageRef<'_> {
    fn equivalent(&self, key: &ImageKey) -> bool {
        *self.0 == *key.repository && *self.1 == key.digest
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), room: 64 }
    }
}

impl<T: Eq + Hash + Clone> Pool<T> {
    fn one(&mut self, value: &T) -> Arc<T> {
        if let Some(known) = self.values.get(value) {
            return Arc::clone(known);
        }
        // Names come from pods: what nothing uses any more is forgotten before there is too much.
        if self.values.len() >= self.room {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.room = 64 + self.values.len() * 2;
        }
        let value = Arc::new(value.clone());
        self.values.insert(Arc::clone(&value));
        value
    }
}

impl State {
    /// Nothing yet, in a process that begins now.
    pub(super) fn beginning(now: Stamp) -> Self {
        Self { began: now.seconds(), ..Self::default() }
    }

    /// The time of a use, for the order in which records go.
    pub(super) fn tick(&mut self) -> u64 {
        self.uses += 1;
        self.began.saturating_add(self.uses)
    }

    /// The same of a record from the disk. Uses are not written down; verdicts and evidence that are in use
    /// are made anew within `cache.fresh`.
    pub(super) fn used_on_disk(&self, at: Stamp) -> u64 {
        at.seconds().min(self.began)
    }

    pub(super) fn image(&mut self, repository: &Repository, digest: Digest) -> ImageKey {
        ImageKey { repository: self.repositories.one(repository), digest }
    }

    /// A verdict, ready to be kept.
    pub(super) fn verdict(&mut self, record: &VerdictRecord, used: u64) -> Verdict {
        let VerdictRecord { key, at, until } = record;
        let image = self.image(&key.repository, key.digest);
        let question = Question { entry: key.entry, trust: key.trust, pod: key.pod, until: *until };
        Verdict { image, question: self.questions.one(&question), at: *at, used }
    }

    /// An admission, ready to be kept.
    pub(super) fn admitted(&mut self, admission: &Admission, durability: Durability, used: u64) -> Admitted {
        let origin = Origin {
            durability,
            source: admission.source.clone(),
            snapshot: admission.snapshot,
            pulled_by: admission.pulled_by.clone(),
            parent: admission.parent,
            undecided_since: admission.undecided_since,
        };
        let image_id = match &admission.image_id {
            None => ImageId::Unknown,
            Some(id) => match id.parse() {
                Ok(digest) => ImageId::Digest(digest),
                Err(_) => ImageId::Other(id.clone().into()),
            },
        };
        Admitted { origin: self.origins.one(&origin), image_id, at: admission.at, used }
    }

    /// Keeps what an image's verdicts rest on, in place of what was kept before.
    pub(super) fn keep_evidence(&mut self, image: ImageKey, record: &EvidenceRecord, used: u64) -> Orphans {
        for (at, digest) in record.blobs.iter().enumerate() {
            let blob = self.blobs.entry(*digest).or_default();
            blob.named += 1;
            if blob.named == 1 {
                blob.bytes = record.sizes.get(at).copied().unwrap_or(ORDINARY_BLOB);
                self.blob_bytes += u64::from(blob.bytes);
            }
        }
        let EvidenceRecord { blobs, at, origin, .. } = record;
        let evidence = Evidence { blobs: Blobs::of(blobs), at: *at, origin: *origin, used };
        let old = self.evidence.insert(image, evidence);
        let mut orphans = Orphans::default();
        if let Some(old) = old {
            self.let_go(&old, &mut orphans);
        }
        orphans
    }

    pub(super) const fn blob_bytes(&self) -> u64 {
        self.blob_bytes
    }

    pub(super) fn forget_evidence(&mut self, image: &ImageKey, orphans: &mut Orphans) {
        if let Some(evidence) = self.evidence.swap_remove(image) {
            self.let_go(&evidence, orphans);
        }
    }

    fn let_go(&mut self, evidence: &Evidence, orphans: &mut Orphans) {
        for digest in evidence.blobs.all() {
            let Some(blob) = self.blobs.get_mut(digest) else { continue };
            blob.named = blob.named.saturating_sub(1);
            if blob.named == 0 {
                self.blob_bytes -= u64::from(blob.bytes);
                self.blobs.swap_remove(digest);
                orphans.0.push(*digest);
            }
        }
    }

    fn is_present(&self, digest: &Digest) -> bool {
        self.present.as_ref().is_some_and(|present| present.contains(digest))
    }

    /// Drops the verdicts of oldest use, those of present images last.
    pub(super) fn evict_verdicts(&mut self, most: usize) -> Vec<Digest> {
        let Some(surplus) = surplus(self.verdicts.len(), most) else { return Vec::new() };
        let order = |(hash, verdict): (&Digest, &Verdict)| {
            ((self.is_present(&verdict.image.digest), verdict.used), *hash)
        };
        let removed = first(self.verdicts.iter().map(order), surplus);
        for hash in &removed {
            self.verdicts.swap_remove(hash);
        }
        removed
    }

    /// The same for admissions, whose loss hides a present image: until it is known which ones those are, as
    /// many again may stay.
    pub(super) fn evict_admissions(&mut self, most: usize) -> Vec<ImageKey> {
        let most = if self.present.is_some() { most } else { most.saturating_mul(2) };
        let Some(surplus) = surplus(self.admissions.len(), most) else { return Vec::new() };
        let order = |(image, admitted): (&ImageKey, &Admitted)| {
            ((self.is_present(&image.digest), admitted.used), image.clone())
        };
        let removed = first(self.admissions.iter().map(order), surplus);
        for image in &removed {
            self.admissions.swap_remove(image);
        }
        removed
    }

    /// Drops the sets of evidence of oldest use, those of present images last, until there are at most
    /// `images` of them with `bytes` in all.
    pub(super) fn evict_evidence(
        &mut self,
        images: usize,
        bytes: u64,
        orphans: &mut Orphans,
    ) -> Vec<ImageKey> {
        if self.blob_bytes <= bytes && self.evidence.len() <= images {
            return Vec::new();
        }
        // A tenth more than it must, as with `surplus`.
        let (images, bytes) = (images - images / 10, bytes - bytes / 10);
        let order = |(image, evidence): (&ImageKey, &Evidence)| {
            ((self.is_present(&image.digest), evidence.used), image.clone())
        };
        let mut removed = Vec::new();
        for image in first(self.evidence.iter().map(order), usize::MAX) {
            if self.blob_bytes <= bytes && self.evidence.len() <= images {
                break;
            }
            self.forget_evidence(&image, orphans);
            removed.push(image);
        }
        removed
    }
}

/// Blobs that may go, as no evidence names them any more.
#[derive(Default)]
pub(super) struct Orphans(pub(super) Vec<Digest>);

/// How many records go from a map that holds more than `most`: a tenth more than it must, so that a
/// full cache does not sort for each new record.
fn surplus(held: usize, most: usize) -> Option<usize> {
    (held > most).then(|| held - most + most / 10)
}

/// The keys of the first `count`, in order.
fn first<O: Ord, K>(all: impl Iterator<Item = (O, K)>, count: usize) -> Vec<K> {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|left, right| left.0.cmp(&right.0));
    all.into_iter().take(count).map(|(_, key)| key).collect()
}

impl Verdict {
    /// The second in which it ends, if it does.
    pub(super) fn until(&self) -> Option<u64> {
        self.question.until
    }

    /// The whole record.
    pub(super) fn record(&self) -> VerdictRecord {
        let Question { entry, trust, pod, until } = *self.question;
        let key = VerdictKey {
            repository: Repository::clone(&self.image.repository),
            digest: self.image.digest,
            entry,
            trust,
            pod,
        };
        VerdictRecord { key, at: self.at, until }
    }
}

impl Admitted {
    pub(super) fn is_durable(&self) -> bool {
        self.origin.durability == Durability::Durable
    }

    /// The whole record, of the image that it is kept under.
    pub(super) fn record(&self, image: &ImageKey) -> Admission {
        Admission {
            repository: Repository::clone(&image.repository),
            digest: image.digest,
            source: self.origin.source.clone(),
            snapshot: self.origin.snapshot,
            image_id: match &self.image_id {
                ImageId::Unknown => None,
                ImageId::Digest(digest) => Some(digest.to_string()),
                ImageId::Other(text) => Some(text.to_string()),
            },
            at: self.at,
            pulled_by: self.origin.pulled_by.clone(),
            parent: self.origin.parent,
            undecided_since: self.origin.undecided_since,
        }
    }

    pub(super) fn touch(&mut self, used: u64) {
        self.used = used;
    }

    /// Whether containerd's id of the image starts with `digits`, without `sha256:`.
    pub(super) fn has_id(&self, digits: &IdPrefix) -> bool {
        match &self.image_id {
            ImageId::Unknown => false,
            ImageId::Digest(digest) => digits.begins(digest),
            ImageId::Other(text) => text.strip_prefix("sha256:").unwrap_or(text).starts_with(&digits.text),
        }
    }
}

/// The beginning of an image id, as it is asked for.
pub(super) struct IdPrefix {
    text: String,
    /// Its whole bytes, to compare without writing every id out.
    bytes: Vec<u8>,
}

impl IdPrefix {
    /// `None` for an empty one; `sha256:` may be left out.
    pub(super) fn new(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let whole = digits.get(..digits.len() / 2 * 2).unwrap_or_default();
        // What is not hex begins no digest; the whole text is compared then.
        let bytes = hex::decode(whole).unwrap_or_default();
        (!digits.is_empty()).then(|| Self { text: digits.to_owned(), bytes })
    }

    fn begins(&self, digest: &Digest) -> bool {
        digest.as_bytes().starts_with(&self.bytes) && digest.hex().starts_with(&self.text)
    }
}

impl Evidence {
    /// The whole record; `state` knows the sizes.
    pub(super) fn record(&self, state: &State) -> EvidenceRecord {
        let size = |blob| state.blobs.get(blob).map_or(ORDINARY_BLOB, |blob: &Blob| blob.bytes);
        let blobs = self.blobs.all();
        let sizes = blobs.iter().map(size).collect();
        EvidenceRecord { blobs: blobs.to_vec(), sizes, at: self.at, origin: self.origin }
    }

    pub(super) fn touch(&mut self, used: u64) {
        self.used = used;
    }
}

impl Blobs {
    fn of(blobs: &[Digest]) -> Self {
        match blobs {
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    fn all(&self) -> &[Digest] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Bytes of a simple-signing layer with its annotations, where a record does not say.
const ORDINARY_BLOB: u32 = 2048;
