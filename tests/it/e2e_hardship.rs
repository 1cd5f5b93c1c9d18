//! The gate when the node itself is in trouble: no file descriptors, no space, a stop in the middle of
//! a pull, policies that do not load when somebody needs to get out.

use std::{
    fs::File,
    io::Write as _,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::kit::{
    self, Node, Space,
    gate::Gate,
    proxy::{Action, Proxy},
    registry::Registry,
};

kit::on_each_containerd!(
    e8_audit_mode_shows_everything_whatever_is_broken,
    e6_drain_of_the_config_bounds_the_stop,
    the_listener_outlives_a_want_of_file_descriptors,
    c3_a_full_disk_costs_durability_alone,
);

/// Neither good policies, nor a registry, nor the store's records are needed.
fn e8_audit_mode_shows_everything_whatever_is_broken(node: &Node) {
    let registry = Registry::olareg();
    node.containerd.knows(&registry);
    let space = Space::on(&registry);
    let [here, new] = ["here", "new"].map(|name| space.image(name).push("1"));
    node.containerd.cri().pull(here.by_tag()).expect();
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    assert_eq!(gate.cri().image_status(here.by_tag()).expect("an answer"), None);

    registry.stop();
    gate.write_policy_text("apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec: {ruels: []}\n");
    gate.configure("/policy/mode", "audit");
    // Audit mode is in force, and the policies are not what the files say.
    let reload = gate.command(&["reload"]);
    assert_eq!(reload.status.code(), Some(1), "{reload:?}");
    for restart in [false, true] {
        if restart {
            gate.restart();
        }
        for name in [here.by_tag(), here.by_digest(), here.id.clone()] {
            assert_eq!(gate.cri().present(name).id, here.id);
        }
        let status = gate.status_json();
        assert_eq!(status["mode"], "audit", "{status}");
        assert!(status["degraded"].as_str().is_some_and(|why| why.contains("ruels")), "{status}");
    }
    registry.start_again();
    assert_eq!(gate.cri().pull(new.by_tag()).expect(), new.id);
    assert_eq!(gate.cri().present(new.by_tag()).id, new.id);

    gate.write_policies(&[space.policy("keyed").key(node.key)]);
    gate.configure("/policy/mode", "enforce");
    gate.reload();
    gate.cri().pull(new.by_tag()).expect_refusal();
}

/// containerd hangs in a pull; the stop does not.
fn e6_drain_of_the_config_bounds_the_stop(node: &Node) {
    static HANGS: AtomicBool = AtomicBool::new(false);
    HANGS.store(true, Ordering::SeqCst);
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let config = image.id.clone();
    let proxy = Proxy::before(node.registry, move |request| {
        let hangs = HANGS.load(Ordering::SeqCst) && request.path.ends_with(&config);
        if hangs { Action::Drip(Duration::from_secs(3600)) } else { Action::Pass }
    });
    node.containerd.knows_host(proxy.host());
    let space = space.through(&proxy);
    let gate = Gate::before(&node.containerd)
        .policies(&[space.policy("keyed").key(node.key)])
        .set("/drain", "2s")
        .start();
    let named = space.name(&image);
    let cri = gate.cri();
    let pulling = thread::spawn({
        let name = named.by_tag();
        move || cri.pull(name).send()
    });
    kit::until("containerd to hang", || {
        proxy.seen().iter().any(|request| request.path.ends_with(&image.id)).then_some(())
    });
    let began = Instant::now();
    assert!(gate.stop().success());
    assert!(began.elapsed() >= Duration::from_secs(2), "not drained: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    pulling.join().expect("no panic").expect_err("it was given up");
    HANGS.store(false, Ordering::SeqCst);
    gate.start_again();
    assert_eq!(gate.cri().pull(named.by_tag()).expect(), image.id);
}

/// EMFILE on accept is waited out.
fn the_listener_outlives_a_want_of_file_descriptors(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    gate.cri().pull(image.by_tag()).expect();

    let open = gate.open_files();
    let limit = Command::new("prlimit")
        .args([format!("--pid={}", gate.pid()), format!("--nofile={}", open + 30)])
        .status();
    assert!(limit.is_ok_and(|status| status.success()), "prlimit");
    let mut crowd = Vec::new();
    kit::until("accept to fail", || {
        crowd.extend(UnixStream::connect(gate.socket()));
        gate.log().contains("cannot accept a connection").then_some(())
    });
    drop(crowd);
    let shown = kit::until("the gate to answer", || gate.cri().image_status(image.by_tag()).ok());
    assert_eq!(shown.map(|image| image.id), Some(image.id.clone()));
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    assert!(gate.cri().version().is_ok());
}

/// ENOSPC under the database, the export and the window of rule S2.
fn c3_a_full_disk_costs_durability_alone(node: &Node) {
    let space = node.space();
    let images: Vec<_> = (0..12).map(|n| space.image(&format!("app{n}")).push("1")).collect();
    images.iter().for_each(|image| node.key.sign(image));
    let unsigned = space.image("unsigned").push("1");
    let (builder, disk) = Gate::before(&node.containerd).on_a_small_disk(4 * 1024 * 1024);
    let gate = builder.policies(&[space.policy("keyed").key(node.key)]).set("/drain", "2s").start();
    let [first, others @ ..] = &images[..] else { unreachable!("twelve") };
    assert_eq!(gate.cri().pull(first.by_tag()).expect(), first.id);
    fill(&disk);

    for image in others {
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
        assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
    }
    gate.cri().pull(unsigned.by_tag()).expect_refusal();
    assert_eq!(gate.cri().image_status(unsigned.by_tag()).expect("an answer"), None);
    assert_eq!(gate.cri().present(first.by_tag()).id, first.id);

    let began = Instant::now();
    assert!(gate.stop().success(), "{}", gate.log());
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let said = gate.log().matches("cache cannot be written").count();
    assert!(said <= 1, "said {said} times:\n{}", gate.log());

    std::fs::remove_file(disk.join("fill")).expect("it is there");
    gate.start_again();
    for image in &images {
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    }
    gate.cri().pull(unsigned.by_tag()).expect_refusal();
    gate.restart();
    assert_eq!(gate.cri().pull(first.by_digest()).expect(), first.id);
    let state = gate.status_json();
    assert_eq!(state["cache"]["state"], json!("open"), "{state}");
}

/// Leaves no byte free.
fn fill(disk: &Path) {
    let mut file = File::create(disk.join("fill")).expect("a file");
    for size in [64 * 1024, 1024, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}
