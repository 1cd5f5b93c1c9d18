//! The cache: seeded for the daemon, and looked up in a process of its own.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use pullgate::{
    cache::{Admission, Clock, Durability, Options, Store, VerdictKey},
    oci::{Digest, Repository},
};

use crate::{
    kit::{self, block_on, process::memory_of},
    report::{Row, Samples, mib, time},
};

/// Makes this program a process that only looks up verdicts.
pub(crate) const FLAG: &str = "--look-up";

/// Look-ups of a verdict, in a process of their own for the sake of its memory.
pub(crate) fn lookup() -> Vec<Row> {
    [(10_000, "10 000", 10.0), (1_000_000, "1 000 000", 25.0)]
        .map(|(entries, shown, bar)| {
            let program = std::env::current_exe().expect("this program");
            let output =
                Command::new(program).args([FLAG, &entries.to_string()]).output().expect("this program");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("text");
            let figures: Vec<u64> =
                text.split_whitespace().map(|word| word.parse().expect("a number")).collect();
            let [p50, p99, memory] = figures.try_into().expect("three figures");
            let (p50, p99) = (Duration::from_nanos(p50), Duration::from_nanos(p99));
            let figure = format!("{} (p99 {}, RSS {:.0} MiB)", time(p50), time(p99), mib(memory));
            let what = format!("look-up of a cached verdict, {shown} entries, p50");
            Row::at_most(what, p50.as_secs_f64() * 1e6, figure, bar, " µs")
        })
        .into()
}

/// The process: fills a cache, looks verdicts up in no order, prints p50 and p99 in ns and VmRSS in KiB.
pub(crate) fn look_up(entries: usize) {
    let folder = kit::folder();
    let store = Store::open(options(&folder.join("cache"), entries)).expect("a cache");
    for number in 0..entries {
        store.put_verdict(verdict(number), store.now(), None);
        if number % BATCH == BATCH - 1 {
            assert!(block_on(store.flush()), "on disk");
        }
    }
    assert!(block_on(store.flush()), "on disk");
    let times = (0..200_000)
        .map(|round: usize| {
            // A stride that has no factor in common with the number of entries.
            let key = verdict(round * 7_654_321 % entries);
            let start = Instant::now();
            let found = store.verdict(&key);
            let took = start.elapsed();
            assert!(found.is_some(), "it was kept");
            took
        })
        .collect();
    let times = Samples::new(times);
    let memory = memory_of("self", "VmRSS:");
    println!("{} {} {memory}", times.median().as_nanos(), times.at(0.99).as_nanos());
}

/// A cache on disk as this many verified images leave it: verdict, admission and evidence of each.
pub(crate) fn seed(path: &Path, images: usize) {
    let store = Store::open(options(path, images)).expect("a cache");
    for number in 0..images {
        let key = verdict(number);
        let (repository, digest) = (key.repository.clone(), key.digest);
        store.admit(
            Admission {
                repository: repository.clone(),
                digest,
                source: "verified".to_owned(),
                snapshot: Digest::of(b"snapshot"),
                image_id: Some(Digest::of(&number.to_le_bytes()).to_string()),
                at: store.now(),
                pulled_by: vec![Digest::of(b"anonymous")],
            },
            Durability::Durable,
        );
        store.put_verdict(key, store.now(), None);
        // The size of a signature with its annotations.
        store.put_evidence(&repository, &digest, vec![number.to_le_bytes().repeat(256)], store.now());
        if number % BATCH == BATCH - 1 {
            assert!(block_on(store.flush()), "on disk");
        }
    }
    assert!(block_on(store.flush()), "on disk");
    assert_eq!(store.counts().verdicts, images);
    store.close();
}

/// Writes between two waits for the disk: the store drops those that do not fit its queue.
const BATCH: usize = 500;

fn verdict(number: usize) -> VerdictKey {
    let digest = |word: &str| Digest::of(format!("{word} {number}").as_bytes());
    VerdictKey {
        repository: Repository::parse(&format!("registry.example/team-{}/app", number % 100))
            .expect("a name"),
        digest: digest("image"),
        entry: Digest::of(b"entry"),
        trust: None,
        pod: Digest::of(b"pod"),
    }
}

fn options(path: &Path, entries: usize) -> Options {
    Options {
        path: path.to_owned(),
        max_entries: entries,
        max_size: 1 << 30,
        fresh: Duration::from_secs(24 * 3600),
        stale: Duration::from_secs(168 * 3600),
        patience: Duration::from_secs(10),
        clock: Clock::system(),
    }
}
