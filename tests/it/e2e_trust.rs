//! The trust root in the running daemon and on the command line: by TUF from a mirror that comes and goes.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::SystemTime,
};

use serde_json::{Value, json};
use sigstore_trust_root::SigstoreInstance;
use tonic::Code;

use crate::kit::{
    self, Node, folder,
    gate::{Gate, binary},
    policy::Policy,
    tuf::{Repository, Server},
};

kit::on_each_containerd!(
    o3_key_only_policies_need_no_trust_root,
    a_trust_root_comes_by_tuf_and_changes_without_a_pull_waiting,
    a_reload_does_not_lose_the_trust_root,
    verify_asks_the_mirror_only_where_a_policy_needs_it,
);

/// A mirror with a pinned root.
struct Mirror {
    repository: Repository,
    server: Server,
    folder: PathBuf,
}

impl Mirror {
    fn start() -> Self {
        let repository = Repository::new(SystemTime::now(), target(SigstoreInstance::PublicGood));
        let folder = folder();
        fs::write(folder.join("root.json"), repository.pinned(1)).expect("a file");
        Self { server: Server::start(&repository), repository, folder }
    }

    fn trust(&self) -> Value {
        json!({"tuf": {"mirror": self.server.address(), "root": self.pinned()}})
    }

    fn pinned(&self) -> PathBuf {
        self.folder.join("root.json")
    }
}

fn target(instance: SigstoreInstance) -> &'static [u8] {
    instance.embedded_trusted_root_json().as_bytes()
}

fn fingerprint(instance: SigstoreInstance) -> Value {
    json!(pullgate::sigstore::TrustRoot::from_json(target(instance)).expect("a root").fingerprint())
}

/// A policy that asks for the same key, and for the log.
fn logged(space: &kit::Space<'_>, node: &Node) -> Policy {
    space.policy("logged").key_with(node.key, &json!({"keys": {"publicKeys": node.key.public}}))
}

fn o3_key_only_policies_need_no_trust_root(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let mirror = Mirror::start();
    mirror.server.go_down();
    fs::remove_file(mirror.pinned()).expect("a file");
    let gate = Gate::before(&node.containerd)
        .policies(&[space.policy("keyed").key(node.key)])
        .set("/trust", mirror.trust())
        .start();
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    let status = gate.status_json();
    assert_eq!(status["trustRoot"], json!({"source": mirror.server.address(), "state": "unused"}));
    assert_eq!(status["degraded"], Value::Null);
    gate.reload();
    assert_eq!(gate.command(&["check"]).status.code(), Some(0));
    assert_eq!(gate.metric("pullgate_trust_root_timestamp_seconds"), 0.0);
    assert_eq!(mirror.server.asked(), Vec::<String>::new());
}

fn a_trust_root_comes_by_tuf_and_changes_without_a_pull_waiting(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let mut mirror = Mirror::start();
    mirror.server.go_down();
    let gate = Gate::before(&node.containerd)
        .policies(&[logged(&space, node)])
        .set("/trust", mirror.trust())
        .start();

    // Nothing to verify with: undecided, and said.
    let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
    assert_eq!(refusal.code(), Code::Unknown);
    assert!(refusal.message().starts_with("RegistryUnavailable: "), "{refusal:?}");
    let status = gate.command(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains(", unavailable, last refresh: ") && text.contains("no trust root ("), "{text}");

    // A reload asks the mirror again.
    mirror.server.come_up();
    gate.reload();
    let in_use = |instance| {
        let expected = fingerprint(instance);
        kit::until("the trust root", || {
            let status = gate.status_json()["trustRoot"].clone();
            (status["fingerprint"] == expected).then_some(status)
        })
    };
    let status = in_use(SigstoreInstance::PublicGood);
    assert_eq!((&status["state"], &status["version"]), (&json!("in use"), &json!(1)));
    assert_eq!(gate.status_json()["degraded"], Value::Null);
    assert_eq!(
        gate.metric("pullgate_trust_root_timestamp_seconds"),
        status["confirmedAt"].as_f64().expect("a number")
    );
    // Now there is an answer: the signature is in no log.
    let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
    assert!(refusal.message().starts_with("SignatureValidationFailed: "), "{refusal:?}");

    // A new trust root is a new snapshot.
    let before = gate.status_json()["snapshot"]["fingerprint"].clone();
    mirror.repository.advance(target(SigstoreInstance::Staging));
    mirror.server.serve(&mirror.repository);
    gate.reload();
    in_use(SigstoreInstance::Staging);
    assert_ne!(gate.status_json()["snapshot"]["fingerprint"], before);

    // It is there after a start without the mirror.
    mirror.server.go_down();
    gate.restart();
    in_use(SigstoreInstance::Staging);
    assert_eq!(gate.status_json()["degraded"], Value::Null);
}

fn a_reload_does_not_lose_the_trust_root(node: &Node) {
    let space = node.space();
    let path = folder().join("trusted_root.json");
    fs::write(&path, target(SigstoreInstance::Staging)).expect("a file");
    let gate = Gate::before(&node.containerd)
        .policies(&[logged(&space, node)])
        .set("/trust/root", path.display().to_string())
        .start();
    let fingerprint = fingerprint(SigstoreInstance::Staging);
    assert_eq!(gate.status_json()["trustRoot"]["fingerprint"], fingerprint);

    fs::write(&path, "{}").expect("a file");
    let output = gate.command(&["reload"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = "pullgate: trust root: ".to_owned() + &path.display().to_string();
    assert!(error.starts_with(&expected) && error.trim().lines().count() == 1, "{error}");
    assert_eq!(gate.status_json()["trustRoot"]["fingerprint"], fingerprint);
    assert_eq!(gate.command(&["check"]).status.code(), Some(2));
}

fn verify_asks_the_mirror_only_where_a_policy_needs_it(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let mirror = Mirror::start();
    let verify = |policy: &Policy, arguments: &[&str]| -> Output {
        let file = folder().join("policies.yaml");
        fs::write(&file, format!("{:#}", policy.document())).expect("a policy file");
        let mut command = Command::new(binary());
        command.arg("verify").arg("-p").arg(file).arg(image.by_tag());
        command.args(arguments).env_remove("DOCKER_CONFIG").output().expect("pullgate")
    };
    let address = mirror.server.address();
    let pinned = mirror.pinned().display().to_string();
    let tuf = ["--tuf-mirror", &address, "--tuf-root", &pinned];

    let output = verify(&space.policy("keyed").key(node.key), &tuf);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(mirror.server.asked(), Vec::<String>::new());
    let output = verify(&logged(&space, node), &tuf);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(mirror.server.asked().len(), 5, "root, timestamp, snapshot, targets, target");

    mirror.server.go_down();
    let output = verify(&logged(&space, node), &tuf);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with(&format!("pullgate: trust root {address}: ")), "{error}");
    assert_eq!(error.trim().lines().count(), 1, "{error}");

    for arguments in [
        vec!["--tuf-mirror", "http://tuf.example", "--tuf-root", &pinned],
        vec!["--tuf-mirror", &address],
        vec!["--tuf-root", &pinned],
        vec!["--tuf-mirror", &address, "--tuf-root", &pinned, "--trusted-root", "/r"],
        vec!["--tuf-mirror", &address, "--tuf-root", "/nonexistent/root.json"],
        vec!["--trusted-root", "/nonexistent/trusted_root.json"],
    ] {
        let output = verify(&logged(&space, node), &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}
