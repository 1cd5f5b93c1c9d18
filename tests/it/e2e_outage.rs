//! What is served of present images while their registry is away (rule O4), whichever way they came.

use crate::kit::{self, Node, Space, folder, gate::Gate, image::Image, registry::Registry};

kit::on_each_containerd!(
    o4_an_imported_image_is_served_while_its_registry_is_away,
    o4_a_tag_is_served_only_where_containerd_has_it_as_the_digest_that_was_verified,
    o4_an_index_is_served_as_the_child_that_containerd_has,
    o4_each_mode_serves_whom_it_names,
);

/// A registry that containerd knows.
fn away_soon(node: &Node) -> Registry {
    let registry = Registry::olareg();
    node.containerd.knows(&registry);
    registry
}

fn cache(gate: &Gate, arguments: &[&str]) {
    let output = gate.command(&[&["cache"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
}

/// What an administrator does without a registry: the content of `image` under `name`.
fn import(node: &Node, image: &Image, name: &str) {
    node.containerd.ctr(["images", "import", &image.archive_as(name).display().to_string()]);
    let cri = node.containerd.cri();
    kit::until("CRI to see what was imported", || {
        cri.image_status(name).ok().flatten().filter(|shown| shown.id == image.id)
    });
    assert_eq!(node.containerd.record(name).as_ref(), Some(&image.digest));
}

fn refused(gate: &Gate, name: &str) {
    let refusal = gate.cri().pull(name).expect_refusal();
    assert!(refusal.message().starts_with("RegistryUnavailable: "), "{name}: {refusal}");
}

fn o4_an_imported_image_is_served_while_its_registry_is_away(node: &Node) {
    let registry = away_soon(node);
    let space = Space::on(&registry);
    let image = space.image("app").user("1000").push("1");
    let other = space.image("app").push("2");
    node.key.sign(&image);
    let policies = [space.policy("keyed").key(node.key)];
    let evidence = folder().join("evidence.jsonl").display().to_string();
    let elsewhere = Gate::start(&node.containerd, &policies);
    cache(&elsewhere, &["prewarm", &image.by_digest()]);
    cache(&elsewhere, &["export", &evidence]);
    drop(elsewhere);
    registry.stop();

    let gate = Gate::start(&node.containerd, &policies);
    cache(&gate, &["import", &evidence]);
    refused(&gate, &image.by_digest());
    import(node, &image, &image.by_digest());
    for _ in 0..2 {
        assert_eq!(gate.cri().pull(image.by_digest()).expect(), image.id);
        assert_eq!(gate.cri().present(image.by_digest()).id, image.id);
        // Nobody pulled it with credentials, and which digest the tag is, nobody signed.
        let refusal = gate.cri().pull(image.by_digest()).credentials("ada", "one").expect_refusal();
        assert!(refusal.message().starts_with("RegistryUnavailable: "), "{refusal}");
        refused(&gate, &image.by_tag());
        assert_eq!(node.containerd.record(&image.by_tag()), None);
        gate.restart();
    }
    assert_eq!(gate.cri().run(&image.by_digest()).expect("it runs").uid(), 1000);

    // The name says one digest, and what is there is another.
    import(node, &other, &image.by_digest());
    refused(&gate, &image.by_digest());
}

/// A tag that containerd does not have would be answered, and its user then taken for root.
fn o4_a_tag_is_served_only_where_containerd_has_it_as_the_digest_that_was_verified(node: &Node) {
    let registry = away_soon(node);
    let space = Space::on(&registry);
    let image = space.image("app").user("1000").push("1");
    let other = space.image("app").push("2");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    cache(&gate, &["prewarm", &image.by_tag()]);
    node.containerd.cri().pull(image.by_digest()).expect();
    registry.stop();

    refused(&gate, &image.by_tag());
    assert_eq!(gate.cri().pull(image.by_digest()).expect(), image.id);
    // Its id is known now, and the tag is still not there.
    refused(&gate, &image.by_tag());
    assert_eq!(node.containerd.record(&image.by_tag()), None);
    import(node, &other, &image.by_tag());
    refused(&gate, &image.by_tag());
    assert_eq!(node.containerd.record(&image.by_tag()), Some(other.digest.clone()));
    import(node, &image, &image.by_tag());
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    assert_eq!(gate.cri().run(&image.by_tag()).expect("it runs").uid(), 1000);
}

fn o4_an_index_is_served_as_the_child_that_containerd_has(node: &Node) {
    let registry = away_soon(node);
    let space = Space::on(&registry);
    let (index, [here, _]) = space.image("app").push_index("1");
    node.key.sign(&index);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    cache(&gate, &["prewarm", &index.by_digest()]);
    node.containerd.cri().pull(index.by_digest()).expect();
    registry.stop();
    assert_eq!(gate.cri().pull(index.by_digest()).expect(), here.id);
}

fn o4_each_mode_serves_whom_it_names(node: &Node) {
    let registry = away_soon(node);
    let space = Space::on(&registry);
    let image = space.image("app").push("1");
    node.key.sign(&image);
    for (mode, served) in [
        ("never", [false; 5]),
        ("anonymous", [true, false, false, false, false]),
        ("credentials", [true, true, true, false, false]),
        ("namespace", [true, true, true, true, false]),
    ] {
        let gate = Gate::before(&node.containerd)
            .policies(&[space.policy("keyed").key(node.key)])
            .set("/outage/servePresent", mode)
            .start();
        let pull = |namespace: &str, password: Option<&str>| {
            let pull = gate.cri().pull(image.by_tag()).pod(namespace, &[]);
            match password {
                Some(password) => pull.credentials("ada", password).send(),
                None => pull.send(),
            }
        };
        pull("team", Some("one")).expect("the registry asks for nothing");
        registry.stop();
        for _ in 0..2 {
            let askers = [
                ("team", None),
                ("team", Some("one")),
                ("other", Some("one")),
                ("team", Some("two")),
                ("other", Some("two")),
            ];
            let found = askers.map(|(namespace, password)| pull(namespace, password).is_ok());
            assert_eq!(found, served, "{mode}");
            gate.restart();
        }
        registry.start_again();
    }
}
