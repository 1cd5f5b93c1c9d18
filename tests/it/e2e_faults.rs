//! Registries that fail while a verdict is sought: each fault refuses the pull with words of its own,
//! nothing gets through, and what is not absent is not called absent (rule D4).

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{StatusCode, header};
use serde_json::{Value, json};
use tonic::Code;

use crate::kit::{
    self, Node, Space,
    gate::Gate,
    image::Image,
    proxy::{Action, Proxy, Seen},
};

kit::on_each_containerd!(
    d4_signature_tag_that_fails_is_no_answer,
    d4_signature_payload_that_fails_is_no_answer,
    d4_signature_tag_that_is_not_served_is_absent,
    d4_bundles_that_fail_are_no_answer,
    image_manifest_that_fails_is_no_answer,
    payload_over_the_limit_is_not_read,
    ten_thousand_signatures_are_not_read,
    e5_dripping_registry_is_given_up,
);

fn d4_signature_tag_that_fails_is_no_answer(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign(image));
    ill.undecided(
        is_signature_tag,
        &[
            (|| status(429), "registry answered 429"),
            (|| status(500), "registry answered 500"),
            (|| status(400), "registry answered 400"),
            (|| Action::Cut, "registry's answer broke off"),
            (|| manifest(INDEX, &json!({"manifests": []})), "an index where a manifest is due"),
            (|| text(MANIFEST, "<html>"), "manifest cannot be read"),
            (|| text(MANIFEST, &" ".repeat(4 * 1024 * 1024 + 1)), "registry sent more than 4194304 bytes"),
        ],
    );
}

fn d4_signature_payload_that_fails_is_no_answer(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign(image));
    ill.undecided(
        is_blob,
        &[
            (|| status(401), "registry answered 401"),
            (|| status(403), "registry answered 403"),
            (|| status(404), "registry lists what it does not have"),
            (|| status(429), "registry answered 429"),
            (|| status(500), "registry answered 500"),
            (|| Action::Cut, "registry's answer broke off"),
            (|| text("application/octet-stream", "{}"), "registry sent other bytes than the digest names"),
            (|| text("application/octet-stream", &"x".repeat(2 * 1024 * 1024)), "registry sent more than"),
        ],
    );
}

/// Rule D4: registries say 401 or 403 for what is not there.
fn d4_signature_tag_that_is_not_served_is_absent(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign(image));
    for action in [(|| status(401)) as Answer, || status(403), || status(404)] {
        ill.denied(is_signature_tag, action, "signature not found");
    }
}

fn d4_bundles_that_fail_are_no_answer(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign_bundle(image));
    ill.undecided(
        |request| request.path.contains("/referrers/"),
        &[
            (|| status(429), "registry answered 429"),
            (|| status(500), "registry answered 500"),
            (|| Action::Cut, "registry's answer broke off"),
            (|| text(INDEX, "{\"schemaVersion\": 2, \"manifests\": 7}"), "manifest cannot be read"),
        ],
    );
    ill.undecided(
        is_blob,
        &[
            (|| status(404), "registry lists what it does not have"),
            (|| status(500), "registry answered 500"),
            (|| Action::Cut, "registry's answer broke off"),
            (|| text("application/octet-stream", "{}"), "registry sent other bytes than the digest names"),
        ],
    );
}

fn image_manifest_that_fails_is_no_answer(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign(image));
    ill.undecided(
        |request| request.path.ends_with("/manifests/1"),
        &[
            (|| status(500), "registry answered 500"),
            (|| text(MANIFEST, "{}"), "manifest cannot be read"),
            (|| text(MANIFEST, &" ".repeat(4 * 1024 * 1024 + 1)), "registry sent more than 4194304 bytes"),
        ],
    );
}

fn payload_over_the_limit_is_not_read(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign(image));
    let mut signatures = ill.signatures();
    signatures["layers"][0]["size"] = json!(1024 * 1024 + 1);
    ill.set(is_signature_tag, move || manifest(MANIFEST, &signatures));
    let gate = ill.gate();
    let refusal = gate.cri().pull(ill.named.by_tag()).expect_refusal();
    let start = format!("SignatureValidationFailed: {}: keyed/signed: ", ill.named.by_tag());
    assert!(refusal.message().starts_with(&start), "{refusal}");
    assert!(ill.proxy.seen().iter().all(|request| !is_blob(request)), "it was asked for");
    ill.assert_not_there();
}

/// The bounds of the design: what is behind them does not count, what is before them does.
fn ten_thousand_signatures_are_not_read(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign(image));
    let good = ill.signatures();
    let layer = &good["layers"][0];
    let mut bad = layer.clone();
    bad["annotations"] = json!({"dev.cosignproject.cosign/signature": "MEUCIQ=="});
    let crowd = |good_at: usize| {
        let mut crowd = good.clone();
        crowd["layers"] =
            (0..10_000).map(|at| if at == good_at { layer.clone() } else { bad.clone() }).collect();
        crowd
    };

    for good_at in [10_000, 9_999, 1_000, 500] {
        let signatures = crowd(good_at);
        ill.set(is_signature_tag, move || manifest(MANIFEST, &signatures));
        let (gate, began) = (ill.gate(), Instant::now());
        let refusal = gate.cri().pull(ill.named.by_tag()).expect_refusal();
        assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
        let start = format!("SignatureValidationFailed: {}: keyed/signed: ", ill.named.by_tag());
        assert!(refusal.message().starts_with(&start), "{good_at}: {refusal}");
        assert!(!refusal.message().ends_with("signature not found"), "{good_at}: {refusal}");
        assert!(began.elapsed() < Duration::from_secs(20), "{good_at}: {:?}", began.elapsed());
        ill.assert_not_there();
    }

    let signatures = crowd(0);
    ill.set(is_signature_tag, move || manifest(MANIFEST, &signatures));
    assert_eq!(ill.gate().cri().pull(ill.named.by_tag()).expect(), ill.named.id);
}

