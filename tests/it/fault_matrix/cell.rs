//! One cell: a gate in this process before the registry of the stage, in one state, while the registry
//! fails in one way. The gate's clocks are the cell's own; it runs on the cell's thread alone, whose
//! `/etc/hosts` is its own too.

use std::{
    cell::Cell as Held,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use prometheus_client::registry::Registry as Metrics;
use pullgate::{
    admission::{
        Background, Gate, ImageFacts, PullRequest, Record, ServePresent, Settings, Shown, Snapshot,
        audit::{Audit, Phases},
        words::Refusal,
    },
    cache::{Clock, Options, Stamp, Store},
    oci::{Digest, Reference, RequestedImage},
    policy::{
        Compatibility, LoadOptions, OnlineRekor, PodFacts, PolicySet, PolicySource, RootSource,
        evaluate::{Approved, Decision, Mode, Unmatched},
    },
    registry::{self, CertificateAuthority, Credentials, RegistryOptions, Timeouts},
};
use serde_json::json;

use super::stage::{NO_NAME, SILENT, Stage};
use crate::kit::{self, cosign::Key, front::Front, image::Image, policy::Policy};

/// What the node knows of the image, and by what it decides. In the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    New,
    NewIgnored,
    NewAudited,
    Fresh,
    Stale,
    TooOld,
    OtherPolicy,
    OtherPolicyUnsigned,
    Restarted,
}

/// How the pull names the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Tag,
    Digest,
}

/// Which of a registry's hosts fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It has no mirror, and fails.
    Alone,
    /// Its mirror does, and it works.
    Mirror,
    /// It does, and its mirror works.
    Registry,
    /// Both do.
    Both,
}

/// What was seen in a cell.
pub(super) struct Seen {
    /// The word of the verdict.
    pub(super) word: String,
    /// How long it took.
    pub(super) took: Duration,
    /// The word for an image that nobody signed.
    pub(super) of_unsigned: String,
    /// Both words once the registry works again.
    pub(super) recovered: [String; 2],
    /// What else is not as it should be.
    pub(super) wrong: Vec<String>,
}

impl State {
    pub(super) const ALL: [Self; 9] = [
        Self::New,
        Self::NewIgnored,
        Self::NewAudited,
        Self::Fresh,
        Self::Stale,
        Self::TooOld,
        Self::OtherPolicy,
        Self::OtherPolicyUnsigned,
        Self::Restarted,
    ];

    const fn is_known(self) -> bool {
        !matches!(self, Self::New | Self::NewIgnored | Self::NewAudited)
    }

    /// Whether an image that nobody signed may pass.
    const fn may_pass_unverified(self) -> bool {
        matches!(self, Self::NewIgnored | Self::NewAudited)
    }
}

impl Place {
    const fn has_mirror(self) -> bool {
        !matches!(self, Self::Alone)
    }

    const fn fails_at_mirror(self) -> bool {
        matches!(self, Self::Mirror | Self::Both)
    }

    const fn fails_at_registry(self) -> bool {
        !matches!(self, Self::Mirror)
    }
}

/// Fills in one cell, on a thread of its own.
pub(super) fn see(fault: &'static str, state: State, by: By, place: Place) -> Seen {
    let cell = std::thread::spawn(move || Cell::set_up(fault, state, place).see(by));
    cell.join().unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        let (of_unsigned, recovered) = (String::new(), [String::new(), String::new()]);
        Seen {
            word: format!("panic: {why}"),
            took: Duration::ZERO,
            of_unsigned,
            recovered,
            wrong: Vec::new(),
        }
    })
}

/// A tenth of the built-in limits, for what is tested by waiting.
pub(super) const SCALE: u32 = 10;

thread_local! {
    /// Seconds since 1970.
    static NOW: Held<u64> = const { Held::new(1_800_000_000) };
}

fn now() -> Stamp {
    Stamp::new(NOW.get(), 1, NOW.get())
}

struct Cell {
    fault: &'static str,
    state: State,
    stage: &'static Stage,
    runtime: tokio::runtime::Runtime,
    place: Place,
    front: Front,
    mirror: Front,
    gate: Gate,
    /// The cell's `/etc/hosts`.
    hosts: PathBuf,
    /// The folder of its `hosts.toml`.
    certs: PathBuf,
}

