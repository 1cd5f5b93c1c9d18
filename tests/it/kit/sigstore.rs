//! A private Sigstore on loopback: the real Fulcio, Rekor v2 and timestamp authority, with an OIDC
//! issuer and a certificate log of ours (`tests/corpus/issuer.py`), and cosign 2 and 3 that sign by it.
//!
//! cosign 2 cannot write to Rekor v2, so what it signs carries a timestamp and no log entry; what
//! cosign 3 signs is a bundle with both.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::{block_on, cosign::Key, folder, free_port, image::Image, process::Daemon, skip, tools, until};

/// A running private Sigstore; its processes end when it is dropped.
pub(crate) struct PrivateSigstore {
    folder: PathBuf,
    issuer: u16,
    fulcio: u16,
    timestamps: u16,
    /// In the order in which they end.
    _daemons: Vec<Daemon>,
    /// The timestamp authority takes a fixed port for its metrics: one a machine at a time.
    _turn: File,
}

/// Keys and certificates of a Sigstore of which nothing but the issuer runs.
pub(crate) struct OtherSigstore {
    folder: PathBuf,
    _issuer: Daemon,
}

/// Who asks Fulcio for a certificate.
#[derive(Clone)]
pub(crate) struct Identity {
    /// The issuer's path: `email`, `other` or `workflow`.
    issuer: &'static str,
    /// The claims of the token, as a query.
    claims: String,
    /// The name in the certificate.
    pub(crate) subject: String,
}

/// Which program signs, and with it the form in which signatures are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signer {
    /// Legacy tags.
    Cosign2,
    /// Bundles.
    Cosign3,
}

/// A key with a certificate of a private authority for it, without any Sigstore.
pub(crate) struct Certified {
    folder: PathBuf,
    /// PEM: the certificate.
    pub(crate) certificate: String,
    /// PEM: the authority's intermediate and root.
    pub(crate) chain: String,
}

impl Identity {
    /// A person whose issuer is `email`.
    pub(crate) fn email(address: &str) -> Self {
        Self { issuer: "email", claims: format!("email={address}"), subject: address.to_owned() }
    }

    /// The same person by another issuer.
    pub(crate) fn at_other_issuer(self) -> Self {
        Self { issuer: "other", ..self }
    }

    /// A workflow of a repository at a branch; its certificate has the extensions of CI systems.
    pub(crate) fn workflow(repository: &str, branch: &str) -> Self {
        let workflow = format!("{repository}/.github/workflows/build.yml@refs/heads/{branch}");
        let claims = [
            ("sub", repository),
            ("job_workflow_ref", &workflow),
            ("workflow_ref", &workflow),
            ("workflow", "build"),
            ("repository", repository),
            ("ref", &format!("refs/heads/{branch}")),
            ("event_name", "push"),
            ("sha", "0123456789012345678901234567890123456789"),
            ("runner_environment", "self-hosted"),
        ];
        let claims = claims.map(|(name, value)| format!("{name}={value}")).join("&");
        Self { issuer: "workflow", claims, subject: format!("https://git.example/{workflow}") }
    }
}

