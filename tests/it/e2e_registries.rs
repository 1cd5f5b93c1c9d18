//! What every kind of registry has in common, each as it is: what is signed there in either form is
//! found and pulled, what is not is refused, and nobody notices that it was away.

use crate::kit::{
    self, Node,
    gate::Gate,
    image::Image,
    policy::Policy,
    proxy::{Action, Proxy},
    ran::Ran,
    registry::{Kind, Registry},
};

kit::on_each_containerd!(
    signatures_of_every_form_are_found_on_every_kind_of_registry,
    an_index_and_its_child_are_pulled_from_every_kind_of_registry,
    an_outage_of_any_kind_of_registry_is_bridged_and_over_by_itself,
    requests_are_as_few_on_every_kind_of_registry,
);

fn policy(node: &Node, host: &str) -> Policy {
    Policy::new("keyed", format!("{host}/*")).key(node.key)
}

fn gate(node: &Node, registry: &Registry) -> Gate {
    node.containerd.knows(registry);
    Gate::start(&node.containerd, &[policy(node, registry.host())])
}

/// Refused by the rule, for this cause, without a trace in containerd.
fn denied(node: &Node, gate: &Gate, image: &Image, cause: &str, kind: Kind) {
    for name in [image.by_tag(), image.by_digest()] {
        let refusal = gate.cri().pull(name.clone()).expect_refusal();
        let expected = format!("SignatureValidationFailed: {name}: keyed/signed: {cause}");
        assert_eq!(refusal.message(), expected, "{kind:?}");
        assert_eq!(node.containerd.record(&name), None, "{kind:?}");
    }
}

fn signatures_of_every_form_are_found_on_every_kind_of_registry(node: &Node) {
    for kind in Kind::all() {
        let registry = Registry::of(kind);
        let [legacy, bundle, both, others, unsigned] =
            ["legacy", "bundle", "both", "others", "unsigned"].map(|name| registry.image(name).push("1"));
        node.key.sign(&legacy);
        node.key.sign_bundle(&bundle);
        node.other_key.sign(&both);
        node.other_key.sign_bundle(&both);
        node.key.sign_bundle(&both);
        node.other_key.sign(&others);
        node.other_key.sign_bundle(&others);
        let gate = gate(node, &registry);
        for image in [&legacy, &bundle, &both] {
            assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "{kind:?}");
            assert_eq!(node.containerd.record(&image.by_tag()), Some(image.digest.clone()), "{kind:?}");
            gate.purge_cache();
            assert_eq!(gate.cri().pull(image.by_digest()).expect(), image.id, "{kind:?}");
        }
        denied(node, &gate, &others, "invalid signature", kind);
        denied(node, &gate, &unsigned, "signature not found", kind);
    }
}

fn an_index_and_its_child_are_pulled_from_every_kind_of_registry(node: &Node) {
    for kind in Kind::all() {
        let registry = Registry::of(kind);
        let (index, [here, _]) = registry.image("app").push_index("1");
        node.key.sign(&index);
        let (_, [child, _]) = registry.image("other").push_index("1");
        let gate = gate(node, &registry);
        assert_eq!(gate.cri().pull(index.by_tag()).expect(), here.id, "{kind:?}");
        assert_eq!(node.containerd.record(&index.by_tag()), Some(index.digest), "{kind:?}");
        assert_eq!(gate.cri().pull(here.by_digest()).expect(), here.id, "{kind:?}");
        let refusal = gate.cri().pull(child.by_digest()).expect_refusal();
        assert!(refusal.message().ends_with("keyed/signed: signature not found"), "{kind:?}: {refusal}");
    }
}

fn an_outage_of_any_kind_of_registry_is_bridged_and_over_by_itself(node: &Node) {
    for kind in Kind::all() {
        let registry = Registry::of(kind);
        let [known, new, unsigned] = ["1", "2", "3"].map(|tag| registry.image("app").push(tag));
        node.key.sign(&known);
        node.key.sign(&new);
        let gate = gate(node, &registry);
        assert_eq!(gate.cri().pull(known.by_tag()).expect(), known.id, "{kind:?}");
        registry.stop();
        for _ in 0..2 {
            assert_eq!(gate.cri().pull(known.by_tag()).expect(), known.id, "{kind:?}");
            assert_eq!(gate.cri().present(known.by_tag()).id, known.id, "{kind:?}");
            for image in [&new, &unsigned] {
                let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
                assert!(refusal.message().starts_with("RegistryUnavailable: "), "{kind:?}: {refusal}");
            }
            gate.restart();
        }
        registry.start_again();
        let pulled = kit::until("the pull", || gate.cri().pull(new.by_tag()).send().ok());
        assert_eq!(pulled, new.id, "{kind:?}");
        denied(node, &gate, &unsigned, "signature not found", kind);
    }
}

fn requests_are_as_few_on_every_kind_of_registry(node: &Node) {
    for kind in Kind::all() {
        let registry = Registry::of(kind);
        let proxy = Proxy::before(&registry, |_| Action::Pass);
        node.containerd.knows_host(proxy.host());
        let [legacy, bundle] = ["legacy", "bundle"]
            .map(|name| registry.image(name).push("1").at(format!("{}/{name}", proxy.host())));
        node.key.sign(&legacy);
        node.key.sign_bundle(&bundle);
        let keyed = policy(node, proxy.host());
        // Without the referrers API its tag is asked for as well.
        let with_referrers = if kind == Kind::Zot { 4 } else { 5 };
        for (image, policy, wanted) in
            [(legacy, keyed.clone(), 2), (bundle, keyed.bundles_only(), with_referrers)]
        {
            let gate = Gate::start(&node.containerd, &[policy]);
            let before = proxy.seen().len();
            let ran = Ran::from(gate.command(&["cache", "prewarm", &image.by_tag()]));
            let allowed = format!("{}: allowed (verified) {}", image.by_tag(), image.digest);
            assert_eq!((ran.lines(), ran.code), (vec![allowed.as_str()], 0), "{kind:?}");
            let asked: Vec<_> = proxy.seen()[before..].iter().map(|seen| seen.path.clone()).collect();
            assert_eq!(asked.len(), wanted, "{kind:?}: {asked:?}");
        }
    }
}
