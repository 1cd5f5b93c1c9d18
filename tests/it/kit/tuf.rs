//! A TUF repository of our own: keys, metadata of the four roles, and a mirror on loopback that can
//! be made to misbehave. It shares no code with `src/`.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    digest,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// One key.
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    pub(crate) fn generate() -> Self {
        Self(Ed25519KeyPair::generate().expect("a key"))
    }

    fn key(&self) -> Value {
        let public = hex::encode(self.0.public_key().as_ref());
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
    }

    pub(crate) fn id(&self) -> String {
        sha256(self.key().to_string().as_bytes())
    }
}

/// `body` with a signature of each signer. serde_json sorts keys and we write no control characters, so
/// its text is the canonical one.
pub(crate) fn signed(body: &Value, signers: &[&Signer]) -> Vec<u8> {
    let text = body.to_string();
    let signatures: Vec<_> = signers
        .iter()
        .map(|signer| json!({"keyid": signer.id(), "sig": hex::encode(signer.0.sign(text.as_bytes()))}))
        .collect();
    json!({"signed": body, "signatures": signatures}).to_string().into_bytes()
}

/// A repository: change what is public in it, then publish.
pub(crate) struct Repository {
    /// Signs root metadata.
    pub(crate) root: Signer,
    /// Signs timestamp and snapshot.
    pub(crate) online: Signer,
    /// Signs targets.
    pub(crate) targets: Signer,
    /// By role: `root`, `timestamp`, `snapshot`, `targets`.
    pub(crate) versions: BTreeMap<&'static str, u64>,
    pub(crate) expires: BTreeMap<&'static str, SystemTime>,
    /// The content of `trusted_root.json`.
    pub(crate) target: Vec<u8>,
    /// What the mirror has, by path.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

pub(crate) const ROLES: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

impl Repository {
    /// Everything at version 1, good for a week from `now`; root and targets for a year.
    pub(crate) fn new(now: SystemTime, target: &[u8]) -> Self {
        let week = now + Duration::from_secs(7 * 86_400);
        let year = now + Duration::from_secs(365 * 86_400);
        let mut repository = Self {
            root: Signer::generate(),
            online: Signer::generate(),
            targets: Signer::generate(),
            versions: ROLES.map(|role| (role, 1)).into(),
            expires: [("root", year), ("timestamp", week), ("snapshot", week), ("targets", year)].into(),
            target: target.to_vec(),
            files: BTreeMap::new(),
        };
        let root = signed(&repository.root_body(), &[&repository.root]);
        repository.files.insert("1.root.json".into(), root);
        repository.publish();
        repository
    }

    /// The root metadata of a version, which clients are given.
    pub(crate) fn pinned(&self, version: u64) -> Vec<u8> {
        self.files[&format!("{version}.root.json")].clone()
    }

    /// Signs timestamp, snapshot and targets as the versions say.
    pub(crate) fn publish(&mut self) {
        let targets = signed(&self.targets_body(), &[&self.targets]);
        let snapshot = signed(&self.snapshot_body(&targets), &[&self.online]);
        let timestamp = signed(&self.timestamp_body(&snapshot), &[&self.online]);
        let hash = sha256(&self.target);
        self.files.insert(format!("targets/{hash}.trusted_root.json"), self.target.clone());
        self.files.insert(format!("{}.targets.json", self.versions["targets"]), targets);
        self.files.insert(format!("{}.snapshot.json", self.versions["snapshot"]), snapshot);
        self.files.insert("timestamp.json".into(), timestamp);
    }

    /// Publishes the next version of everything but the root.
    pub(crate) fn advance(&mut self, target: &[u8]) {
        self.target = target.to_vec();
        for role in ["timestamp", "snapshot", "targets"] {
            *self.versions.get_mut(role).expect("a role") += 1;
        }
        self.publish();
    }

    /// New keys for every role; the old root key signs the new root too.
    pub(crate) fn rotate(&mut self) {
        let old = std::mem::replace(&mut self.root, Signer::generate());
        self.online = Signer::generate();
        self.targets = Signer::generate();
        *self.versions.get_mut("root").expect("a role") += 1;
        let root = signed(&self.root_body(), &[&old, &self.root]);
        self.files.insert(format!("{}.root.json", self.versions["root"]), root);
    }

