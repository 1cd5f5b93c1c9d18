//! Mirrors in `hosts.toml`: the gate and containerd read one file, ask the same hosts and see the same image.

use std::{fs, path::PathBuf};

use http::{StatusCode, header};
use tonic::Code;

use crate::kit::{
    self, Node,
    gate::Gate,
    image::Image,
    policy::Policy,
    proxy::{Action, Proxy},
    registry::{Kind, Registry, Tls},
};

kit::on_each_containerd!(
    mirror_that_disagrees_about_a_tag_is_believed_by_both_and_verified,
    mirror_without_signatures_leaves_them_to_the_registry,
    mirror_that_is_behind_hides_no_signature,
    forged_signatures_of_a_mirror_hide_none_and_prove_nothing,
    signature_that_the_registry_took_back_counts_as_long_as_a_mirror_has_it,
    mirror_that_is_away_or_empty_leaves_all_to_the_registry,
    mirror_in_the_registrys_place_serves_while_that_is_away,
    mirror_that_may_not_resolve_is_not_asked_for_tags,
    mirror_over_tls_is_reached_by_its_authority_and_our_certificate,
    mirror_sees_the_pulls_credentials_as_containerd_shows_them,
    hosts_toml_that_cannot_be_understood_stops_pulls_from_its_registry,
);

/// A registry with a mirror, and the policy that its images are signed.
struct Mirrored {
    registry: Registry,
    mirror: Registry,
    certs: PathBuf,
}

impl Mirrored {
    fn on(node: &Node) -> Self {
        Self::of(node, Kind::Distribution2)
    }

    fn of(node: &Node, kind: Kind) -> Self {
        let (registry, mirror) = (Registry::of(kind), Registry::of(kind));
        let certs = node.containerd.certs().join(registry.host());
        fs::create_dir_all(&certs).unwrap();
        let this = Self { registry, mirror, certs };
        this.write(&format!("[host.\"http://{}\"]\n", this.mirror.host()));
        this
    }

    /// Writes the registry's `hosts.toml`, for the gate and for containerd.
    fn write(&self, text: &str) {
        // containerd 1.7 takes no file without such a table.
        let text = if text.contains("[host") { text.to_owned() } else { format!("{text}[host]\n") };
        fs::write(self.hosts_toml(), text).unwrap();
    }

    fn hosts_toml(&self) -> PathBuf {
        self.certs.join("hosts.toml")
    }

    fn policy(&self, node: &Node) -> [Policy; 1] {
        [Policy::new("keyed", format!("{}/*", self.registry.host())).key(node.key)]
    }

    fn gate(&self, node: &Node) -> Gate {
        Gate::start(&node.containerd, &self.policy(node))
    }

    /// An image that both have.
    fn everywhere(&self) -> Image {
        self.everywhere_as("1")
    }

    fn everywhere_as(&self, tag: &str) -> Image {
        let image = self.registry.image("app").push(tag);
        image.copy_to(&self.mirror);
        image
    }

    fn at_mirror(&self, image: &Image) -> Image {
        image.at(format!("{}/app", self.mirror.host()))
    }
}

