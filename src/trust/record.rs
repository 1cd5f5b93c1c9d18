//! What is kept of a TUF repository between two refreshes and two starts: one file a repository.
//!
//! The file holds the metadata and the trust root of the last complete refresh as the mirror gave
//! them, the newest root metadata, and the highest versions seen. It is a cache and nothing in it is
//! believed: whoever loads it verifies all signatures, versions and expiries again from the pinned
//! root. The versions are a floor on what is accepted later, also where a refresh broke off half way.
//!
//! Format: a JSON object `{schema, mirror, confirmed, floor, metadata}`; `confirmed` in seconds since
//! 1970, `metadata` from the file's name to its text. Written to a temporary file, fsynced, renamed;
//! mode 0600, at most [`RECORD_LIMIT`] bytes. Names of metadata are keys in it and never become file
//! names; the file's own name is a hash.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sigstore_tuf::transport::FetchFuture;
use sigstore_tuf::{Error, MetadataStore, Repository};

use super::Mirror;
use crate::oci::Digest;

/// What is kept of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    schema: u32,
    /// For people who look at the file.
    mirror: String,
    /// When a refresh was last complete, in seconds since 1970; 0 for never.
    pub(super) confirmed: u64,
    /// What may not be gone below.
    pub(super) floor: Floor,
    /// Texts by name.
    pub(super) metadata: BTreeMap<String, String>,
}

/// The highest versions seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Floor {
    pub(super) root: u64,
    pub(super) timestamp: u64,
    pub(super) snapshot: u64,
    pub(super) targets: u64,
    /// The keys of timestamp and snapshot, as a hash: with new ones the three versions start anew
    /// (TUF specification 5.3.11, recovery from a fast-forward attack).
    pub(super) keys: String,
}

impl Record {
    pub(super) fn empty(mirror: &Mirror) -> Self {
        Self {
            schema: SCHEMA,
            mirror: mirror.to_string(),
            confirmed: 0,
            floor: Floor::default(),
            metadata: BTreeMap::new(),
        }
    }

    /// The file of a repository: another mirror or another pinned root is another repository.
    pub(super) fn path(folder: &Path, mirror: &Mirror, pinned: &[u8]) -> PathBuf {
        let name = Digest::of(format!("{mirror}\n{}", Digest::of(pinned)).as_bytes());
        folder.join(format!("{}.json", name.hex()))
    }

    /// Reads a file; `None` where there is none.
    pub(super) fn read(path: &Path) -> std::io::Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(RECORD_LIMIT + 1).read_to_end(&mut bytes)?;
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > RECORD_LIMIT {
            return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
        }
        let record: Self = serde_json::from_slice(&bytes).map_err(invalid)?;
        Ok((record.schema == SCHEMA).then_some(record))
    }

    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > RECORD_LIMIT {
            return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let temporary = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }
}

/// The metadata of a record as the TUF client reads and writes it.
#[derive(Clone)]
pub(super) struct Shelf(Arc<Mutex<BTreeMap<String, String>>>);

impl Shelf {
    pub(super) fn new(metadata: BTreeMap<String, String>) -> Self {
        Self(Arc::new(Mutex::new(metadata)))
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Only the root metadata of these versions: each is signed by the one before it, whatever becomes of the rest.
    pub(super) fn roots(&self, versions: RangeInclusive<u64>) -> BTreeMap<String, String> {
        let mut roots = self.metadata();
        roots.retain(|name, _| root_version(name).is_some_and(|version| versions.contains(&version)));
        roots
    }

    /// Everything, and of the root metadata these versions: the others were never verified.
    pub(super) fn complete(&self, versions: RangeInclusive<u64>) -> BTreeMap<String, String> {
        let mut metadata = self.metadata();
        metadata.retain(|name, _| !name.starts_with(ROOTS));
        metadata.extend(self.roots(versions));
        metadata
    }

    fn text(&self, name: &str) -> Option<Vec<u8>> {
        let texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        texts.get(name).map(|text| text.clone().into_bytes())
    }
}

impl MetadataStore for Shelf {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.text(name))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        // The client keeps the newest under a second name: `root.json`, `7.snapshot.json`.
        if name == "root.json" || (!name.starts_with(ROOTS) && without_version(name) != name) {
            return Ok(());
        }
        let text =
            std::str::from_utf8(bytes).map_err(|_| Error::Malformed(format!("{name} is not UTF-8 text")))?;
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        texts.insert(name.to_owned(), text.to_owned());
        Ok(())
    }
}

/// A record played back as if it were a mirror.
impl Repository for Shelf {
    fn fetch_metadata<'a>(&'a self, name: &'a str, limit: u64) -> FetchFuture<'a> {
        let name = match without_version(name) {
            "root.json" => format!("{ROOTS}{name}"),
            plain => plain.to_owned(),
        };
        let found =
            self.text(&name).filter(|bytes| u64::try_from(bytes.len()).is_ok_and(|size| size <= limit));
        Box::pin(std::future::ready(Ok(found)))
    }

    /// A target is taken from the store by its own name before this is asked.
    fn fetch_target<'a>(&'a self, _path: &'a str, _limit: u64) -> FetchFuture<'a> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

fn root_version(name: &str) -> Option<u64> {
    name.strip_prefix(ROOTS)?.strip_suffix(".root.json")?.parse().ok()
}

/// `snapshot.json` of `7.snapshot.json`.
fn without_version(name: &str) -> &str {
    match name.split_once('.') {
        Some((version, rest)) if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) => {
            rest
        }
        Some(_) | None => name,
    }
}

const SCHEMA: u32 = 1;
/// Where the TUF client keeps root metadata.
const ROOTS: &str = "root_history/";
/// A refresh reads at most 16 MiB; with the roots of earlier ones a record stays far below.
const RECORD_LIMIT: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk_and_a_broken_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::parse("https://tuf.example").unwrap();
        let path = Record::path(&folder.path().join("tuf"), &mirror, b"root");
        assert_eq!(Record::read(&path).unwrap(), None);
        let mut record = Record::empty(&mirror);
        record.metadata.insert("timestamp.json".into(), "{}".into());
        record.floor.timestamp = 7;
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap().as_ref(), Some(&record));
        fs::write(&path, "{").unwrap();
        assert!(Record::read(&path).is_err());
        fs::File::create(&path).unwrap().set_len(RECORD_LIMIT + 1).unwrap();
        assert_eq!(Record::read(&path).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn another_mirror_or_pinned_root_is_another_record() {
        let one = Mirror::parse("https://tuf.example").unwrap();
        let other = Mirror::parse("https://tuf.example/other").unwrap();
        let folder = Path::new("/s");
        let paths = [
            Record::path(folder, &one, b"a"),
            Record::path(folder, &one, b"b"),
            Record::path(folder, &other, b"a"),
        ];
        assert!(paths[0] != paths[1] && paths[1] != paths[2] && paths[0] != paths[2], "{paths:?}");
    }

    #[test]
    fn names_from_metadata_are_keys_and_nothing_more() {
        let shelf = Shelf::new(BTreeMap::new());
        for name in ["../../etc/passwd", "root_history/2.root.json", "targets/trusted_root.json", "role.json"]
        {
            shelf.store(name, b"{}").unwrap();
        }
        shelf.store("root.json", b"{}").unwrap();
        shelf.store("9.snapshot.json", b"{}").unwrap();
        assert_eq!(shelf.metadata().len(), 4);
        assert_eq!(shelf.complete(1..=1).len(), 3);
        assert_eq!(shelf.roots(1..=2).keys().collect::<Vec<_>>(), ["root_history/2.root.json"]);
    }
}