impl Cell {
    /// The state, then the fault.
    fn set_up(fault: &'static str, state: State, place: Place) -> Self {
        let stage = Stage::shared();
        let hosts = own_hosts_file();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let [front, mirror] = [(); 2].map(|()| Front::before(stage.working(fault)));
        let certs = kit::folder();
        let store = kit::folder().join("cache");
        let patient = Timeouts {
            connect: kit::PATIENCE,
            idle: kit::PATIENCE,
            request: kit::PATIENCE,
            look_up: kit::PATIENCE,
        };
        let opened = open(&runtime, &store);
        let gate_of = |store, timeouts| gate(store, client(stage, timeouts, &certs));
        let gate = gate_of(opened, patient);
        let certs = certs.clone();
        let cell = Self { fault, state, stage, gate, place, runtime, front, mirror, hosts, certs };
        cell.write_hosts_toml();
        cell.gate.swap(cell.snapshot(&stage.key, state));
        if state.is_known() {
            for by in [By::Digest, By::Tag] {
                let admitted = cell.runtime.block_on(cell.gate.admit(cell.request(&stage.signed, by)));
                let admitted = admitted.unwrap_or_else(|refusal| panic!("{fault}, {state:?}: {refusal:?}"));
                cell.gate.pulled(&admitted, &stage.signed.id, None);
            }
        }
        let age = match state {
            State::Stale => DAY,
            State::TooOld => 7 * DAY,
            State::New
            | State::NewIgnored
            | State::NewAudited
            | State::Fresh
            | State::OtherPolicy
            | State::OtherPolicyUnsigned
            | State::Restarted => 0,
        };
        NOW.set(NOW.get() + age);
        cell.fail();
        // Only what is tested by waiting is not waited for long.
        let timeouts = match fault {
            SILENT => Timeouts { idle: Duration::from_secs(10) / SCALE, ..patient },
            "sends a byte at a time" => {
                let request = Duration::from_secs(30) / SCALE;
                Timeouts { request, look_up: request, ..patient }
            }
            _ => patient,
        };
        let kept = if state == State::Restarted {
            cell.gate.store().close();
            open(&cell.runtime, &store)
        } else {
            cell.gate.store().clone()
        };
        let cell = Self { gate: gate_of(kept, timeouts), ..cell };
        let key = match state {
            State::OtherPolicy => &stage.later_key,
            State::OtherPolicyUnsigned => &stage.foreign_key,
            State::New
            | State::NewIgnored
            | State::NewAudited
            | State::Fresh
            | State::Stale
            | State::TooOld
            | State::Restarted => &stage.key,
        };
        cell.gate.swap(cell.snapshot(key, state));
        cell
    }

    fn see(self, by: By) -> Seen {
        let (began, connections) = (Instant::now(), self.connections());
        let (word, refusal) = self.judge(&self.stage.signed, by);
        let took = began.elapsed();
        let connections = self.connections() - connections;
        let mut wrong: Vec<String> = refusal.iter().filter_map(|refusal| misspoken(&word, refusal)).collect();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let waits = if self.fault == SILENT { connections } else { 0 };
        // A mirror is waited for when the tag is resolved and when signatures are looked for. By digest a
        // registry is asked for the manifest beside.
        let most = if self.place.fails_at_mirror() || by == By::Digest { 2 } else { 1 };
        check(waits <= most, &format!("silence is waited for {waits} times"));
        let (of_unsigned, refused) = self.judge(&self.stage.unsigned, by);
        check(
            refused.is_some() || self.state.may_pass_unverified(),
            &format!("an unsigned image passes: {of_unsigned}"),
        );
        let definite = word == "signature-invalid";
        if self.state.is_known() && !definite {
            check(self.shown(), "the image is hidden from the kubelet");
            let look = self.look();
            check(look != Background::Denied, "the background takes the image back");
            check(self.shown(), "the image is hidden from the kubelet after a look at it");
        }
        self.recover();
        // A connection that the fault broke may cost one more call.
        let recovered = [(&self.stage.signed, &SIGNED[..]), (&self.stage.unsigned, &UNSIGNED[..])];
        let recovered = recovered.map(|(image, words)| {
            let mut last = String::new();
            let decided = kit::within(RECOVERY, || {
                last = self.judge(image, by).0;
                words.contains(&last.as_str()).then_some(())
            });
            if decided.is_none() { format!("{last}, after {RECOVERY:?}") } else { last }
        });
        self.gate.store().close();
        Seen { word, took, of_unsigned, recovered, wrong }
    }

