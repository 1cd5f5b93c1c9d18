//! The kit against containerd itself: what the other end-to-end tests stand on.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::kit::{
    self, Node,
    containerd::Containerd,
    front::{Behind, Front},
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

/// A round trip is added to what is asked and answered, and to nothing else: not to each piece, not to
/// setting up connections.
#[test]
fn kit_a_distant_host_is_a_round_trip_away() {
    let echo = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = echo.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in echo.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let trip = Duration::from_millis(400);
    let front = Front::before(Behind::Distant(host, trip));
    let pieces: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; 1000]).collect();

    let began = Instant::now();
    let mut stream = TcpStream::connect(front.host()).expect("a connection");
    stream.set_nodelay(true).expect("a TCP socket");
    for piece in &pieces {
        stream.write_all(piece).expect("it is taken");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(began.elapsed() < trip, "{:?}", began.elapsed());
    let mut back = vec![0; 40_000];
    stream.read_exact(&mut back).expect("all of it");
    assert_eq!(back, pieces.concat());
    assert!(began.elapsed() >= trip, "{:?}", began.elapsed());
    assert!(began.elapsed() < trip * 10, "each piece waits for another: {:?}", began.elapsed());

    // One after the other, each is a round trip.
    let began = Instant::now();
    for piece in &pieces[..3] {
        stream.write_all(piece).expect("it is taken");
        stream.read_exact(&mut back[..1000]).expect("it comes back");
    }
    assert!(began.elapsed() >= trip * 3, "{:?}", began.elapsed());
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(stream.read(&mut back).expect("an end"), 0, "the end comes through too");
}

#[test]
fn kit_a_front_keeps_its_port_while_nobody_is_behind_it() {
    let there = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = there.local_addr().expect("an address").to_string();
    let front = Front::before(Behind::Nobody);
    for _ in 0..3 {
        let refused = TcpStream::connect(front.host()).expect_err("nobody is there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        front.put(Behind::Host(host.clone()));
        let mut client = TcpStream::connect(front.host()).expect("somebody is there");
        let (mut server, _) = there.accept().expect("a connection");
        server.write_all(b"hello").expect("it is taken");
        let mut read = [0; 5];
        client.read_exact(&mut read).expect("it comes through");
        front.put(Behind::Nobody);
        assert_eq!(client.read(&mut read).unwrap_or(0), 0, "the connection ends");
    }
    assert_eq!(front.connections(), 3);
}
