//! Real registries on loopback ports: olareg and zot (with the referrers API), distribution 2.8 and 3
//! (without). Their stores are on disk and their ports stay, so that they can be stopped and started again.
//!
//! Images are pushed and signed at a registry without a lock; [`Registry::guarded`] is another door to
//! the same content, with TLS or authentication.
//!
//! zot is not installed by `tests/tools/install`: its modules cannot be had from everywhere.
//! Where `PULLGATE_ZOT` names a zot, the tests of every kind of registry go through it too.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use reqwest::{Client, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{block_on, folder, free_port, image, image::Blob, process::Daemon, tools, until};

/// One registry; its process ends when it is dropped.
pub(crate) struct Registry {
    program: Program,
    host: String,
    folder: PathBuf,
    /// The folder of its content.
    store: PathBuf,
    daemon: Mutex<Option<Daemon>>,
}

enum Program {
    Olareg,
    Guarded(Kind, Guard),
}

/// A registry that can be guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// distribution 2.8, as Debian has it under the name docker-registry.
    Distribution2,
    Distribution3,
    Zot,
}

impl Kind {
    pub(crate) const DISTRIBUTION: [Self; 2] = [Self::Distribution2, Self::Distribution3];

    /// Those that are here: zot only where `PULLGATE_ZOT` names its binary.
    pub(crate) fn all() -> Vec<Self> {
        static SAID: OnceLock<()> = OnceLock::new();
        let mut all = Self::DISTRIBUTION.to_vec();
        if zot().is_some() {
            all.push(Self::Zot);
        } else {
            SAID.get_or_init(|| {
                // Past the test harness, which shows no output of tests that pass.
                writeln!(std::io::stderr(), "no registry is a zot: PULLGATE_ZOT names none")
                    .expect("stderr is open");
            });
        }
        all
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Distribution2 => tools().join("bin/docker-registry"),
            Self::Distribution3 => tools().join("bin/distribution-3"),
            Self::Zot => zot().expect("PULLGATE_ZOT"),
        }
    }

    fn config(self, host: &str, store: &Path, guard: &Guard) -> Value {
        match self {
            Self::Distribution2 | Self::Distribution3 => guard.distribution(host, store),
            Self::Zot => guard.zot(host, store),
        }
    }
}

fn zot() -> Option<PathBuf> {
    std::env::var_os("PULLGATE_ZOT").map(PathBuf::from)
}

/// What is between clients and the content.
#[derive(Default)]
pub(crate) struct Guard {
    pub(crate) tls: Option<Tls>,
    pub(crate) auth: Option<Auth>,
    pub(crate) http: HttpVersions,
}

/// How a registry finds out who comes.
#[derive(Clone)]
pub(crate) enum Auth {
    /// By a file of users.
    Htpasswd(PathBuf),
    Tokens(Tokens),
}

/// Whose tokens a registry believes.
#[derive(Clone)]
pub(crate) struct Tokens {
    /// The URL that clients are sent to.
    pub(crate) realm: String,
    /// What the registry is called there.
    pub(crate) service: &'static str,
    pub(crate) issuer: &'static str,
    /// A file of a certificate of the key; zot and distribution 2.8 know it by that.
    pub(crate) certificate: PathBuf,
    /// A file of the key; distribution 3 knows it by its name there.
    pub(crate) keys: PathBuf,
}

