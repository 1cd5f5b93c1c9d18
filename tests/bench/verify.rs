//! `pullgate verify` beside `cosign verify`, on a registry that was never asked before: one image and one
//! key with the bars, then each other kind of signature and attestation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    delay::Road,
    kit::{
        self, Node, Space,
        image::Image,
        policy::Policy,
        registry::Registry,
        sigstore::{Identity, PrivateSigstore, Signer},
        tools,
    },
    node::program,
    report::{Row, Samples, mib, time},
};

/// One verifier.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Everything but the image.
    pub(crate) command: Command,
}

struct Figures {
    requests: usize,
    wall: Duration,
    memory: u64,
}

pub(crate) fn verify(node: &Node) -> Vec<Row> {
    let registry = Registry::docker();
    let space = Space::on(&registry);
    let road = Road::to(&registry);
    let image = road.name(&space.image("app").push("1"));
    node.key.sign(&image);

    let folder = kit::folder();
    let (policy, key) = (folder.join("policy.yaml"), folder.join("cosign.pub"));
    let document = Policy::new("keyed", "*").key(node.key).document();
    fs::write(&policy, format!("{document:#}\n")).expect("a policy");
    fs::write(&key, &node.key.public).expect("a key");
    let (policy, key) = (policy.display().to_string(), key.display().to_string());

    let cosign = ["verify", "--key", &key, "--insecure-ignore-tlog=true"];
    let contender = |name, program: PathBuf, arguments: &[&str]| {
        let mut command = offline(&program, &folder);
        command.args(arguments);
        Contender { name, command }
    };
    let bin = tools().join("bin");
    let ours = contender("pullgate verify", program(), &["verify", "-p", &policy]);
    let older = contender("cosign 2", bin.join("cosign-2"), &cosign);
    let newer = [&cosign[..], &["--new-bundle-format=false"]].concat();
    let newer = contender("cosign 3", bin.join("cosign-3"), &newer);

    let first = ours.run(&image.by_tag());
    if !first.status.success() {
        let said = String::from_utf8_lossy(&first.stderr).lines().next().unwrap_or_default().to_owned();
        let mut rows = vec![Row::missing("cold `pullgate verify`", format!("{}: {said}", first.status))];
        rows.extend(
            measure(&[older, newer], &image, &road).iter().map(|(name, figures)| {
                Row::plain(format!("`verify` of {name}, the peer"), figures.to_string())
            }),
        );
        return rows;
    }

    let all = measure(&[ours, older, newer], &image, &road);
    let ((_, ours), peers) = all.split_first().expect("ours");
    let requests = format!(
        "{} ({})",
        ours.requests,
        peers.iter().map(|(name, peer)| format!("{name}: {}", peer.requests)).collect::<Vec<_>>().join(", ")
    );
    let mut rows = vec![Row::at_most(
        "cold `pullgate verify`, registry requests",
        ours.requests as f64,
        requests,
        3.0,
        "",
    )];
    for (name, peer) in peers {
        let wall = ours.wall.as_secs_f64() / peer.wall.as_secs_f64();
        let figure = format!("{wall:.2} ({} / {})", time(ours.wall), time(peer.wall));
        rows.push(Row::at_most(format!("cold `pullgate verify` / {name}, wall time"), wall, figure, 0.2, ""));
        let memory = ours.memory as f64 / peer.memory as f64;
        let figure = format!("{memory:.2} ({:.1} / {:.1} MiB)", mib(ours.memory), mib(peer.memory));
        rows.push(Row::at_most(
            format!("cold `pullgate verify` / {name}, memory (RSS)"),
            memory,
            figure,
            0.33,
            "",
        ));
    }
    rows
}

/// A kind of signature or attestation, and who verifies it: pullgate, then the cosign that made it.
pub(crate) struct Case {
    pub(crate) kind: String,
    pub(crate) image: Image,
    pub(crate) contenders: [Contender; 2],
}

/// Each kind of signature and attestation, as cosign stores it, beside the cosign that made it.
pub(crate) fn kinds(node: &Node) -> Vec<Row> {
    let Some(sigstore) = PrivateSigstore::available("kinds") else {
        return vec![Row::missing("`verify` of each kind", "the private Sigstore is not installed")];
    };
    let registry = Registry::olareg();
    let road = Road::to(&registry);
    let row = |Case { kind, image, contenders }: Case| {
        let figures = measure(&contenders, &image, &road);
        let [(_, ours), (_, peer)] = figures.as_slice() else { unreachable!("two contenders") };
        let ratio = ours.wall.as_secs_f64() / peer.wall.as_secs_f64();
        Row::plain(
            format!("cold `verify`, {kind}, pullgate beside it"),
            format!("{ours} beside {peer}: {ratio:.2} of the time"),
        )
    };
    cases(node, sigstore, &registry, &road).into_iter().map(row).collect()
}

