//! The kit against containerd itself: what the other end-to-end tests stand on.

use crate::kit::{
    self, Node,
    containerd::Containerd,
    proxy::{Action, Proxy},
    registry::Registry,
};

kit::on_each_containerd!(
    kit_pulls_and_runs_as_the_images_user,
    kit_runs_as_root_when_the_image_is_absent_to_the_kubelet,
    kit_restarts_containerd_and_registries,
    kit_imports_an_image_past_the_cri,
    kit_pulls_an_index,
    kit_signs_on_both_registries,
    kit_proxy_lies_about_a_tag,
);

fn kit_pulls_and_runs_as_the_images_user(node: &Node) {
    let image = node.registry.image("kit/user").user("1000").push("1");
    let cri = node.containerd.cri();
    assert_eq!(cri.pull(image.by_tag()).pod("default", &[]).expect(), image.id);
    let status = cri.present(image.by_tag());
    assert_eq!((status.id, status.uid.map(|uid| uid.value)), (image.id.clone(), Some(1000)));
    assert_eq!(node.containerd.record(&image.by_tag()), Some(image.digest.clone()));
    assert_eq!(cri.run(&image.by_tag()).expect("it runs").uid(), 1000);
    assert_eq!(cri.run_as_image_says(&image.by_tag()).expect("it runs").uid(), 1000);
    cri.remove_image(image.id.clone()).expect("removed");
    assert_eq!(cri.image_status(image.by_tag()).expect("an answer"), None);
    assert!(cri.list_images().expect("a list").iter().all(|listed| listed.id != image.id));
}

/// The reason for the tag record: a pull by digest alone leaves the tag unknown.
fn kit_runs_as_root_when_the_image_is_absent_to_the_kubelet(node: &Node) {
    let image = node.registry.image("kit/window").user("1000").push("1");
    let cri = node.containerd.cri();
    cri.pull(image.by_digest()).expect();
    assert_eq!(cri.image_status(image.by_tag()).expect("an answer"), None);
    assert_eq!(cri.run(&image.by_digest()).expect("it runs").uid(), 1000);
}

fn kit_restarts_containerd_and_registries(node: &Node) {
    let containerd = Containerd::start(node.containerd.version());
    let registry = Registry::docker();
    containerd.knows(&registry);
    let image = registry.image("kit/restart").push("1");
    let cri = containerd.cri();
    registry.stop();
    cri.pull(image.by_tag()).expect_refusal();
    registry.start_again();
    cri.pull(image.by_tag()).expect();
    containerd.stop();
    assert_eq!(cri.image_status(image.by_tag()).expect_err("stopped").code(), tonic::Code::Unavailable);
    containerd.start_again();
    assert_eq!(cri.present(image.by_tag()).id, image.id);
}

fn kit_imports_an_image_past_the_cri(node: &Node) {
    let image = node.registry.image("kit/import").push("1");
    node.containerd.ctr(["images", "import", &image.archive().display().to_string()]);
    assert_eq!(node.containerd.record(&image.by_tag()), Some(image.digest.clone()));
    let cri = node.containerd.cri();
    kit::until("CRI to see the image", || cri.image_status(image.by_tag()).ok().flatten());
}

fn kit_pulls_an_index(node: &Node) {
    let (index, [here, there]) = node.registry.image("kit/index").push_index("1");
    assert_ne!(here.digest, there.digest);
    assert_eq!(node.containerd.cri().pull(index.by_tag()).expect(), here.id);
    assert_eq!(node.containerd.record(&index.by_tag()), Some(index.digest));
}

fn kit_signs_on_both_registries(node: &Node) {
    let docker = Registry::docker();
    for registry in [node.registry, &docker] {
        let image = registry.image("kit/signed").push("1");
        node.key.sign(&image);
        node.key.sign_legacy(&image, &[("env", "prod")], Some(&format!("{}/kit/elsewhere", registry.host())));
        node.other_key.sign_bundle(&image);
        registry.move_tag("2", &image);
    }
}

fn kit_proxy_lies_about_a_tag(node: &Node) {
    let good = node.registry.image("kit/lied").push("good");
    let evil = node.registry.image("kit/lied").push("evil");
    let proxy = Proxy::before(node.registry, |request| match request.path.strip_suffix("/manifests/good") {
        Some(path) => Action::Instead(format!("{path}/manifests/evil")),
        None => Action::Pass,
    });
    node.containerd.knows_host(proxy.host());
    let id = node.containerd.cri().pull(format!("{}/kit/lied:good", proxy.host())).expect();
    assert_eq!((id == evil.id, id == good.id), (true, false));
    assert!(!proxy.seen().is_empty());
}
