//! What a power cut, a bad disk or a hand in the folder leave behind: the store always starts and
//! works, and whatever it serves was put there and not taken back since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::oci::{Digest, Repository};

/// Rounds of damage; each starts a store.
const ROUNDS: usize = 500;
const IMAGES: usize = 12;

/// The same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap_or(0) % end.max(1)
    }
}

fn options(folder: &Path) -> Options {
    Options {
        path: folder.join("cache"),
        max_entries: 1000,
        max_size: 1 << 20,
        fresh: Duration::from_secs(3600),
        stale: Duration::from_secs(7200),
        patience: Duration::from_secs(10),
        clock: Clock { now: || Stamp::new(1_800_000_000, 1, 1000) },
    }
}

fn repository() -> Repository {
    Repository::parse("ghcr.io/org/app").unwrap()
}

fn digest(word: &str, number: usize) -> Digest {
    Digest::of(format!("{word} {number}").as_bytes())
}

fn key(number: usize) -> VerdictKey {
    let [image, entry, pod] = ["image", "entry", "pod"].map(|word| digest(word, number));
    VerdictKey { repository: repository(), digest: image, entry, trust: None, pod }
}

fn pieces(number: usize) -> Vec<Vec<u8>> {
    vec![format!("signature {number} ").repeat(40).into_bytes(), b"what all images share".to_vec()]
}

fn admission(number: usize) -> Admission {
    Admission {
        repository: repository(),
        digest: digest("image", number),
        source: "verified".to_owned(),
        snapshot: digest("snapshot", 0),
        image_id: Some(digest("id", number).to_string()),
        at: Stamp::new(1_800_000_000, 1, 1000),
        pulled_by: vec![digest("puller", number)],
        parent: None,
        undecided_since: None,
    }
}

fn put(store: &Store, number: usize) {
    store.put_verdict(key(number), store.now(), None);
    store.admit(admission(number), Durability::Durable);
    store.put_evidence(&repository(), &digest("image", number), pieces(number), store.now());
    store.put_tag(&format!("ghcr.io/org/app:{number}"), digest("image", number));
}

/// Everything in memory, as records. What is there and is not of `put` would be a record that nobody earned.
fn records(store: &Store) -> Records {
    let mut all = BTreeSet::new();
    let mut write = |key: &[u8], sealed: &[u8]| {
        all.insert((key.to_vec(), sealed.to_vec()));
        Ok(())
    };
    load::write_all(&store.shared.state, &mut write).unwrap();
    all
}

/// In memory where the system has such a place: each start flushes several times.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read_all(folder: &Path, below: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            read_all(folder, &path, files);
        } else if path.extension().is_none_or(|ending| ending != "lock") {
            files.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

fn files(folder: &Path) -> Files {
    let mut files = Files::new();
    read_all(folder, Path::new(""), &mut files);
    files
}

type Records = BTreeSet<(Vec<u8>, Vec<u8>)>;

/// A store at one moment of its life.
struct Moment {
    files: Files,
    /// What is in it.
    held: Records,
    /// What was ever in it, without what was taken back.
    earned: Records,
}

/// A life in moments, before and after orderly ends.
struct Life {
    folder: tempfile::TempDir,
    moments: Vec<Moment>,
    earned: Records,
}

impl Life {
    /// Does something, and notes what a kill leaves (the database says more than any export) and what an
    /// orderly end leaves.
    async fn goes_on(&mut self, with: impl FnOnce(&Store)) {
        let store = Store::open(options(self.folder.path())).unwrap();
        let before = records(&store);
        with(&store);
        let held = records(&store);
        self.earned.retain(|record| held.contains(record) || !before.contains(record));
        self.earned.extend(held.iter().cloned());
        assert!(store.flush().await);
        self.note(held.clone());
        store.close();
        self.note(held);
    }

    fn note(&mut self, held: Records) {
        let (files, earned) = (files(self.folder.path()), self.earned.clone());
        self.moments.push(Moment { files, held, earned });
    }
}

async fn life() -> Vec<Moment> {
    let folder = tempfile::tempdir().unwrap();
    let mut life = Life { folder, moments: Vec::new(), earned: Records::new() };
    life.goes_on(|store| (0..IMAGES / 2).for_each(|number| put(store, number))).await;
    life.goes_on(|store| (IMAGES / 2..IMAGES).for_each(|number| put(store, number))).await;
    // By the administrator, and by the look at present images; something new in the same moment.
    life.goes_on(|store| {
        assert_eq!(store.purge(&Selection::Image(repository(), digest("image", 0))), 1);
        assert!(store.withdraw(&store.admission(&repository(), &digest("image", 1)).unwrap()));
        put(store, IMAGES);
    })
    .await;
    life.moments
}

/// Does one thing to one file, as disks, power cuts and people do.
fn damage(random: &mut Random, earlier: &[Moment], files: &mut Files) {
    let names: Vec<_> = files.keys().cloned().collect();
    let Some(name) = names.get(random.below(names.len())) else { return };
    let older = earlier[random.below(earlier.len())].files.get(name).cloned();
    let bytes = files.get_mut(name).unwrap();
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.iter_mut().skip(at).for_each(|byte| *byte = 0),
        2 => drop(files.remove(name)),
        // A file of an earlier moment: a backup, or a write that never got there. All of them with their
        // mark are what was there then, so the mark stays.
        3 if name.extension().is_some_and(|ending| ending == "mark") => {}
        3 => *bytes = older.unwrap_or_default(),
        4 if !bytes.is_empty() => {
            let (from, end) = (random.below(bytes.len()), (at + 512).min(bytes.len()));
            let block: Vec<_> = bytes.iter().copied().cycle().skip(from).take(end - at).collect();
            bytes[at..end].copy_from_slice(&block);
        }
        _ => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}

#[tokio::test]
async fn c4_damaged_files_never_give_a_verdict_that_was_not_earned() {
    let moments = life().await;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut whole, mut partly) = (0, 0);
    for round in 0..ROUNDS {
        let at = random.below(moments.len());
        let Moment { files, held, earned } = &moments[at];
        let mut damaged = files.clone();
        for _ in 0..=random.below(3) {
            damage(&mut random, &moments[..=at], &mut damaged);
        }
        let folder = folder();
        for (name, bytes) in &damaged {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let store = Store::open(options(folder.path())).unwrap_or_else(|error| panic!("{round}: {error}"));
        let found = records(&store);
        assert!(found.is_subset(earned), "round {round}");
        for number in 0..=IMAGES {
            if let Some(kept) = store.evidence(&repository(), &digest("image", number)).await {
                assert_eq!(kept.pieces, pieces(number), "round {round}");
            }
        }
        match found.len() {
            0 => {}
            _ if found == *held => whole += 1,
            _ => partly += 1,
        }
        // It works, and what it says now outlives the next start.
        put(&store, 100);
        assert_eq!(store.verdict(&key(100)), Some(Age::Fresh), "round {round}");
        assert!(store.flush().await, "round {round}");
        store.close();
        if round % 10 == 0 {
            let store = Store::open(options(folder.path())).unwrap();
            assert_eq!(store.verdict(&key(100)), Some(Age::Fresh), "round {round}");
            store.close();
        }
    }
    assert!(whole > 20 && partly > 20, "too much or too little was damaged: {whole} whole, {partly} partly");
}