    /// The word of the verdict, and the kubelet's text if it is a refusal.
    fn judge(&self, image: &Image, by: By) -> (String, Option<Refusal>) {
        let request = self.request(image, by);
        let snapshot = self.gate.snapshot();
        let mut phases = Phases::start();
        let judging = self.gate.judge(&snapshot, &request, &mut phases);
        match self.runtime.block_on(judging).decision {
            Decision::Allow(permit) => (permit.source().word().to_owned(), None),
            Decision::Deny(denials) => {
                let text = Refusal::denied(request.reference.text(), &denials);
                (denials.first().map_or("", |denial| denial.reason.code()).to_owned(), Some(text))
            }
            Decision::Undecided(fault) => {
                (fault.reason.code().to_owned(), Some(Refusal::undecided(&request.reference, &fault)))
            }
        }
    }

    /// Whether ImageStatus shows the image by each of its names.
    fn shown(&self) -> bool {
        let image = self.named(&self.stage.signed);
        let target: Digest = image.digest.parse().expect("a digest");
        let facts = ImageFacts { id: image.id.clone(), names: vec![image.by_tag(), image.by_digest()] };
        [image.by_tag(), image.by_digest(), image.id.clone()].iter().all(|asked| {
            let parsed = RequestedImage::parse(asked).ok();
            self.gate.image_status(asked, parsed.as_ref(), Record::Target(target), &facts) == Shown::Show
        })
    }

    /// The background's look.
    fn look(&self) -> Background {
        let image = self.named(&self.stage.signed);
        let digest = image.digest.parse().expect("a digest");
        self.runtime.block_on(self.gate.decide_present(&image.by_tag(), digest, None))
    }

    fn fail(&self) {
        for front in self.failing() {
            front.put(self.stage.failing(self.fault));
        }
        if self.fault == NO_NAME {
            fs::write(&self.hosts, "").expect("a hosts file");
        }
    }

    fn recover(&self) {
        fs::write(&self.hosts, HOSTS).expect("a hosts file");
        for front in self.failing() {
            front.put(self.stage.working(self.fault));
        }
    }

    /// The hosts that fail.
    fn failing(&self) -> impl Iterator<Item = &Front> {
        let registry = self.place.fails_at_registry().then_some(&self.front);
        registry.into_iter().chain(self.place.fails_at_mirror().then_some(&self.mirror))
    }

    /// Connections to hosts that fail.
    fn connections(&self) -> usize {
        self.failing().map(Front::connections).sum()
    }

    fn request(&self, image: &Image, by: By) -> PullRequest {
        let image = self.named(image);
        let text = match by {
            By::Tag => image.by_tag(),
            By::Digest => image.by_digest(),
        };
        PullRequest {
            reference: Reference::parse(&text).expect("a reference"),
            pod: PodFacts::default(),
            credentials: Credentials::Anonymous,
        }
    }

    fn named(&self, image: &Image) -> Image {
        image.at(format!("{}/app", self.host()))
    }

    fn host(&self) -> String {
        self.host_of(&self.front, self.place.fails_at_registry())
    }

    fn host_of(&self, front: &Front, fails: bool) -> String {
        if fails && self.fault == NO_NAME { front.named_host() } else { front.host() }
    }

    /// The registry's mirror, if it has one.
    fn write_hosts_toml(&self) {
        if !self.place.has_mirror() {
            return;
        }
        let scheme = if self.fault.contains("certificate") { "https" } else { "http" };
        let (registry, mirror) = (self.host(), self.host_of(&self.mirror, self.place.fails_at_mirror()));
        let folder = self.certs.join(&registry);
        fs::create_dir(&folder).expect("a folder");
        let text = format!("server = \"{scheme}://{registry}\"\n[host.\"{scheme}://{mirror}\"]\n");
        fs::write(folder.join("hosts.toml"), text).expect("a hosts.toml");
    }

