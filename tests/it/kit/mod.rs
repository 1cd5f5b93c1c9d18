//! The end-to-end kit: the real containerd, registries, cosign and pullgate over real sockets.
//!
//! Tests are plain functions; the kit hides one async runtime behind blocking calls. Everything
//! lives below one folder of this process in /tmp. Each part stops what it started when it is
//! dropped; `reap.sh`, a child that waits for this process to end, removes whatever is left, also
//! after a crash or Ctrl-C. Statics, which Rust never drops, rely on it.
//!
//! The tools come from `tests/tools/install`. A test whose tool is missing, or that is not run by
//! root, says so and returns; with `CI=true` it fails.

pub(crate) mod authority;
pub(crate) mod containerd;
pub(crate) mod cosign;
pub(crate) mod cri;
pub(crate) mod front;
pub(crate) mod gate;
pub(crate) mod hostile;
pub(crate) mod image;
pub(crate) mod policy;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod ran;
pub(crate) mod registry;
pub(crate) mod sigstore;
pub(crate) mod tokens;
pub(crate) mod tuf;

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use self::{containerd::Containerd, cosign::Key, registry::Registry};

/// How long anything on a loaded machine may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What most tests share: one containerd of a version, a registry, two key pairs.
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    /// Has the referrers API.
    pub(crate) registry: &'static Registry,
    /// The key that policies of the tests ask for.
    pub(crate) key: &'static Key,
    /// A key that nobody asked for.
    pub(crate) other_key: &'static Key,
}

impl Node {
    /// The shared node of this containerd version.
    pub(crate) fn shared(version: &'static str) -> &'static Self {
        static NODES: Mutex<Vec<(&str, &Node)>> = Mutex::new(Vec::new());
        let mut nodes = NODES.lock().expect("no test panics while a node starts");
        if let Some((_, node)) = nodes.iter().find(|(of, _)| *of == version) {
            return node;
        }
        let node: &'static Self = Box::leak(Box::new(Self::start(version)));
        nodes.push((version, node));
        node
    }

    /// A node with a containerd of its own, for tests that stop it.
    pub(crate) fn start(version: &'static str) -> Self {
        static KEYS: OnceLock<(Key, Key)> = OnceLock::new();
        let (key, other_key) = KEYS.get_or_init(|| (Key::generate(), Key::generate()));
        Self { containerd: Containerd::start(version), registry: Registry::shared(), key, other_key }
    }

    /// A part of the shared registry for one test.
    pub(crate) fn space(&self) -> Space<'static> {
        Space::on(self.registry)
    }
}

/// A part of a registry that only one test uses, so that its policies cover only its own images.
pub(crate) struct Space<'a> {
    registry: &'a Registry,
    /// The host that names in policies and pulls have: the registry's, or that of a proxy before it.
    host: String,
    name: String,
}

impl<'a> Space<'a> {
    pub(crate) fn on(registry: &'a Registry) -> Self {
        Self { registry, host: registry.host().to_owned(), name: format!("t{}", unique()) }
    }

    /// The same part, seen through a proxy.
    pub(crate) fn through(&self, proxy: &proxy::Proxy) -> Self {
        Self { registry: self.registry, host: proxy.host().to_owned(), name: self.name.clone() }
    }

    /// An image of this space to be pushed.
    pub(crate) fn image(&self, repository: &str) -> image::Builder<'a> {
        self.registry.image(&format!("{}/{repository}", self.name))
    }

    /// How an image of this space is named through its host.
    pub(crate) fn name(&self, image: &image::Image) -> image::Image {
        let path = image.repository.split_once('/').expect("host/repository").1;
        image.at(format!("{}/{path}", self.host))
    }

    /// `host/space/repository`, where nothing is yet.
    pub(crate) fn repository(&self, repository: &str) -> String {
        format!("{}/{}/{repository}", self.host, self.name)
    }

    /// A policy without attestors for all images of this space; its rule is `signed`.
    pub(crate) fn policy(&self, name: &str) -> policy::Policy {
        policy::Policy::new(name, self.repository("*"))
    }
}

