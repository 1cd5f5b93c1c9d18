//! Evidence on its way between nodes: `pullgate cache export`, `import` and `prewarm` against real registries
//! and signatures, through the daemon and without one, and files that somebody changed on the way. And what an
//! administrator sees of the cache, or breaks in it.

use std::fs;
use std::path::Path;
use std::process::Command;

use pullgate::oci::Digest;
use serde_json::{Value, json};

use crate::kit::{
    self, Node, Space, folder,
    gate::{Gate, binary},
    image::Image,
    policy::Policy,
    registry::Registry,
};

kit::on_each_containerd!(
    o1_evidence_of_every_kind_serves_another_node_while_the_registry_is_away,
    c6_evidence_moves_without_daemons,
    c6_a_hostile_file_brings_nothing_in,
    o4_images_are_verified_before_anything_pulls_them,
    what_is_kept_is_listed_shown_and_purged_with_and_without_a_daemon,
    c4_a_start_on_damaged_files_costs_verifications_alone,
);

const SCAN: &str = "https://scan.test/v1";

/// Three images, signed and attested in the ways of cosign 2 and 3, and policies that ask for that.
struct Scene {
    registry: Registry,
    images: [Image; 3],
    policies: [Policy; 3],
}

impl Scene {
    fn new(node: &Node) -> Self {
        let registry = Registry::olareg();
        node.containerd.knows(&registry);
        let space = Space::on(&registry);
        let images = ["tagged", "bundled", "attested"].map(|name| space.image(name).push("1"));
        let [tagged, bundled, attested] = &images;
        node.key.sign(tagged);
        node.key.sign_bundle(bundled);
        node.key.attest("cosign-2", attested, SCAN, None);
        let of = |name: &str| Policy::new(name, format!("{}:*", space.repository(name)));
        let by_key = json!({"keys": {"publicKeys": node.key.public, "rekor": {"ignoreTlog": true}}});
        let policies = [
            of("tagged").key(node.key),
            of("bundled").key(node.key),
            of("attested").attestation(SCAN, &by_key),
        ];
        Self { registry, images, policies }
    }

    /// Another image in the repository of the first.
    fn unsigned(&self) -> Image {
        let path = self.images[0].repository.split_once('/').expect("host/repository").1;
        self.registry.image(path).push("unsigned")
    }

    /// A gate that pulled all of them.
    fn pulled(&self, node: &Node) -> Gate {
        let gate = Gate::start(&node.containerd, &self.policies);
        for image in &self.images {
            assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
        }
        gate
    }
}

