//! Images: one static program that prints its uid and waits, in one layer, under any config. It also
//! goes by the names of programs that critest starts.

use std::{fs, io::Write as _, path::Path, process::Command, sync::OnceLock};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{folder, registry::Registry, unique};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes with the digest that names them.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        Self { media_type, bytes, digest: format!("sha256:{}", hex::encode(hash)) }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, serde_json::to_vec(value).expect("JSON"))
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image in a registry, under the name it was pushed as.
#[derive(Clone)]
pub(crate) struct Image {
    /// `host/repository`.
    pub(crate) repository: String,
    pub(crate) tag: String,
    /// The digest of the manifest or the index.
    pub(crate) digest: String,
    /// CRI's image id: the digest of the config (of this machine's platform).
    pub(crate) id: String,
    pub(crate) manifest: Blob,
    config: Blob,
}

impl Image {
    /// The same image under another tag of its repository.
    pub(crate) fn under(&self, tag: &str) -> Self {
        Self { tag: tag.to_owned(), ..self.clone() }
    }

    /// The same image as another `host/repository` names it.
    pub(crate) fn at(&self, repository: String) -> Self {
        Self { repository, ..self.clone() }
    }

    /// `host/repository:tag`.
    pub(crate) fn by_tag(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// `host/repository@digest`.
    pub(crate) fn by_digest(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }

    /// `host/repository:tag@digest`.
    pub(crate) fn by_both(&self) -> String {
        format!("{}:{}@{}", self.repository, self.tag, self.digest)
    }

    /// Pushes it to the same repository of another registry as well, under the same tag.
    pub(crate) fn copy_to(&self, registry: &Registry) {
        let repository = self.repository.split_once('/').expect("host/repository").1;
        for blob in [layer(), &self.config] {
            registry.push_blob(repository, blob);
        }
        registry.push_manifest(repository, &self.tag, &self.manifest);
    }

    /// An archive for `ctr images import`, which puts the image past the CRI under its tag.
    pub(crate) fn archive(&self) -> std::path::PathBuf {
        self.archive_as(&self.by_tag())
    }

    /// The same under any name.
    pub(crate) fn archive_as(&self, name: &str) -> std::path::PathBuf {
        let path = folder().join("image.tar");
        let mut archive = tar::Builder::new(fs::File::create(&path).expect("a file"));
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, bytes).expect("a tar entry");
        };
        let mut manifest = self.manifest.descriptor();
        manifest["annotations"] = json!({"io.containerd.image.name": name});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        add("index.json", &serde_json::to_vec(&index).expect("JSON"));
        for blob in [&self.manifest, &self.config, layer()] {
            add(&format!("blobs/{}", blob.digest.replace(':', "/")), &blob.bytes);
        }
        archive.finish().expect("a tar file");
        path
    }
}

/// An image in the making; every one gets an id of its own.
pub(crate) struct Builder<'a> {
    registry: &'a Registry,
    repository: String,
    user: Option<String>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(registry: &'a Registry, repository: &str) -> Self {
        Self { registry, repository: repository.to_owned(), user: None }
    }

    /// The Dockerfile's `USER`.
    pub(crate) fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Pushes it under a tag.
    pub(crate) fn push(self, tag: &str) -> Image {
        let (layer, config) = (layer(), self.config());
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": config.descriptor(), "layers": [layer.descriptor()],
            }),
        );
        for blob in [layer, &config] {
            self.registry.push_blob(&self.repository, blob);
        }
        self.registry.push_manifest(&self.repository, tag, &manifest);
        Image {
            repository: format!("{}/{}", self.registry.host(), self.repository),
            tag: tag.to_owned(),
            digest: manifest.digest.clone(),
            id: config.digest.clone(),
            manifest,
            config,
        }
    }

    /// Pushes an index of two architectures under a tag. The first image is this machine's.
    pub(crate) fn push_index(self, tag: &str) -> (Image, [Image; 2]) {
        let push = |tag: &str| {
            Builder { user: self.user.clone(), ..Builder::new(self.registry, &self.repository) }.push(tag)
        };
        let children = [push(&format!("{tag}-here")), push(&format!("{tag}-there"))];
        let index = self.push_index_of(tag, [&children[0], &children[1]]);
        (index, children)
    }

    /// Pushes an index of these two images, and the images, which may be known from elsewhere. The first
    /// is listed as this machine's.
    pub(crate) fn push_index_of(&self, tag: &str, children: [&Image; 2]) -> Image {
        for child in children {
            for blob in [layer(), &child.config] {
                self.registry.push_blob(&self.repository, blob);
            }
            self.registry.push_manifest(&self.repository, &child.digest, &child.manifest);
        }
        let foreign = if architecture() == "amd64" { "arm64" } else { "amd64" };
        let entry = |image: &Image, architecture: &str| {
            let mut entry = image.manifest.descriptor();
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        };
        let index = Blob::json(
            INDEX,
            &json!({
                "schemaVersion": 2, "mediaType": INDEX,
                "manifests": [entry(children[0], architecture()), entry(children[1], foreign)],
            }),
        );
        self.registry.push_manifest(&self.repository, tag, &index);
        Image {
            repository: format!("{}/{}", self.registry.host(), self.repository),
            tag: tag.to_owned(),
            digest: index.digest.clone(),
            manifest: index,
            ..children[0].clone()
        }
    }

    fn config(&self) -> Blob {
        let mut config = json!({"Entrypoint": ["/app"], "WorkingDir": "/"});
        if let Some(user) = &self.user {
            config["User"] = json!(user);
        }
        Blob::json(
            CONFIG,
            &json!({
                "architecture": architecture(), "os": "linux", "config": config,
                "rootfs": {"type": "layers", "diff_ids": [diff_id()]},
                // Makes the id of this image its own.
                "history": [{"created_by": format!("pullgate test {} {}", std::process::id(), unique())}],
            }),
        )
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn layer() -> &'static Blob {
    &built().0
}

fn diff_id() -> &'static str {
    &built().1
}

/// The one layer, with the digest of its uncompressed bytes.
fn built() -> &'static (Blob, String) {
    static LAYER_AND_ID: OnceLock<(Blob, String)> = OnceLock::new();
    LAYER_AND_ID.get_or_init(|| {
        let program = compile(&folder());
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(program.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, "app", program.as_slice()).expect("a tar entry");
        for name in ["sh", "sleep", "top"] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            archive.append_link(&mut header, format!("bin/{name}"), "/app").expect("a tar entry");
        }
        let archive = archive.into_inner().expect("a tar file");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&archive).expect("memory");
        let id = Blob::new(LAYER, archive).digest;
        (Blob::new(LAYER, gzip.finish().expect("memory")), id)
    })
}

/// The C compiler is there: Rust links with it.
fn compile(folder: &Path) -> Vec<u8> {
    const PROGRAM: &str = r#"
        #include <signal.h>
        #include <stdio.h>
        #include <unistd.h>
        static void end(int signal) { (void)signal; _exit(0); }
        int main(void) {
            signal(SIGTERM, end);
            printf("uid %u\n", (unsigned)getuid());
            fflush(stdout);
            for (;;) pause();
        }
    "#;
    let (source, program) = (folder.join("app.c"), folder.join("app"));
    fs::write(&source, PROGRAM).expect("a source file");
    let output = Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(&source).output();
    let output = output.expect("cc");
    assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(&program).expect("a program")
}
