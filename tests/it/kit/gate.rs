//! The built `pullgate` as a child process, between the tests and a real containerd.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::Mutex,
};

use nix::sys::signal::Signal;
use reqwest::Client;
use serde_json::{Value, json};

use super::{
    block_on,
    containerd::Containerd,
    cri::Cri,
    folder, free_port,
    policy::Policy,
    process::{Daemon, memory_of},
    until,
};

/// A running gate with a config, policies and a cache of its own.
pub(crate) struct Gate {
    folder: PathBuf,
    containerd: PathBuf,
    metrics: String,
    daemon: Mutex<Option<Daemon>>,
}

/// A gate in the making.
pub(crate) struct Builder {
    folder: PathBuf,
    containerd: PathBuf,
    config: Value,
}

impl Gate {
    /// A gate in front of a containerd, with the defaults of the contract and no policy yet.
    pub(crate) fn before(containerd: &Containerd) -> Builder {
        let folder = folder();
        fs::create_dir(folder.join("policies")).expect("a folder");
        let unix = |path: &Path| format!("unix://{}", path.display());
        let config = json!({
            "listen": unix(&folder.join("gate.sock")),
            "runtime": {"endpoint": unix(&containerd.socket()), "containerd": unix(&containerd.socket())},
            "policy": {"paths": [folder.join("policies")], "approved": folder.join("approved.txt")},
            "registry": {"configPath": containerd.certs()},
            "cache": {"path": folder.join("cache")},
            "control": {"listen": unix(&folder.join("control.sock"))},
            "metrics": {"listen": format!("127.0.0.1:{}", free_port())},
            "log": {"format": "json", "level": "info"},
        });
        Builder { folder, containerd: containerd.socket(), config }
    }

    /// A gate that enforces these policies, everything else as the contract's defaults say.
    pub(crate) fn start(containerd: &Containerd, policies: &[Policy]) -> Self {
        Self::before(containerd).policies(policies).start()
    }

    /// What the kubelet has: images through the gate, containers straight from containerd.
    pub(crate) fn cri(&self) -> Cri {
        Cri::new(&self.socket(), &self.containerd)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("gate.sock")
    }

    /// Its config, policies, log and state.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Replaces the policies on disk; `reload` makes them count.
    pub(crate) fn write_policies(&self, policies: &[Policy]) {
        write_policies(&self.folder, policies);
    }

    /// The same with any text.
    pub(crate) fn write_policy_text(&self, text: &str) {
        fs::write(policy_file(&self.folder), text).expect("a policy file");
    }

    /// Sets a key of config.yaml on disk, for example `/policy/mode`; `reload` or a restart makes it count.
    pub(crate) fn configure(&self, pointer: &str, value: impl Into<Value>) {
        let path = self.folder.join("config.yaml");
        let mut config = serde_json::from_slice(&fs::read(&path).expect("a config")).expect("JSON");
        set(&mut config, pointer, value.into());
        fs::write(path, serde_json::to_vec_pretty(&config).expect("JSON")).expect("a config");
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.lock().expect("one at a time").as_ref().expect("it runs").pid()
    }

