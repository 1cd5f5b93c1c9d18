//! `pullgate verify-bundle`: the command protocol of the sigstore-conformance suite, over a bundle and a log that
//! the test makes, and over the suite's own assets where `SIGSTORE_CONFORMANCE` names a checkout of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsDer as _,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::kit::{folder, gate::binary};

/// A key pair with its public half in DER.
struct Key {
    pair: EcdsaKeyPair,
    der: Vec<u8>,
}

impl Key {
    fn generate() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der = pair.public_key().as_der().unwrap().as_ref().to_vec();
        Self { pair, der }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn pem(&self) -> String {
        let text = base64(&self.der);
        let (first, second) = text.split_at(64);
        format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n")
    }
}

/// A signed artifact, the key, and a trust root with the log that knows the signature.
struct Fixture {
    folder: PathBuf,
    bundle: Value,
    signer: Key,
}

impl Fixture {
    fn new() -> Self {
        let (folder, signer, log) = (folder(), Key::generate(), Key::generate());
        let signature = signer.sign(ARTIFACT);
        let body = json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": hex::encode(sha256(ARTIFACT))}},
                "signature": {"content": base64(&signature), "publicKey": {"content": base64(signer.pem().as_bytes())}},
            },
        })
        .to_string();
        // A log with one leaf, whose hash is the root.
        let leaf = sha256(&[&[0], body.as_bytes()].concat());
        let id = sha256(&log.der);
        let note = format!("log.example\n1\n{}\n", base64(&leaf));
        let signed = base64(&[&id[..4], &log.sign(note.as_bytes())].concat());
        let time =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - Duration::from_secs(60);
        let promise = json!({
            "body": base64(body.as_bytes()), "integratedTime": time.as_secs(), "logID": hex::encode(&id), "logIndex": 0,
        });
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "publicKey": {"hint": ""},
                "tlogEntries": [{
                    "logIndex": "0", "logId": {"keyId": base64(&id)},
                    "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
                    "integratedTime": time.as_secs().to_string(),
                    "inclusionPromise": {"signedEntryTimestamp": base64(&log.sign(promise.to_string().as_bytes()))},
                    "inclusionProof": {
                        "logIndex": "0", "rootHash": base64(&leaf), "treeSize": "1", "hashes": [],
                        "checkpoint": {"envelope": format!("{note}\n— log.example {signed}\n")},
                    },
                    "canonicalizedBody": base64(body.as_bytes()),
                }],
            },
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": base64(&sha256(ARTIFACT))},
                "signature": base64(&signature),
            },
        });
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{
                "baseUrl": "https://log.example", "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": base64(&log.der), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": "2020-01-01T00:00:00Z"}},
                "logId": {"keyId": base64(&id)},
            }],
            "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": [],
        });
        fs::write(folder.join("trusted_root.json"), root.to_string()).unwrap();
        fs::write(folder.join("key.pub"), signer.pem()).unwrap();
        fs::write(folder.join("artifact"), ARTIFACT).unwrap();
        let fixture = Self { folder, bundle, signer };
        fixture.write(&fixture.bundle);
        fixture
    }

    fn write(&self, bundle: &Value) {
        fs::write(self.folder.join("bundle.json"), bundle.to_string()).unwrap();
    }

    /// Verifies with the fixture's bundle, key and trust root, and these arguments after them.
    fn verify(&self, arguments: &[&str]) -> Output {
        let mut all =
            vec!["--bundle", "bundle.json", "--key", "key.pub", "--trusted-root", "trusted_root.json"];
        all.extend(arguments);
        run(&self.folder, &all)
    }
}

const ARTIFACT: &[u8] = b"what was signed";

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.current_dir(folder).arg("verify-bundle").args(arguments).output().unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32, error: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(error), "{text}");
    assert_eq!(text.lines().count(), usize::from(code != 0), "one line: {text}");
}

#[test]
fn a_file_and_its_digest_verify() {
    let fixture = Fixture::new();
    let output = fixture.verify(&["artifact"]);
    ends(&output, 0, "");
    let key = hex::encode(sha256(&fixture.signer.der));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, format!("artifact: verified, signed by key sha256:{key}\n"));
    ends(&fixture.verify(&[&format!("sha256:{}", hex::encode(sha256(ARTIFACT)))]), 0, "");
    // A file of that name goes before.
    let digest = format!("sha256:{}", hex::encode(sha256(b"another")));
    ends(&fixture.verify(&[&digest]), 1, "is not that of the artifact");
    fs::write(fixture.folder.join(&digest), ARTIFACT).unwrap();
    ends(&fixture.verify(&[&digest]), 0, "");
}

