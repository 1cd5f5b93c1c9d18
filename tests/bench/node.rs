//! The gate before a real containerd: what calls cost through it, its memory, its start.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use k8s_cri::v1::{
    ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest,
    image_service_client::ImageServiceClient,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pullgate::daemon::control::{Request, ask};
use tonic::transport::Channel;

use crate::{
    cache,
    kit::{self, Node, block_on, containerd::Containerd, gate::Gate, image::Image},
    report::{Row, Samples, mib, time},
};

/// ImageStatus, the kubelet's most frequent call.
pub(crate) fn status(node: &Node) -> Vec<Row> {
    let (gate, image) = gate_with_pulled_image(node);
    let mut rows = Vec::new();
    for (how, name) in [("by tag", image.by_tag()), ("by digest", image.by_digest())] {
        let ask = |client: &ImageServiceClient<Channel>| {
            let (mut client, image) = (client.clone(), Some(spec(&name)));
            async move {
                let answer = client.image_status(ImageStatusRequest { image, verbose: false }).await;
                assert!(answer.expect("ImageStatus").into_inner().image.is_some(), "present");
            }
        };
        let (through, direct) = in_turn(2000, &gate, &node.containerd, ask);
        let what = format!("ImageStatus {how}, through / direct");
        rows.push(Row::ratio(&what, 0.5, &through, &direct, 1.6));
        rows.push(Row::ratio(&what, 0.99, &through, &direct, 2.0));
    }
    rows
}

/// PullImage of an image that is there and verified.
pub(crate) fn pull(node: &Node) -> Vec<Row> {
    let (gate, image) = gate_with_pulled_image(node);
    let mut rows = Vec::new();
    for (how, name, bar) in [("by digest", image.by_digest(), 1.2), ("by tag", image.by_tag(), 1.4)] {
        let pull = |client: &ImageServiceClient<Channel>| {
            let (mut client, image) = (client.clone(), Some(spec(&name)));
            async move {
                let request = PullImageRequest { image, ..Default::default() };
                client.pull_image(request).await.expect("PullImage");
            }
        };
        let (through, direct) = in_turn(300, &gate, &node.containerd, pull);
        let what = format!("PullImage of a present image {how}, verdict cached, through / direct");
        rows.push(Row::ratio(&what, 0.5, &through, &direct, bar));
    }
    assert!((gate.metric("pullgate_verifications_total") - 1.0).abs() < 0.5, "the verdict was cached");
    rows
}

/// Many pulls of one image share one verification.
pub(crate) fn flight(node: &Node) -> Vec<Row> {
    let (gate, image) = gate_with_signed_image(node);
    pull_at_once(&gate, std::iter::repeat_n(&image, MANY));
    let verifications = gate.metric("pullgate_verifications_total");
    let figure = format!("{verifications} verifications");
    vec![Row::at_most(format!("{MANY} concurrent pulls of one image"), verifications, figure, 1.0, "")]
}

/// ListImages with many images.
pub(crate) fn list(node: &Node) -> Vec<Row> {
    let (gate, _) = gate_with_pulled_image(node);
    present_images(node, &node.space(), 500);
    let listed = node.containerd.cri().list_images().expect("a list").len();
    let list = |client: &ImageServiceClient<Channel>| {
        let mut client = client.clone();
        async move {
            client.list_images(ListImagesRequest { filter: None }).await.expect("ListImages");
        }
    };
    let (through, direct) = in_turn(300, &gate, &node.containerd, list);
    vec![Row::ratio(
        &format!("ListImages with {listed} images, through / direct"),
        0.5,
        &through,
        &direct,
        1.2,
    )]
}

/// Resident memory: idle, and at most while many images are verified for the first time.
pub(crate) fn memory(node: &Node) -> Vec<Row> {
    let space = node.space();
    // Not on the node: the gate would verify them in the background before anybody pulls them.
    let images: Vec<_> = (0..MANY).map(|number| space.image("many").push(&number.to_string())).collect();
    for some in images.chunks(50) {
        node.key.sign_all(some);
    }
    let cache = kit::folder().join("cache");
    cache::seed(&cache, 10_000);
    let gate = Gate::before(&node.containerd)
        .set("/cache/path", cache.display().to_string())
        .policies(&[space.policy("keyed").key(node.key)])
        .start();
    until_cache_is_open(&gate);
    let open = gate.memory("VmRSS:");
    // The database is closed when nothing was asked of it for ten seconds, or longer if it opens slowly.
    thread::sleep(Duration::from_secs(30));
    let idle = gate.memory("VmRSS:");
    let (own, file) = (gate.memory("RssAnon:"), gate.memory("RssFile:"));

    // What is written opens the database; then it rests again.
    pull_at_once(&gate, &images[..1]);
    thread::sleep(Duration::from_secs(45));
    let rested = gate.memory("VmRSS:");

    gate.forget_most_memory();
    let start = Instant::now();
    pull_at_once(&gate, &images[1..]);
    let took = time(start.elapsed());
    let most = gate.memory("VmHWM:");
    let verified = gate.metric("pullgate_verifications_total");
    assert!((verified - images.len() as f64).abs() < 0.5, "{verified} cold verifications");
    let parts = format!(
        "{:.1} MiB ({:.1} own, {:.1} of the program file; {:.1} just after the start)",
        mib(idle),
        mib(own),
        mib(file),
        mib(open)
    );
    vec![
        Row::at_most("memory (RSS), idle with 10 000 cached verdicts", mib(idle), parts, 20.0, " MiB"),
        Row::at_most(
            "the same after a pull that was written",
            mib(rested),
            format!("{:.1} MiB", mib(rested)),
            20.0,
            " MiB",
        ),
        Row::at_most(
            format!("memory (RSS), most during {MANY} concurrent cold verifications"),
            mib(most),
            format!("{:.1} MiB (done in {took})", mib(most)),
            64.0,
            " MiB",
        ),
    ]
}