/// Each byte comes in time, the whole does not.
fn e5_dripping_registry_is_given_up(node: &Node) {
    let ill = Ill::with(node, |node, image| node.key.sign(image));
    let gate = Gate::before(&node.containerd)
        .policies(&[ill.space.policy("keyed").key(node.key)])
        .set("/limits", json!({"verification": "3s"}))
        .start();
    for place in [is_signature_tag as Place, is_blob] {
        ill.set(place, || Action::Drip(Duration::from_millis(100)));
        let began = Instant::now();
        let refusal = gate.cri().pull(ill.named.by_tag()).expect_refusal();
        assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
        assert!(refusal.message().starts_with("RegistryUnavailable: "), "{refusal}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        ill.assert_not_there();
    }
    ill.heal();
    assert_eq!(gate.cri().pull(ill.named.by_tag()).expect(), ill.named.id);
}

type Place = fn(&Seen) -> bool;
type Answer = fn() -> Action;
type Decide = Box<dyn Fn(&Seen) -> Action + Send>;

/// A signed image behind a proxy that fails as told.
struct Ill<'a> {
    node: &'a Node,
    proxy: Proxy,
    space: Space<'static>,
    /// The image as the proxy names it.
    named: Image,
    image: Image,
    fails: Arc<Mutex<Decide>>,
}

impl<'a> Ill<'a> {
    fn with(node: &'a Node, sign: fn(&Node, &Image)) -> Self {
        let space = node.space();
        let image = space.image("app").push("1");
        sign(node, &image);
        let fails: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(|_| Action::Pass)));
        let decides = Arc::clone(&fails);
        let proxy = Proxy::before(node.registry, move |request| {
            decides.lock().expect("no panic while held")(request)
        });
        node.containerd.knows_host(proxy.host());
        let space = space.through(&proxy);
        let named = space.name(&image);
        Self { node, proxy, space, named, image, fails }
    }

    fn set(&self, place: Place, answer: impl Fn() -> Action + Send + 'static) {
        let decide = move |request: &Seen| if place(request) { answer() } else { Action::Pass };
        *self.fails.lock().expect("no panic while held") = Box::new(decide);
    }

    fn heal(&self) {
        self.set(|_| false, || Action::Pass);
    }

    fn gate(&self) -> Gate {
        Gate::start(&self.node.containerd, &[self.space.policy("keyed").key(self.node.key)])
    }

    /// Each fault is a fault, with these words, and is not remembered.
    fn undecided(&self, place: Place, faults: &[(Answer, &str)]) {
        let gate = self.gate();
        for (answer, words) in faults {
            self.set(place, *answer);
            let mut texts = Vec::new();
            for _ in 0..2 {
                let refusal = gate.cri().pull(self.named.by_tag()).expect_refusal();
                assert_eq!(refusal.code(), Code::Unknown, "{words}: {refusal}");
                let text = refusal.message().to_owned();
                assert!(!text.contains("SignatureValidationFailed"), "{words}: {text}");
                assert!(text.contains(words), "{words}: {text}");
                texts.push(text);
                self.assert_not_there();
            }
            assert_eq!(texts[0], texts[1], "the kubelet compares texts");
        }
        self.heal();
        assert_eq!(gate.cri().pull(self.named.by_tag()).expect(), self.named.id, "once it is well");
        self.node.containerd.cri().remove_image(self.named.id.clone()).expect("removed");
    }

    /// A denial with this cause.
    fn denied(&self, place: Place, answer: Answer, cause: &str) {
        self.set(place, answer);
        let refusal = self.gate().cri().pull(self.named.by_tag()).expect_refusal();
        assert_eq!(refusal.code(), Code::Unknown, "{refusal}");
        let name = self.named.by_tag();
        assert_eq!(refusal.message(), format!("SignatureValidationFailed: {name}: keyed/signed: {cause}"));
        self.assert_not_there();
    }

    fn assert_not_there(&self) {
        for name in [self.named.by_tag(), self.named.by_digest()] {
            assert_eq!(self.node.containerd.record(&name), None, "{name} got through");
        }
    }

    /// The manifest of the signatures, as the registry has it.
    fn signatures(&self) -> Value {
        let (host, repository) = self.image.repository.split_once('/').expect("host/repository");
        let tag = format!("{}.sig", self.image.digest.replace(':', "-"));
        kit::block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
            let asked = client.get(format!("http://{host}/v2/{repository}/manifests/{tag}"));
            let answer = asked.header(header::ACCEPT, MANIFEST).send().await.expect("an answer");
            let bytes = answer.bytes().await.expect("a body");
            serde_json::from_slice(&bytes).expect("JSON")
        })
    }
}

fn is_signature_tag(request: &Seen) -> bool {
    request.path.ends_with(".sig")
}

fn is_blob(request: &Seen) -> bool {
    request.path.contains("/blobs/")
}

fn status(code: u16) -> Action {
    Action::Answer(StatusCode::from_u16(code).expect("a status"), Vec::new(), String::new())
}

fn text(kind: &str, body: &str) -> Action {
    Action::Answer(StatusCode::OK, vec![(header::CONTENT_TYPE, kind.to_owned())], body.to_owned())
}

fn manifest(kind: &str, body: &Value) -> Action {
    let mut body = body.clone();
    body["schemaVersion"] = json!(2);
    body["mediaType"] = json!(kind);
    text(kind, &body.to_string())
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
