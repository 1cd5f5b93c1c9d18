//! The same policies and images before pullgate and before Kyverno itself.
//!
//! `tests/kyverno/cases.yaml` holds the policies. What the real Kyverno says of each image under each of them
//! is recorded in `tests/kyverno/verdicts.json`, with its version, so that it stays a test where Kyverno
//! cannot be built. A verdict is of a case as it was written: one that has been changed since fails until it is recorded again.
//! `PULLGATE_KYVERNO=/path/to/kyverno` (its command-line tool) records what is new or changed, and everything with another version. Images, keys and
//! certificates are made in each run. Where pullgate differs on purpose, `tests/kyverno/differences.yaml`
//! says what it answers and why; a difference that is not there fails, and so does one that is gone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pullgate::oci::Digest;
use serde_json::{Map, Value, json};

use crate::kit::{
    Node, folder, gate,
    image::Image,
    on_containerd,
    sigstore::{OtherSigstore, PrivateSigstore, Signer, Stamp},
};

/// The containerd is of no matter here: once is enough.
#[test]
fn kyverno_itself_says_the_same() {
    on_containerd("2", "kyverno_itself_says_the_same", compare);
}

const REVIEW: &str = "https://example.com/CodeReview/v1";
const SCAN: &str = "https://example.com/Scan/v1";

/// Images whose attestations the conditions are about.
const REVIEWED: [&str; 2] = ["reviewed", "dev"];
/// Images that rules and policies are about.
const SIGNED_OR_NOT: [&str; 2] = ["a", "unsigned"];

/// All that the cases' words in capitals stand for, and the images.
struct World {
    words: BTreeMap<&'static str, Value>,
    registry: String,
    images: BTreeMap<String, Image>,
}

/// One policy with the images that it is tried on.
struct Case {
    name: String,
    policy: Value,
    images: Vec<String>,
    /// Of what the case is written as, before keys and registry are put in.
    digest: Digest,
}

fn compare(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("kyverno_itself_says_the_same") else { return };
    let world = World::make(node, sigstore);
    let cases = world.cases();
    let recorded = file("verdicts.json");
    if let Some(kyverno) = std::env::var_os("PULLGATE_KYVERNO") {
        record(Path::new(&kyverno), &world, &cases, &recorded);
    }
    let theirs: Value =
        serde_json::from_str(&fs::read_to_string(&recorded).expect("recorded verdicts")).expect("JSON");
    let differences: Map<String, Value> =
        serde_saphyr::from_str(&fs::read_to_string(file("differences.yaml")).expect("differences"))
            .expect("YAML");
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for case in &cases {
        if theirs["verdicts"][&case.name]["of"] != json!(case.digest.to_string()) {
            wrong.push(format!("{}: new, or changed since Kyverno was asked", case.name));
            continue;
        }
        let ours = world.pullgate(case);
        for image in &case.images {
            let theirs =
                theirs["verdicts"][&case.name]["images"][image]["result"].as_str().unwrap_or("not recorded");
            let ours = ours.get(image).map_or("none", String::as_str);
            let place = format!("{}/{image}", case.name);
            let expected =
                differences.get(&place).or_else(|| differences.get(&case.name)).map(|difference| {
                    (difference["pullgate"].as_str().unwrap_or(""), difference["why"].is_string())
                });
            match expected {
                Some((answer, true)) if answer == ours && ours != theirs => seen.push(place),
                Some((answer, true)) if answer == ours => {}
                Some(_) => {
                    wrong.push(format!("{place}: kyverno {theirs}, pullgate {ours}, listed otherwise"))
                }
                None if ours == theirs => {}
                None => wrong.push(format!("{place}: kyverno {theirs}, pullgate {ours}")),
            }
        }
    }
    for name in differences.keys() {
        if !seen.iter().any(|place| place == name || place.starts_with(&format!("{name}/"))) {
            wrong.push(format!("{name}: listed, and there is no such difference"));
        }
    }
    let count: usize = cases.iter().map(|case| case.images.len()).sum();
    eprintln!("{} policies, {count} policies x images, {} listed differences", cases.len(), seen.len());
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kyverno").join(name)
}

