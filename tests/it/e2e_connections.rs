//! How registries are spoken to, as they are: over TLS with an authority and a certificate of one's own,
//! over one connection of HTTP/2, and over few of HTTP/1.
//!
//! Connections are counted before a registry, versions of HTTP in its access log.

use std::fs;

use crate::kit::{
    self, Node,
    authority::Authority,
    front::{Behind, Front},
    gate::Gate,
    image::Image,
    policy::Policy,
    ran::Ran,
    registry::{Guard, HttpVersions, Kind, Registry, Tls},
};

kit::on_each_containerd!(
    client_certificate_that_a_registry_asks_for_is_shown,
    http_2_carries_all_of_a_verification_over_one_connection,
    http_1_connections_are_kept,
);

/// Writes `certs.d/<host>/hosts.toml` for the gate and for containerd.
fn hosts_toml(node: &Node, host: &str, keys: &str) {
    let folder = node.containerd.certs().join(host);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("hosts.toml"), format!("server = \"https://{host}\"\n{keys}[host]\n"))
        .expect("a file");
}

fn client_certificate_that_a_registry_asks_for_is_shown(node: &Node) {
    for kind in Kind::all() {
        let open = Registry::of(kind);
        let image = open.image("app").push("1");
        node.key.sign(&image);
        let [servers, clients, others] = [Authority::new(), Authority::new(), Authority::new()];
        let (certificate, key) = servers.issue_valid();
        let door = open.over_tls(Tls { certificate, key, clients: Some(clients.file()) });
        let image = image.at(format!("{}/app", door.host()));
        let policy = Policy::new("keyed", format!("{}/*", door.host())).key(node.key);
        let gate = Gate::start(&node.containerd, &[policy]);
        let authority = format!("ca = {:?}\n", servers.file());
        let shown = |by: &Authority| {
            let (certificate, key) = by.issue_valid();
            format!("client = [[{certificate:?}, {key:?}]]\n")
        };
        let said =
            [String::new(), authority.clone(), format!("{authority}{}", shown(&others)), shown(&clients)]
                .map(|keys| {
                    hosts_toml(node, door.host(), &keys);
                    node.containerd.cri().pull(image.by_tag()).expect_refusal();
                    let refusal = gate.cri().pull(image.by_tag()).expect_refusal();
                    refusal.message().replace(&image.by_tag(), "IMAGE")
                });
        let untrusted = "RegistryUnavailable: IMAGE: registry's certificate is not trusted";
        let hung_up = "RegistryUnavailable: IMAGE: connection failed";
        let stranger = match kind {
            Kind::Distribution2 | Kind::Distribution3 => hung_up,
            // It asks for one that is good or none, and for somebody's name then.
            Kind::Zot => "IMAGE: registry answered 401",
        };
        assert_eq!(said, [untrusted, stranger, hung_up, untrusted], "{kind:?}");
        hosts_toml(node, door.host(), &format!("{authority}{}", shown(&clients)));
        assert_eq!(gate.cri().pull(image.by_tag()).expect(), image.id, "{kind:?}");
        assert_eq!(node.containerd.record(&image.by_tag()), Some(image.digest.clone()), "{kind:?}");
        node.containerd.cri().remove_image(image.id.clone()).expect("removed");
        assert_eq!(node.containerd.cri().pull(image.by_tag()).expect(), image.id, "{kind:?}: without a gate");
    }
}

/// A registry of which the connections are counted, and an image with five bundles, of which one counts.
struct Counted {
    registry: Registry,
    front: Front,
    image: Image,
    gate: Gate,
}

impl Counted {
    fn new(node: &Node, kind: Kind, tls: Option<HttpVersions>) -> Self {
        let open = Registry::of(kind);
        let image = open.image("app").push("1");
        for _ in 0..4 {
            node.other_key.sign_bundle(&image);
        }
        node.key.sign_bundle(&image);
        let authority = Authority::new();
        let registry = match tls {
            None => open.guarded(Guard::default()),
            Some(http) => {
                let (certificate, key) = authority.issue_valid();
                open.guarded(Guard {
                    tls: Some(Tls { certificate, key, clients: None }),
                    http,
                    ..Guard::default()
                })
            }
        };
        let front = Front::before(Behind::Host(registry.host().to_owned()));
        let host = front.host();
        match tls {
            None => node.containerd.knows_host(&host),
            Some(_) => hosts_toml(node, &host, &format!("ca = {:?}\n", authority.file())),
        }
        let policy = Policy::new("keyed", format!("{host}/*")).key(node.key);
        let gate = Gate::start(&node.containerd, &[policy]);
        let image = image.at(format!("{host}/app"));
        Self { registry, front, image, gate }
    }

    /// Verifies the image anew; containerd has no part in it.
    fn verify(&self) {
        self.gate.purge_cache();
        let ran = Ran::from(self.gate.command(&["cache", "prewarm", &self.image.by_tag()]));
        let allowed = format!("{}: allowed (verified) {}", self.image.by_tag(), self.image.digest);
        assert_eq!((ran.lines(), ran.code), (vec![allowed.as_str()], 0));
    }

    /// That the registry logged many requests of the gate, each of that version. zot does not log
    /// versions: over TLS, one connection for many at once says enough.
    fn assert_all_spoke(&self, kind: Kind, version: &str) {
        let log = self.registry.log();
        let ours = log.lines().filter(|line| line.contains("pullgate/"));
        let (lines, spoke): (Vec<_>, fn(&str, &str) -> bool) = match kind {
            Kind::Distribution2 | Kind::Distribution3 => {
                // Two formats are mixed in its log.
                (ours.filter(|line| line.starts_with("127.0.0.1 - ")).collect(), |line, version| {
                    line.split('"').nth(1).is_some_and(|request| request.ends_with(version))
                })
            }
            Kind::Zot => (ours.filter(|line| line.contains("HTTP API")).collect(), |_, _| true),
        };
        assert!(lines.len() > 30, "{kind:?}: {lines:?}");
        assert!(lines.iter().all(|line| spoke(line, version)), "{kind:?}: {lines:?}");
    }
}

fn http_2_carries_all_of_a_verification_over_one_connection(node: &Node) {
    for kind in Kind::all() {
        let counted = Counted::new(node, kind, Some(HttpVersions::OneAndTwo));
        for _ in 0..3 {
            counted.verify();
        }
        assert_eq!(counted.front.connections(), 1, "{kind:?}: {}", counted.registry.log());
        counted.assert_all_spoke(kind, "HTTP/2.0");
        assert_eq!(counted.gate.cri().pull(counted.image.by_tag()).expect(), counted.image.id);
    }
}

fn http_1_connections_are_kept(node: &Node) {
    for kind in Kind::all() {
        for tls in [None, Some(HttpVersions::OneOnly)] {
            if kind == Kind::Zot && tls.is_some() {
                continue; // It always speaks both over TLS.
            }
            let counted = Counted::new(node, kind, tls);
            for _ in 0..3 {
                counted.verify();
            }
            let connections = counted.front.connections();
            assert!((1..=2 * AT_ONCE).contains(&connections), "{kind:?}: {connections}");
            counted.assert_all_spoke(kind, "HTTP/1.1");
            assert_eq!(counted.gate.cri().pull(counted.image.by_tag()).expect(), counted.image.id);
        }
    }
}

/// As many requests as go to a host at once. While a connection is made another may become free, so
/// that there are a few more.
const AT_ONCE: usize = 4;
