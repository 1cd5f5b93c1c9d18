//! Trust roots by TUF: a mirror of ours, good and hostile, and what the node keeps of it.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pullgate::{
    oci::Digest,
    trust::{Anchor, Domain, Keeping, Mirror, Origin, TrustError},
};
use serde_json::{Value, json};
use sigstore_trust_root::SigstoreInstance;
use tempfile::TempDir;

use crate::kit::{
    block_on,
    tuf::{Misbehaviour, Repository, Server, Signer, sha256, signed},
};

mod kept;

/// A repository on a mirror, and a node that trusts it.
struct Lab {
    repository: Repository,
    server: Server,
    folder: TempDir,
    now: SystemTime,
}

impl Lab {
    fn new() -> Self {
        let now = SystemTime::now();
        let repository = Repository::new(now, first());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("root.json"), repository.pinned(1)).unwrap();
        Self { server: Server::start(&repository), repository, folder, now }
    }

    /// A process that starts on the node.
    fn start(&self) -> Domain {
        self.domain(&self.server.address())
    }

    fn domain(&self, mirror: &str) -> Domain {
        let origin = Origin::Tuf {
            mirror: Mirror::parse(mirror).unwrap(),
            root: self.folder.path().join("root.json"),
        };
        Domain::new(origin, Keeping::Kept(self.kept()), Vec::new())
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("tuf")
    }

    fn refresh(&self, domain: &Domain) -> Result<Digest, String> {
        self.refresh_at(domain, self.now)
    }

    fn refresh_at(&self, domain: &Domain, now: SystemTime) -> Result<Digest, String> {
        fingerprint(block_on(domain.refresh(now)))
    }

    /// The trust root without the mirror.
    fn root(&self, domain: &Domain) -> Result<Digest, String> {
        fingerprint(domain.root(self.now))
    }

    /// Publishes the next version of everything but the root.
    fn advance(&mut self, target: &[u8]) {
        self.repository.advance(target);
        self.server.serve(&self.repository);
    }

    /// The one file that is kept.
    fn record_file(&self) -> PathBuf {
        let files: Vec<_> = fs::read_dir(self.kept()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    fn edit_record(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.record_file();
        let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(&path, record.to_string()).unwrap();
    }
}

fn fingerprint(anchor: Result<Anchor, TrustError>) -> Result<Digest, String> {
    anchor.map(|anchor| anchor.root.fingerprint()).map_err(|error| error.to_string())
}

fn first() -> &'static [u8] {
    SigstoreInstance::PublicGood.embedded_trusted_root_json().as_bytes()
}

fn second() -> &'static [u8] {
    SigstoreInstance::Staging.embedded_trusted_root_json().as_bytes()
}

fn expected(target: &[u8]) -> Result<Digest, String> {
    Ok(pullgate::sigstore::TrustRoot::from_json(target).unwrap().fingerprint())
}

const DAY: Duration = Duration::from_secs(86_400);

#[track_caller]
fn refused(result: Result<Digest, String>, cause: &str) {
    let error = result.expect_err("must be refused");
    assert!(error.contains(cause) && !error.contains('\n'), "{error}");
}

#[test]
fn a_first_fetch_is_verified_kept_and_used_without_the_mirror() {
    let lab = Lab::new();
    let node = lab.start();
    assert_eq!(lab.root(&node), Err("nothing was fetched from the mirror yet".to_owned()));
    let anchor = block_on(node.refresh(lab.now)).unwrap();
    assert_eq!(fingerprint(Ok(anchor.clone())), expected(first()));
    assert_eq!((anchor.version, anchor.confirmed), (Some(1), lab.now));
    let week = anchor.expires.unwrap().duration_since(lab.now).unwrap();
    assert!(week > 6 * DAY && week <= 7 * DAY, "the first expiry counts: {week:?}");
    assert!(node.trouble().is_none());

    lab.server.go_down();
    lab.server.asked();
    let later = lab.start();
    assert_eq!(lab.root(&later), expected(first()));
    assert_eq!(lab.server.asked(), Vec::<String>::new());
}