/// The predicate of a good review.
fn review() -> Value {
    json!({
        "author": "alice@example.com",
        "repo": {"branch": "main", "type": "git", "uri": "https://git-repo.com/org/app"},
        "reviewers": ["ana@example.com", "bob@example.com"],
        "score": 7, "ratio": 0.5, "passed": true, "null_value": null, "field": "branch",
        "numbers": [1, 2, 3], "none": [], "ttl": "1h30m", "size": "512Mi", "version": "1.2.3",
        "when": "2024-01-01T00:00:00Z", "evil": "{{ repo.branch }}", "image": {"fake": "yes"},
        "packages": [{"name": "zlib", "severity": "LOW"}, {"name": "openssl", "severity": "HIGH", "licence": "MIT"}],
    })
}

/// One from a branch, by somebody else.
fn review_of_dev() -> Value {
    let mut review = review();
    review["author"] = json!("eve@example.com");
    review["repo"]["branch"] = json!("dev");
    review["score"] = json!(3);
    review["passed"] = json!(false);
    review["reviewers"] = json!(["eve@example.com"]);
    review
}

impl World {
    fn make(node: &Node, sigstore: &PrivateSigstore) -> Self {
        let space = node.space();
        let builder = sigstore.certified("uri:https://builder.example/a");
        let mut images = BTreeMap::new();
        for name in [
            "unsigned",
            "a",
            "b",
            "ab",
            "bundle",
            "original",
            "copy",
            "cert",
            "reviewed",
            "dev",
            "reviewedb",
            "reviewedtwice",
            "scanned",
            "signedreviewed",
        ] {
            let image = space.image(name).push("1");
            let attest = |key: &crate::kit::cosign::Key, kind: &str, predicate: &Value| {
                key.attest_predicate("cosign-2", &image, kind, predicate);
            };
            let scan = json!({"scanner": "trivy", "findings": []});
            match name {
                "a" => node.key.sign(&image),
                "b" => node.other_key.sign(&image),
                "ab" => {
                    node.key.sign(&image);
                    node.other_key.sign(&image);
                }
                "bundle" => node.key.sign_bundle(&image),
                "original" => node.key.sign_legacy(&image, &[("sig", "original")], None),
                "copy" => {
                    node.key.sign_legacy(&image, &[("sig", "copy")], None);
                    node.other_key.sign_legacy(&image, &[("sig", "original")], None);
                }
                "cert" => sigstore.sign_certified(Signer::Cosign2, &image, &builder, Stamp::None),
                "reviewed" => attest(node.key, REVIEW, &review()),
                "dev" => attest(node.key, REVIEW, &review_of_dev()),
                "reviewedb" => attest(node.other_key, REVIEW, &review()),
                "reviewedtwice" => {
                    attest(node.key, REVIEW, &review());
                    attest(node.key, REVIEW, &review_of_dev());
                }
                "scanned" => {
                    attest(node.key, REVIEW, &review());
                    attest(node.key, SCAN, &scan);
                }
                "signedreviewed" => {
                    node.key.sign(&image);
                    attest(node.key, REVIEW, &review());
                }
                _ => {}
            }
            images.insert(name.to_owned(), image);
        }
        let unlogged = json!({"rekor": {"ignoreTlog": true, "url": "https://rekor.invalid"}, "ctlog": {"ignoreSCT": true}});
        let keys = |text: &str| {
            let mut keys = unlogged.clone();
            keys["publicKeys"] = json!(text);
            json!({ "keys": keys })
        };
        let (a, b) = (node.key.public.as_str(), node.other_key.public.as_str());
        let words = BTreeMap::from([
            ("KEY_A", json!(a)),
            ("KEY_B", json!(b)),
            ("KEYS_A", keys(a)),
            ("KEYS_B", keys(b)),
            ("KEYS_AB", keys(&format!("{a}{b}"))),
            ("CERT", json!(builder.certificate)),
            ("CHAIN", json!(builder.chain)),
            ("OTHER_CHAIN", json!(OtherSigstore::shared().pem("private-chain"))),
            ("REVIEW", json!(REVIEW)),
            ("SCAN", json!(SCAN)),
        ]);
        let registry = space.repository("");
        Self { words, registry: registry.trim_end_matches('/').to_owned(), images }
    }

