//! `pullgate verify` beside `cosign verify`: one image, one key, a registry that was never asked before.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    kit::{
        self, Node, Space,
        policy::Policy,
        proxy::{Action, Proxy},
        registry::Registry,
        tools,
    },
    node::program,
    report::{Row, Samples, mib, time},
};

/// One verifier with what it took.
struct Contender {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

struct Figures {
    requests: usize,
    wall: Duration,
    memory: u64,
}

pub(crate) fn verify(node: &Node) -> Vec<Row> {
    let registry = Registry::docker();
    let space = Space::on(&registry);
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let proxy = Proxy::before(&registry, |_| Action::Pass);
    let counted = space.through(&proxy).name(&image).by_tag();

    let folder = kit::folder();
    let (policy, key) = (folder.join("policy.yaml"), folder.join("cosign.pub"));
    let document = Policy::new("keyed", "*").key(node.key).document();
    fs::write(&policy, format!("{document:#}\n")).expect("a policy");
    fs::write(&key, &node.key.public).expect("a key");
    let (policy, key) = (policy.display().to_string(), key.display().to_string());

    let cosign = ["verify", "--key", &key, "--insecure-ignore-tlog=true"];
    let contender = |name, program: PathBuf, arguments: &[&str]| Contender {
        name,
        program,
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        folder: folder.clone(),
    };
    let bin = tools().join("bin");
    let ours = contender("pullgate verify", program(), &["verify", "-p", &policy]);
    let older = contender("cosign 2", bin.join("cosign-2"), &cosign);
    let newer = [&cosign[..], &["--new-bundle-format=false"]].concat();
    let newer = contender("cosign 3", bin.join("cosign-3"), &newer);

    let first = ours.run(&counted);
    if !first.status.success() {
        let said = String::from_utf8_lossy(&first.stderr).lines().next().unwrap_or_default().to_owned();
        let mut rows = vec![Row::missing("cold `pullgate verify`", format!("{}: {said}", first.status))];
        rows.extend(
            measure(&[older, newer], &image.by_tag(), &counted, &proxy).iter().map(|(name, figures)| {
                Row::plain(format!("`verify` of {name}, the peer"), figures.to_string())
            }),
        );
        return rows;
    }

    let all = measure(&[ours, older, newer], &image.by_tag(), &counted, &proxy);
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

fn measure(
    contenders: &[Contender],
    direct: &str,
    counted: &str,
    proxy: &Proxy,
) -> Vec<(&'static str, Figures)> {
    let mut walls: Vec<_> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..15 {
        for (contender, times) in contenders.iter().zip(&mut walls) {
            let start = Instant::now();
            contender.succeed(direct);
            times.push(start.elapsed());
        }
    }
    let figures = |(contender, times): (&Contender, _)| {
        let before = proxy.seen().len();
        contender.succeed(counted);
        let requests = proxy.seen().len() - before;
        let memory = contender.memory(direct);
        (contender.name, Figures { requests, wall: Samples::new(times).median(), memory })
    };
    contenders.iter().zip(walls).map(figures).collect()
}

impl Contender {
    fn succeed(&self, image: &str) {
        let output = self.run(image);
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }

    fn run(&self, image: &str) -> Output {
        self.command(&self.program).args(&self.arguments).arg(image).output().expect("it starts")
    }

    /// The most that it had resident, in KiB.
    fn memory(&self, image: &str) -> u64 {
        let report = self.folder.join("memory");
        let mut command = self.command(Path::new("/usr/bin/time"));
        command.args(["-f", "%M", "-o"]).arg(&report).arg(&self.program).args(&self.arguments).arg(image);
        let status =
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("GNU time (Debian: time)");
        assert!(status.success(), "{}: {status}", self.name);
        fs::read_to_string(report).expect("a report").trim().parse().expect("a number")
    }

    /// Offline, and without this user's files.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", &self.folder).env("TUF_ROOT", &self.folder).env("DOCKER_CONFIG", &self.folder);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "COSIGN_REPOSITORY"] {
            command.env_remove(name);
        }
        command
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} requests, {}, {:.1} MiB", self.requests, time(self.wall), mib(self.memory))
    }
}
