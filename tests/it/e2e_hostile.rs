//! Registries that answer without an end, many at once: what they cost the gate is bounded, honest pulls beside
//! them go through, and nothing of them stays. The figures are in `docs/benchmarks.md`.

use std::time::Duration;

use futures_util::future::{join_all, select_all};

use crate::kit::{
    self, Node, block_on,
    cri::Cri,
    gate::Gate,
    hostile::{At, Harm, Hostile},
    image::Image,
    policy::Policy,
};

kit::on_each_containerd!(
    endless_answers_cost_bounded_memory_and_leave_nothing,
    answers_that_never_end_hold_no_honest_pull_up_for_good,
    one_registry_that_drips_keeps_slots_for_others,
);

/// For what is more than the idle daemon has, which may be 20 MiB: together the 64 MiB of the design.
const BOUND_KIB: u64 = 44 * 1024;

fn endless_answers_cost_bounded_memory_and_leave_nothing(node: &Node) {
    let scene = Scene::with(node, "60s");
    let harms = [Harm::Endless, Harm::Huge, Harm::Headers, Harm::Compressed, Harm::Full];
    let places = [At::Image, At::Signatures, At::Blobs, At::Referrers];
    // Each harm in each place.
    let hosts: Vec<_> = (0..60).map(|n| Hostile::start(harms[n % 5], places[n % 4])).collect();
    let cri = &scene.cri;
    let (refused, pulled) = block_on(async {
        let pulls = join_all(hosts.iter().map(|host| cri.pull(host.image(1)).sent()));
        tokio::join!(pulls, cri.pull(scene.honest.by_tag()).sent())
    });
    assert_eq!(pulled.expect("an honest pull beside them"), scene.honest.id);
    for (host, answer) in hosts.iter().zip(refused) {
        let refusal = answer.expect_err("nothing is signed");
        assert!(refusal.message().starts_with("RegistryUnavailable: "), "{refusal}");
        assert!(host.harmed() > 0, "its harm was asked for");
        assert!(!host.was_asked_for_compression());
    }
    scene.assert_bounded_and_over(hosts);
}

fn answers_that_never_end_hold_no_honest_pull_up_for_good(node: &Node) {
    let scene = Scene::with(node, "5s");
    // The first have every slot of verification, the others all the memory that large answers share.
    let drips = (0..50).map(|_| Hostile::start(Harm::Drip, At::Signatures));
    let stalls = (0..50).map(|_| Hostile::start(Harm::Stall, At::Image));
    let hosts: Vec<_> = drips.chain(stalls).collect();
    let cri = &scene.cri;
    let pulled = block_on(async {
        let pulls = join_all(hosts.iter().map(|host| cri.pull(host.image(1)).sent()));
        let honest = async {
            under_way(|| hosts.iter().filter(|host| host.harmed() > 0).count() >= 16 + 50).await;
            cri.pull(scene.honest.by_tag()).sent().await
        };
        // What still goes on then is cancelled, as by a kubelet that ends.
        tokio::select! {
            pulled = honest => pulled,
            refused = pulls => {
                assert!(refused.iter().all(Result::is_err), "nothing is signed");
                cri.pull(scene.honest.by_tag()).sent().await
            }
        }
    });
    assert_eq!(pulled.expect("an honest pull"), scene.honest.id);
    scene.assert_bounded_and_over(hosts);
}

/// However many of its images are pulled, and whatever the time for one is.
fn one_registry_that_drips_keeps_slots_for_others(node: &Node) {
    let scene = Scene::with(node, "60s");
    let host = Hostile::start(Harm::Drip, At::Signatures);
    let cri = &scene.cri;
    block_on(async {
        let pulls = select_all((0..50).map(|number| Box::pin(cri.pull(host.image(number)).sent())));
        let honest = async {
            // As many as are asked of one host at once: the other pulls are under way too.
            under_way(|| host.harmed() >= 4).await;
            cri.pull(scene.honest.by_tag()).sent().await
        };
        tokio::select! {
            (answer, ..) = pulls => panic!("the honest pull waited for a slot of the others: {answer:?}"),
            pulled = honest => assert_eq!(pulled.expect("an honest pull"), scene.honest.id),
        }
    });
    scene.assert_bounded_and_over(vec![host]);
}

async fn under_way(test: impl Fn() -> bool) {
    while !test() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A gate that has pulled something, and an honest image that it has not.
struct Scene {
    gate: Gate,
    /// One connection, so that it is counted before as after.
    cri: Cri,
    honest: Image,
    files: usize,
    resident: u64,
}

impl Scene {
    /// With this time for one verification.
    fn with(node: &Node, verification: &str) -> Self {
        let space = node.space();
        let [first, honest] = ["first", "honest"].map(|name| space.image(name).push("1"));
        node.key.sign(&first);
        node.key.sign(&honest);
        let gate = Gate::before(&node.containerd)
            .set("/limits/verification", verification)
            .policies(&[Policy::new("keyed", "*").key(node.key)])
            .start();
        let cri = gate.cri();
        cri.pull(first.by_tag()).expect();
        let (files, resident) = (gate.open_files(), gate.memory("VmRSS:"));
        gate.forget_most_memory();
        Self { gate, cri, honest, files, resident }
    }

    fn assert_bounded_and_over(&self, hosts: Vec<Hostile>) {
        let most = self.gate.memory("VmHWM:");
        assert!(most <= self.resident + BOUND_KIB, "{} KiB before, at most {most} KiB", self.resident);
        drop(hosts);
        kit::until("every connection to be closed", || (self.gate.open_files() <= self.files).then_some(()));
    }
}