/// What the tests of a node start, besides containerd itself.
const TOOLS: &[&str] = &[
    "bin/runc",
    "bin/olareg",
    "bin/docker-registry",
    "bin/distribution-3",
    "bin/token-server",
    "bin/cosign-2",
    "bin/cosign-3",
];

/// Runs `test` on the shared node of a containerd version, or says what is missing.
pub(crate) fn on_containerd(version: &'static str, test: &str, body: fn(&Node)) {
    let missing = if !nix::unistd::geteuid().is_root() {
        Some("root is needed".to_owned())
    } else {
        let containerd = format!("containerd-{version}/bin/containerd");
        [containerd.as_str()]
            .into_iter()
            .chain(TOOLS.iter().copied())
            .find(|tool| !tools().join(tool).exists())
            .map(|tool| format!("{tool} is missing (tests/tools/install)"))
    };
    match missing {
        None => body(Node::shared(version)),
        Some(why) => skip(test, &why),
    }
}

/// Says why a test does not run; with `CI=true` it fails instead.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test}: {why}");
    // Past the test harness, which shows no output of tests that pass.
    writeln!(std::io::stderr(), "skipped {test}: {why}").expect("stderr is open");
}

/// Makes a test of each function for containerd 1.7 and for the newest 2.x.
macro_rules! on_each_containerd {
    ($($test:ident),* $(,)?) => {
        mod containerd_1_7 {
            $(#[test] fn $test() { crate::kit::on_containerd("1.7", stringify!($test), super::$test); })*
        }
        mod containerd_2 {
            $(#[test] fn $test() { crate::kit::on_containerd("2", stringify!($test), super::$test); })*
        }
    };
}
pub(crate) use on_each_containerd;

/// Runs one future of the kit on its runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// The kit's runtime, which lives as long as the process.
pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// Where `tests/tools/install` put the real components.
pub(crate) fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| match std::env::var_os("PULLGATE_TOOLS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
            cache.unwrap_or_else(home).join("pullgate/tools")
        }
    })
}

/// A new empty folder below the folder of this process; short, for the sake of socket paths.
pub(crate) fn folder() -> PathBuf {
    let folder = root().join(unique().to_string());
    fs::create_dir(&folder).expect("a folder of the test");
    folder
}

/// A number that no other caller in this process has.
pub(crate) fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// Waits until `probe` has a value; panics with `what` when patience ends.
pub(crate) fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, probe).unwrap_or_else(|| panic!("waited {PATIENCE:?} for {what}"))
}

/// Asks `probe` again and again until it has a value or the time is over.
pub(crate) fn within<T>(time: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes a folder and everything that still runs in it or is mounted below it.
pub(crate) fn reap(folder: &Path) {
    let done = reaper(folder).stdin(Stdio::null()).status();
    let done = done.is_ok_and(|status| status.success());
    assert!(done || std::thread::panicking(), "reap.sh {}", folder.display());
}

/// The folder of this process, with the reaper that waits for the process to end.
fn root() -> &'static Path {
    static ROOT: OnceLock<(PathBuf, Child)> = OnceLock::new();
    &ROOT
        .get_or_init(|| {
            let root = tempfile::Builder::new().prefix("pg").rand_bytes(4).tempdir_in("/tmp");
            let root = root.expect("a folder in /tmp").keep();
            let reaper = reaper(&root).stdin(Stdio::piped()).spawn().expect("sh");
            (root, reaper)
        })
        .0
}

fn reaper(folder: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("sh");
    command.args(["-c", include_str!("reap.sh"), "reap.sh"]).arg(folder).current_dir("/");
    // A group of its own: Ctrl-C ends the tests, not the reaper.
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command
}