#[test]
fn a_refresh_brings_a_new_trust_root() {
    let mut lab = Lab::new();
    let node = lab.start();
    lab.refresh(&node).unwrap();
    lab.advance(second());
    assert_eq!(lab.root(&node), expected(first()), "not before a refresh");
    assert_eq!(lab.refresh(&node), expected(second()));
    assert_eq!(lab.root(&node), expected(second()));
    assert_eq!(lab.root(&lab.start()), expected(second()));
}

#[test]
fn an_unchanged_mirror_is_asked_for_root_and_timestamp_only() {
    let lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    lab.server.asked();
    assert_eq!(lab.refresh(&lab.start()), expected(first()));
    assert_eq!(lab.server.asked(), ["/tuf/2.root.json", "/tuf/timestamp.json"]);
}

#[test]
fn keys_rotate_from_the_pinned_root_on() {
    let mut lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    lab.repository.rotate();
    lab.advance(second());
    let node = lab.start();
    let anchor = block_on(node.refresh(lab.now)).unwrap();
    assert_eq!(anchor.version, Some(2));
    assert_eq!(fingerprint(Ok(anchor)), expected(second()));
    lab.server.go_down();
    assert_eq!(lab.root(&lab.start()), expected(second()), "the chain is kept");
}

#[test]
fn pitfall_22_a_root_that_the_old_keys_did_not_sign_is_refused() {
    let mut lab = Lab::new();
    let node = lab.start();
    lab.refresh(&node).unwrap();
    let mut intruder = Repository::new(lab.now, second());
    intruder.versions.insert("root", 2);
    let root = signed(&intruder.root_body(), &[&intruder.root]);
    lab.repository.files.insert("2.root.json".into(), root);
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&node), "signature threshold not met for role root: 0/1");
    assert_eq!(lab.root(&node), expected(first()));
    // A version that is left out is not reached either.
    intruder.versions.insert("root", 3);
    let skipped = signed(&intruder.root_body(), &[&lab.repository.root, &intruder.root]);
    lab.repository.files.insert("2.root.json".into(), skipped);
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&node), "root version must increment by one: trusted 1, got 3");
}

#[test]
fn pitfall_22_metadata_with_a_wrong_signature_are_refused() {
    let stranger = Signer::generate();
    for role in ["timestamp", "snapshot", "targets"] {
        let mut lab = Lab::new();
        let node = lab.start();
        lab.refresh(&node).unwrap();
        lab.repository.advance(second());
        // The file of the role by a stranger; what pins it is signed well.
        let repository = &mut lab.repository;
        let name = |signer| if role == "timestamp" { &stranger } else { signer };
        let online = if role == "snapshot" { &stranger } else { &repository.online };
        let by = if role == "targets" { &stranger } else { &repository.targets };
        let targets = signed(&repository.targets_body(), &[by]);
        let snapshot = signed(&repository.snapshot_body(&targets), &[online]);
        let timestamp = signed(&repository.timestamp_body(&snapshot), &[name(&repository.online)]);
        repository.files.insert("2.targets.json".into(), targets);
        repository.files.insert("2.snapshot.json".into(), snapshot);
        repository.files.insert("timestamp.json".into(), timestamp);
        lab.server.serve(&lab.repository);
        refused(lab.refresh(&node), &format!("signature threshold not met for role {role}: 0/1"));
        assert_eq!(lab.root(&node), expected(first()), "{role}");
        assert!(node.trouble().is_some());
        assert_eq!(lab.root(&lab.start()), expected(first()), "{role}: the last good set is whole");
    }
}

