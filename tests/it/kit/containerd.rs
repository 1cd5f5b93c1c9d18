//! A real containerd in a folder of its own: start, restart, and removal without a trace.
//!
//! The configs are those of `tests/tools/NOTES.md`. Pods are on the host network, so CNI needs the
//! loopback plugin only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use containerd_client::{
    services::v1::{GetImageRequest, images_client::ImagesClient},
    tonic::Request,
};
use serde_json::json;

use super::{block_on, cri, cri::Cri, folder, process::Daemon, reap, registry::Registry, tools, until};

/// One containerd. Dropped: pods, shims, mounts and the folder go with it.
pub(crate) struct Containerd {
    version: &'static str,
    folder: PathBuf,
    daemon: Mutex<Option<Daemon>>,
}

/// A record of containerd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagRecord {
    pub(crate) target: String,
    /// Seconds and nanoseconds.
    written: Option<(i64, i32)>,
}

impl Containerd {
    /// Starts containerd of a version (`1.7`, `2.1`, `2.4`, or `2` for the newest).
    pub(crate) fn start(version: &'static str) -> Self {
        Self::impatient(version, Duration::from_secs(300))
    }

    /// The same with another time than the built-in one for a pull that does not get on.
    pub(crate) fn impatient(version: &'static str, patience: Duration) -> Self {
        let folder = folder();
        let sandbox = Registry::shared().sandbox_image();
        fs::write(folder.join("config.toml"), config(version, &folder, &sandbox, patience))
            .expect("a config");
        fs::create_dir_all(folder.join("cni")).expect("a folder");
        let network = r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"loopback"}]}"#;
        fs::write(folder.join("cni/10-lo.conflist"), network).expect("a network config");
        let containerd = Self { version, folder, daemon: Mutex::new(None) };
        containerd.knows(Registry::shared());
        containerd.start_again();
        containerd
    }

    /// Starts it again after `stop`, and waits until CRI answers.
    pub(crate) fn start_again(&self) {
        let bin = tools().join(format!("containerd-{}/bin", self.version));
        // containerd looks for its shim and runc on the PATH.
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path = format!("{}:{}:{}", bin.display(), tools().join("bin").display(), path.display()).into();
        let mut daemon = Daemon::spawn(
            Command::new(bin.join("containerd"))
                .arg("-c")
                .arg(self.folder.join("config.toml"))
                .env("PATH", path),
            &self.folder.join("containerd.log"),
        );
        let cri = self.cri();
        until("containerd", || {
            daemon.assert_running();
            cri.version().ok()
        });
        *self.daemon.lock().expect("one at a time") = Some(daemon);
    }

    /// SIGTERM; running containers stay, as after an upgrade of containerd.
    pub(crate) fn stop(&self) {
        let daemon = self.daemon.lock().expect("one at a time").take();
        daemon.expect("it runs").stop();
    }

    /// Lets it (and a gate in front of it) reach a registry over plain HTTP. Read at every pull.
    pub(crate) fn knows(&self, registry: &Registry) {
        self.knows_host(registry.host());
    }

    /// The same for anything that listens on a loopback port.
    pub(crate) fn knows_host(&self, host: &str) {
        let folder = self.certs().join(host);
        fs::create_dir_all(&folder).expect("a folder");
        let hosts = format!(
            "server = \"http://{host}\"\n[host.\"http://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(folder.join("hosts.toml"), hosts).expect("a hosts.toml");
    }

    /// Makes a registry the only host of another registry's name.
    pub(crate) fn mirrors(&self, name: &str, registry: &Registry) {
        let folder = self.certs().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let hosts =
            format!("[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registry.host());
        fs::write(folder.join("hosts.toml"), hosts).expect("a hosts.toml");
    }

    /// Gives pods a network of their own (critest makes such pods). It is watched for.
    pub(crate) fn gives_pods_a_network(&self, subnet: u8) {
        let network = json!({"cniVersion": "0.4.0", "name": "test", "plugins": [{
            "type": "ptp", "ipMasq": false,
            "ipam": {
                "type": "host-local", "dataDir": self.folder.join("ipam"),
                "subnet": format!("10.231.{subnet}.0/24"),
            },
        }]});
        fs::write(self.folder.join("cni/10-lo.conflist"), network.to_string()).expect("a network config");
    }

    pub(crate) fn version(&self) -> &'static str {
        self.version
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("c.sock")
    }

    /// The folder of `hosts.toml` files.
    pub(crate) fn certs(&self) -> PathBuf {
        self.folder.join("certs.d")
    }

    /// A CRI client that asks containerd itself.
    pub(crate) fn cri(&self) -> Cri {
        Cri::new(&self.socket(), &self.socket())
    }

    /// The digest that the record of a name points to, in the namespace of CRI.
    pub(crate) fn record(&self, name: &str) -> Option<String> {
        self.tag_record(name).map(|record| record.target)
    }

    /// The same, and when it was written.
    pub(crate) fn tag_record(&self, name: &str) -> Option<TagRecord> {
        let mut request = Request::new(GetImageRequest { name: name.to_owned() });
        request.metadata_mut().insert("containerd-namespace", "k8s.io".parse().expect("ASCII"));
        block_on(async {
            let mut images = ImagesClient::new(cri::channel(&self.socket()));
            let image = images.get(request).await.ok()?.into_inner().image?;
            let written = image.updated_at.map(|at| (at.seconds, at.nanos));
            Some(TagRecord { target: image.target?.digest, written })
        })
    }

    /// `ctr -n k8s.io …`: what an administrator does past the CRI.
    pub(crate) fn ctr<const N: usize>(&self, arguments: [&str; N]) {
        let ctr = tools().join(format!("containerd-{}/bin/ctr", self.version));
        let mut command = Command::new(ctr);
        command.arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(arguments);
        let output = command.output().expect("ctr");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.get_mut().expect("one at a time").take() {
            let cri = Cri::new(&self.folder.join("c.sock"), &self.folder.join("c.sock"));
            for pod in cri.pods() {
                cri.remove_pod(&pod);
            }
            if !std::thread::panicking() {
                daemon.stop();
            }
        }
        reap(&self.folder);
    }
}

fn config(version: &str, folder: &Path, sandbox: &str, patience: Duration) -> String {
    let template = if version.starts_with('1') { CONFIG_1 } else { CONFIG_2 };
    template
        .replace("$D", &folder.display().to_string())
        .replace("$T", &tools().display().to_string())
        .replace("$SANDBOX", sandbox)
        .replace("$PATIENCE", &format!("{}s", patience.as_secs()))
}

const CONFIG_1: &str = r#"
version = 2
root = "$D/root"
state = "$D/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "$D/c.sock"
[ttrpc]
  address = "$D/c.sock.ttrpc"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$SANDBOX"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = true
  restrict_oom_score_adj = true
  image_pull_progress_timeout = "$PATIENCE"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$D/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$T/cni/bin"
    conf_dir = "$D/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$T/bin/runc"
        SystemdCgroup = false
"#;

const CONFIG_2: &str = r#"
version = 3
root = "$D/root"
state = "$D/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
]

[grpc]
  address = "$D/c.sock"
[ttrpc]
  address = "$D/c.sock.ttrpc"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  image_pull_progress_timeout = "$PATIENCE"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "$SANDBOX"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "$D/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$T/cni/bin"]
    conf_dir = "$D/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "$T/bin/runc"
        SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
"#;