    /// A line of its memory, in KiB.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        memory_of(&self.pid().to_string(), line)
    }

    /// Makes `VmHWM:` the most from now on.
    pub(crate) fn forget_most_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("root");
    }

    /// How many files and sockets it has open.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("our child").count()
    }

    /// `pullgate reload`.
    pub(crate) fn reload(&self) {
        self.succeed(&["reload"]);
    }

    /// `pullgate cache purge`.
    pub(crate) fn purge_cache(&self) {
        self.succeed(&["cache", "purge"]);
    }

    /// `pullgate status -o json`, whatever its exit code says about health.
    pub(crate) fn status_json(&self) -> Value {
        let output = self.command(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("status: {error}: {output:?}"))
    }

    /// All metrics.
    pub(crate) fn metrics(&self) -> String {
        block_on(async {
            let client = Client::builder().no_proxy().build().expect("an HTTP client");
            let response = client.get(format!("http://{}/metrics", self.metrics)).send().await;
            response.expect("metrics").text().await.expect("metrics are text")
        })
    }

    /// The sum of all samples of a metric; 0 if it has none yet.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .map(|line| {
                line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
            })
            .sum()
    }

    /// Runs a command of pullgate with this gate's config; a daemon that is starting is given time to
    /// answer it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        if self.daemon.lock().expect("one at a time").is_some() {
            let control = self.folder.join("control.sock");
            until("the control socket", || UnixStream::connect(&control).ok());
        }
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(self.folder.join("config.yaml"));
        command.output().expect("pullgate")
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.daemon.lock().expect("one at a time").as_ref().expect("it runs").signal(Signal::SIGHUP);
    }

    /// SIGTERM; gives the exit status after the drain.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.daemon.lock().expect("one at a time").take().expect("it runs").stop()
    }

    /// A signal that ends it; gives the exit status.
    pub(crate) fn end_by(&self, signal: Signal) -> ExitStatus {
        self.daemon.lock().expect("one at a time").take().expect("it runs").end_by(signal)
    }

    /// SIGKILL, and a start with what is on disk.
    pub(crate) fn crash(&self) {
        self.kill9();
        self.start_again();
    }

    /// SIGKILL.
    pub(crate) fn kill9(&self) {
        self.daemon.lock().expect("one at a time").take().expect("it runs").kill9();
    }

    /// Starts it (again), with the config and state that are there, and waits until it listens.
    pub(crate) fn start_again(&self) {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--config").arg(self.folder.join("config.yaml"));
        // Neither this machine's proxies nor its credentials.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NOTIFY_SOCKET", "LISTEN_FDS"]
        {
            command.env_remove(name);
        }
        command.env("HOME", &self.folder);
        let mut daemon = Daemon::spawn(&mut command, &self.log_file());
        until("pullgate", || {
            daemon.assert_running();
            UnixStream::connect(self.socket()).ok()
        });
        *self.daemon.lock().expect("one at a time") = Some(daemon);
    }

    pub(crate) fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// The folder of the cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Everything it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("gate.log")
    }

    fn succeed(&self, arguments: &[&str]) {
        let output = self.command(arguments);
        assert!(output.status.success(), "pullgate {arguments:?}: {output:?}");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.get_mut().expect("one at a time").take() {
            if std::thread::panicking() {
                eprintln!("the log of pullgate:\n{}", daemon.log_tail());
            } else {
                let (status, log) = (daemon.stop(), self.log());
                assert!(status.success(), "pullgate ended with {status}:\n{log}");
                assert!(!log.contains("panicked at"), "{log}");
            }
        }
        super::reap(&self.folder);
    }
}

impl Builder {
    pub(crate) fn policies(self, policies: &[Policy]) -> Self {
        write_policies(&self.folder, policies);
        self
    }

    /// Sets a key of config.yaml, for example `/policy/unmatched`.
    pub(crate) fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set(&mut self.config, pointer, value.into());
        self
    }

    /// Puts the state folder, the cache included, on a disk of its own, of that many bytes. Gives
    /// the folder too.
    pub(crate) fn on_a_small_disk(self, bytes: usize) -> (Self, PathBuf) {
        let disk = self.folder.join("disk");
        fs::create_dir(&disk).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "pullgate-test"])
            .arg(&disk)
            .status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount {}", disk.display());
        let cache = disk.join("cache").display().to_string();
        (self.set("/cache/path", cache), disk)
    }

    /// The lines of approved.txt.
    pub(crate) fn approved(self, lines: &[String]) -> Self {
        fs::write(self.folder.join("approved.txt"), lines.join("\n") + "\n").expect("a file");
        self
    }

    pub(crate) fn start(mut self) -> Gate {
        let approved = self.folder.join("approved.txt");
        if !approved.exists() {
            self = self.approved(&[]);
        }
        let config = serde_json::to_vec_pretty(&self.config).expect("JSON");
        fs::write(self.folder.join("config.yaml"), config).expect("a config");
        let metrics = self.config["metrics"]["listen"].as_str().expect("an address").to_owned();
        let gate =
            Gate { folder: self.folder, containerd: self.containerd, metrics, daemon: Mutex::new(None) };
        gate.start_again();
        gate
    }
}

fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
    let mut place = config;
    for part in parent.split('/').skip(1) {
        place = &mut place[part];
    }
    place[key] = value;
}

fn write_policies(folder: &Path, policies: &[Policy]) {
    let text: String = policies.iter().map(|policy| format!("---\n{:#}\n", policy.document())).collect();
    fs::write(policy_file(folder), text).expect("a policy file");
}

fn policy_file(folder: &Path) -> PathBuf {
    folder.join("policies/policies.yaml")
}

/// The program under test: the one that was built with the tests, or another build of it.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("PULLGATE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_pullgate").into(), PathBuf::from)
}