#[test]
fn pitfall_22_a_threshold_of_zero_is_refused() {
    let mut lab = Lab::new();
    let mut root = lab.repository.root_body();
    root["roles"]["timestamp"]["threshold"] = json!(0);
    lab.repository.files.insert("1.root.json".into(), signed(&root, &[&lab.repository.root]));
    fs::write(lab.folder.path().join("root.json"), lab.repository.pinned(1)).unwrap();
    lab.repository.files.insert("timestamp.json".into(), signed(&json!({"_type": "timestamp"}), &[]));
    lab.server.serve(&lab.repository);
    assert!(lab.refresh(&lab.start()).is_err());
    let mut timestamp = serde_json::from_slice::<Value>(&lab.repository.files["timestamp.json"]).unwrap();
    lab.repository.publish();
    timestamp["signed"] =
        serde_json::from_slice::<Value>(&lab.repository.files["timestamp.json"]).unwrap()["signed"].take();
    lab.repository.files.insert("timestamp.json".into(), timestamp.to_string().into_bytes());
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&lab.start()), "role timestamp declares signature threshold 0");

    // The pinned root itself.
    root["roles"]["root"]["threshold"] = json!(0);
    fs::write(lab.folder.path().join("root.json"), signed(&root, &[])).unwrap();
    refused(lab.refresh(&lab.start()), "the pinned root.json cannot be used: ");
}

#[test]
fn a_mirror_that_goes_back_is_refused_also_after_a_restart() {
    let mut lab = Lab::new();
    let old = lab.repository.files.clone();
    lab.advance(second());
    let node = lab.start();
    lab.refresh(&node).unwrap();
    lab.repository.files = old;
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&node), "rollback detected for timestamp: trusted version 2 > new version 1");
    let restarted = lab.start();
    refused(lab.refresh(&restarted), "rollback detected for timestamp: trusted version 2 > new version 1");
    assert_eq!(lab.root(&restarted), expected(second()));
}

#[test]
fn a_refresh_that_broke_off_still_sets_the_floor() {
    let mut lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    lab.repository.advance(second());
    let between = lab.repository.files.clone();
    lab.repository.advance(second());
    lab.repository.files.remove("3.snapshot.json");
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&lab.start()), "3.snapshot.json not found");
    assert_eq!(lab.root(&lab.start()), expected(first()), "the last complete set is still whole");
    // Version 2 was never seen, but it is older than what was.
    lab.repository.files = between;
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&lab.start()), "the mirror went back: timestamp version 2, 3 was seen before");
}

#[test]
fn a_lost_chain_of_roots_does_not_let_the_mirror_go_back() {
    let mut lab = Lab::new();
    let old = lab.repository.files.clone();
    lab.repository.rotate();
    lab.advance(second());
    lab.refresh(&lab.start()).unwrap();
    lab.edit_record(|record| record["metadata"] = json!({}));
    lab.repository.files = old;
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&lab.start()), "the mirror went back: root version 1, 2 was seen before");
}

#[test]
fn new_online_keys_start_versions_anew() {
    let mut lab = Lab::new();
    // Whoever had the online key went far ahead to lock everybody out.
    lab.repository.versions.insert("timestamp", 1_000_000);
    lab.repository.versions.insert("snapshot", 1_000_000);
    lab.repository.publish();
    lab.server.serve(&lab.repository);
    let node = lab.start();
    lab.refresh(&node).unwrap();
    lab.repository.rotate();
    lab.repository.versions.insert("timestamp", 5);
    lab.repository.versions.insert("snapshot", 5);
    lab.advance(second());
    assert_eq!(lab.refresh(&node), expected(second()));
    // And from there on nothing goes back.
    lab.edit_record(|record| assert_eq!(record["floor"]["timestamp"], 6));
}