    /// Puts in what the words stand for.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.words.get(text.as_str()) {
                Some(value) => value.clone(),
                None => json!(text.replace("REGISTRY", &self.registry)),
            },
            Value::Array(list) => list.iter().map(|value| self.fill(value)).collect(),
            Value::Object(map) => {
                let mut filled = Map::new();
                for (name, value) in map {
                    if name == "KEYS_A_FIELDS" {
                        filled.extend(self.words["KEYS_A"].as_object().expect("an object").clone());
                    } else {
                        filled.insert(name.clone(), self.fill(value));
                    }
                }
                Value::Object(filled)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn policy(&self, entry: &Value, rule: &Value, spec: &Value) -> Value {
        let mut entry = self.fill(entry);
        if entry["imageReferences"].is_null() {
            entry["imageReferences"] = json!([format!("{}/*", self.registry)]);
        }
        let mut whole = json!({"name": "rule", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]}});
        merge(&mut whole, &self.fill(rule));
        whole["verifyImages"] = json!([entry]);
        let mut filled =
            json!({"validationFailureAction": "Enforce", "webhookTimeoutSeconds": 30, "background": false});
        merge(&mut filled, &self.fill(spec));
        filled["rules"] = json!([whole]);
        json!({"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "policy"}, "spec": filled})
    }

    fn cases(&self) -> Vec<Case> {
        let text = fs::read_to_string(file("cases.yaml")).expect("cases");
        let cases: Value = serde_saphyr::from_str(&text).expect("YAML");
        let of = |kind: &str| cases[kind].as_object().expect("an object").clone();
        let none = json!({});
        let key = json!({"attestors": [{"entries": ["KEYS_A"]}]});
        // Upstream refuses Audit together with mutateDigest.
        let unpinned =
            json!({"mutateDigest": false, "verifyDigest": false, "attestors": [{"entries": ["KEYS_A"]}]});
        let some = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let mut list = Vec::new();
        let mut add = |name: String, [entry, rule, spec]: [&Value; 3], images: Vec<String>| {
            let policy = self.policy(entry, rule, spec);
            let digest = Digest::of(json!([entry, rule, spec, images]).to_string().as_bytes());
            list.push(Case { name, policy, images, digest });
        };
        for (name, entry) in of("entries") {
            let images = self.images.keys().cloned().collect();
            add(format!("entries/{name}"), [&entry, &none, &none], images);
        }
        for (name, conditions) in of("conditions") {
            let conditions = match conditions.as_array().map(Vec::as_slice) {
                Some([key @ Value::String(_), operator, value]) => {
                    json!([{"all": [{"key": key, "operator": operator, "value": value}]}])
                }
                _ => conditions,
            };
            let attestation =
                json!({"type": "REVIEW", "attestors": [{"entries": ["KEYS_A"]}], "conditions": conditions});
            let entry = json!({ "attestations": [attestation] });
            add(format!("conditions/{name}"), [&entry, &none, &none], some(REVIEWED));
        }
        for (name, rule) in of("rules") {
            add(format!("rules/{name}"), [&key, &rule, &none], some(SIGNED_OR_NOT));
        }
        for (name, spec) in of("policies") {
            add(format!("policies/{name}"), [&unpinned, &none, &spec], some(SIGNED_OR_NOT));
        }
        list
    }

    /// One pod an image, and the policy, in files.
    fn files(&self, case: &Case) -> [PathBuf; 2] {
        let folder = folder();
        let pods: String = case
            .images
            .iter()
            .map(|name| {
                let signed = if name == "unsigned" { "no" } else { "yes" };
                let pod = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": name, "namespace": "default", "labels": {"signed": signed}, "annotations": {"app": "x"}},
                    "spec": {"containers": [{"name": "main", "image": self.images[name].by_tag()}]},
                });
                format!("---\n{pod}\n")
            })
            .collect();
        let (policy, resources) = (folder.join("policy.yaml"), folder.join("pods.yaml"));
        fs::write(&policy, format!("{:#}\n", case.policy)).expect("a policy file");
        fs::write(&resources, pods).expect("a resource file");
        [policy, resources]
    }

    /// What pullgate says of each image.
    fn pullgate(&self, case: &Case) -> BTreeMap<String, String> {
        let [policy, resources] = self.files(case);
        let mut command = Command::new(gate::binary());
        command.args(["apply", "-o", "json", "-p"]).arg(policy).arg("-r").arg(resources);
        let output = command.env_remove("DOCKER_CONFIG").output().expect("pullgate");
        let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else {
            let invalid = format!("invalid: {}", String::from_utf8_lossy(&output.stderr).trim());
            return case.images.iter().map(|image| (image.clone(), invalid.clone())).collect();
        };
        let resources = report["resources"].as_array().into_iter().flatten();
        let results = resources.flat_map(|resource| {
            let name = resource["name"].as_str().unwrap_or_default();
            let results = resource["results"].as_array().into_iter().flatten();
            results.map(|result| (name.to_owned(), result["status"].as_str().unwrap_or_default().to_owned()))
        });
        worst(results)
    }
}

