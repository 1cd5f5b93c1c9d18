//! The gate over time: load, restarts on either side, crashes, a registry that is down, and the
//! moments between a pull and the start of the container.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use containerd_client::services::v1::{
    ListImagesRequest, TransferRequest, images_client::ImagesClient, transfer_client::TransferClient,
};
use k8s_cri::v1alpha2::{ImageSpec, PullImageRequest, image_service_client::ImageServiceClient};
use serde_json::{Value, json};
use tonic::Code;

use crate::kit::{
    self, Node, Space,
    cri::{self, Cri},
    gate::Gate,
    registry::Registry,
};

kit::on_each_containerd!(
    image_runs_as_its_user,
    s2_image_never_runs_as_root_after_a_change_in_between,
    s2_s5_image_that_a_new_policy_denies_is_not_absent_at_once,
    s6_containers_of_denied_images_are_named_and_left_running,
    s6_a_start_with_another_policy_looks_at_what_is_there,
    c6_verdicts_survive_a_restart,
    d6_broken_policies_leave_the_last_good_ones,
    e6_containerd_may_restart,
    f1_fifty_pulls_at_once_verify_once,
    m7_other_services_are_refused,
    o4_registry_outage_keeps_verified_images_working,
    c4_kill_9_under_load_never_opens_nor_forgets,
);

fn image_runs_as_its_user(node: &Node) {
    let space = node.space();
    let image = space.image("app").user("1000").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    assert_eq!(gate.cri().image_status(image.by_tag()).expect("an answer"), None);
    gate.cri().pull(image.by_tag()).pod("default", &[]).expect();
    assert_eq!(gate.cri().run(&image.by_tag()).expect("it runs").uid(), 1000);
}

/// Something that an administrator, or bad luck, does to a gate.
type Change = fn(&Gate);

/// Rule S2. The kubelet asks ImageStatus for the user just before it makes the container.
fn s2_image_never_runs_as_root_after_a_change_in_between(node: &Node) {
    let space = node.space();
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    let changes: [(_, Change); 5] = [
        ("reload", Gate::reload),
        ("hang-up", Gate::hang_up),
        ("purge", Gate::purge_cache),
        ("restart", Gate::restart),
        ("crash", Gate::crash),
    ];
    for (name, change) in changes {
        let image = space.image(name).user("1000").push("1");
        node.key.sign(&image);
        gate.cri().pull(image.by_tag()).expect();
        change(&gate);
        // An error makes the kubelet try again; "absent" would make it ask for root.
        let running = kit::until(name, || gate.cri().run(&image.by_tag()).ok());
        assert_eq!(running.uid(), 1000, "after a {name}");
    }
}

/// Rules S2 and S5.
fn s2_s5_image_that_a_new_policy_denies_is_not_absent_at_once(node: &Node) {
    let space = node.space();
    let image = space.image("app").user("1000").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    gate.cri().pull(image.by_tag()).expect();

    gate.write_policies(&[space.policy("keyed").key(node.other_key)]);
    gate.reload();
    gate.cri().pull(image.by_tag()).expect_refusal();
    let refusal = kit::until("the new policy to count", || match gate.cri().image_status(image.by_tag()) {
        Ok(shown) => {
            assert!(shown.is_some(), "absent minutes after it was present");
            None
        }
        Err(refusal) => Some(refusal),
    });
    assert_eq!(refusal.code(), Code::Unknown);
    assert!(refusal.message().starts_with("SignatureValidationFailed: "), "{refusal}");
}

