//! Rules that read images in registries: what is asked, as whom, and what comes of no answer.

use serde_json::{Value, json};

use super::kit::{DAY, Node, Setup, advance, away, basic, hangs_up, status};
use super::standing::policy;
use crate::admission::Background;
use crate::oci::{Digest, media_type};
use crate::policy::evaluate::{Forward, Source};
use crate::registry::tests::server::{Reply, Seen, Server};

/// Documents by the end of the path under which they are asked for.
#[derive(Clone, Default)]
struct Shelf(Vec<(String, &'static str, Vec<u8>)>);

impl Shelf {
    /// Puts an image with this configuration under `repository:v1`.
    fn image(self, repository: &str, configuration: &Value) -> Self {
        let configuration = configuration.to_string().into_bytes();
        let size = configuration.len();
        self.sized(repository, configuration, size)
    }

    fn sized(mut self, repository: &str, configuration: Vec<u8>, size: usize) -> Self {
        let digest = Digest::of(&configuration);
        let config = json!({ "mediaType": "c", "digest": digest, "size": size });
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string().into_bytes();
        let own = Digest::of(&manifest);
        self.0.push((format!("/{repository}/blobs/{digest}"), "", configuration));
        self.0.push((format!("/{repository}/manifests/v1"), media_type::OCI_MANIFEST, manifest.clone()));
        self.0.push((format!("/{repository}/manifests/{own}"), media_type::OCI_MANIFEST, manifest));
        self
    }

    /// Puts an index of manifests under `repository:v1`: each what it runs on, its type and its bytes.
    fn index(mut self, repository: &str, children: &[(&str, &'static str, &[u8])]) -> Self {
        let mut listed = Vec::new();
        for (architecture, media_type, bytes) in children {
            let digest = Digest::of(bytes);
            let platform = json!({ "os": "linux", "architecture": architecture });
            listed.push(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len(), "platform": platform }));
            self.0.push((format!("/{repository}/manifests/{digest}"), media_type, bytes.to_vec()));
        }
        let index = json!({ "schemaVersion": 2, "manifests": listed }).to_string().into_bytes();
        self.0.push((
            format!("/{repository}/manifests/{}", Digest::of(&index)),
            media_type::OCI_INDEX,
            index.clone(),
        ));
        self.0.push((format!("/{repository}/manifests/v1"), media_type::OCI_INDEX, index));
        self
    }

    fn answer(&self, seen: &Seen) -> Option<Reply> {
        let (_, media_type, bytes) = self.0.iter().find(|(end, _, _)| seen.line.ends_with(end.as_str()))?;
        Some(if media_type.is_empty() {
            Reply::new(200, bytes.clone())
        } else {
            Reply::manifest(media_type, bytes.clone())
        })
    }
}

/// What the configuration of the kit's image is.
fn empty() -> Shelf {
    Shelf(vec![(format!("/app/blobs/{}", Digest::of(b"{}")), "", b"{}".to_vec())])
}

/// The rule counts for images that run as `user`; `image` says which are looked at.
fn as_user(node: &Node, image: &str, user: &str) -> String {
    let data = json!({ "name": "data", "imageRegistry": { "reference": image } });
    let key = "{{ data.configData.config.User || 'nobody' }}";
    let condition = json!({ "key": key, "operator": "Equals", "value": user });
    policy(node, &json!({ "context": [data], "preconditions": { "all": [condition] } }))
}

/// The judged image.
const OWN: &str = "{{ image.reference }}";

#[tokio::test]
async fn pitfall_15_the_judged_image_is_read_as_what_is_pulled() {
    let node = Node::start(Setup::default()).await;
    node.enforce(&as_user(&node, OWN, "root"));
    // From the second question on the tag is an image that runs as root.
    let (mut asked, shelf) = (0, empty().image("app", &json!({ "config": { "User": "root" } })));
    let asked = std::sync::Mutex::new(move |seen: &Seen| {
        asked += usize::from(seen.line.ends_with("/manifests/v1"));
        asked > 1 || seen.line.contains("/blobs/")
    });
    node.answers(move |seen| if asked.lock().unwrap()(seen) { shelf.answer(seen) } else { None });
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!((admitted.permit.source(), admitted.permit.digest()), (Source::Skipped, Some(node.image)));
    // The rule lets pass what it read, not what the tag means by now.
    assert_eq!(admitted.permit.forward(), &Forward::Pinned(node.pinned().text().to_owned()));
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    let denied = format!("SignatureValidationFailed: {}: p/signed: ", node.tagged().text());
    assert!(refusal.message.starts_with(&denied), "{}", refusal.message);
}

#[tokio::test]
async fn o2_what_a_rule_let_pass_is_not_the_digest_of_a_tag() {
    let node = Node::start(Setup::default()).await;
    node.enforce(&as_user(&node, OWN, "root"));
    let shelf = empty();
    node.answers(move |seen| shelf.answer(seen));
    let admitted = node.pull(node.tagged()).await.unwrap();
    assert_eq!((admitted.permit.source(), admitted.permit.digest()), (Source::Skipped, Some(node.image)));
    assert_eq!(admitted.permit.forward(), &Forward::Pinned(node.pinned().text().to_owned()));
    assert_eq!(node.gate.store().tag(&node.tagged().normalised_form()), None);
}

#[tokio::test]
async fn a_rule_that_cannot_read_an_image_is_undecided_with_the_cause() {
    let node = Node::start(Setup { idle: Some(std::time::Duration::from_secs(2)), ..Setup::default() }).await;
    let (host, tagged) = (node.host(), node.tagged());
    let other = format!("{host}/other:v1");
    let reading = "p/signed: failed to load context: failed to fetch image descriptor:";
    let unresolved = |cause: &str| {
        format!("SignatureValidationFailed: {}: {reading} {other}, error: {cause}", tagged.text())
    };
    let unavailable = |cause: &str| format!("RegistryUnavailable: {}: {reading} {cause}", tagged.text());
    let of_size = |size| Shelf::default().sized("other", b"{}".to_vec(), size);
    let (platform, nested) = (super::super::images::platform(), br#"{"schemaVersion":2,"manifests":[]}"#);
    let here = platform.architecture.as_str();
    let twice = br#"{"config":{"User":"1","user":"root"}}"#;
    let name = format!("configuration {} of {host}/other:", Digest::of(b"{}"));
    for (shelf, first, expected) in [
        (Shelf::default(), None, unresolved(&format!("{other}: registry answered 404"))),
        (of_size(2), Some(("/manifests/", 500)), unavailable(&format!("{other}: registry answered 500"))),
        (
            of_size(2),
            Some(("/manifests/", 403)),
            format!("{}: {reading} {other}: registry answered 403", tagged.text()),
        ),
        (
            of_size(2),
            Some(("/blobs/", 404)),
            unavailable(&format!("{name} registry lists what it does not have")),
        ),
        (of_size(2), Some(("/blobs/", 0)), unavailable(&name)),
        (
            of_size(1 << 21),
            None,
            unavailable(&format!("{name} it is larger than the 1048576 bytes that are read")),
        ),
        (
            Shelf::default().sized("other", twice.to_vec(), twice.len()),
            None,
            unresolved("configuration cannot be read: an object in the JSON repeats a key"),
        ),
        (
            Shelf::default().index("other", &[("none", media_type::OCI_MANIFEST, b"")]),
            None,
            unresolved(&format!("the index has no manifest for linux/{here}")),
        ),
        (
            Shelf::default().index("other", &[(here, media_type::OCI_MANIFEST, b""), ("", "", b"")]),
            None,
            unresolved(&format!("the index has 2 manifests that may be the one for linux/{here}")),
        ),
        (
            Shelf::default().index("other", &[(here, media_type::OCI_INDEX, nested)]),
            None,
            unresolved("the index holds an index"),
        ),
    ] {
        node.enforce(&as_user(&node, &other, "root"));
        node.answers(move |seen| match first {
            Some((path, code)) if seen.line.contains(&format!("/other{path}")) => {
                Some(if code == 0 { hangs_up() } else { status(code) })
            }
            Some(_) | None => shelf.answer(seen),
        });
        let refusal = node.pull(tagged.clone()).await.unwrap_err();
        assert!(refusal.message.starts_with(&expected), "{expected}\n{}", refusal.message);
    }
}

#[tokio::test]
async fn credentials_of_a_pull_are_for_the_images_of_its_registry_alone() {
    let shelf = Shelf::default().image("base", &json!({}));
    let there = shelf.clone();
    let elsewhere = Server::start(move |seen| there.answer(seen).unwrap_or_else(|| status(404))).await;
    let node = Node::start(Setup::default()).await;
    for host in [elsewhere.address.to_string(), node.host()] {
        node.enforce(&as_user(&node, &format!("{host}/base:v1"), "root"));
        let shelf = shelf.clone();
        node.answers(move |seen| {
            let asked = seen.line.contains("/base/") && seen.authorization.is_none();
            if asked {
                return Some(status(401).header("www-authenticate", "Basic realm=\"r\""));
            }
            shelf.answer(seen)
        });
        let admitted = node.pull_as(node.tagged(), basic("ada", "secret")).await;
        assert_eq!(admitted.unwrap().permit.source(), Source::Skipped, "{host}");
    }
    let seen = elsewhere.seen();
    assert!(seen.len() >= 3 && seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
}

#[tokio::test]
async fn d4_ignore_lets_pass_only_where_the_images_own_registry_is_away() {
    let node = Node::start(Setup { idle: Some(std::time::Duration::from_secs(2)), ..Setup::default() }).await;
    let ignore = |image: &str| {
        as_user(&node, image, "root").replace(r#""rules""#, r#""failurePolicy":"Ignore","rules""#)
    };
    node.answers(|seen| empty().answer(seen));
    node.enforce(&ignore(&format!("{}/base:v1", away())));
    for reference in [node.tagged(), node.pinned()] {
        let refusal = node.pull(reference).await.unwrap_err();
        assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
    }
    // It answered with the manifest, and then no more.
    node.enforce(&ignore(OWN));
    for silent in [false, true] {
        let answer = move || if silent { hangs_up() } else { status(503) };
        node.answers(move |seen| seen.line.contains("/blobs/").then(answer));
        let refusal = node.pull(node.pinned()).await.unwrap_err();
        assert!(refusal.message.starts_with("RegistryUnavailable: "), "{silent}: {}", refusal.message);
    }
    // The image was read, and then nobody said how it is signed.
    node.enforce(&ignore(OWN).replace("root", "nobody"));
    let read = std::sync::atomic::AtomicBool::new(false);
    node.answers(move |seen| {
        let before = read.fetch_or(seen.line.contains("/blobs/"), std::sync::atomic::Ordering::SeqCst);
        if before { Some(hangs_up()) } else { empty().answer(seen) }
    });
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);

    node.stop();
    for reference in [node.tagged(), node.pinned()] {
        assert_eq!(node.pull(reference).await.unwrap().permit.source(), Source::Ignored);
    }
}

#[tokio::test]
async fn o1_stale_evidence_serves_no_pull_in_which_the_image_was_read() {
    let node = Node::start(Setup { idle: Some(std::time::Duration::from_secs(2)), ..Setup::default() }).await;
    node.answers(|seen| empty().answer(seen));
    node.sign(&[(&node.key, json!({}))]);
    let data = json!({ "name": "data", "imageRegistry": { "reference": OWN } });
    let key = "{{ data.configData.config.User || 'nobody' }}";
    let condition = json!({ "key": key, "operator": "Equals", "value": "nobody" });
    let entry = json!({
        "imageReferences": [format!("{}/*", node.host())], "attestors": node.attestors(&node.key, json!({})),
    });
    let rule = json!({
        "name": "signed", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] },
        "context": [data], "preconditions": { "all": [condition] }, "verifyImages": [entry],
    });
    node.enforce(&node.policy(&[], json!({ "rules": [rule] })));
    assert_eq!(node.pull(node.pinned()).await.unwrap().permit.source(), Source::Verified);
    advance(DAY);
    let read = std::sync::atomic::AtomicBool::new(false);
    node.answers(move |seen| {
        let before = read.fetch_or(seen.line.contains("/blobs/"), std::sync::atomic::Ordering::SeqCst);
        if before { Some(hangs_up()) } else { empty().answer(seen) }
    });
    let refusal = node.pull(node.pinned()).await.unwrap_err();
    assert!(refusal.message.starts_with("RegistryUnavailable: "), "{}", refusal.message);
}

#[tokio::test]
async fn o2_a_rule_that_reads_the_image_is_undecided_while_its_registry_is_silent() {
    let node = Node::start(Setup { idle: Some(std::time::Duration::from_secs(2)), ..Setup::default() }).await;
    node.answers(|seen| empty().answer(seen));
    node.enforce(&node.keyed());
    node.sign(&[(&node.key, json!({}))]);
    node.pull(node.tagged()).await.unwrap();
    node.enforce(&as_user(&node, OWN, "root"));
    // The tag is known from then; who does not answer is waited for once.
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let heard = std::sync::Arc::clone(&asked);
    node.answers(move |_| {
        heard.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Some(hangs_up())
    });
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    let words = format!("RegistryUnavailable: {}: p/signed: failed to load context: ", node.tagged().text());
    assert!(refusal.message.starts_with(&words), "{}", refusal.message);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn s6_the_background_admits_nothing_where_a_rule_reads_images() {
    let node = Node::start(Setup::default()).await;
    node.answers(|seen| empty().answer(seen));
    for (user, background) in [("root", Background::Fine), ("nobody", Background::Denied)] {
        node.enforce(&as_user(&node, OWN, user));
        assert_eq!(node.look().await, background, "{user}");
        assert!(node.admission().is_none(), "{user}");
    }
    // What a pull was let have stays while nothing says for certain that it may not.
    node.enforce(&as_user(&node, OWN, "root"));
    node.pull(node.tagged()).await.unwrap();
    node.answers(|_| Some(status(500)));
    assert_eq!(node.look().await, Background::Fine);
    assert_eq!(node.admission().unwrap().source, Source::Skipped.word());
}

#[tokio::test]
async fn no_more_images_are_asked_for_than_a_few() {
    let node = Node::start(Setup::default()).await;
    let host = node.host();
    let named = |number: usize| format!("base{number}");
    let context: Vec<Value> = (0..20)
        .map(|number| {
            let image = match number {
                0 => format!("{host}/base0:v1"),
                _ => format!("{{{{ {}.configData.next }}}}", named(number - 1)),
            };
            json!({ "name": named(number), "imageRegistry": { "reference": image } })
        })
        .collect();
    let condition = json!({ "key": "{{ base19.configData.next }}", "operator": "Equals", "value": "x" });
    node.enforce(&policy(&node, &json!({ "context": context, "preconditions": { "all": [condition] } })));
    let mut shelf = Shelf::default();
    for number in 0..20 {
        shelf = shelf.image(&named(number), &json!({ "next": format!("{host}/{}:v1", named(number + 1)) }));
    }
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&asked);
    node.answers(move |seen| {
        heard.lock().unwrap().extend(seen.line.contains("/base").then(|| seen.line.clone()));
        shelf.answer(seen)
    });
    let refusal = node.pull(node.tagged()).await.unwrap_err();
    assert!(refusal.message.contains("error: no more than 8 images are asked for"), "{}", refusal.message);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.iter().filter(|line| line.contains("/blobs/")).count(), 8, "{asked:?}");
}

/// The clock stands while registries are asked: there is one such name before that, and one then.
#[tokio::test]
async fn an_image_whose_name_is_drawn_by_lot_is_not_asked_for_without_end() {
    let node = Node::start(Setup::default()).await;
    let image = format!("{}/base:{{{{ random('[0-9a-z]{{8}}') }}}}", node.host());
    node.enforce(&as_user(&node, &image, "root"));
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let heard = std::sync::Arc::clone(&asked);
    node.answers(move |seen| {
        heard.fetch_add(usize::from(seen.line.contains("/base/")), std::sync::atomic::Ordering::SeqCst);
        None
    });
    let pulling = tokio::time::timeout(std::time::Duration::from_secs(10), node.pull(node.tagged()));
    let refusal = pulling.await.expect("it ends").unwrap_err();
    assert!(refusal.message.contains(" error: "), "{}", refusal.message);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2, "{}", refusal.message);
}
