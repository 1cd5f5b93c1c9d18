//! Real cosign 2 and 3, offline: keys and signatures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{folder, image::Image, tools};

/// A key pair on disk, ECDSA P-256.
pub(crate) struct Key {
    folder: PathBuf,
    /// PEM, as a policy has it.
    pub(crate) public: String,
}

impl Key {
    pub(crate) fn generate() -> Self {
        let folder = folder();
        run(&mut cosign("cosign-2", &folder, &["generate-key-pair"]));
        let public = fs::read_to_string(folder.join("cosign.pub")).expect("a public key");
        Self { folder, public }
    }

    /// The private half, without a password.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("cosign.key")
    }

    /// Signs an image the way cosign 2 does by default: tag `sha256-<hex>.sig`.
    pub(crate) fn sign(&self, image: &Image) {
        self.sign_all(std::slice::from_ref(image));
    }

    /// The same for many images, in one go.
    pub(crate) fn sign_all(&self, images: &[Image]) {
        let mut command = self.command("cosign-2", &["--tlog-upload=false"]);
        run(command.args(images.iter().map(Image::by_digest)));
    }

    /// The same with annotations, and optionally with the signature in another repository.
    pub(crate) fn sign_legacy(&self, image: &Image, annotations: &[(&str, &str)], repository: Option<&str>) {
        let mut command = self.command("cosign-2", &["--tlog-upload=false"]);
        for (key, value) in annotations {
            command.arg("-a").arg(format!("{key}={value}"));
        }
        if let Some(repository) = repository {
            command.env("COSIGN_REPOSITORY", repository);
        }
        run(command.arg(image.by_digest()));
    }

    /// Signs an image the way cosign 3 does by default: a bundle among the referrers, or below the
    /// tag `sha256-<hex>` of a registry without the referrers API.
    pub(crate) fn sign_bundle(&self, image: &Image) {
        let mut command = self.command("cosign-3", &["--use-signing-config=false", "--tlog-upload=false"]);
        run(command.arg(image.by_digest()));
    }

    /// The same with the bundle in another repository.
    pub(crate) fn sign_bundle_in(&self, repository: &str, image: &Image) {
        let mut command = self.command("cosign-3", &["--use-signing-config=false", "--tlog-upload=false"]);
        run(command.env("COSIGN_REPOSITORY", repository).arg(image.by_digest()));
    }

    /// Attests an image: `cosign-2` at the tag `sha256-<hex>.att`, `cosign-3` as a bundle.
    pub(crate) fn attest(
        &self,
        program: &str,
        image: &Image,
        predicate_type: &str,
        repository: Option<&str>,
    ) {
        let mut command = self.attesting(program, predicate_type, r#"{"good":true}"#);
        if let Some(repository) = repository {
            command.env("COSIGN_REPOSITORY", repository);
        }
        run(command.arg(image.by_digest()));
    }

    /// The same with a predicate of one's own.
    pub(crate) fn attest_predicate(
        &self,
        program: &str,
        image: &Image,
        predicate_type: &str,
        predicate: &Value,
    ) {
        let mut command = self.attesting(program, predicate_type, &predicate.to_string());
        run(command.arg(image.by_digest()));
    }

    fn attesting(&self, program: &str, predicate_type: &str, predicate: &str) -> Command {
        let file = folder().join("predicate.json");
        fs::write(&file, predicate).expect("a predicate");
        let mut command = cosign(program, &self.folder, &["attest", "-y", "--key", "cosign.key"]);
        command.args(["--tlog-upload=false", "--type", predicate_type, "--predicate"]).arg(file);
        if program == "cosign-3" {
            command.arg("--use-signing-config=false");
        }
        command
    }

    /// Signs an image in cosign's experimental form: an artifact among the referrers, without a tag.
    pub(crate) fn sign_experimental(&self, image: &Image) {
        let flags = ["--registry-referrers-mode=oci-1-1", "--tlog-upload=false"];
        let mut command = self.command("cosign-2", &flags);
        run(command.env("COSIGN_EXPERIMENTAL", "1").arg(image.by_digest()));
    }

    fn command(&self, program: &str, flags: &[&str]) -> Command {
        let mut command = cosign(program, &self.folder, &["sign", "-y", "--key", "cosign.key"]);
        command.args(flags);
        command
    }
}

/// The file that cosign keeps a trust root in must not be the user's.
fn cosign(program: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.arg("60").arg(tools().join("bin").join(program)).args(arguments);
    command.current_dir(folder).env("HOME", folder).env("TUF_ROOT", folder).env("COSIGN_PASSWORD", "");
    command.env_remove("COSIGN_REPOSITORY");
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("cosign");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
