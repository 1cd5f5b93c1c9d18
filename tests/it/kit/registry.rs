//! Real registries on loopback ports: olareg (with the referrers API), distribution 2.8 and 3 (without).
//! Their stores are on disk and their ports stay, so that they can be stopped and started again.
//!
//! Images are pushed and signed at a registry without a lock; [`Registry::guarded`] is another door to
//! the same content, with TLS or authentication.

use std::{
    fs,
    path::PathBuf,
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
    Distribution(Release, Guard),
}

/// A release of distribution, the reference registry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Release {
    /// 2.8, as Debian has it under the name docker-registry.
    V2,
    V3,
}

impl Release {
    pub(crate) const ALL: [Self; 2] = [Self::V2, Self::V3];

    fn program(self) -> &'static str {
        match self {
            Self::V2 => "bin/docker-registry",
            Self::V3 => "bin/distribution-3",
        }
    }
}

/// What is between clients and the content.
#[derive(Default)]
pub(crate) struct Guard {
    pub(crate) tls: Option<Tls>,
    /// The section `auth` of distribution's configuration.
    pub(crate) auth: Option<Value>,
    pub(crate) http: HttpVersions,
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
        Self::distribution(Release::V2)
    }

    /// A release of distribution; neither has the referrers API.
    pub(crate) fn distribution(release: Release) -> Self {
        Self::start(Program::Distribution(release, Guard::default()))
    }

    /// Another distribution of the same release with the content of this one, behind a guard.
    pub(crate) fn guarded(&self, guard: Guard) -> Self {
        let Program::Distribution(release, _) = self.program else { panic!("a distribution") };
        Self::start_with(Program::Distribution(release, guard), Some(self.store.clone()))
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
            Program::Distribution(release, guard) => {
                let config = self.folder.join("reg.yml");
                let mut text = json!({
                    "version": "0.1",
                    "storage": {"filesystem": {"rootdirectory": store}, "delete": {"enabled": true}},
                    "http": {"addr": self.host},
                });
                if let Some(Tls { certificate, key, clients }) = &guard.tls {
                    let clients: Vec<_> = clients.iter().collect();
                    let tls = json!({"certificate": certificate, "key": key, "clientcas": clients});
                    text["http"]["tls"] = tls;
                    text["http"]["http2"]["disabled"] = json!(guard.http == HttpVersions::OneOnly);
                }
                if let Some(auth) = &guard.auth {
                    text["auth"] = auth.clone();
                }
                fs::write(&config, text.to_string()).expect("a config");
                let mut command = Command::new(tools().join(release.program()));
                // 3 would send traces to a collector.
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