    pub(crate) fn root_body(&self) -> Value {
        let mut keys = serde_json::Map::new();
        for signer in [&self.root, &self.online, &self.targets] {
            keys.insert(signer.id(), signer.key());
        }
        let role = |signer: &Signer| json!({"keyids": [signer.id()], "threshold": 1});
        let mut body = self.body("root");
        body["consistent_snapshot"] = json!(true);
        body["keys"] = Value::Object(keys);
        body["roles"] = json!({
            "root": role(&self.root), "timestamp": role(&self.online),
            "snapshot": role(&self.online), "targets": role(&self.targets),
        });
        body
    }

    pub(crate) fn targets_body(&self) -> Value {
        let mut body = self.body("targets");
        body["targets"] = json!({
            "trusted_root.json": {"length": self.target.len(), "hashes": {"sha256": sha256(&self.target)}},
        });
        body
    }

    pub(crate) fn snapshot_body(&self, targets: &[u8]) -> Value {
        let mut body = self.body("snapshot");
        body["meta"] = json!({"targets.json": pin(self.versions["targets"], targets)});
        body
    }

    pub(crate) fn timestamp_body(&self, snapshot: &[u8]) -> Value {
        let mut body = self.body("timestamp");
        body["meta"] = json!({"snapshot.json": pin(self.versions["snapshot"], snapshot)});
        body
    }

    fn body(&self, role: &str) -> Value {
        let expires = humantime::format_rfc3339_seconds(self.expires[role]).to_string();
        json!({"_type": role, "spec_version": "1.0.31", "version": self.versions[role], "expires": expires})
    }
}

fn pin(version: u64, bytes: &[u8]) -> Value {
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": sha256(bytes)}})
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// What the mirror does with one path instead of answering the file.
#[derive(Clone)]
pub(crate) enum Misbehaviour {
    /// A body that never ends.
    Endless,
    /// Headers, and then nothing.
    Silent,
    /// A redirect to this address.
    Redirect(String),
    /// A status without a body.
    Status(u16),
}

/// A mirror on loopback.
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    misbehaviours: BTreeMap<String, Misbehaviour>,
    asked: Vec<String>,
    down: bool,
}

impl Server {
    /// Serves what the repository has now.
    pub(crate) fn start(repository: &Repository) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let server = Self { port, state: Arc::clone(&state) };
        server.serve(repository);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || drop(answer(stream, &state)));
            }
        });
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}/tuf", self.port)
    }

    /// Serves these files from now on.
    pub(crate) fn serve(&self, repository: &Repository) {
        self.state.lock().expect("no panic").files.clone_from(&repository.files);
    }

    pub(crate) fn misbehave(&self, path: &str, how: Misbehaviour) {
        self.state.lock().expect("no panic").misbehaviours.insert(path.to_owned(), how);
    }

    pub(crate) fn behave(&self) {
        self.state.lock().expect("no panic").misbehaviours.clear();
    }

    /// Connections are closed without an answer.
    pub(crate) fn go_down(&self) {
        self.state.lock().expect("no panic").down = true;
    }

    pub(crate) fn come_up(&self) {
        self.state.lock().expect("no panic").down = false;
    }

    /// The paths asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("no panic").asked)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut line)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    let (file, misbehaviour) = {
        let mut state = state.lock().expect("no panic");
        state.asked.push(path.clone());
        if state.down {
            return Ok(());
        }
        let path = path.strip_prefix("/tuf/").unwrap_or(&path);
        (state.files.get(path).cloned(), state.misbehaviours.get(path).cloned())
    };
    let head = "Connection: close\r\n";
    match (misbehaviour, file) {
        (Some(Misbehaviour::Endless), _) => {
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n")?;
            loop {
                stream.write_all(&[b' '; 64 * 1024])?;
            }
        }
        (Some(Misbehaviour::Silent), _) => {
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n")?;
            stream.flush()?;
            // Until the client gives up.
            reader.read_line(&mut header).map(drop)
        }
        (Some(Misbehaviour::Redirect(to)), _) => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n{head}\r\n")
        }
        (Some(Misbehaviour::Status(status)), _) => {
            write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n{head}\r\n")
        }
        (None, Some(file)) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{head}\r\n", file.len())?;
            stream.write_all(&file)
        }
        (None, None) => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n{head}\r\n"),
    }
}
