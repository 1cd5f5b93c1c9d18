//! The secrets of a pull: where they go, and that they come out nowhere else. Not in the log of any
//! level, not in an error, a metric, `status` or the cache on disk, not at a host that the registry points
//! at, and not in a core dump.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{StatusCode, header};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::kit::{
    self, Node,
    front::{Behind, Front},
    gate::{self, Gate},
    proxy::{Action, Proxy, Seen},
    ran::Ran,
};

kit::on_each_containerd!(
    e4_pitfall_18_secrets_of_a_pull_come_out_nowhere,
    e4_secrets_of_files_come_out_nowhere,
    a_crash_leaves_no_memory_on_disk,
);

const USER: &str = "ada-of-the-test";
const PASSWORD: &str = "0pen-sesame/for+the=test";
const TOKEN: &str = "t0ken-of-the-test.of.three-parts";

/// What must come out nowhere.
fn secrets() -> [String; 4] {
    let pair = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let encoded: String = PASSWORD.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    [PASSWORD.to_owned(), encoded, pair, TOKEN.to_owned()]
}

fn assert_without_secrets(what: &str, text: &[u8]) {
    for secret in secrets() {
        let found = text.windows(secret.len()).position(|part| part == secret.as_bytes());
        let near = found.map(|at| String::from_utf8_lossy(&text[at.saturating_sub(200)..at]).into_owned());
        assert_eq!(near, None, "{what} has `{secret}`, after this");
    }
}

/// The ways in which a registry that was shown the secrets goes on; each has the next pulls.
#[derive(Clone, Copy)]
enum Turn {
    /// It asks for user and password.
    Basic,
    /// It asks for a token, which its realm gives for them.
    Bearer,
    /// It refuses, and repeats what it was shown.
    Echo,
    /// It redirects everything to another host.
    Redirect,
    /// The same, with a challenge of that host.
    RedirectToChallenge,
    Fail,
}

const TURNS: [Turn; 6] =
    [Turn::Basic, Turn::Bearer, Turn::Echo, Turn::Redirect, Turn::RedirectToChallenge, Turn::Fail];

/// A registry that takes turns, and another host that it points at.
struct Hosts {
    registry: Proxy,
    elsewhere: Arc<Proxy>,
    turn: Arc<AtomicUsize>,
}

