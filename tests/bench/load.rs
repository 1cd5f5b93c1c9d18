//! The daemon under load: hostile registries beside honest pulls, and many different images at once, beside
//! cosign in as many processes as the machine has processors.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::join_all};
use pullgate::daemon::control::{Request, ask_within};

use crate::{
    delay::{Road, TRIPS},
    kit::{
        self, Node, Space, block_on,
        cri::Cri,
        gate::Gate,
        hostile::{At, Harm, Hostile},
        image::Image,
        policy::Policy,
        registry::Registry,
        tools,
    },
    report::{Row, mib, time},
    verify::{Contender, offline},
};

/// Memory while fifty registries and more answer without an end; honest pulls beside them.
pub(crate) fn hostile(node: &Node) -> Vec<Row> {
    let all = [At::Image, At::Signatures, At::Blobs, At::Referrers];
    [
        ("50 endless chunked answers", Harm::Endless, &all[..]),
        ("50 answers of a TiB", Harm::Huge, &all[..]),
        ("50 times endless headers", Harm::Headers, &all[..]),
        ("50 times 64 MiB in 64 KiB of gzip", Harm::Compressed, &all[..]),
        ("50 answers that stop before their last byte", Harm::Stall, &all[..1]),
    ]
    .into_iter()
    .map(|(what, harm, places)| {
        under(node, what, places.iter().cycle().take(50).map(|at| (Hostile::start(harm, *at), 1)).collect())
    })
    .chain([under(
        node,
        "50 dripping answers of one registry",
        vec![(Hostile::start(Harm::Drip, At::Signatures), 50)],
    )])
    .collect()
}

/// So many images of each of these registries, and an honest one.
fn under(node: &Node, what: &str, hosts: Vec<(Hostile, usize)>) -> Row {
    let space = node.space();
    let [first, honest] = ["first", "honest"].map(|name| space.image(name).push("1"));
    node.key.sign(&first);
    node.key.sign(&honest);
    let gate = gate(node);
    let cri = gate.cri();
    cri.pull(first.by_tag()).expect();
    let (files, before) = (gate.open_files(), gate.memory("VmRSS:"));
    gate.forget_most_memory();
    let (beside, over) = block_on(async {
        let start = Instant::now();
        let images = hosts.iter().flat_map(|(host, images)| (0..*images).map(|number| host.image(number)));
        let pulls = join_all(images.map(|image| cri.pull(image).sent()));
        let refused = tokio::time::timeout(kit::PATIENCE / 2, pulls).map(|answers| {
            let answers = answers.ok()?;
            assert!(answers.iter().all(Result::is_err), "nothing is signed");
            Some(start.elapsed())
        });
        let beside = async {
            while hosts.iter().any(|(host, images)| host.harmed() < 4.min(*images)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            pull(&cri, &honest).await
        };
        tokio::join!(beside, refused)
    });
    let most = gate.memory("VmHWM:");
    drop(hosts);
    let after = kit::within(Duration::from_secs(20), || (gate.open_files() <= files).then_some("as before"));
    let figure = format!(
        "{:.1} MiB ({:.1} before, {:.1} after; {}; the honest pull beside them took {}; open files {})",
        mib(most),
        mib(before),
        mib(gate.memory("VmRSS:")),
        over.map_or("cancelled after 30 s".to_owned(), |over| format!("all refused after {}", time(over))),
        time(beside),
        after.unwrap_or("more than before"),
    );
    Row::at_most(format!("memory (RSS), most during {what}"), mib(most), figure, 64.0, " MiB")
}

async fn pull(cri: &Cri, image: &Image) -> Duration {
    let start = Instant::now();
    cri.pull(image.by_tag()).sent().await.expect("an honest pull");
    start.elapsed()
}

fn gate(node: &Node) -> Gate {
    Gate::before(&node.containerd).policies(&[Policy::new("keyed", "*").key(node.key)]).start()
}

/// Many different images, none of them known: by the daemon, and by cosign in a pool of processes.
pub(crate) fn many(node: &Node) -> Vec<Row> {
    let registry = Registry::docker();
    let space = Space::on(&registry);
    let road = Road::to(&registry);
    let pushed = (0..MANY).map(|number| road.name(&space.image("many").push(&number.to_string())));
    let images: Vec<_> = pushed.collect();
    for some in images.chunks(50) {
        node.key.sign_all(some);
    }
    let folder = kit::folder();
    let key = folder.join("cosign.pub");
    fs::write(&key, &node.key.public).expect("a key");
    let cosign = |name: &'static str, file: &str, more: &[&str]| {
        let mut command = offline(&tools().join("bin").join(file), &folder);
        command.args(["verify", "--key"]).arg(&key).arg("--insecure-ignore-tlog=true").args(more);
        Contender { name, command }
    };
    let peers =
        [cosign("cosign 2", "cosign-2", &[]), cosign("cosign 3", "cosign-3", &["--new-bundle-format=false"])];
    let names: Vec<_> = images.iter().map(Image::by_tag).collect();
    let ours = road.requests(|| _ = verify_at_once(&gate(node), &names));
    let mut requests = vec![format!("pullgate: {ours}")];
    for peer in &peers {
        let sent = road.requests(|| peer.succeed(&names[0]));
        requests.push(format!("{}: {}", peer.name, sent * MANY));
    }
    let what = format!("{MANY} different images at once, cold");
    let mut rows = vec![Row::plain(format!("{what}, registry requests"), requests.join(", "))];
    let cores = thread::available_parallelism().expect("processors").get();
    for trip in TRIPS {
        road.set_distance(trip);
        let gate = gate(node);
        gate.forget_most_memory();
        let took = verify_at_once(&gate, &names);
        let mut figures = vec![format!("pullgate: {}, {:.1} MiB", time(took), mib(gate.memory("VmHWM:")))];
        for peer in &peers {
            let (took, memory) = (pool(peer, &names, cores), peer.memory(&names[0]));
            figures.push(format!(
                "{} in {cores} processes: {}, {cores} x {:.1} MiB",
                peer.name,
                time(took),
                mib(memory)
            ));
        }
        rows.push(Row::plain(format!("{what}, {} ms further away", trip.as_millis()), figures.join("; ")));
    }
    rows
}

/// Verifies all of them, asked for at once on the control socket.
fn verify_at_once(gate: &Gate, images: &[String]) -> Duration {
    let control = gate.folder().join("control.sock");
    let verify = |image: &String| {
        let request = Request::CachePrewarm { image: image.clone() };
        let answer = ask_within(Path::new(&control), &request, Duration::from_secs(300)).expect("an answer");
        assert_eq!(answer.body["verdict"], "allowed", "{answer:?}");
    };
    kit::until("the control socket", || control.exists().then_some(()));
    let start = Instant::now();
    thread::scope(|scope| images.iter().for_each(|image| drop(scope.spawn(move || verify(image)))));
    start.elapsed()
}

/// The same by processes of which so many run at once.
fn pool(contender: &Contender, images: &[String], processes: usize) -> Duration {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..processes {
            scope.spawn(|| {
                while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                    contender.succeed(image);
                }
            });
        }
    });
    start.elapsed()
}

/// How many "many" are.
const MANY: usize = 200;