/// From the start of the process to `READY=1`.
pub(crate) fn start(node: &Node) -> Vec<Row> {
    let cache = kit::folder().join("cache");
    cache::seed(&cache, 10_000);
    let space = node.space();
    let policies: Vec<_> =
        (0..100).map(|number| space.policy(&format!("keyed-{number}")).key(node.key)).collect();
    let gate = Gate::before(&node.containerd)
        .set("/cache/path", cache.display().to_string())
        .policies(&policies)
        .start();
    until_cache_is_open(&gate);
    assert!(gate.stop().success(), "it drains");

    let (mut ready, mut open) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        let start = Instant::now();
        let daemon = start_until_ready(&gate);
        ready.push(start.elapsed());
        until_cache_is_open(&gate);
        open.push(start.elapsed());
        end(daemon);
    }
    let (ready, open) = (Samples::new(ready).median(), Samples::new(open).median());
    vec![
        Row::at_most(
            "start to ready, 100 policies and 10 000 cached verdicts",
            ready.as_secs_f64() * 1e3,
            time(ready),
            100.0,
            " ms",
        ),
        Row::plain(
            "the same until the cache has been read (until then images are verified anew)",
            time(open),
        ),
    ]
}

/// How many "many concurrent" are.
const MANY: usize = 200;

fn gate_with_signed_image(node: &Node) -> (Gate, Image) {
    let space = node.space();
    let image = space.image("app").push("1");
    node.key.sign(&image);
    (Gate::start(&node.containerd, &[space.policy("keyed").key(node.key)]), image)
}

fn gate_with_pulled_image(node: &Node) -> (Gate, Image) {
    let (gate, image) = gate_with_signed_image(node);
    gate.cri().pull(image.by_tag()).expect();
    (gate, image)
}

/// Images that were pulled past the gate.
fn present_images(node: &Node, space: &kit::Space<'_>, count: usize) -> Vec<Image> {
    let images: Vec<_> = (0..count).map(|number| space.image("many").push(&number.to_string())).collect();
    let cri = node.containerd.cri();
    for some in images.chunks(8) {
        let pulls = some.iter().map(|image| cri.pull(image.by_tag()).sent());
        assert!(block_on(join_all(pulls)).iter().all(Result::is_ok), "containerd pulls");
    }
    images
}

fn pull_at_once<'a>(gate: &Gate, images: impl IntoIterator<Item = &'a Image>) {
    let cri = gate.cri();
    let pulls = images.into_iter().map(|image| cri.pull(image.by_tag()).sent());
    for answer in block_on(join_all(pulls)) {
        answer.expect("PullImage");
    }
}

/// Times a call through the gate and without it, in turn, after some that do not count.
fn in_turn<F: Future<Output = ()>>(
    rounds: usize,
    gate: &Gate,
    containerd: &Containerd,
    call: impl Fn(&ImageServiceClient<Channel>) -> F,
) -> (Samples, Samples) {
    let client = |socket: &Path| ImageServiceClient::new(kit::cri::channel(socket));
    let clients = [client(&gate.socket()), client(&containerd.socket())];
    let mut times = [Vec::new(), Vec::new()];
    let warm_up = rounds / 10;
    block_on(async {
        for round in 0..warm_up + rounds {
            for side in [round % 2, 1 - round % 2] {
                let start = Instant::now();
                call(&clients[side]).await;
                if round >= warm_up {
                    times[side].push(start.elapsed());
                }
            }
        }
    });
    let [through, direct] = times.map(Samples::new);
    (through, direct)
}

/// Starts a gate's program again the way systemd does, and waits for its word that it is ready.
#[expect(clippy::zombie_processes, reason = "`end` waits for it; a panic ends the benchmark anyway")]
fn start_until_ready(gate: &Gate) -> Child {
    let config = gate.socket().with_file_name("config.yaml");
    let socket = kit::folder().join("notify.sock");
    let words = UnixDatagram::bind(&socket).expect("a socket");
    words.set_read_timeout(Some(kit::PATIENCE)).expect("a timeout");
    let log = fs::File::options().append(true).open(gate.socket().with_file_name("gate.log")).expect("a log");
    let mut command = Command::new(program());
    command.args(["serve", "--config"]).arg(config).env("NOTIFY_SOCKET", socket).stderr(log);
    let daemon = command.spawn().expect("pullgate");
    let mut word = [0; 512];
    loop {
        let length = words.recv(&mut word).expect("pullgate gets ready");
        if String::from_utf8_lossy(&word[..length]).lines().any(|line| line == "READY=1") {
            return daemon;
        }
    }
}

fn end(mut daemon: Child) {
    let pid = Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    kill(pid, Signal::SIGTERM).expect("our own child");
    assert!(daemon.wait().expect("our own child").success(), "it drains");
}

fn until_cache_is_open(gate: &Gate) {
    let control = gate.socket().with_file_name("control.sock");
    let deadline = Instant::now() + kit::PATIENCE;
    while Instant::now() < deadline {
        // It binds the control socket a moment after the one that it serves.
        if ask(&control, &Request::Status { would_deny: false })
            .is_ok_and(|status| status.body["cache"]["state"] == "open")
        {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the cache does not open");
}

/// The program that is measured.
pub(crate) fn program() -> std::path::PathBuf {
    std::env::var_os("PULLGATE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_pullgate").into(), Into::into)
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}