#[test]
fn what_does_not_verify_ends_with_1_and_one_line() {
    let fixture = Fixture::new();
    fs::write(fixture.folder.join("other"), "another artifact").unwrap();
    ends(
        &fixture.verify(&["other"]),
        1,
        "pullgate: other: not verified: the digest in the bundle is not that of the artifact",
    );
    let mut bundle = fixture.bundle.clone();
    bundle["messageSignature"]["signature"] = json!(base64(&fixture.signer.sign(ARTIFACT)));
    fixture.write(&bundle);
    ends(&fixture.verify(&["artifact"]), 1, "the transparency log entry is for another signature");
    bundle["messageSignature"]["signature"] = json!(base64(&Key::generate().sign(ARTIFACT)));
    fixture.write(&bundle);
    ends(&fixture.verify(&["artifact"]), 1, "invalid signature");
    let mut bundle = fixture.bundle.clone();
    bundle["verificationMaterial"]["tlogEntries"] = json!([]);
    fixture.write(&bundle);
    ends(&fixture.verify(&["artifact"]), 1, "not verified: ");
    fixture.write(&json!("garbage"));
    ends(&fixture.verify(&["artifact"]), 1, "not verified: ");
    fixture.write(&fixture.bundle);
    fs::write(fixture.folder.join("key.pub"), Key::generate().pem()).unwrap();
    ends(&fixture.verify(&["artifact"]), 1, "invalid signature");
    // A key is no certificate, and the public instance does not know this log.
    let by = [
        "--bundle",
        "bundle.json",
        "--certificate-identity",
        "a@b",
        "--certificate-oidc-issuer",
        "https://c",
    ];
    ends(&run(&fixture.folder, &[&by[..], &["artifact"]].concat()), 1, "no certificate found on signature");
    fs::write(fixture.folder.join("key.pub"), fixture.signer.pem()).unwrap();
    for staging in [&[][..], &["--staging"]] {
        let by = [&["--bundle", "bundle.json", "--key", "key.pub"], staging, &["artifact"]].concat();
        ends(&run(&fixture.folder, &by), 1, "the transparency log is not trusted");
    }
}

#[test]
fn what_cannot_be_read_ends_with_2_and_one_line() {
    let fixture = Fixture::new();
    ends(&fixture.verify(&["nothing"]), 2, "pullgate: nothing is neither a file nor sha256:…");
    for (file, content, error) in [
        ("trusted_root.json", "{}", "trusted_root.json: not a Sigstore trusted_root.json"),
        ("key.pub", "no key", "key.pub: "),
    ] {
        let good = fs::read(fixture.folder.join(file)).unwrap();
        fs::write(fixture.folder.join(file), content).unwrap();
        ends(&fixture.verify(&["artifact"]), 2, error);
        fs::remove_file(fixture.folder.join(file)).unwrap();
        ends(&fixture.verify(&["artifact"]), 2, &format!("cannot read {file}: "));
        fs::write(fixture.folder.join(file), good).unwrap();
    }
    fs::remove_file(fixture.folder.join("bundle.json")).unwrap();
    ends(&fixture.verify(&["artifact"]), 2, "pullgate: cannot read bundle.json: ");
    let empty = [
        "--bundle",
        "key.pub",
        "--certificate-identity",
        "",
        "--certificate-oidc-issuer",
        "https://c",
        "artifact",
    ];
    ends(&run(&fixture.folder, &empty), 2, "--certificate-identity is empty");
    for usage in [
        &["--bundle", "b", "artifact"][..],
        &["--bundle", "b", "--certificate-identity", "a@b", "artifact"],
        &["--bundle", "b", "--certificate-oidc-issuer", "https://c", "artifact"],
        &[
            "--bundle",
            "b",
            "--key",
            "k",
            "--certificate-identity",
            "a",
            "--certificate-oidc-issuer",
            "c",
            "artifact",
        ],
        &["--key", "key.pub", "artifact"],
        &["--bundle", "b", "--key", "k"],
    ] {
        assert_eq!(run(&fixture.folder, usage).status.code(), Some(2), "{usage:?}");
    }
}

/// As the suite's own test does, by path and by digest.
#[test]
fn the_conformance_suites_bundles_verify_as_it_says() {
    let Some(checkout) = std::env::var_os("SIGSTORE_CONFORMANCE") else {
        eprintln!("skipped: SIGSTORE_CONFORMANCE names no checkout of sigstore-conformance");
        return;
    };
    let assets = Path::new(&checkout).join("test/assets/bundle-verify");
    let mut verified = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&assets).unwrap() {
        let case = entry.unwrap().path();
        if !case.join("bundle.sigstore.json").is_file() {
            continue;
        }
        let name = case.file_name().unwrap().to_str().unwrap();
        let text = |file: &str, default: &str| {
            fs::read_to_string(case.join(file))
                .map_or_else(|_| default.to_owned(), |text| text.trim().to_owned())
        };
        let own = case.join("artifact");
        let artifact = if own.is_file() { own } else { assets.join("a.txt") };
        let (identity, issuer) = (text("identity", IDENTITY), text("issuer", ISSUER));
        let mut arguments = vec!["--bundle", "bundle.sigstore.json"];
        if case.join("key.pub").is_file() {
            arguments.extend(["--key", "key.pub"]);
        } else {
            arguments.extend(["--certificate-identity", &identity, "--certificate-oidc-issuer", &issuer]);
        }
        if case.join("trusted_root.json").is_file() {
            arguments.extend(["--trusted-root", "trusted_root.json"]);
        }
        let digest = format!("sha256:{}", hex::encode(sha256(&fs::read(&artifact).unwrap())));
        for subject in [artifact.to_str().unwrap(), digest.as_str()] {
            let output = run(&case, &[&arguments[..], &[subject]].concat());
            if output.status.success() == name.ends_with("_fail") {
                wrong.push(format!("{name}: {output:?}"));
            }
            verified += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(verified >= 100, "only {verified} bundles found");
}

/// Who signed the suite's bundles, where a case says nothing else.
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";