impl Hosts {
    fn before(node: &Node) -> Self {
        let turn = Arc::new(AtomicUsize::new(0));
        let turns = Arc::clone(&turn);
        let elsewhere = Arc::new(Proxy::before(node.registry, move |_| {
            let challenge = (header::WWW_AUTHENTICATE, r#"Basic realm="elsewhere""#.to_owned());
            match TURNS[turns.load(Ordering::SeqCst)] {
                Turn::RedirectToChallenge => {
                    Action::Answer(StatusCode::UNAUTHORIZED, vec![challenge], String::new())
                }
                Turn::Basic | Turn::Bearer | Turn::Echo | Turn::Redirect | Turn::Fail => Action::Pass,
            }
        }));
        let (turns, target) = (Arc::clone(&turn), elsewhere.host().to_owned());
        let registry = Proxy::before(node.registry, move |seen| {
            answer(TURNS[turns.load(Ordering::SeqCst)], seen, &target)
        });
        Self { registry, elsewhere, turn }
    }
}

fn answer(turn: Turn, seen: &Seen, elsewhere: &str) -> Action {
    let shown = seen.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let host = seen.headers[header::HOST].to_str().expect("a host").to_owned();
    let answer = |status, header: Option<(header::HeaderName, String)>, body: String| {
        Action::Answer(status, header.into_iter().collect(), body)
    };
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if seen.path.starts_with("/token") {
        // containerd tries to post them first.
        let status = match shown {
            Some(shown) if shown == basic => StatusCode::OK,
            Some(_) => StatusCode::UNAUTHORIZED,
            None => StatusCode::METHOD_NOT_ALLOWED,
        };
        return answer(status, None, json!({"token": TOKEN}).to_string());
    }
    let challenge = match turn {
        Turn::Bearer => format!(r#"Bearer realm="http://{host}/token",service="test""#),
        Turn::Basic | Turn::Echo | Turn::Redirect | Turn::RedirectToChallenge | Turn::Fail => {
            r#"Basic realm="test""#.to_owned()
        }
    };
    let wanted = if matches!(turn, Turn::Bearer) { format!("Bearer {TOKEN}") } else { basic };
    if shown != Some(wanted.as_str()) {
        return answer(StatusCode::UNAUTHORIZED, Some((header::WWW_AUTHENTICATE, challenge)), String::new());
    }
    match turn {
        Turn::Basic | Turn::Bearer => Action::Pass,
        Turn::Echo => {
            let message = format!("{wanted} is {USER}:{PASSWORD}, who may not");
            let body = json!({"errors": [{"code": "DENIED", "message": message}]});
            answer(StatusCode::FORBIDDEN, None, body.to_string())
        }
        Turn::Redirect | Turn::RedirectToChallenge => {
            let to = format!("http://{elsewhere}{}", seen.path);
            answer(StatusCode::TEMPORARY_REDIRECT, Some((header::LOCATION, to)), String::new())
        }
        Turn::Fail => answer(StatusCode::BAD_GATEWAY, None, String::new()),
    }
}

fn e4_pitfall_18_secrets_of_a_pull_come_out_nowhere(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let hosts = Hosts::before(node);
    let away = Front::before(Behind::Nobody);
    node.containerd.knows_host(hosts.registry.host());
    let named = space.through(&hosts.registry).name(&image);
    let gate = Gate::before(&node.containerd)
        .policies(&[space.through(&hosts.registry).policy("keyed").key(node.key)])
        .set("/log/level", "trace")
        .set("/outage/servePresent", "credentials")
        .start();

    let pull = |name: String| gate.cri().pull(name).credentials(USER, PASSWORD).send();
    let mut passed = 0;
    for turn in 0..TURNS.len() {
        hosts.turn.store(turn, Ordering::SeqCst);
        // Nothing is remembered of the turn before but what is on disk.
        gate.restart();
        gate.purge_cache();
        for name in [named.by_tag(), named.by_digest()] {
            match pull(name) {
                Ok(id) => {
                    assert_eq!(id, image.id);
                    passed += 1;
                }
                Err(refusal) => assert_without_secrets("an error", format!("{refusal:?}").as_bytes()),
            }
        }
    }
    assert!(passed >= 4, "the first turns pass");
    let refusal = pull(format!("{}/nothing:1", away.host())).expect_err("nobody is there");
    assert_without_secrets("an error", format!("{refusal:?}").as_bytes());

    // containerd follows redirects too, and to another port of the same machine with everything.
    let of_pullgate = |seen: &Seen| {
        let agent = seen.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        agent.is_some_and(|agent| agent.starts_with("pullgate/"))
    };
    let elsewhere: Vec<_> = hosts.elsewhere.seen().into_iter().filter(of_pullgate).collect();
    assert!(!elsewhere.is_empty(), "it was never asked");
    for seen in elsewhere {
        assert!(!seen.headers.contains_key(header::AUTHORIZATION), "{seen:?}");
        assert_without_secrets("a request to another host", format!("{seen:?}").as_bytes());
    }
    for seen in hosts.registry.seen() {
        assert_without_secrets("an address", seen.path.as_bytes());
    }
    assert_without_secrets("the log", gate.log().as_bytes());
    assert!(gate.log().contains(r#""level":"DEBUG""#), "it says more than usual");
    assert_without_secrets("the metrics", gate.metrics().as_bytes());
    for arguments in [&["status"][..], &["status", "-o", "json"], &["cache", "list"], &["reload"]] {
        let output = gate.command(arguments);
        assert_without_secrets("a command", &[output.stdout, output.stderr].concat());
    }
    gate.stop();
    assert_no_file_has_secrets(gate.folder());
}

/// The same of credentials that are a file on this machine.
/// Of a docker config file, and of a secret that a policy names.
fn e4_secrets_of_files_come_out_nowhere(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let hosts = Hosts::before(node);
    let space = space.through(&hosts.registry);
    let (folder, named) = (kit::folder(), space.name(&image));
    let auth = json!({"auth": STANDARD.encode(format!("{USER}:{PASSWORD}"))});
    let auths = json!({"auths": {hosts.registry.host(): auth}});
    fs::write(folder.join("config.json"), auths.to_string()).expect("a file");
    let mut document = space.policy("keyed").key(node.key).document();
    document["spec"]["rules"][0]["verifyImages"][0]["imageRegistryCredentials"] =
        json!({"secrets": ["team/login"]});
    let (policy, secrets, none) = (folder.join("policy.yaml"), folder.join("team"), folder.join("none"));
    fs::write(&policy, document.to_string()).expect("a file");
    for folder in [&secrets, &none] {
        fs::create_dir(folder).expect("a folder");
    }
    fs::copy(folder.join("config.json"), secrets.join("login.json")).expect("a secret");
    fs::write(none.join("config.json"), "{}").expect("a file");
    let [with, without] = [("with.yaml", &folder), ("without.yaml", &none)].map(|(name, secrets)| {
        let config = json!({"policy": {"paths": [policy]}, "registry": {"secrets": secrets}});
        fs::write(folder.join(name), config.to_string()).expect("a file");
        folder.join(name)
    });

    for (number, turn) in TURNS.iter().enumerate() {
        hosts.turn.store(number, Ordering::SeqCst);
        for (name, more) in [(named.by_tag(), &["-o", "json"][..]), (named.by_digest(), &["--explain"])] {
            for (config, docker_config, has_some) in
                [(&without, &folder, true), (&with, &none, true), (&without, &none, false)]
            {
                let mut command = Command::new(gate::binary());
                command.arg("verify").arg("--config").arg(config).arg("--docker-config").arg(docker_config);
                command.args(more).arg(&name).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
                let ran = Ran::of(&mut command);
                let passes = has_some && matches!(turn, Turn::Basic | Turn::Bearer | Turn::Redirect);
                assert_eq!(ran.code == 0, passes, "{ran:?}");
                assert_without_secrets("its output", format!("{}{}", ran.stdout, ran.stderr).as_bytes());
            }
        }
    }
    for seen in hosts.elsewhere.seen() {
        assert!(!seen.headers.contains_key(header::AUTHORIZATION), "{seen:?}");
    }
}

/// Where cores are dumped at all, the gate's is not.
fn a_crash_leaves_no_memory_on_disk(node: &Node) {
    let unlimited = |pid: u32| {
        let limit =
            Command::new("prlimit").args([format!("--pid={pid}"), "--core=unlimited".into()]).status();
        assert!(limit.is_ok_and(|status| status.success()), "prlimit");
    };
    let mut other = Command::new("sleep").arg("60").current_dir(kit::folder()).spawn().expect("sleep");
    unlimited(other.id());
    let abort = Command::new("kill").args(["-ABRT", &other.id().to_string()]).status();
    assert!(abort.is_ok_and(|status| status.success()), "kill");
    if !other.wait().expect("our own child").core_dumped() {
        return kit::skip("a_crash_leaves_no_memory_on_disk", "cores are not dumped here");
    }

    let gate = Gate::start(&node.containerd, &[node.space().policy("keyed").key(node.key)]);
    unlimited(gate.pid());
    let ended = gate.end_by(Signal::SIGABRT);
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
}

fn assert_no_file_has_secrets(folder: &Path) {
    let mut files = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                assert_without_secrets(&path.display().to_string(), &fs::read(&path).expect("a file"));
                files += 1;
            }
        }
    }
    assert!(files > 0, "nothing is on disk");
}