fn mirror_that_disagrees_about_a_tag_is_believed_by_both_and_verified(node: &Node) {
    for kind in Kind::all() {
        let both = Mirrored::of(node, kind);
        let (ours, theirs) = (both.registry.image("app").push("1"), both.mirror.image("app").push("1"));
        node.key.sign(&ours);
        let gate = both.gate(node);
        let refusal = gate.cri().pull(ours.by_tag()).expect_refusal();
        assert_eq!(refusal.code(), Code::Unknown, "{kind:?}: {refusal}");
        assert!(refusal.message().starts_with("SignatureValidationFailed"), "{kind:?}: {refusal}");

        node.key.sign(&theirs);
        // Another key of the cache: what was denied a moment ago is remembered for seconds.
        let pulled = kit::until("the pull", || gate.cri().pull(ours.by_tag()).send().ok());
        assert_eq!(pulled, theirs.id, "{kind:?}");
        assert_eq!(node.containerd.record(&ours.by_tag()), Some(theirs.digest.clone()), "{kind:?}");
        let alone = node.containerd.cri().pull(ours.by_tag()).expect();
        assert_eq!(alone, theirs.id, "{kind:?}: the same without a gate");
        let output = gate.command(&["verify", &ours.by_tag()]);
        assert!(output.status.success(), "{kind:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&theirs.digest), "{kind:?}: {said}");
    }
}

fn mirror_without_signatures_leaves_them_to_the_registry(node: &Node) {
    let both = Mirrored::on(node);
    let image = both.everywhere();
    let gate = both.gate(node);
    let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
    assert!(refusal.message().starts_with("SignatureValidationFailed"), "{refusal}");
    node.key.sign(&image);
    assert_eq!(kit::until("the pull", || gate.cri().pull(image.by_tag()).send().ok()), image.id);
    both.registry.stop();
    assert_eq!(node.containerd.cri().pull(image.by_tag()).expect(), image.id, "the mirror has the image");
}

fn mirror_that_is_behind_hides_no_signature(node: &Node) {
    let both = Mirrored::on(node);
    let image = both.everywhere();
    node.other_key.sign(&both.at_mirror(&image));
    node.key.sign(&image);
    assert_eq!(both.gate(node).cri().pull(image.by_tag()).expect(), image.id);
}

/// The tag of an image's signature.
fn signature_tag(image: &Image) -> String {
    image.digest.replace(':', "-") + ".sig"
}

fn forged_signatures_of_a_mirror_hide_none_and_prove_nothing(node: &Node) {
    for kind in Kind::all() {
        let both = Mirrored::of(node, kind);
        // zot keeps no manifest that lost its last tag.
        let (signed, unsigned) = (both.everywhere_as("signed"), both.everywhere_as("unsigned"));
        node.key.sign(&signed);
        // The mirror puts the good signature of another image beside both of them.
        let another = both.mirror.image("app").push("another");
        node.key.sign(&another);
        for image in [&signed, &unsigned] {
            both.mirror.retag("app", &signature_tag(&another), &signature_tag(image));
        }
        let gate = both.gate(node);
        assert_eq!(gate.cri().pull(signed.by_digest()).expect(), signed.id, "{kind:?}");
        let refusal = gate.cri().pull(unsigned.by_digest()).expect_refusal();
        let expected =
            format!("SignatureValidationFailed: {}: keyed/signed: invalid signature", unsigned.by_digest());
        assert!(refusal.message().starts_with(&expected), "{kind:?}: {refusal}");
        assert_eq!(node.containerd.record(&unsigned.by_digest()), None, "{kind:?}");
    }
}

fn signature_that_the_registry_took_back_counts_as_long_as_a_mirror_has_it(node: &Node) {
    for kind in Kind::all() {
        let both = Mirrored::of(node, kind);
        let image = both.everywhere();
        node.key.sign(&image);
        node.key.sign(&both.at_mirror(&image));
        let gate = both.gate(node);
        both.registry.delete_manifest("app", &signature_tag(&image));
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "{kind:?}");
        both.mirror.delete_manifest("app", &signature_tag(&image));
        gate.purge_cache();
        let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
        let expected =
            format!("SignatureValidationFailed: {}: keyed/signed: signature not found", image.by_tag());
        assert!(refusal.message().starts_with(&expected), "{kind:?}: {refusal}");
    }
}

fn mirror_that_is_away_or_empty_leaves_all_to_the_registry(node: &Node) {
    let both = Mirrored::on(node);
    let (signed, unsigned) = (both.registry.image("app").push("1"), both.registry.image("app").push("2"));
    node.key.sign(&signed);
    for mirror in ["empty", "away"] {
        let gate = both.gate(node);
        assert_eq!(gate.cri().pull(signed.by_tag()).expect(), signed.id, "{mirror}");
        let refusal = gate.cri().pull(unsigned.by_tag()).expect_refusal();
        assert!(refusal.message().starts_with("SignatureValidationFailed"), "{mirror}: {refusal}");
        both.mirror.stop();
    }
}

fn mirror_in_the_registrys_place_serves_while_that_is_away(node: &Node) {
    let both = Mirrored::on(node);
    let image = both.everywhere();
    node.key.sign(&both.at_mirror(&image));
    both.write(&format!("server = \"http://{}\"\n", both.mirror.host()));
    both.registry.stop();
    assert_eq!(both.gate(node).cri().pull(image.by_tag()).expect(), image.id);
    assert_eq!(node.containerd.cri().pull(image.by_tag()).expect(), image.id);
}

fn mirror_that_may_not_resolve_is_not_asked_for_tags(node: &Node) {
    let both = Mirrored::on(node);
    let ours = both.registry.image("app").push("1");
    both.mirror.image("app").push("1");
    node.key.sign(&ours);
    both.write(&format!("[host.\"http://{}\"]\n  capabilities = [\"pull\"]\n", both.mirror.host()));
    assert_eq!(both.gate(node).cri().pull(ours.by_tag()).expect(), ours.id);
    assert_eq!(node.containerd.cri().pull(ours.by_tag()).expect(), ours.id);
}