impl Guard {
    /// distribution's configuration.
    fn distribution(&self, host: &str, store: &Path) -> Value {
        let mut config = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": store}, "delete": {"enabled": true}},
            "http": {"addr": host},
        });
        if let Some(Tls { certificate, key, clients }) = &self.tls {
            let clients: Vec<_> = clients.iter().collect();
            config["http"]["tls"] = json!({"certificate": certificate, "key": key, "clientcas": clients});
            config["http"]["http2"]["disabled"] = json!(self.http == HttpVersions::OneOnly);
        }
        match &self.auth {
            None => (),
            Some(Auth::Htpasswd(file)) => {
                config["auth"] = json!({"htpasswd": {"realm": "test", "path": file}});
            }
            Some(Auth::Tokens(Tokens { realm, service, issuer, certificate, keys })) => {
                config["auth"] = json!({"token": {
                    "realm": realm, "service": service, "issuer": issuer,
                    "rootcertbundle": certificate, "jwks": keys,
                }});
            }
        }
        config
    }

    /// zot's configuration.
    fn zot(&self, host: &str, store: &Path) -> Value {
        assert!(self.http == HttpVersions::OneAndTwo, "zot always speaks both");
        let (address, port) = host.split_once(':').expect("host:port");
        // Several serve one store: nothing may be kept beside it.
        let mut config = json!({
            "distSpecVersion": "1.1.1",
            "storage": {"rootDirectory": store, "dedupe": false, "gc": false},
            "http": {"address": address, "port": port},
            "log": {"level": "info"},
        });
        if let Some(Tls { certificate, key, clients }) = &self.tls {
            config["http"]["tls"] = json!({"cert": certificate, "key": key});
            if let Some(clients) = clients {
                config["http"]["tls"]["cacert"] = json!(clients);
            }
        }
        match &self.auth {
            None => (),
            Some(Auth::Htpasswd(file)) => config["http"]["auth"] = json!({"htpasswd": {"path": file}}),
            Some(Auth::Tokens(Tokens { realm, service, certificate, .. })) => {
                config["http"]["auth"] =
                    json!({"bearer": {"realm": realm, "service": service, "cert": certificate}});
            }
        }
        config
    }
}

/// What is spoken over TLS.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum HttpVersions {
    #[default]
    OneAndTwo,
    OneOnly,
}

/// The files of a server.
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The authority of the certificates that clients must show; none: they show none.
    pub(crate) clients: Option<PathBuf>,
}

