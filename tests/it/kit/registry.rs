//! Real registries on loopback ports: olareg (with the referrers API) and docker-registry (without).
//! Their stores are on disk and their ports stay, so that they can be stopped and started again.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{Mutex, OnceLock},
};

use reqwest::{Client, Response, StatusCode, header};
use serde_json::json;

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
    Docker,
    DockerOverTls(Tls),
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
        Self::start(Program::Docker)
    }

    /// Another docker-registry with the content of this one, over TLS.
    pub(crate) fn over_tls(&self, tls: Tls) -> Self {
        Self::start_with(Program::DockerOverTls(tls), Some(self.store.clone()))
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
            program @ (Program::Docker | Program::DockerOverTls(..)) => {
                let config = self.folder.join("reg.yml");
                let mut text = json!({
                    "version": "0.1",
                    "storage": {"filesystem": {"rootdirectory": store}},
                    "http": {"addr": self.host},
                });
                if let Program::DockerOverTls(Tls { certificate, key, clients }) = program {
                    let clients: Vec<_> = clients.iter().collect();
                    let tls = json!({"certificate": certificate, "key": key, "clientcas": clients});
                    text["http"]["tls"] = tls;
                }
                fs::write(&config, text.to_string()).expect("a config");
                let mut command = Command::new(tools().join("bin/docker-registry"));
                command.arg("serve").arg(config);
                command
            }
        };
        let mut daemon = Daemon::spawn(&mut command, &self.folder.join("registry.log"));
        until("the registry", || {
            daemon.assert_running();
            block_on(self.client().get(self.url("")).send()).ok()
        });
        *self.daemon.lock().expect("one at a time") = Some(daemon);
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