/// Runs `pullgate cache …` and gives what it printed.
fn cache(gate: &Gate, arguments: &[&str], code: i32) -> String {
    let output = gate.command(&[&["cache"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text") + &String::from_utf8(output.stderr).expect("text")
}

fn cache_json(gate: &Gate, arguments: &[&str], code: i32) -> Value {
    let text = cache(gate, &[arguments, &["-o", "json"]].concat(), code);
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(json["schemaVersion"], 1);
    json
}

/// The result of each image of an import.
fn results(import: &Value) -> Vec<&str> {
    let images = import["images"].as_array().expect("images").iter();
    images.map(|row| row["result"].as_str().expect("a word")).collect()
}

fn o1_evidence_of_every_kind_serves_another_node_while_the_registry_is_away(node: &Node) {
    let scene = Scene::new(node);
    let file = folder().join("evidence.jsonl");
    let file = file.to_str().expect("a path");
    let exporter = scene.pulled(node);
    assert!(cache(&exporter, &["export", file], 0).starts_with("3 images, "));
    drop(exporter);
    scene.registry.stop();

    // Another node that has the images, without a registry.
    let gate = Gate::start(&node.containerd, &scene.policies);
    for image in &scene.images {
        assert_ne!(
            gate.cri().image_status(image.by_tag()).ok().flatten().map(|image| image.id),
            Some(image.id.clone())
        );
    }
    let import = cache_json(&gate, &["import", file], 0);
    assert_eq!(import["counts"], json!({"kept": 3}), "{import}");
    let listed = cache_json(&gate, &["list"], 0);
    assert!(listed["items"].as_array().is_some_and(|items| items.len() == 3), "{listed}");
    for image in &scene.images {
        let shown = kit::until("an image that was imported", || {
            gate.cri().image_status(image.by_tag()).ok().flatten()
        });
        assert_eq!(shown.id, image.id);
        assert!(cache(&gate, &["prewarm", &image.by_digest()], 0).contains(": allowed (stale) sha256:"));
        // Which digest the tag is, no file says.
        let unknown = cache(&gate, &["prewarm", &image.by_tag()], 3);
        assert!(unknown.contains(": undecided: "), "{unknown}");
    }
    assert_eq!(cache_json(&gate, &["import", file], 0)["counts"], json!({"known": 3}));

    // The registry is back, without one of the signatures: its word counts.
    gate.stop();
    scene.registry.start_again();
    let [tagged, bundled, _] = &scene.images;
    let signature = format!("sha256-{}.sig", tagged.digest.strip_prefix("sha256:").expect("a digest"));
    scene.registry.move_tag(&signature, &scene.unsigned());
    gate.start_again();
    assert!(cache(&gate, &["prewarm", &tagged.by_digest()], 1).contains("denied: tagged/signed: "));
    assert!(cache(&gate, &["prewarm", &bundled.by_digest()], 0).contains(": allowed ("));
}

fn c6_evidence_moves_without_daemons(node: &Node) {
    let scene = Scene::new(node);
    let file = folder().join("evidence.jsonl");
    let file = file.to_str().expect("a path");
    let exporter = scene.pulled(node);
    assert_eq!(exporter.stop().code(), Some(0));
    let [tagged, ..] = &scene.images;
    let one = cache_json(&exporter, &["export", file, "--image", &tagged.repository], 0);
    assert_eq!((&one["images"], &one["leftOut"]), (&json!(1), &json!([])));
    assert_eq!(cache_json(&exporter, &["export", file], 0)["images"], 3);
    assert!(cache(&exporter, &["export", file, "--image", "not an image"], 2).contains("not an image"));
    let nowhere = cache(&exporter, &["export", "/nonexistent/file"], 3);
    assert!(nowhere.contains("/nonexistent/file cannot be written: "), "{nowhere}");
    exporter.start_again();

    // A node that asks for another key takes two of three, and says why not the third.
    let stricter = [scene.policies[0].clone(), scene.policies[2].clone()];
    let stricter = [
        &stricter[..],
        &[Policy::new("bundled", format!("{}:*", scene.images[1].repository)).key(node.other_key)],
    ]
    .concat();
    scene.registry.stop();
    let gate = Gate::start(&node.containerd, &stricter);
    gate.status_json();
    gate.stop();
    let import = cache_json(&gate, &["import", file], 1);
    assert_eq!(import["counts"], json!({"denied": 1, "kept": 2}), "{import}");
    let text = cache(&gate, &["import", file], 1);
    let bundled = scene.images[1].by_digest();
    let line = format!("{bundled}: not kept: denied: bundled/signed: invalid signature");
    assert!(text.contains(&line) && text.contains("2 here already"), "{text}");
    gate.start_again();
    for (image, kept) in scene.images.iter().zip([true, false, true]) {
        assert_eq!(
            cache(&gate, &["prewarm", &image.by_digest()], if kept { 0 } else { 3 }).contains("(stale)"),
            kept
        );
    }
}

fn c6_a_hostile_file_brings_nothing_in(node: &Node) {
    let scene = Scene::new(node);
    let path = folder().join("evidence.jsonl");
    let file = path.to_str().expect("a path");
    let exporter = scene.pulled(node);
    cache(&exporter, &["export", file], 0);
    drop(exporter);
    let whole = fs::read_to_string(&path).expect("a file");
    scene.registry.stop();
    let gate = Gate::start(&node.containerd, &scene.policies);
    let lines: Vec<&str> = whole.lines().collect();
    let [head, images @ .., _] = lines.as_slice() else { panic!("{whole}") };
    let refused = |bytes: &[u8], words: &str| {
        fs::write(&path, bytes).expect("a file");
        let said = cache(&gate, &["import", file], 2);
        assert!(said.contains(words), "{said}");
    };
    refused(&whole.as_bytes()[..whole.len() / 2], "is cut off or damaged");
    let mut flipped = whole.clone().into_bytes();
    let at = whole.find("\"pieces\":[\"").expect("pieces") + 40;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    refused(&flipped, "is cut off or damaged");
    refused(whole.replace("\"pullgateCache\":1", "\"pullgateCache\":7").as_bytes(), "has version 7");
    refused(b"", "is not a file of `pullgate cache export`");
    refused(
        format!("{head}\n{{\"images\":999999999999,\"sha256\":\"00\"}}\n").as_bytes(),
        "is cut off or damaged",
    );
    let verdict = images[0].replace("\"tags\"", "\"verdict\":\"allowed\",\"tags\"");
    refused(sealed(head, &[verdict]).as_bytes(), "line 2 is not an image with its evidence");

    // The evidence of each image under the name of the next, and times to come.
    let parsed: Vec<Value> = images.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let swapped: Vec<String> = parsed
        .iter()
        .enumerate()
        .map(|(at, image)| {
            let mut image = image.clone();
            image["pieces"] = parsed[(at + 1) % parsed.len()]["pieces"].clone();
            image["fetchedAt"] = json!(u64::MAX);
            image.to_string()
        })
        .collect();
    fs::write(&path, sealed(head, &swapped)).expect("a file");
    let import = cache_json(&gate, &["import", file], 1);
    assert_eq!(results(&import), ["denied"; 3], "{import}");
    assert_eq!(cache_json(&gate, &["list"], 0)["items"], json!([]));
    assert!(gate.log().lines().all(|line| !line.contains("panicked")));
}

/// A file of these lines, with the checksum that whoever writes it can make.
fn sealed(head: &str, images: &[String]) -> String {
    let body: String =
        [head].into_iter().chain(images.iter().map(String::as_str)).map(|line| format!("{line}\n")).collect();
    let sum = Digest::of(body.as_bytes());
    format!("{body}{{\"images\":{},\"sha256\":\"{}\"}}\n", images.len(), sum.hex())
}

fn o4_images_are_verified_before_anything_pulls_them(node: &Node) {
    let scene = Scene::new(node);
    let [tagged, bundled, attested] = &scene.images;
    let gate = Gate::start(&node.containerd, &scene.policies);
    let list = folder().join("images");
    let text = format!(
        "# what the node will run\n{}\n\n{} # twice\n{}\n",
        tagged.by_tag(),
        bundled.by_tag(),
        bundled.by_tag()
    );
    fs::write(&list, text).expect("a list");
    let warmed = cache_json(&gate, &["prewarm", &attested.by_tag(), "-f", list.to_str().expect("a path")], 0);
    let rows = warmed["images"].as_array().expect("images");
    let names: Vec<_> = rows.iter().map(|row| row["image"].as_str().expect("a name")).collect();
    assert_eq!(names, [attested.by_tag(), tagged.by_tag(), bundled.by_tag()]);
    assert!(rows.iter().all(|row| row["verdict"] == "allowed" && row["source"] == "verified"), "{warmed}");
    let listed = cache_json(&gate, &["list"], 0);
    let sources: Vec<_> =
        listed["items"].as_array().expect("rows").iter().map(|row| &row["source"]).collect();
    assert_eq!(sources, ["evidence"; 3], "nothing is admitted");
    let unsigned = scene.unsigned().by_tag();
    let denied = cache(&gate, &["prewarm", &tagged.by_digest(), &unsigned], 1);
    assert!(denied.contains(": allowed (fresh) "), "{denied}");
    assert!(denied.contains(&format!("{unsigned}: denied: tagged/signed: signature not found")), "{denied}");
    assert!(cache(&gate, &["prewarm", "no image"], 2).contains("no image"));

    // The pull needs no look at signatures any more.
    let before = gate.metric("pullgate_verifications_total");
    for image in &scene.images {
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    }
    assert!((gate.metric("pullgate_verifications_total") - before).abs() < f64::EPSILON);

    // The same before the daemon ever ran, with a tag whose registry is away by then.
    gate.stop();
    assert!(cache(&gate, &["purge"], 0).contains("3 images forgotten"));
    let names = scene.images.each_ref().map(Image::by_tag);
    let names: Vec<&str> = ["prewarm"].into_iter().chain(names.iter().map(String::as_str)).collect();
    assert_eq!(cache(&gate, &names, 0).matches(": allowed (verified) ").count(), 3);
    scene.registry.stop();
    gate.start_again();
    assert_eq!(cache(&gate, &names, 0).matches(": allowed (fresh) ").count(), 3);
}

fn what_is_kept_is_listed_shown_and_purged_with_and_without_a_daemon(node: &Node) {
    let scene = Scene::new(node);
    let gate = scene.pulled(node);
    let [tagged, bundled, attested] = &scene.images;
    let list = |images: &[&Image]| {
        let text = cache(&gate, &["list"], 0);
        for image in images {
            let start = format!("{}  verified  ", image.by_digest());
            let age = text.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix(" s"));
            assert!(age.is_some_and(|age| age.parse::<u64>().is_ok()), "{start}: {text}");
        }
        assert_eq!(text.lines().count(), images.len(), "{text}");
    };
    let show = |image: &Image| {
        let shown = cache_json(&gate, &["show", &image.by_digest()], 0);
        for (name, value) in [
            ("image", json!(image.by_digest())),
            ("source", json!("verified")),
            ("imageId", json!(image.id)),
            ("evidence", json!(1)),
            ("evidenceOrigin", json!("fetched")),
        ] {
            assert_eq!(shown[name], value, "{name}: {shown}");
        }
        assert!(
            ["evidenceBytes", "admittedAt", "fetchedAt"].iter().all(|name| shown[name].is_u64()),
            "{shown}"
        );
        let text = cache(&gate, &["show", &image.by_digest()], 0);
        let names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        let all = "admittedAt evidence evidenceBytes evidenceOrigin fetchedAt image imageId snapshot source";
        assert_eq!(names.join(" "), all, "{text}");
        assert!(text.contains(&format!("image          {}\n", image.by_digest())), "{text}");
    };
    let purge = |image: &Image| {
        let said = cache(&gate, &["purge", &image.by_digest()], 0);
        assert!(said.contains("1 images forgotten"), "{said}");
    };
    list(&[tagged, bundled, attested]);
    scene.images.iter().for_each(show);
    // The daemon looks at what is present again: it may be back by now, and was never pulled.
    purge(tagged);
    let known = gate.command(&["cache", "show", &tagged.by_digest()]);
    assert!(!String::from_utf8_lossy(&known.stdout).contains("imageId"), "{known:?}");
    assert_shows_its_progress_on_a_terminal_alone(&gate);
    gate.stop();
    show(attested);
    purge(bundled);
    let said = cache(&gate, &["show", &bundled.by_digest()], 2);
    assert_eq!(said, format!("pullgate: {} is not in the cache\n", bundled.by_digest()));
    gate.start_again();
    assert_eq!(gate.cri().pull(bundled.by_tag()).expect(), bundled.id);
    show(bundled);
}

fn assert_shows_its_progress_on_a_terminal_alone(gate: &Gate) {
    let (file, config) = (gate.folder().join("evidence"), gate.folder().join("config.yaml"));
    let arguments =
        ["cache", "export", &file.display().to_string(), "--config", &config.display().to_string()]
            .map(str::to_owned);
    let plain = Command::new(binary()).args(&arguments).output().expect("pullgate");
    assert!(plain.status.success() && plain.stderr.is_empty(), "{plain:?}");
    assert!(!plain.stdout.contains(&0x1b) && !plain.stdout.contains(&b'\r'), "{plain:?}");
    let line = format!("{} {}", binary().display(), arguments.join(" "));
    let terminal = Command::new("script").args(["-qec", &line, "/dev/null"]).output().expect("script");
    let shown = String::from_utf8_lossy(&terminal.stdout).into_owned();
    assert!(terminal.status.success() && shown.contains("exporting "), "{shown}");
}

/// What happens to a file of the cache, all of which are beside or in its folder.
type Damage = fn(&Path);

fn c4_a_start_on_damaged_files_costs_verifications_alone(node: &Node) {
    let scene = Scene::new(node);
    let gate = scene.pulled(node);
    let unsigned = scene.unsigned();
    let damages: [(&str, Damage); 5] = [
        ("a folder that is a file", |cache| {
            fs::remove_dir_all(cache).expect("a folder");
            fs::write(cache, "not a database").expect("a file");
        }),
        ("an export with another byte", |cache| {
            let export = cache.with_extension("export");
            let mut bytes = fs::read(&export).expect("an export");
            *bytes.last_mut().expect("a byte") ^= 1;
            fs::write(export, bytes).expect("a file");
        }),
        ("half a database without its export", |cache| {
            fs::remove_file(cache.with_extension("export")).expect("an export");
            let file = fs::OpenOptions::new().write(true).open(cache.join("db")).expect("a database");
            let length = file.metadata().expect("a file").len();
            file.set_len(length / 2).expect("a file");
        }),
        ("no mark", |cache| fs::remove_file(cache.with_extension("mark")).expect("a mark")),
        ("nothing", |cache| {
            fs::remove_file(cache.with_extension("export")).expect("an export");
            fs::remove_dir_all(cache).expect("a folder");
        }),
    ];
    for (name, damage) in damages {
        gate.stop();
        damage(&gate.cache());
        gate.start_again();
        kit::until(name, || (gate.status_json()["cache"]["state"] == "open").then_some(()));
        for image in &scene.images {
            assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "{name}");
        }
        let refusal = gate.cri().pull(unsigned.by_tag()).expect_refusal();
        assert!(refusal.message().starts_with("SignatureValidationFailed"), "{name}: {refusal}");
        assert_eq!(gate.cri().image_status(unsigned.by_tag()).expect("an answer"), None, "{name}");
    }
}