impl Registry {
    /// The one that most tests push to: olareg.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Registry> = OnceLock::new();
        SHARED.get_or_init(Self::olareg)
    }

    /// A registry with the referrers API.
    pub(crate) fn olareg() -> Self {
        Self::start(Program::Olareg)
    }

    /// A registry without the referrers API.
    pub(crate) fn docker() -> Self {
        Self::of(Kind::Distribution2)
    }

    /// A registry of a kind, unguarded.
    pub(crate) fn of(kind: Kind) -> Self {
        Self::start(Program::Guarded(kind, Guard::default()))
    }

    /// Another of the same kind with the content of this one, behind a guard.
    pub(crate) fn guarded(&self, guard: Guard) -> Self {
        let Program::Guarded(kind, _) = self.program else { panic!("olareg has no guards") };
        Self::start_with(Program::Guarded(kind, guard), Some(self.store.clone()))
    }

    /// The same over TLS.
    pub(crate) fn over_tls(&self, tls: Tls) -> Self {
        self.guarded(Guard { tls: Some(tls), ..Guard::default() })
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// An image to be pushed here.
    pub(crate) fn image(&self, repository: &str) -> image::Builder<'_> {
        image::Builder::new(self, repository)
    }

    /// The pause image of the pods.
    pub(crate) fn sandbox_image(&self) -> String {
        static PUSHED: OnceLock<String> = OnceLock::new();
        PUSHED.get_or_init(|| self.image("sandbox").push("1").by_tag()).clone()
    }

    /// Lets a tag of the image's repository point at that image from now on.
    pub(crate) fn move_tag(&self, tag: &str, to: &image::Image) {
        let repository = to.repository.strip_prefix(&format!("{}/", self.host)).expect("an image of ours");
        self.push_manifest(repository, tag, &to.manifest);
    }

    /// Stops it: connections are refused from now on.
    pub(crate) fn stop(&self) {
        drop(self.daemon.lock().expect("one at a time").take());
    }

    /// Starts it again on the same port with the same content.
    pub(crate) fn start_again(&self) {
        let (address, port) = self.host.split_once(':').expect("host:port");
        let store = &self.store;
        let mut command = match &self.program {
            Program::Olareg => {
                let mut command = Command::new(tools().join("bin/olareg"));
                command.args(["serve", "--addr", address, "--port", port, "--store-type", "dir", "--dir"]);
                command.arg(store);
                command
            }
            Program::Guarded(kind, guard) => {
                let config = self.folder.join("config.json");
                fs::write(&config, kind.config(&self.host, store, guard).to_string()).expect("a config");
                let mut command = Command::new(kind.program());
                // distribution 3 would send traces to a collector.
                command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
                command
            }
        };
        let mut daemon = Daemon::spawn(&mut command, &self.log_file());
        until("the registry", || {
            daemon.assert_running();
            block_on(self.client().get(self.url("")).send()).ok()
        });
        *self.daemon.lock().expect("one at a time") = Some(daemon);
    }

    /// Everything it logged; distribution's has one line a request in Apache's combined format.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).expect("a log")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("registry.log")
    }

    /// Puts the manifest of one tag under another as well.
    pub(crate) fn retag(&self, repository: &str, from: &str, to: &str) {
        block_on(async {
            let manifest = self.manifest(repository, from).await;
            let media_type = manifest.headers()[header::CONTENT_TYPE].clone();
            let bytes = manifest.bytes().await.expect("a manifest");
            let put = self.client().put(self.url(&format!("{repository}/manifests/{to}")));
            let put = put.header(header::CONTENT_TYPE, media_type).body(bytes).send().await;
            expect(StatusCode::CREATED, put).await;
        });
    }

    /// Takes a tag's manifest away, with all tags that it has.
    pub(crate) fn delete_manifest(&self, repository: &str, tag: &str) {
        block_on(async {
            let manifest = self.manifest(repository, tag).await;
            let digest = manifest.headers()["docker-content-digest"].to_str().expect("ASCII");
            let url = self.url(&format!("{repository}/manifests/{digest}"));
            expect(StatusCode::ACCEPTED, self.client().delete(url).send().await).await;
        });
    }

    async fn manifest(&self, repository: &str, tag: &str) -> Response {
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        let get = self.client().get(self.url(&format!("{repository}/manifests/{tag}")));
        expect(StatusCode::OK, get.header(header::ACCEPT, accept).send().await).await
    }

    pub(crate) fn push_blob(&self, repository: &str, blob: &Blob) {
        block_on(async {
            let started = self.client().post(self.url(&format!("{repository}/blobs/uploads/"))).send().await;
            let started = expect(StatusCode::ACCEPTED, started).await;
            let location = started.headers()[header::LOCATION].to_str().expect("ASCII");
            let mut location = started.url().join(location).expect("a URL");
            location.query_pairs_mut().append_pair("digest", &blob.digest);
            let put = self.client().put(location).header(header::CONTENT_TYPE, "application/octet-stream");
            expect(StatusCode::CREATED, put.body(blob.bytes.clone()).send().await).await;
        });
    }

    pub(crate) fn push_manifest(&self, repository: &str, tag: &str, manifest: &Blob) {
        let put = self
            .client()
            .put(self.url(&format!("{repository}/manifests/{tag}")))
            .header(header::CONTENT_TYPE, manifest.media_type)
            .body(manifest.bytes.clone());
        block_on(async { expect(StatusCode::CREATED, put.send().await).await });
    }

    fn start(program: Program) -> Self {
        Self::start_with(program, None)
    }

    fn start_with(program: Program, store: Option<PathBuf>) -> Self {
        let host = format!("127.0.0.1:{}", free_port());
        let folder = folder();
        let store = store.unwrap_or_else(|| folder.join("reg"));
        fs::create_dir_all(&store).expect("a folder");
        let registry = Self { program, host, folder, store, daemon: Mutex::new(None) };
        registry.start_again();
        registry
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.host)
    }

    /// A client of one use: none of its connections outlives a restart of the registry.
    fn client(&self) -> Client {
        Client::builder().no_proxy().build().expect("an HTTP client")
    }
}

async fn expect(status: StatusCode, response: reqwest::Result<Response>) -> Response {
    let response = response.expect("the registry answers");
    assert_eq!(response.status(), status, "{}", response.url());
    response
}