    fn snapshot(&self, key: &Key, state: State) -> Arc<Snapshot> {
        let mut document = Policy::new("keyed", format!("{}/*", self.host())).key(key).document();
        if state == State::NewIgnored {
            document["spec"]["failurePolicy"] = json!("Ignore");
        }
        let text = document.to_string();
        let options = LoadOptions {
            compatibility: Compatibility::Default,
            trust_root: RootSource::Unavailable("no policy asks for it".to_owned()),
            online_rekor: OnlineRekor::Never,
            now: SystemTime::now(),
        };
        let fingerprint = Digest::of(text.as_bytes());
        let source = PolicySource { file: "policy.yaml".into(), text };
        Arc::new(Snapshot {
            policies: PolicySet::load(&[source], &options).expect("a policy").set,
            mode: if state == State::NewAudited { Mode::Audit } else { Mode::Enforce },
            unmatched: Unmatched::Allow,
            exempt_namespaces: Vec::new(),
            approved: Approved::default(),
            loaded_at: SystemTime::now(),
            fingerprint,
        })
    }
}

fn gate(store: Store, client: registry::Client) -> Gate {
    let settings = Settings {
        verification: kit::PATIENCE,
        concurrency: 4,
        serve_present: ServePresent::Anonymous,
        shown: None,
        salt: vec![7; 32],
    };
    let none = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Unavailable(String::new()),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::now(),
    };
    let nothing = Snapshot {
        policies: PolicySet::load(&[], &none).expect("no policy").set,
        mode: Mode::Enforce,
        unmatched: Unmatched::Allow,
        exempt_namespaces: Vec::new(),
        approved: Approved::default(),
        loaded_at: SystemTime::now(),
        fingerprint: Digest::of(b""),
    };
    let audit = Arc::new(Audit::new(&mut Metrics::default()));
    Gate::new(Arc::new(nothing), Arc::new(client), store, audit, settings)
}

fn client(stage: &Stage, timeouts: Timeouts, certs: &Path) -> registry::Client {
    let authority =
        CertificateAuthority { name: "ours".to_owned(), pem: stage.authority.clone().into_bytes() };
    let options = RegistryOptions {
        certificate_authorities: vec![authority],
        config_path: Some(certs.to_owned()),
        concurrency_per_host: NonZeroUsize::MIN.saturating_add(3),
        timeouts,
        ..RegistryOptions::default()
    };
    registry::Client::new(&options).expect("a client")
}

fn open(runtime: &tokio::runtime::Runtime, path: &Path) -> Store {
    let store = Store::start(Options {
        path: path.to_owned(),
        max_entries: 100,
        max_size: 1024 * 1024,
        fresh: Duration::from_secs(DAY),
        stale: Duration::from_secs(7 * DAY),
        patience: kit::PATIENCE,
        clock: Clock { now },
    });
    assert!(runtime.block_on(store.opened(kit::PATIENCE)), "the cache is not opened");
    store
}

/// What is wrong with the words for a refusal of this kind (rules E1 and E4).
fn misspoken(word: &str, refusal: &Refusal) -> Option<String> {
    let text = &refusal.message;
    let starts = match word {
        "signature-not-found" | "signature-invalid" => text.starts_with("SignatureValidationFailed: "),
        "registry-denied" | "image-not-found" => text.contains(": registry answered 40"),
        _ => text.starts_with("RegistryUnavailable: "),
    };
    (!starts || text.len() >= 400).then(|| format!("the kubelet is told: {text}"))
}

/// Gives this thread an `/etc/hosts` of its own, and nobody to ask for other names.
fn own_hosts_file() -> PathBuf {
    let folder = kit::folder();
    let (hosts, resolvers) = (folder.join("hosts"), folder.join("resolv.conf"));
    fs::write(&hosts, HOSTS).expect("a hosts file");
    fs::write(&resolvers, "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n").expect("a file");
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root");
    for (file, place) in [(&hosts, "/etc/hosts"), (&resolvers, "/etc/resolv.conf")] {
        mount(Some(file), place, none, MsFlags::MS_BIND, none).expect("root");
    }
    hosts
}

/// What a registry that works can come to.
const SIGNED: [&str; 3] = ["verified", "fresh", "signature-invalid"];
const UNSIGNED: [&str; 2] = ["signature-not-found", "audited"];
const HOSTS: &str = "127.0.0.1 localhost\n";
const DAY: u64 = 86_400;
/// A denial is remembered for five seconds; the rest is patience with a busy machine.
const RECOVERY: Duration = Duration::from_secs(20);