impl PrivateSigstore {
    /// The one of all tests.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<PrivateSigstore> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The shared one, or `None` after a word that says which tool is missing.
    pub(crate) fn available(test: &str) -> Option<&'static Self> {
        ["bin/fulcio", "bin/rekor-server", "bin/timestamp-server", "verifiers/python/bin/python"]
            .into_iter()
            .find(|tool| !tools().join(tool).exists())
            .map_or_else(
                || Some(Self::shared()),
                |tool| {
                    skip(test, &format!("{tool} is missing (tests/tools/install sigstore verifiers)"));
                    None
                },
            )
    }

    fn start() -> Self {
        let turn = File::create("/tmp/pullgate-timestamp-server.lock").expect("a lock file");
        turn.lock().expect("the turn of this process");
        let folder = folder();
        let [issuer, fulcio, fulcio_grpc, fulcio_metrics, rekor, rekor_grpc, rekor_metrics, timestamps] =
            std::array::from_fn(|_| free_port());
        let mut daemons = vec![issuer_daemon(&folder, issuer)];
        let file = |name: &str| folder.join(name).display().to_string();
        let mut start = |program: &str, arguments: Vec<String>, ready: String| {
            let mut command = Command::new(tools().join("bin").join(program));
            command.args(arguments).current_dir(&folder).env("HOME", &folder);
            let mut daemon = Daemon::spawn(&mut command, &folder.join(format!("{program}.log")));
            until(program, || {
                daemon.assert_running();
                get(&ready)
            });
            daemons.push(daemon);
        };
        start(
            "fulcio",
            arguments(&[
                ("serve", ""),
                ("--ca", "fileca"),
                ("--fileca-cert", &file("fulcio-chain.pem")),
                ("--fileca-key", &file("fulcio.key")),
                ("--fileca-key-passwd", PASSWORD),
                ("--fileca-watch=false", ""),
                ("--ct-log-url", &format!("http://127.0.0.1:{issuer}/ct")),
                ("--ct-log-public-key-path", &file("ct.pub")),
                ("--config-path", &file("fulcio.yaml")),
                ("--host", "127.0.0.1"),
                ("--port", &fulcio.to_string()),
                ("--grpc-host", "127.0.0.1"),
                ("--grpc-port", &fulcio_grpc.to_string()),
                ("--metrics-port", &fulcio_metrics.to_string()),
                ("--legacy-unix-domain-socket", &file("fulcio.sock")),
            ]),
            format!("http://127.0.0.1:{fulcio}/api/v2/trustBundle"),
        );
        start(
            "rekor-server",
            arguments(&[
                ("serve", ""),
                // The origin of checkpoints: what cosign takes from the log's URL.
                ("--hostname", "127.0.0.1"),
                ("--http-address", "127.0.0.1"),
                ("--http-port", &rekor.to_string()),
                ("--grpc-address", "127.0.0.1"),
                ("--grpc-port", &rekor_grpc.to_string()),
                ("--http-metrics-port", &rekor_metrics.to_string()),
                ("--storage-dir", &file("rekor")),
                ("--signer-filepath", &file("rekor.key")),
                ("--signer-password", PASSWORD),
                // Each signature waits for a checkpoint; the default is ten seconds.
                ("--checkpoint-interval", "200ms"),
                ("--batch-max-age", "50ms"),
            ]),
            format!("http://127.0.0.1:{rekor}/healthz"),
        );
        start(
            "timestamp-server",
            arguments(&[
                ("serve", ""),
                ("--host", "127.0.0.1"),
                ("--port", &timestamps.to_string()),
                ("--timestamp-signer", "file"),
                ("--file-signer-key-path", &file("tsa.key")),
                ("--file-signer-passwd", PASSWORD),
                ("--certificate-chain-path", &file("tsa-chain.pem")),
                ("--disable-ntp-monitoring", ""),
            ]),
            format!("http://127.0.0.1:{timestamps}/api/v1/timestamp/certchain"),
        );
        trusted_root(&folder, [fulcio, rekor, timestamps, issuer]);
        signing_config(&folder, [fulcio, rekor, timestamps]);
        Self { folder, issuer, fulcio, timestamps, _daemons: daemons, _turn: turn }
    }

    /// `trusted_root.json` of this Sigstore.
    pub(crate) fn trusted_root(&self) -> PathBuf {
        self.folder.join("trusted_root.json")
    }

    /// A PEM file of this Sigstore: `fulcio-chain`, `tsa-chain`, `ct` or `rekor`.
    pub(crate) fn pem(&self, name: &str) -> String {
        pem(&self.folder, name)
    }

    /// The issuer as certificates name it.
    pub(crate) fn issuer(&self, identity: &Identity) -> String {
        format!("http://127.0.0.1:{}/{}", self.issuer, identity.issuer)
    }

    /// A policy entry that wants this identity, with further fields of `keyless`.
    pub(crate) fn entry(&self, identity: &Identity, fields: &Value) -> Value {
        let mut keyless = json!({"subject": identity.subject, "issuer": self.issuer(identity)});
        for (name, value) in fields.as_object().expect("an object") {
            keyless[name] = value.clone();
        }
        json!({"keyless": keyless})
    }

    /// The fields of `keyless` that accept what this signer makes, beside a trust root of this Sigstore:
    /// cosign 2 has no log entry.
    pub(crate) fn fields(signer: Signer) -> Value {
        match signer {
            Signer::Cosign2 => json!({"rekor": {"url": "https://rekor.invalid", "ignoreTlog": true}}),
            Signer::Cosign3 => json!({"rekor": {"url": "https://rekor.invalid"}}),
        }
    }

    /// The same without a trust root: everything that is trusted is in the policy.
    pub(crate) fn fields_with_trust(&self, signer: Signer) -> Value {
        let mut fields = Self::fields(signer);
        fields["roots"] = json!(self.pem("fulcio-chain"));
        fields["ctlog"] = json!({"pubkey": self.pem("ct"), "tsaCertChain": self.pem("tsa-chain")});
        fields["rekor"]["pubkey"] = json!(self.pem("rekor"));
        fields
    }

    /// Signs an image without a key of one's own.
    pub(crate) fn sign_keyless(&self, signer: Signer, image: &Image, identity: &Identity) {
        let mut command = self.signing(signer, "sign", identity);
        run(command.arg(image.by_digest()));
    }

    /// The same with annotations.
    pub(crate) fn sign_annotated(
        &self,
        signer: Signer,
        image: &Image,
        identity: &Identity,
        (key, value): (&str, &str),
    ) {
        let mut command = self.signing(signer, "sign", identity);
        run(command.arg("-a").arg(format!("{key}={value}")).arg(image.by_digest()));
    }

    /// Signs with a key, the way cosign 3 does: a bundle with the log's entry and a timestamp.
    pub(crate) fn sign_by_key(&self, image: &Image, key: &Key, annotations: &[(&str, &str)]) {
        let mut command = self.by_key("sign", key);
        for (name, value) in annotations {
            command.arg("-a").arg(format!("{name}={value}"));
        }
        run(command.arg(image.by_digest()));
    }

    /// Attests with a key, the way cosign 3 does.
    pub(crate) fn attest_by_key(&self, image: &Image, key: &Key, predicate_type: &str, predicate: &Value) {
        let file = folder().join("predicate.json");
        fs::write(&file, predicate.to_string()).expect("a file");
        let mut command = self.by_key("attest", key);
        command.args(["--type", predicate_type, "--predicate"]).arg(file);
        run(command.arg(image.by_digest()));
    }

    fn by_key(&self, what: &str, key: &Key) -> Command {
        let mut command = cosign(Signer::Cosign3, &self.folder);
        command.args([what, "-y", "--signing-config", "signing_config.json"]);
        command.args(["--trusted-root", "trusted_root.json", "--key"]).arg(key.file());
        command
    }

    /// Attests a predicate of a type, by cosign's short name for it or by its URI.
    pub(crate) fn attest(
        &self,
        signer: Signer,
        image: &Image,
        identity: &Identity,
        predicate_type: &str,
        predicate: &Value,
    ) {
        let file = folder().join("predicate.json");
        fs::write(&file, predicate.to_string()).expect("a file");
        let mut command = self.signing(signer, "attest", identity);
        command.args(["--type", predicate_type, "--predicate"]).arg(file);
        run(command.arg(image.by_digest()));
    }

    /// Whether cosign itself verifies a signature of this identity.
    pub(crate) fn verifies(&self, signer: Signer, image: &Image, identity: &Identity) -> bool {
        let mut command = self.verifying(signer, "verify", identity);
        command.arg(image.by_digest()).output().expect("cosign").status.success()
    }

    /// Whether cosign itself verifies an attestation of this type and identity.
    pub(crate) fn verifies_attestation(
        &self,
        signer: Signer,
        image: &Image,
        identity: &Identity,
        predicate_type: &str,
    ) -> bool {
        let mut command = self.verifying(signer, "verify-attestation", identity);
        command.args(["--type", predicate_type]).arg(image.by_digest());
        command.output().expect("cosign").status.success()
    }

    /// A key with a certificate of the private authority, for this name (`uri:…`, `email:…`).
    pub(crate) fn certified(&self, name: &str) -> Certified {
        self.certified_by(&format!("san={name}"))
    }

    /// The same with a certificate that has ended.
    pub(crate) fn certified_before(&self, name: &str) -> Certified {
        self.certified_by(&format!("san={name}&expired=1"))
    }

    /// Signs with a key and its certificate; with a `timestamp` or without.
    pub(crate) fn sign_certified(&self, signer: Signer, image: &Image, certified: &Certified, stamp: Stamp) {
        let mut command = cosign(signer, &certified.folder);
        command.args(["sign", "-y", "--key", "cosign.key", "--tlog-upload=false"]);
        command.args(["--certificate", "certificate.pem", "--certificate-chain", "chain.pem"]);
        if signer == Signer::Cosign3 {
            command.arg("--use-signing-config=false");
        }
        if stamp == Stamp::Timestamp {
            command.arg("--timestamp-server-url").arg(self.timestamp_url());
        }
        run(command.arg(image.by_digest()));
    }

    fn certified_by(&self, query: &str) -> Certified {
        let folder = folder();
        run(cosign(Signer::Cosign2, &folder).arg("generate-key-pair"));
        let public = fs::read(folder.join("cosign.pub")).expect("a public key");
        let url = format!("http://127.0.0.1:{}/certificate?{query}", self.issuer);
        let certificate = block_on(async {
            let response = client().post(url).body(public).send().await;
            response.and_then(Response::error_for_status).expect("a certificate").text().await.expect("PEM")
        });
        let chain = self.pem("private-chain");
        fs::write(folder.join("certificate.pem"), &certificate).expect("a file");
        fs::write(folder.join("chain.pem"), &chain).expect("a file");
        Certified { folder, certificate, chain }
    }

    fn signing(&self, signer: Signer, what: &str, identity: &Identity) -> Command {
        let token = self.token(identity);
        let mut command = cosign(signer, &self.folder);
        command.args([what, "-y", "--identity-token", &token]);
        match signer {
            Signer::Cosign2 => {
                command.env("SIGSTORE_ROOT_FILE", self.folder.join("fulcio-chain.pem"));
                command.env("SIGSTORE_CT_LOG_PUBLIC_KEY_FILE", self.folder.join("ct.pub"));
                command.arg("--fulcio-url").arg(format!("http://127.0.0.1:{}", self.fulcio));
                command.args(["--tlog-upload=false", "--timestamp-server-url", &self.timestamp_url()]);
            }
            Signer::Cosign3 => {
                command.args(["--signing-config", "signing_config.json"]);
                command.args(["--trusted-root", "trusted_root.json"]);
            }
        }
        command
    }

    /// cosign, about to verify a signature or an attestation of this identity; the image is missing.
    pub(crate) fn verifying(&self, signer: Signer, what: &str, identity: &Identity) -> Command {
        let mut command = cosign(signer, &self.folder);
        command.arg(what).arg("--certificate-identity").arg(&identity.subject);
        command.arg("--certificate-oidc-issuer").arg(self.issuer(identity));
        match signer {
            Signer::Cosign2 => {
                command.env("SIGSTORE_ROOT_FILE", self.folder.join("fulcio-chain.pem"));
                command.env("SIGSTORE_CT_LOG_PUBLIC_KEY_FILE", self.folder.join("ct.pub"));
                command.args([
                    "--insecure-ignore-tlog=true",
                    "--timestamp-certificate-chain",
                    "tsa-chain.pem",
                ]);
            }
            Signer::Cosign3 => {
                command.args(["--trusted-root", "trusted_root.json"]);
            }
        }
        command
    }

    fn token(&self, identity: &Identity) -> String {
        let url =
            format!("http://127.0.0.1:{}/token?issuer={}&{}", self.issuer, identity.issuer, identity.claims);
        get(&url).expect("a token")
    }

    fn timestamp_url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/timestamp", self.timestamps)
    }
}