fn s6_containers_of_denied_images_are_named_and_left_running(node: &Node) {
    let space = node.space();
    let [app, idle] = ["app", "idle"].map(|name| space.image(name).user("1000").push("1"));
    node.key.sign_all(&[app.clone(), idle.clone()]);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    for image in [&app, &idle] {
        gate.cri().pull(image.by_tag()).expect();
    }
    let running = gate.cri().run(&app.by_tag()).expect("it runs");
    let own = |status: &Value| -> Vec<Value> {
        let all = status["wouldDenyRunning"].as_array().into_iter().flatten();
        all.filter(|one| one["image"].as_str().is_some_and(|image| image.starts_with(&space.repository(""))))
            .cloned()
            .collect()
    };
    let status = || {
        let output = gate.command(&["status", "--would-deny", "-o", "json"]);
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    assert_eq!(own(&status()), Vec::<Value>::new());

    gate.write_policies(&[space.policy("keyed").key(node.other_key)]);
    gate.reload();
    let found =
        kit::until("the look at present images", || Some(own(&status())).filter(|found| !found.is_empty()));
    for one in &found {
        assert!(one["image"].as_str().is_some_and(|image| image.contains("/app")), "{found:?}");
        assert_eq!((&one["namespace"], &one["container"]), (&json!("default"), &json!("app")), "{found:?}");
        assert!(one["pod"].as_str().is_some_and(|pod| pod.starts_with("pod-")), "{found:?}");
    }
    kit::until("the metric", || (gate.metric("pullgate_denied_containers") >= 1.0).then_some(()));
    let text = String::from_utf8(gate.command(&["status", "--would-deny"]).stdout).expect("text");
    assert!(text.contains("running of it      default/pod-"), "{text}");
    let log = gate.log();
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("container runs of an image that policy refuses; it is left running"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(
        lines.iter().any(|line| {
            ["image", "namespace", "pod", "container"].iter().all(|name| line[name] == found[0][name])
        }),
        "{log}"
    );
    assert_eq!(running.uid(), 1000, "it runs on");
}

/// Rules S4 and S6: nothing that was pulled tells it, and a registry that is away hides nothing.
fn s6_a_start_with_another_policy_looks_at_what_is_there(node: &Node) {
    let registry = Registry::olareg();
    node.containerd.knows(&registry);
    let space = Space::on(&registry);
    let image = space.image("app").user("1000").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    gate.cri().pull(image.by_tag()).expect();
    let found = |undecided: u32, denied: u32| {
        kit::until("the look at present images", || {
            let images = gate.status_json()["images"].clone();
            (images == json!({"undecided": undecided, "denied": denied, "toLookAt": 0})).then_some(())
        });
    };
    found(0, 0);
    gate.stop();
    registry.stop();
    gate.write_policies(&[space.policy("keyed").key(node.other_key)]);
    gate.start_again();
    found(1, 0);
    assert!(gate.cri().image_status(image.by_tag()).expect("an answer").is_some());

    gate.stop();
    registry.start_again();
    gate.start_again();
    found(0, 1);
    // An error for minutes after it was shown (rule S2); by its digest nobody asked before.
    assert!(gate.cri().image_status(image.by_digest()).expect("an answer").is_none());
    for name in [image.by_tag(), image.id.clone()] {
        let refusal = gate.cri().image_status(name).expect_err("not shown");
        assert!(refusal.message().contains("no longer admitted"), "{refusal}");
    }
    assert!(gate.log().contains("present image is no longer admitted: hidden from ImageStatus"));
}

fn c6_verdicts_survive_a_restart(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    gate.cri().pull(image.by_tag()).expect();
    for restart in [Gate::restart as Change, Gate::crash] {
        restart(&gate);
        assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
    }
    gate.restart();
    assert_eq!(gate.cri().pull(image.by_digest()).expect(), image.id);
    assert!(gate.metric("pullgate_verifications_total").abs() < f64::EPSILON, "the verdict was there");
}

/// Rule D6.
fn d6_broken_policies_leave_the_last_good_ones(node: &Node) {
    let space = node.space();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    let healthy = gate.command(&["status"]);
    assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");

    gate.write_policy_text("apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec: {ruels: []}\n");
    let reload = gate.command(&["reload"]);
    assert_eq!(reload.status.code(), Some(2), "{reload:?}");
    for restart in [None, Some(Gate::restart as Change), Some(Gate::crash)] {
        if let Some(restart) = restart {
            restart(&gate);
        }
        let degraded = gate.command(&["status"]);
        assert_eq!(degraded.status.code(), Some(1), "{degraded:?}");
        assert_eq!(gate.cri().pull(signed.by_tag()).expect(), signed.id);
        gate.cri().pull(unsigned.by_tag()).expect_refusal();
    }

    gate.write_policies(&[space.policy("keyed").key(node.key)]);
    gate.reload();
    let healthy = gate.command(&["status"]);
    assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");
}

/// Rule E6.
fn e6_containerd_may_restart(node: &Node) {
    let node = Node::start(node.containerd.version());
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    gate.cri().pull(image.by_tag()).expect();

    node.containerd.stop();
    let refusal = gate.cri().image_status(image.by_tag()).expect_err("containerd is away");
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    assert_eq!(gate.cri().pull(image.by_tag()).expect_refusal().code(), Code::Unavailable);

    node.containerd.start_again();
    let shown = kit::until("the gate to recover", || gate.cri().image_status(image.by_tag()).ok());
    assert_eq!(shown.map(|image| image.id), Some(image.id.clone()), "present or an error, never absent");
    assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
}

/// Rule F1.
fn f1_fifty_pulls_at_once_verify_once(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    let pulls = (0..50).map(|_| gate.cri().pull(image.by_tag()).sent());
    for pulled in kit::block_on(futures_util::future::join_all(pulls)) {
        assert_eq!(pulled.expect("it goes through"), image.id);
    }
    let verifications = gate.metric("pullgate_verifications_total");
    assert!((verifications - 1.0).abs() < f64::EPSILON, "{verifications} verifications");
}

/// Rule M7: containerd serves more than the CRI on the same socket.
fn m7_other_services_are_refused(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    let channel = || cri::channel(&gate.socket());

    let spec = ImageSpec { image: image.by_tag(), ..Default::default() };
    let request = PullImageRequest { image: Some(spec), ..Default::default() };
    let refusals = [
        cri::call(async { ImageServiceClient::new(channel()).pull_image(request).await }).map(drop),
        cri::call(async { TransferClient::new(channel()).transfer(TransferRequest::default()).await })
            .map(drop),
        cri::call(async { ImagesClient::new(channel()).list(ListImagesRequest::default()).await }).map(drop),
    ];
    for refusal in refusals.map(|answer| answer.expect_err("refused")) {
        assert_eq!(refusal.code(), Code::Unimplemented, "{refusal}");
        assert!(refusal.message().contains("pullgate"), "{refusal}");
    }
    assert!(gate.cri().version().is_ok(), "the runtime service of the CRI flows");
}

/// Rule O4, with its default `anonymous`.
fn o4_registry_outage_keeps_verified_images_working(node: &Node) {
    let registry = Registry::olareg();
    node.containerd.knows(&registry);
    let space = Space::on(&registry);
    let [image, never_pulled] = ["app", "new"].map(|name| space.image(name).user("1000").push("1"));
    node.key.sign(&image);
    node.key.sign(&never_pulled);
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);
    gate.cri().pull(image.by_tag()).expect();

    registry.stop();
    for _ in 0..2 {
        assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
        for name in [image.by_tag(), image.by_digest()] {
            assert_eq!(gate.cri().pull(name).expect(), image.id);
        }
        let refusal = gate.cri().pull(image.by_tag()).credentials("ada", "one").expect_refusal();
        assert!(refusal.message().starts_with("RegistryUnavailable: "), "{refusal}");
        let refusal = gate.cri().pull(never_pulled.by_tag()).expect_refusal();
        assert!(refusal.message().starts_with("RegistryUnavailable: "), "{refusal}");
        gate.restart();
    }
    assert_eq!(gate.cri().run(&image.by_tag()).expect("it runs").uid(), 1000);

    registry.start_again();
    assert_eq!(gate.cri().pull(never_pulled.by_tag()).expect(), never_pulled.id);
}

/// `PULLGATE_KILLS` says how often; more is better, 10 is quick.
fn c4_kill_9_under_load_never_opens_nor_forgets(node: &Node) {
    let kills = std::env::var("PULLGATE_KILLS").map_or(10, |kills| kills.parse().expect("a number"));
    let space = node.space();
    let signed = ["a", "b", "c"].map(|name| space.image(name).push("1"));
    signed.iter().for_each(|image| node.key.sign(image));
    let unsigned = space.image("unsigned").push("1");
    let gate = Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]);

    let (calls, over) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|threads| {
        let _stop_threads_on_panic = SetOnDrop(&over);
        for image in &signed {
            let cri = gate.cri();
            let (calls, over) = (&calls, &over);
            threads.spawn(move || {
                let mut pulled = false;
                while !over.load(Ordering::SeqCst) {
                    pulled |= cri.pull(image.by_tag()).send().is_ok_and(|id| id == image.id);
                    if let (true, Ok(shown)) = (pulled, cri.image_status(image.by_tag())) {
                        assert!(shown.is_some(), "{} was pulled and is absent", image.by_tag());
                    }
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let (cri, over, unsigned) = (gate.cri(), &over, &unsigned);
        threads.spawn(move || {
            while !over.load(Ordering::SeqCst) {
                refused(&cri, &unsigned.by_tag());
            }
        });

        for _ in 0..kills {
            // A random moment: after some calls, in the middle of others.
            let more = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos() % 20);
            let enough = calls.load(Ordering::SeqCst) + more;
            kit::until("calls to go on", || (calls.load(Ordering::SeqCst) >= enough).then_some(()));
            gate.crash();
        }
    });

    assert_eq!(node.containerd.record(&unsigned.by_digest()), None);
    for image in &signed {
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id);
        assert_eq!(gate.cri().present(image.by_tag()).id, image.id);
    }
}

fn refused(cri: &Cri, unsigned: &str) {
    cri.pull(unsigned).expect_refusal();
    if let Ok(shown) = cri.image_status(unsigned) {
        assert_eq!(shown, None);
    }
}

/// Tells the threads of a test that it is over, also when it panics.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
