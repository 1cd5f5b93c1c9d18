//! The targets over their seeds, without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::mutation::Mutations;
use super::{TARGETS, Target};

/// Of each seed, where `PULLGATE_MUTATIONS` does not ask for more. All targets together take some seconds.
const MUTATIONS: usize = 200;

const THREADS: usize = 4;

/// Seeds whose name begins so are there because their parser must refuse them.
const REFUSED: &str = "refused-";

#[test]
fn every_seed_is_read_or_refused_as_its_name_says() {
    for (name, read) in TARGETS {
        for (file, seed) in seeds(name) {
            let trace = Trace { target: name, seed: &file, bytes: &seed };
            let read = read(&seed).is_some();
            assert_eq!(read, !file.starts_with(REFUSED), "{name}/{file}: whether it is read");
            drop(trace);
        }
    }
}

#[test]
fn every_target_holds_on_mutations_of_its_seeds() {
    let count = std::env::var("PULLGATE_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    std::thread::scope(|scope| {
        for start in 0..THREADS {
            let part = TARGETS.iter().skip(start).step_by(THREADS);
            scope.spawn(move || part.for_each(|(name, read)| mutate(name, *read, count)));
        }
    });
}

fn mutate(name: &str, read: Target, count: usize) {
    for (file, seed) in seeds(name) {
        for bytes in Mutations::of(&seed).take(count) {
            let _trace = Trace { target: name, seed: &file, bytes: &bytes };
            read(&bytes);
        }
    }
}

#[cfg(feature = "node")]
#[test]
fn every_target_has_seeds_and_a_binary_and_there_are_no_others() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "a name is there twice");
    let stems = |folder: &str| -> BTreeSet<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        files(&root().join(folder)).iter().map(stem).collect()
    };
    let mut seeds = stems("seeds");
    seeds.remove("README");
    assert_eq!(seeds, names, "folders in fuzz/seeds");
    assert!(names.iter().all(|name| !self::seeds(name).is_empty()), "a folder in fuzz/seeds is empty");
    assert_eq!(stems("src/bin"), names, "binaries in fuzz/src/bin");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let listed: BTreeSet<String> = manifest
        .split("[[bin]]\nname = \"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert_eq!(listed, names, "[[bin]] in fuzz/Cargo.toml");
}

#[test]
fn mutations_are_many_and_the_same_in_every_run() {
    let two: [Vec<_>; 2] = [(); 2].map(|()| Mutations::of(b"a seed").take(300).collect());
    assert_eq!(two[0], two[1]);
    let distinct: BTreeSet<_> = two[0].iter().collect();
    assert!(distinct.len() > 250, "{}", distinct.len());
}

/// Says which bytes broke a target.
struct Trace<'a> {
    target: &'a str,
    seed: &'a str,
    bytes: &'a [u8],
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let file = std::env::temp_dir().join(format!("pullgate-fuzz-{}", self.target));
            let kept = fs::write(&file, self.bytes).map(|()| file);
            eprintln!("target {} fails on what became of its seed {}: see {kept:?}", self.target, self.seed);
        }
    }
}

/// The seeds of a target, by file name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let paths = files(&root().join("seeds").join(target));
    paths.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