/// Whether a signature carries an RFC 3161 timestamp.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    Timestamp,
    None,
}

impl OtherSigstore {
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<OtherSigstore> = OnceLock::new();
        SHARED.get_or_init(|| {
            let folder = folder();
            let _issuer = issuer_daemon(&folder, free_port());
            trusted_root(&folder, std::array::from_fn(|_| free_port()));
            Self { folder, _issuer }
        })
    }

    pub(crate) fn trusted_root(&self) -> PathBuf {
        self.folder.join("trusted_root.json")
    }

    /// As [`PrivateSigstore::pem`].
    pub(crate) fn pem(&self, name: &str) -> String {
        pem(&self.folder, name)
    }
}

fn issuer_daemon(folder: &Path, port: u16) -> Daemon {
    let mut command = Command::new(tools().join("verifiers/python/bin/python"));
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/issuer.py"))
        .arg(folder)
        .arg(port.to_string());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let mut daemon = Daemon::spawn(&mut command, &folder.join("issuer.log"));
    until("the OIDC issuer", || {
        daemon.assert_running();
        folder.join("ready").exists().then_some(())
    });
    daemon
}

fn trusted_root(folder: &Path, [fulcio, rekor, timestamps, issuer]: [u16; 4]) {
    let mut command = cosign(Signer::Cosign3, folder);
    command.args(["trusted-root", "create", "--out", "trusted_root.json"]);
    command.arg("--fulcio").arg(format!("url=http://127.0.0.1:{fulcio},certificate-chain=fulcio-chain.pem"));
    command.arg("--rekor").arg(format!(
        "url=http://127.0.0.1:{rekor},public-key=rekor.pub,start-time={START},origin=127.0.0.1"
    ));
    command
        .arg("--ctfe")
        .arg(format!("url=http://127.0.0.1:{issuer}/ct,public-key=ct.pub,start-time={START}"));
    command
        .arg("--tsa")
        .arg(format!("url=http://127.0.0.1:{timestamps}/api/v1/timestamp,certificate-chain=tsa-chain.pem"));
    run(&mut command);
}

