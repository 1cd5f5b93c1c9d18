//! The gate at full speed for minutes, while everything around it goes away and comes back.
//!
//! Four kubelets pull, ask and remove; beside them policies change, the registry, containerd and the gate
//! itself stop, are killed and start again. What is right does not change all the while: what a key of the
//! policy signed may fail for want of a registry, but is never refused as unsigned; what it did not sign
//! is never let through, and never shown. A change of policy counts for the next pull. After everything that
//! happens pulls go on soon; at the end every image gets the answer that is right.
//!
//! First a part in which the gate lives, whose memory, open files and cache are watched; then one in which
//! it is killed. `PULLGATE_SOAK_SECONDS` says how long (`make soak MINUTES=20`); without it, three minutes.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tonic::Code;

use crate::kit::{Node, Space, cosign::Key, gate::Gate, image::Image, on_containerd, registry::Registry};

#[test]
fn soak() {
    on_containerd("2", "soak", run);
}

/// Images of one kind.
const IMAGES: usize = 40;
const KUBELETS: u64 = 4;
/// `cache.maxSize`: less than the evidence of all images, so that the oldest goes out.
const CACHE: u64 = 16 << 10;
/// Pulls of good images that must pass within [`SOON`] after something happened.
const GO_ON: u64 = 8;
const SOON: Duration = Duration::from_secs(30);

/// What happened, and what must not have.
#[derive(Default)]
struct Seen {
    pulls: AtomicU64,
    refusals: AtomicU64,
    /// Answers without a verdict: something was away.
    away: AtomicU64,
    shown: AtomicU64,
    hidden: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

struct World<'a> {
    node: Node,
    registry: &'a Registry,
    space: &'a Space<'a>,
    gate: Gate,
    /// Signed by a key that every policy takes.
    good: Vec<Image>,
    /// Signed by nobody, or by a key that no policy takes.
    bad: Vec<Image>,
    /// Signed by a key that one of the two policies takes.
    turning: Image,
    third_key: Key,
    seen: Seen,
}

fn run(_: &Node) {
    let seconds = std::env::var("PULLGATE_SOAK_SECONDS").map_or(180, |text| text.parse().expect("a number"));
    let (node, registry) = (Node::start("2"), Registry::olareg());
    node.containerd.knows(&registry);
    let space = Space::on(&registry);
    let third_key = Key::generate();
    let images = |kind: &str| -> Vec<Image> {
        (0..IMAGES).map(|at| space.image(&format!("{kind}{at}")).push("1")).collect()
    };
    let (good, bad, turning) = (images("good"), images("bad"), space.image("turning").push("1"));
    node.key.sign_all(&good);
    node.other_key.sign_all(&bad[..IMAGES / 2]);
    third_key.sign(&turning);
    let gate = Gate::before(&node.containerd)
        .set("/cache/fresh", "2s")
        .set("/cache/stale", "1h")
        .set("/cache/maxSize", format!("{}KiB", CACHE >> 10))
        .set("/cache/maxEntries", 60)
        .policies(&policies(&space, &node, &third_key, true))
        .start();
    let world = World {
        node,
        registry: &registry,
        space: &space,
        gate,
        good,
        bad,
        turning,
        third_key,
        seen: Seen::default(),
    };

    let alive = world.part(Duration::from_secs(seconds * 2 / 3), false);
    world.all_is_right();
    // The first third fills caches and pools.
    let third = alive.len() / 3;
    let (first, last) = (Sample::median(&alive[third..2 * third]), Sample::median(&alive[2 * third..]));
    let killed = world.part(Duration::from_secs(seconds / 3), true);
    world.all_is_right();

    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let seen = &world.seen;
    eprintln!(
        "{seconds} s: {} pulls, {} refusals, {} without a verdict, {} shown, {} hidden; second third {first:?}, last {last:?}; with kills {:?}",
        count(&seen.pulls),
        count(&seen.refusals),
        count(&seen.away),
        count(&seen.shown),
        count(&seen.hidden),
        Sample::median(&killed),
    );
    let wrong = seen.wrong.lock().expect("nobody panicked");
    assert!(wrong.is_empty(), "{} wrong verdicts: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    for number in [&seen.pulls, &seen.refusals, &seen.away, &seen.shown, &seen.hidden] {
        assert!(count(number) > 0, "something was never tried");
    }
    assert!(last.memory < first.memory + first.memory / 8 + (4 << 20), "memory grows: {first:?} {last:?}");
    assert!(last.files < first.files + 20, "open files grow: {first:?} {last:?}");
    assert!(last.cache < first.cache + (1 << 20), "the cache grows: {first:?} {last:?}");
    for sample in alive.iter().chain(&killed) {
        // sled rewrites its log; what lies there besides the live records is bounded.
        assert!(sample.cache < 16 << 20, "the cache grows: {sample:?}");
    }
}