/// Fields of `from` over those of `into`; a null takes a field away.
fn merge(into: &mut Value, from: &Value) {
    for (name, value) in from.as_object().into_iter().flatten() {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(name);
        } else {
            into[name] = value.clone();
        }
    }
}

/// The one answer that several results of a resource come to.
fn worst(results: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    const ORDER: [&str; 5] = ["skip", "pass", "warn", "error", "fail"];
    let rank = |result: &str| ORDER.iter().position(|known| *known == result);
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (resource, result) in results {
        let known = found.entry(resource).or_insert_with(|| result.clone());
        if rank(&result) > rank(known) {
            *known = result;
        }
    }
    found
}

/// Asks Kyverno about everything and writes down what it says.
fn record(kyverno: &Path, world: &World, cases: &[Case], to: &Path) {
    let run = |arguments: &[&std::ffi::OsStr]| {
        let home = folder();
        let mut command = Command::new(kyverno);
        command.args(arguments).env("HOME", &home).env("TUF_ROOT", &home).stderr(Stdio::piped());
        command.output().expect("kyverno")
    };
    let version = run(&["version".as_ref()]);
    let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
    let known = fs::read_to_string(to).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let known = known.filter(|known| known["kyverno"] == json!(version));
    let mut verdicts = known.and_then(|known| known["verdicts"].as_object().cloned()).unwrap_or_default();
    verdicts.retain(|name, verdict| {
        let of = |case: &Case| case.name == *name && verdict["of"] == json!(case.digest.to_string());
        cases.iter().any(of)
    });
    for case in cases.iter().filter(|case| !verdicts.contains_key(&case.name)).collect::<Vec<_>>() {
        let [policy, resources] = world.files(case);
        let output = run(&[
            "apply".as_ref(),
            policy.as_ref(),
            "-r".as_ref(),
            resources.as_ref(),
            "--registry".as_ref(),
            "--policy-report".as_ref(),
            "--output-format".as_ref(),
            "json".as_ref(),
        ]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report =
            text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(Value::is_object));
        let mut of_case = Map::new();
        let Some(report) = report else {
            let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
            // Nothing at all is said where no rule is about any of the resources.
            let answer = match said.trim() {
                "" => json!({ "result": "none", "messages": [] }),
                said => json!({ "result": "invalid", "messages": [world.forget(said)] }),
            };
            for image in &case.images {
                of_case.insert(image.clone(), answer.clone());
            }
            verdicts.insert(case.name.clone(), json!({ "of": case.digest.to_string(), "images": of_case }));
            continue;
        };
        let results: Vec<&Value> = report["results"].as_array().into_iter().flatten().collect();
        let name = |result: &Value| result["resources"][0]["name"].as_str().unwrap_or_default().to_owned();
        let worst = worst(
            results
                .iter()
                .map(|result| (name(result), result["result"].as_str().unwrap_or_default().to_owned())),
        );
        for image in &case.images {
            let mut messages: Vec<String> = results
                .iter()
                .filter(|result| name(result) == *image)
                .map(|result| {
                    let message = result["message"].as_str().unwrap_or_default();
                    format!("{}: {}", result["result"].as_str().unwrap_or_default(), world.forget(message))
                })
                .collect();
            messages.sort();
            messages.dedup();
            let result = worst.get(image).map_or("none", String::as_str);
            of_case.insert(image.clone(), json!({ "result": result, "messages": messages }));
        }
        verdicts.insert(case.name.clone(), json!({ "of": case.digest.to_string(), "images": of_case }));
    }
    let record = json!({ "kyverno": version, "verdicts": verdicts });
    fs::write(to, format!("{record:#}\n")).expect("the record");
}

impl World {
    /// A message without what differs from run to run.
    fn forget(&self, message: &str) -> String {
        let mut message = message.replace(&self.registry, "REGISTRY");
        for image in self.images.values() {
            message = message.replace(&image.digest, "sha256:…");
        }
        message.chars().take(400).collect()
    }
}