fn signing_config(folder: &Path, [fulcio, rekor, timestamps]: [u16; 3]) {
    let service = |port: u16, path: &str, version: u8| {
        format!("url=http://127.0.0.1:{port}{path},api-version={version},start-time={START},operator=test")
    };
    let mut command = cosign(Signer::Cosign3, folder);
    command.args(["signing-config", "create", "--out", "signing_config.json"]);
    command.args(["--rekor-config", "ANY", "--tsa-config", "ANY"]);
    command.arg("--fulcio").arg(service(fulcio, "", 1)).arg("--rekor").arg(service(rekor, "", 2));
    command.arg("--tsa").arg(service(timestamps, "/api/v1/timestamp", 1));
    run(&mut command);
}

fn pem(folder: &Path, name: &str) -> String {
    let public = folder.join(format!("{name}.pub"));
    let file = if public.exists() { public } else { folder.join(format!("{name}.pem")) };
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn arguments(pairs: &[(&str, &str)]) -> Vec<String> {
    let words = pairs.iter().flat_map(|(name, value)| [*name, *value]);
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn cosign(signer: Signer, folder: &Path) -> Command {
    let program = match signer {
        Signer::Cosign2 => "bin/cosign-2",
        Signer::Cosign3 => "bin/cosign-3",
    };
    let mut command = Command::new("timeout");
    command.arg("60").arg(tools().join(program)).current_dir(folder);
    command.env("HOME", folder).env("TUF_ROOT", folder).env("COSIGN_PASSWORD", "");
    for name in ["COSIGN_REPOSITORY", "SIGSTORE_ROOT_FILE", "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE"] {
        command.env_remove(name);
    }
    command
}

fn run(command: &mut Command) {
    let output: Output = command.output().expect("cosign");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn client() -> Client {
    Client::builder().no_proxy().build().expect("an HTTP client")
}

fn get(url: &str) -> Option<String> {
    block_on(async {
        let response = client().get(url).send().await.ok()?.error_for_status().ok()?;
        response.text().await.ok()
    })
}

const PASSWORD: &str = "pullgate";

/// From when on the services are trusted: before any test.
const START: &str = "2024-01-01T00:00:00Z";