fn mirror_over_tls_is_reached_by_its_authority_and_our_certificate(node: &Node) {
    let both = Mirrored::on(node);
    let image = both.everywhere();
    node.key.sign(&both.at_mirror(&image));
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let ours = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
    for (name, pem) in [
        ("ca.pem", made.cert.pem()),
        ("server.key", made.signing_key.serialize_pem()),
        ("node.pem", ours.cert.pem()),
        ("node.key", ours.signing_key.serialize_pem()),
    ] {
        fs::write(both.certs.join(name), pem).unwrap();
    }
    let [certificate, key, clients] = ["ca.pem", "server.key", "node.pem"].map(|name| both.certs.join(name));
    let tls = both.mirror.over_tls(Tls { certificate, key, clients: Some(clients) });
    both.registry.stop();
    let gate = both.gate(node);
    let server = format!("server = \"https://{}\"\n", tls.host());
    let client = "client = [[\"node.pem\", \"node.key\"]]\n";
    for keys in ["", "ca = \"ca.pem\"\n", client] {
        both.write(&format!("{server}{keys}"));
        let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
        assert!(refusal.message().starts_with("RegistryUnavailable"), "{keys}: {refusal}");
        node.containerd.cri().pull(image.by_tag()).expect_refusal();
    }
    for keys in ["ca = \"ca.pem\"\n", "skip_verify = true\n"] {
        both.write(&format!("{server}{keys}{client}"));
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "{keys}");
        assert_eq!(node.containerd.cri().pull(image.by_tag()).expect(), image.id, "{keys}");
        gate.purge_cache();
        node.containerd.cri().remove_image(image.id.clone()).unwrap();
    }
}

fn mirror_sees_the_pulls_credentials_as_containerd_shows_them(node: &Node) {
    let both = Mirrored::on(node);
    let image = both.everywhere();
    node.key.sign(&both.at_mirror(&image));
    let proxy = Proxy::before(&both.mirror, |request| match request.headers.get(header::AUTHORIZATION) {
        Some(_) => Action::Pass,
        None => {
            let challenge = (header::WWW_AUTHENTICATE, r#"Basic realm="test""#.to_owned());
            Action::Answer(StatusCode::UNAUTHORIZED, vec![challenge], String::new())
        }
    });
    both.write(&format!("server = \"http://{}\"\n", proxy.host()));
    let gate = both.gate(node);
    let shown = |from: usize| -> Vec<String> {
        let mut shown: Vec<_> = proxy.seen()[from..]
            .iter()
            .filter_map(|request| {
                Some(request.headers.get(header::AUTHORIZATION)?.to_str().unwrap().to_owned())
            })
            .collect();
        shown.dedup();
        shown
    };
    gate.cri().pull(image.by_tag()).expect_refusal();
    assert_eq!(shown(0), [""; 0]);
    assert_eq!(gate.cri().pull(image.by_tag()).credentials("ada", "one").expect(), image.id);
    assert_eq!(shown(0), ["Basic YWRhOm9uZQ=="]);
    // What containerd itself shows it.
    let before = proxy.seen().len();
    node.containerd.cri().pull(image.by_tag()).credentials("ada", "one").expect();
    assert_eq!(shown(before), ["Basic YWRhOm9uZQ=="]);
    let registry = format!("ns={}", both.registry.host().replace(':', "%3A"));
    assert!(proxy.seen().iter().all(|request| request.path.contains(&registry)), "{:?}", proxy.seen());
}

fn hosts_toml_that_cannot_be_understood_stops_pulls_from_its_registry(node: &Node) {
    let mut both = Mirrored::on(node);
    // A folder that no other test's `check` reads.
    let certs = kit::folder();
    both.certs = certs.join(both.registry.host());
    fs::create_dir_all(&both.certs).unwrap();
    node.containerd.knows(&both.registry);
    let image = both.everywhere();
    node.key.sign(&image);
    let file = both.hosts_toml();
    both.write("\ncapabilities = [\"pul\"]\n");
    let gate = Gate::before(&node.containerd)
        .policies(&both.policy(node))
        .set("/registry/configPath", certs.display().to_string())
        .start();
    let complaint = format!("{}:2: no capability of a host", file.display());
    let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
    assert!(refusal.message().contains(&complaint), "{refusal}");
    assert!(gate.log().contains(&complaint), "{}", gate.log());
    let output = gate.command(&["check"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with(&format!("pullgate: {complaint}")), "{said}");

    both.write(&format!("server = \"http://{}\"\nmirrors = 1\n", both.registry.host()));
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "without a reload");
    let remark = format!("{}:2: unknown key `mirrors`", file.display());
    assert!(gate.log().contains(&remark), "{}", gate.log());
}