/// Keyless signatures and attestations, and attestations by a key, of cosign 2 and 3.
pub(crate) fn cases(node: &Node, sigstore: &PrivateSigstore, registry: &Registry, road: &Road) -> Vec<Case> {
    let alice = Identity::email("alice@example.com");
    let root = sigstore.trusted_root().display().to_string();
    let mut cases = Vec::new();
    for (name, signer) in [("cosign 2", Signer::Cosign2), ("cosign 3", Signer::Cosign3)] {
        let identity = sigstore.entry(&alice, &PrivateSigstore::fields(signer));
        let space = Space::on(registry);
        let pattern = "*";
        let signed = road.name(&space.image("signed").push("1"));
        sigstore.sign_keyless(signer, &signed, &alice);
        let attested = road.name(&space.image("attested").push("1"));
        sigstore.attest(signer, &attested, &alice, "spdxjson", &json!({"packages": []}));
        let keyed = road.name(&space.image("keyed").push("1"));
        let cosign = if signer == Signer::Cosign2 { "cosign-2" } else { "cosign-3" };
        node.key.attest(cosign, &keyed, "spdxjson", None);

        let key = kit::folder().join("cosign.pub");
        fs::write(&key, &node.key.public).expect("a key");
        let mut by_key = offline(&tools().join("bin").join(cosign), &kit::folder());
        by_key.args(["verify-attestation", "--insecure-ignore-tlog=true", "--type", "spdxjson", "--key"]);
        by_key.arg(&key);
        let key_entry = json!({"keys": {
            "publicKeys": node.key.public, "rekor": {"ignoreTlog": true}, "ctlog": {"ignoreSCT": true},
        }});
        let mut of_type = sigstore.verifying(signer, "verify-attestation", &alice);
        of_type.args(["--type", "spdxjson"]);
        let spdx = "https://spdx.dev/Document";
        for (kind, image, policy, peer) in [
            (
                "keyless signature",
                signed,
                Policy::new("kind", pattern).attestor(identity.clone()),
                sigstore.verifying(signer, "verify", &alice),
            ),
            (
                "keyless attestation",
                attested,
                Policy::new("kind", pattern).attestation(spdx, &identity),
                of_type,
            ),
            (
                "attestation by a key",
                keyed,
                Policy::new("kind", pattern).attestation(spdx, &key_entry),
                by_key,
            ),
        ] {
            let folder = kit::folder();
            let file = folder.join("policy.yaml");
            fs::write(&file, format!("{:#}\n", policy.document())).expect("a policy");
            let mut ours = offline(&program(), &folder);
            ours.args(["verify", "--trusted-root", &root, "-p"]).arg(&file);
            let contenders =
                [Contender { name: "pullgate", command: ours }, Contender { name, command: peer }];
            cases.push(Case { kind: format!("{kind} of {name}"), image, contenders });
        }
    }
    cases
}

fn measure(contenders: &[Contender], image: &Image, road: &Road) -> Vec<(&'static str, Figures)> {
    let mut walls: Vec<_> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..15 {
        for (contender, times) in contenders.iter().zip(&mut walls) {
            let start = Instant::now();
            contender.succeed(&image.by_tag());
            times.push(start.elapsed());
        }
    }
    let figures = |(contender, times): (&Contender, _)| {
        let requests = road.requests(|| contender.succeed(&image.by_tag()));
        let memory = contender.memory(&image.by_tag());
        (contender.name, Figures { requests, wall: Samples::new(times).median(), memory })
    };
    contenders.iter().zip(walls).map(figures).collect()
}

impl Contender {
    pub(crate) fn succeed(&self, image: &str) {
        let output = self.run(image);
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }

    fn run(&self, image: &str) -> Output {
        self.command(Command::new(self.command.get_program())).arg(image).output().expect("it starts")
    }

    /// The most that it had resident, in KiB.
    pub(crate) fn memory(&self, image: &str) -> u64 {
        let report = kit::folder().join("memory");
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["-f", "%M", "-o"]).arg(&report).arg(self.command.get_program());
        let mut timed = self.command(timed);
        let status = timed.arg(image).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.expect("GNU time (Debian: time)");
        assert!(status.success(), "{}: {status}", self.name);
        fs::read_to_string(report).expect("a report").trim().parse().expect("a number")
    }

    /// `command` with the arguments, the folder and the environment of this one.
    fn command(&self, mut command: Command) -> Command {
        command.args(self.command.get_args());
        if let Some(folder) = self.command.get_current_dir() {
            command.current_dir(folder);
        }
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

/// pullgate with these arguments; the image is missing.
pub(crate) fn ours(arguments: &[&str]) -> Contender {
    let mut command = offline(&program(), &kit::folder());
    command.args(arguments);
    Contender { name: "pullgate", command }
}

/// A program that does not go online, and reads none of this user's files.
pub(crate) fn offline(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", folder).env("TUF_ROOT", folder).env("DOCKER_CONFIG", folder);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "COSIGN_REPOSITORY"] {
        command.env_remove(name);
    }
    command
}

impl std::fmt::Display for Figures {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} requests, {}, {:.1} MiB", self.requests, time(self.wall), mib(self.memory))
    }
}