#[test]
fn a_frozen_mirror_changes_nothing_and_is_seen() {
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let mut lab = Lab::new();
        lab.repository.expires.insert(role, lab.now + DAY);
        if role == "root" {
            let root = signed(&lab.repository.root_body(), &[&lab.repository.root]);
            lab.repository.files.insert("1.root.json".into(), root);
            fs::write(lab.folder.path().join("root.json"), lab.repository.pinned(1)).unwrap();
        }
        lab.repository.publish();
        lab.server.serve(&lab.repository);
        let node = lab.start();
        lab.refresh(&node).unwrap();
        let later = lab.now + 2 * DAY;
        let expired = format!("{role} metadata expired at ");
        refused(lab.refresh_at(&node, later), &expired);
        assert!(node.trouble().unwrap().contains(&expired));
        // In use stays in use, with the time of its expiry to be seen.
        let anchor = node.root(later).unwrap();
        assert!(anchor.expires.unwrap() < later && anchor.confirmed == lab.now, "{role}");
        // A new start finds expired metadata only: nothing.
        let restarted = lab.start();
        let error = restarted.root(later).unwrap_err();
        assert!(error.to_string().contains(&expired) && !error.is_settled(), "{role}: {error}");
        refused(lab.refresh_at(&restarted, later), &expired);
        assert!(restarted.root(later).is_err(), "{role}");
        // And works again once the repository is signed anew.
        if role != "root" {
            lab.repository.expires.insert(role, later + DAY);
            lab.advance(second());
            assert_eq!(lab.refresh_at(&restarted, later), expected(second()), "{role}");
        }
    }
}

#[test]
fn endless_metadata_end_at_the_limit() {
    for path in ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let mut lab = Lab::new();
        let node = lab.start();
        lab.refresh(&node).unwrap();
        lab.advance(second());
        lab.server.misbehave(path, Misbehaviour::Endless);
        refused(lab.refresh(&node), &format!("{path} is larger than "));
        assert_eq!(lab.root(&node), expected(first()));
        lab.server.behave();
        assert_eq!(lab.refresh(&node), expected(second()));
    }
}

#[test]
fn a_target_is_read_to_its_length_and_no_further() {
    let mut lab = Lab::new();
    let name = format!("targets/{}.trusted_root.json", sha256(first()));
    lab.server.misbehave(&name, Misbehaviour::Endless);
    refused(lab.refresh(&lab.start()), &format!("is larger than {} bytes", first().len()));
    lab.server.behave();
    lab.advance(&vec![b' '; (1 << 20) + 1]);
    refused(lab.refresh(&lab.start()), "pinned length 1048577 exceeds configured max 1048576");
    lab.repository.files.insert(name, second().to_vec());
    lab.repository.target = first().to_vec();
    lab.repository.files.retain(|name, _| !name.starts_with("targets/"));
    lab.advance(first());
    let name = format!("targets/{}.trusted_root.json", sha256(first()));
    let mut other = first().to_vec();
    other[0] = b' ';
    lab.repository.files.insert(name, other);
    lab.server.serve(&lab.repository);
    refused(lab.refresh(&lab.start()), "trusted_root.json: sha256 mismatch");
}

#[test]
fn a_silent_mirror_is_given_up() {
    let lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    lab.server.misbehave("timestamp.json", Misbehaviour::Silent);
    let node = lab.start().within(Duration::from_millis(500));
    refused(lab.refresh(&node), "the mirror did not finish within 0 s");
    assert_eq!(lab.root(&node), expected(first()));
}

#[test]
fn pitfall_22_names_in_metadata_do_not_leave_the_mirror() {
    for hash in ["../../secret", "..", "a/b", "%2e%2e/%2e%2e", "a?b"] {
        let mut lab = Lab::new();
        let mut targets = lab.repository.targets_body();
        targets["targets"]["trusted_root.json"]["hashes"] = json!({"sha256": hash});
        let targets = signed(&targets, &[&lab.repository.targets]);
        let snapshot = signed(&lab.repository.snapshot_body(&targets), &[&lab.repository.online]);
        let timestamp = signed(&lab.repository.timestamp_body(&snapshot), &[&lab.repository.online]);
        lab.repository.files.insert("1.targets.json".into(), targets);
        lab.repository.files.insert("1.snapshot.json".into(), snapshot);
        lab.repository.files.insert("timestamp.json".into(), timestamp);
        lab.server.serve(&lab.repository);
        refused(lab.refresh(&lab.start()), "metadata name a file ");
        let asked = lab.server.asked();
        assert!(asked.iter().all(|path| !path.contains("secret") && !path.contains("targets/")), "{asked:?}");
    }
}

