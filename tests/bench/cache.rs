//! The cache: seeded for the daemon, and looked up in a process of its own.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use pullgate::{
    cache::{Admission, Clock, Durability, Options, Store, VerdictKey},
    oci::{Digest, Repository},
};

use crate::{
    kit::{self, Node, block_on, gate::Gate, process::memory_of},
    node::program,
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
            flush(&store);
        }
    }
    flush(&store);
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

/// `cache list` of a million images through the daemon, `cache export` of those with evidence, and what pulls
/// wait meanwhile.
pub(crate) fn million(node: &Node) -> Vec<Row> {
    let images = 1_000_000;
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let cache = kit::folder().join("cache");
    let store = Store::open(options(&cache, images)).expect("a cache");
    for number in 0..images {
        admit(&store, number);
        if number < EXPORTED {
            keep(&store, number, 256);
        }
    }
    flush(&store);
    store.close();
    let gate = Gate::before(&node.containerd)
        .set("/cache/path", cache.display().to_string())
        .set("/cache/maxEntries", images * 2)
        .policies(&[space.policy("keyed").key(node.key)])
        .start();
    let opened = kit::within(Duration::from_secs(600), || {
        gate.status_json()["cache"]["state"].as_str().is_some_and(|state| state == "open").then_some(())
    });
    opened.expect("the cache is read");
    let cri = gate.cri();
    let pull = || {
        let start = Instant::now();
        cri.pull(image.by_tag()).expect();
        start.elapsed()
    };
    pull();
    let alone = Samples::new((0..200).map(|_| pull()).collect());
    let mut rows = vec![Row::plain(
        "PullImage, verdict cached, beside 1 000 000 images in the cache",
        format!("p50 {}, p99 {}, most {}", time(alone.median()), time(alone.at(0.99)), time(alone.at(1.0))),
    )];
    let config = gate.folder().join("config.yaml").display().to_string();
    let file = kit::folder().join("evidence").display().to_string();
    for (what, arguments) in
        [("list", &["list"][..]), ("list -o json", &["list", "-o", "json"]), ("export", &["export", &file])]
    {
        let before = gate.memory("VmRSS:");
        gate.forget_most_memory();
        let mut command = Command::new(program());
        command.arg("cache").args(arguments).args(["--config", &config]);
        let start = Instant::now();
        let (printed, most) = std::thread::scope(|scope| {
            let command = scope.spawn(|| measured(&command));
            let mut times = Vec::new();
            while !command.is_finished() {
                times.push(pull());
            }
            rows.push(Row::plain(
                format!("the same during `cache {what}`"),
                Some(Samples::new(times)).map_or(String::new(), |times| {
                    format!(
                        "p50 {}, p99 {}, most {}",
                        time(times.median()),
                        time(times.at(0.99)),
                        time(times.at(1.0))
                    )
                }),
            ));
            command.join().expect("no panic")
        });
        let figure = format!(
            "{} with such pulls beside it, {:.1} MiB printed; daemon {:.1} MiB before, {:.1} at most; command {:.1} MiB",
            time(start.elapsed()),
            printed as f64 / f64::from(1 << 20),
            mib(before),
            mib(gate.memory("VmHWM:")),
            mib(most),
        );
        let images = if what == "export" { "the 20 000 of them with evidence" } else { "1 000 000 images" };
        rows.push(Row::plain(format!("`cache {what}` of {images}"), figure));
    }
    rows
}

/// Runs a command; how many bytes it printed, and the most that it had resident, in KiB.
fn measured(command: &Command) -> (u64, u64) {
    let folder = kit::folder();
    let (report, out) = (folder.join("memory"), folder.join("out"));
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M", "-o"]).arg(&report).arg(command.get_program()).args(command.get_args());
    let status =
        timed.stdout(fs::File::create(&out).expect("a file")).status().expect("GNU time (Debian: time)");
    assert!(status.success(), "{command:?}: {status}");
    let most = fs::read_to_string(report).expect("a report").trim().parse().expect("a number");
    (fs::metadata(out).expect("a file").len(), most)
}

/// A cache on disk as this many verified images leave it: verdict, admission and evidence of each.
pub(crate) fn seed(path: &Path, images: usize) {
    let store = Store::open(options(path, images)).expect("a cache");
    for number in 0..images {
        admit(&store, number);
        store.put_verdict(verdict(number), store.now(), None);
        // The size of a signature with its annotations.
        keep(&store, number, 256);
    }
    flush(&store);
    assert_eq!(store.counts().verdicts, images);
    store.close();
}

fn admit(store: &Store, number: usize) {
    let VerdictKey { repository, digest, .. } = verdict(number);
    store.admit(
        Admission {
            repository,
            digest,
            source: "verified".to_owned(),
            snapshot: Digest::of(b"snapshot"),
            image_id: Some(Digest::of(&number.to_le_bytes()).to_string()),
            at: store.now(),
            pulled_by: vec![Digest::of(b"anonymous")],
            parent: None,
            undecided_since: None,
        },
        Durability::Durable,
    );
    if number % BATCH == BATCH - 1 {
        flush(store);
    }
}

/// Keeps evidence of so many times eight bytes.
fn keep(store: &Store, number: usize, size: usize) {
    let VerdictKey { repository, digest, .. } = verdict(number);
    store.put_evidence(&repository, &digest, vec![number.to_le_bytes().repeat(size)], store.now());
}

fn flush(store: &Store) {
    // A store waits ten seconds for the disk, which others may keep busy.
    assert!((0..12).any(|_| block_on(store.flush())), "on disk");
}

/// Of the million, those with evidence.
const EXPORTED: usize = 20_000;
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