/// Two policies with other fingerprints and the same answers, except for one image.
fn policies(
    space: &Space<'_>,
    node: &Node,
    third: &Key,
    with_third: bool,
) -> [crate::kit::policy::Policy; 1] {
    let policy = space.policy("keyed").key(node.key).count(1);
    [if with_third { policy.key(third) } else { policy }]
}

/// What a process and its cache take.
#[derive(Debug, Clone)]
struct Sample {
    /// Resident, in bytes.
    memory: u64,
    files: usize,
    /// Bytes on disk.
    cache: u64,
}

impl Sample {
    /// Of each figure by itself.
    fn median(samples: &[Self]) -> Self {
        fn middle<T: Copy + Ord>(samples: &[Sample], of: fn(&Sample) -> T) -> T {
            let mut all: Vec<T> = samples.iter().map(of).collect();
            all.sort_unstable();
            all[all.len() / 2]
        }
        Self {
            memory: middle(samples, |sample| sample.memory),
            files: middle(samples, |sample| sample.files),
            cache: middle(samples, |sample| sample.cache),
        }
    }
}

impl World<'_> {
    /// Everything at once, for that long.
    fn part(&self, time: Duration, kill: bool) -> Vec<Sample> {
        let over = AtomicBool::new(false);
        let mut samples = Vec::new();
        thread::scope(|threads| {
            let _stop_threads_on_panic = crate::e2e_life::SetOnDrop(&over);
            for kubelet in 0..KUBELETS {
                let over = &over;
                threads.spawn(move || self.kubelet(&mut Random(kubelet + 1), over));
            }
            let (until, mut random) = (Instant::now() + time, Random(if kill { 77 } else { 7 }));
            while Instant::now() < until {
                self.chaos(&mut random, kill);
                samples.push(self.sample());
                thread::sleep(Duration::from_secs(1));
            }
        });
        samples
    }

    /// While everything is there: what is good is pulled and shown, what is not is neither.
    fn all_is_right(&self) {
        let cri = self.gate.cri();
        for image in &self.good {
            let name = image.by_tag();
            match cri.pull(&name).pod("default", &[]).send() {
                Ok(id) if id == image.id => {}
                answer => self.wrong(format!("at the end {name}: {answer:?}")),
            }
            match cri.image_status(&name) {
                Ok(Some(_)) => {}
                answer => self.wrong(format!("at the end {name} is not shown: {answer:?}")),
            }
        }
        for image in &self.bad {
            let name = image.by_tag();
            match cri.pull(&name).pod("default", &[]).send() {
                Err(refusal) if refusal.message().starts_with("SignatureValidationFailed") => {}
                answer => self.wrong(format!("at the end {name}: {answer:?}")),
            }
            if let Ok(Some(_)) = cri.image_status(&name) {
                self.wrong(format!("at the end {name} is shown"));
            }
        }
        // Of all of them there was evidence a moment ago.
        let kept = self.gate.status_json()["cache"]["evidenceImages"].as_u64().expect("a number");
        let all = u64::try_from(self.good.len()).expect("few");
        if kept == 0 || kept >= all {
            self.wrong(format!("evidence of {kept} images is kept, so cache.maxSize is not what bounds it"));
        }
    }

    fn kubelet(&self, random: &mut Random, over: &AtomicBool) {
        let cri = self.gate.cri();
        while !over.load(Ordering::SeqCst) {
            let good = random.below(2) == 0;
            let image = if good { random.of(&self.good) } else { random.of(&self.bad) };
            let name = if random.below(2) == 0 { image.by_tag() } else { image.by_digest() };
            match random.below(10) {
                0..6 => match cri.pull(&name).pod("default", &[]).send() {
                    Ok(id) if good && id == image.id => self.count(&self.seen.pulls),
                    Ok(id) => self.wrong(format!("{name} pulled as {id}")),
                    Err(refusal) => self.refused(good, &name, &refusal),
                },
                6..9 => match cri.image_status(&name) {
                    Ok(Some(_)) if good => self.count(&self.seen.shown),
                    Ok(Some(_)) => self.wrong(format!("{name} is shown")),
                    Ok(None) => self.count(&self.seen.hidden),
                    Err(error) => self.refused(good, &name, &error),
                },
                _ => drop(cri.remove_image(&name)),
            }
        }
    }

    fn refused(&self, good: bool, name: &str, refusal: &tonic::Status) {
        // What was forgotten (purged, or the oldest of a full cache) is an error for minutes (rule S2).
        let forgotten =
            refusal.message().contains("no longer admitted; it is verified again when it is pulled");
        let unsigned = refusal.message().starts_with("SignatureValidationFailed") && !forgotten;
        match (unsigned, good) {
            (true, true) => self.wrong(format!("{name}: {refusal}")),
            (true, false) => self.count(&self.seen.refusals),
            (false, _) => {
                self.count(&self.seen.away);
                // Nobody asks a node that is down ten thousand times a second.
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// One thing that happens to a node.
    fn chaos(&self, random: &mut Random, kill: bool) {
        match random.below(if kill { 7 } else { 5 }) {
            0 | 1 => {
                let with_third = random.below(2) == 0;
                self.gate.write_policies(&policies(self.space, &self.node, &self.third_key, with_third));
                self.gate.reload();
                let answer = self.gate.cri().pull(self.turning.by_tag()).pod("default", &[]).send();
                let refused =
                    answer.as_ref().err().map(|refusal| (refusal.code(), refusal.message().to_owned()));
                match (with_third, refused) {
                    (true, None) => {}
                    (false, Some((Code::Unknown, text))) if text.starts_with("SignatureValidationFailed") => {
                    }
                    (_, answer) => self.wrong(format!("with the key {with_third}: {answer:?}")),
                }
            }
            2 => {
                self.registry.stop();
                thread::sleep(Duration::from_millis(500));
                self.registry.start_again();
            }
            3 => {
                self.node.containerd.stop();
                self.node.containerd.start_again();
            }
            4 => match random.below(2) {
                0 => self.gate.purge_cache(),
                _ => self.gate.hang_up(),
            },
            5 => self.gate.crash(),
            _ => self.gate.restart(),
        }
        self.goes_on();
    }

    /// Waits until pulls pass again.
    fn goes_on(&self) {
        let pulls = || self.seen.pulls.load(Ordering::Relaxed);
        let (before, give_up) = (pulls(), Instant::now() + SOON);
        while pulls() < before + GO_ON {
            if Instant::now() >= give_up {
                return self.wrong(format!("{} pulls passed within {SOON:?}", pulls() - before));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn sample(&self) -> Sample {
        let process = Path::new("/proc").join(self.gate.pid().to_string());
        let status = fs::read_to_string(process.join("status")).expect("the gate runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS line");
        let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        let files = fs::read_dir(process.join("fd")).expect("the gate runs").count();
        Sample { memory: kilobytes << 10, files, cache: size(&self.gate.cache()) }
    }

    fn count(&self, number: &AtomicU64) {
        number.fetch_add(1, Ordering::Relaxed);
    }

    fn wrong(&self, what: String) {
        self.seen.wrong.lock().expect("nobody panicked").push(what);
    }
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Gone in between.
            Err(_) => 0,
        })
        .sum()
}

/// The same each time (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn of<'a>(&mut self, images: &'a [Image]) -> &'a Image {
        let at = self.below(u64::try_from(images.len()).expect("few"));
        &images[usize::try_from(at).expect("few")]
    }
}