#[test]
fn pitfall_22_names_of_delegated_roles_make_no_files() {
    let mut lab = Lab::new();
    let mut targets = lab.repository.targets_body();
    let role = "../../../evil";
    let key = serde_json::from_slice::<Value>(&lab.repository.pinned(1)).unwrap()["signed"]["keys"]
        [&lab.repository.targets.id()]
        .clone();
    targets["targets"] = json!({});
    targets["delegations"] = json!({
        "keys": {lab.repository.targets.id(): key},
        "roles": [{"name": role, "keyids": [lab.repository.targets.id()], "threshold": 1,
            "terminating": true, "paths": ["trusted_root.json"]}],
    });
    let delegated = signed(&lab.repository.targets_body(), &[&lab.repository.targets]);
    let targets = signed(&targets, &[&lab.repository.targets]);
    let mut snapshot = lab.repository.snapshot_body(&targets);
    snapshot["meta"][format!("{role}.json")] = json!({"version": 1});
    let snapshot = signed(&snapshot, &[&lab.repository.online]);
    let timestamp = signed(&lab.repository.timestamp_body(&snapshot), &[&lab.repository.online]);
    for (name, bytes) in [
        ("1.targets.json", targets),
        ("1.snapshot.json", snapshot),
        ("timestamp.json", timestamp),
        ("1...%2F..%2F..%2Fevil.json", delegated),
    ] {
        lab.repository.files.insert(name.to_owned(), bytes);
    }
    let folder = lab.folder.path().join("mirror");
    write(&folder, &lab.repository.files);
    let node = lab.domain(&format!("file://{}", folder.display()));
    assert_eq!(lab.refresh(&node), expected(first()));
    let kept = lab.record_file();
    assert_eq!(kept.file_name().unwrap().len(), 64 + ".json".len(), "{}", kept.display());
    assert_eq!(lab.root(&lab.domain(&format!("file://{}", folder.display()))), expected(first()));
}

#[test]
fn a_mirror_that_is_down_changes_nothing() {
    let lab = Lab::new();
    lab.refresh(&lab.start()).unwrap();
    lab.server.go_down();
    let node = lab.start();
    assert_eq!(lab.root(&node), expected(first()));
    assert!(lab.refresh(&node).is_err());
    assert!(
        node.trouble().unwrap().starts_with("transport error: http://127.0.0.1:"),
        "{:?}",
        node.trouble()
    );
    assert_eq!(lab.root(&node), expected(first()));
    lab.server.come_up();
    assert_eq!(lab.refresh(&node), expected(first()));
    assert_eq!(node.trouble(), None);
    // Broken in other ways: each is a failed refresh.
    for status in [401, 429, 500, 503] {
        lab.server.misbehave("timestamp.json", Misbehaviour::Status(status));
        refused(lab.refresh(&node), &format!("answered {status}"));
    }
    lab.server.misbehave("timestamp.json", Misbehaviour::Status(404));
    refused(lab.refresh(&node), "timestamp.json not found");
}

#[test]
fn a_redirect_never_leads_to_plain_http() {
    let lab = Lab::new();
    lab.server.misbehave("timestamp.json", Misbehaviour::Redirect("http://192.0.2.1/timestamp.json".into()));
    refused(lab.refresh(&lab.start()), "redirected to plain HTTP");
    lab.server.misbehave("timestamp.json", Misbehaviour::Redirect("/tuf/timestamp.json".into()));
    refused(lab.refresh(&lab.start()), "too many redirects");
}

fn write(folder: &std::path::Path, files: &BTreeMap<String, Vec<u8>>) {
    fs::create_dir_all(folder.join("targets")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
}
