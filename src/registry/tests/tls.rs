//! TLS: loopback hosts that speak it, and authorities that are not known.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU16;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;

use super::evidence::{Content, QUERY, index, pieces, subject, wanted};
use super::mirrors::{Configured, claims, digest};
use super::*;
use crate::sigstore::SignatureEvidence;

/// Answers each connection with one digest, over TLS, until the process ends. Returns its port
/// and its certificate in PEM.
fn tls_server(digest: Digest) -> (u16, String) {
    serve(format!("200 OK\r\ndocker-content-digest: {digest}"), None)
}

/// The same with any status line and headers; who shows no certificate of `client` is sent away.
fn serve(head: String, client: Option<CertificateDer<'static>>) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(client).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = config.with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket.unwrap());
            let mut request = [0; 4096];
            // A plain request ends here, with an alert.
            if stream.read(&mut request).is_ok() {
                let _ = write!(stream, "HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (port, made.cert.pem())
}

#[tokio::test]
async fn a_loopback_host_that_speaks_tls_is_found_and_remembered() {
    let digest = Digest::of(b"x");
    let (port, pem) = tls_server(digest);
    let authority = CertificateAuthority { name: "test.pem".into(), pem: pem.into_bytes() };
    let client =
        Client::new(&RegistryOptions { certificate_authorities: vec![authority], ..options() }).unwrap();
    let reference = Reference::parse(&format!("localhost:{port}/app:v1")).unwrap();
    for requests in [2, 3] {
        let resolved = client.resolve(&reference, &Credentials::Anonymous).await.unwrap();
        assert_eq!(resolved.digest, digest);
        assert_eq!(client.requests().resolve, requests);
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    let (port, _) = tls_server(Digest::of(b"x"));
    let reference = Reference::parse(&format!("localhost:{port}/app:v1")).unwrap();
    let fault = client().resolve(&reference, &Credentials::Anonymous).await.unwrap_err();
    assert_eq!(fault.reason, FaultReason::RegistryUnreachable);
    assert_eq!(fault.message, format!("localhost:{port}/app:v1: registry's certificate is not trusted"));
}

#[test]
fn files_without_certificates_are_refused_by_name() {
    for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let authority = CertificateAuthority { name: "ca.pem".into(), pem: pem.into() };
        let options = RegistryOptions { certificate_authorities: vec![authority], ..options() };
        assert!(Client::new(&options).is_err(), "{pem}");
    }
}

/// What comes from `client` goes to the port `behind`, and back.
fn join(mut client: TcpStream, behind: u16) {
    let mut server = TcpStream::connect(("127.0.0.1", behind)).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
}

/// A port behind which another server can take its place.
fn front() -> (u16, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = Arc::new(AtomicU16::new(0));
    let now = Arc::clone(&behind);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            join(socket.unwrap(), now.load(Ordering::SeqCst));
        }
    });
    (port, behind)
}

/// Go's servers answer plain HTTP by HTTP, before any TLS.
#[tokio::test]
async fn d4_what_a_tls_server_says_to_plain_http_is_no_answer_of_the_registry() {
    let digest = Digest::of(b"x");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = listener.local_addr().unwrap().port();
    let (behind, _) = tls_server(digest);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut client = socket.unwrap();
            let mut first = [0];
            if client.peek(&mut first).is_ok() && first != [22] {
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(
                    b"HTTP/1.0 400 Bad Request\r\nconnection: close\r\n\r\nClient sent an HTTP request",
                );
                continue;
            }
            join(client, behind);
        }
    });
    let reference = Reference::parse(&format!("localhost:{front}/app:v1")).unwrap();
    let client = client();
    for _ in 0..2 {
        let fault = client.resolve(&reference, &Credentials::Anonymous).await.unwrap_err();
        let message = format!("localhost:{front}/app:v1: registry's certificate is not trusted");
        assert_eq!(fault, Fault::unanswered(FaultReason::RegistryUnreachable, message));
    }
    assert_eq!(client.requests().resolve, 4, "a certificate that is not taken says nothing to be remembered");
}

#[tokio::test]
async fn a_400_of_a_host_without_tls_is_an_answer() {
    let server = Server::start(|_| Reply::new(400, "")).await;
    let fault = resolve(&server, &client()).await.unwrap_err();
    let message = format!("{}/app:v1: registry answered 400", server.address);
    assert_eq!(fault, Fault::new(FaultReason::RegistryError, message));
}

/// What a mirror at `address` with these keys, and else the registry, say.
async fn by_mirror(node: &Configured, address: &str, keys: &str) -> Digest {
    let registry = claims("registry").await;
    node.write(&registry.address.to_string(), "hosts.toml", format!("[host.'{address}']\n{keys}\n"));
    node.resolve(&registry).await.unwrap()
}

#[tokio::test]
async fn a_mirrors_certificate_is_one_of_its_authorities_or_none_is_asked_for() {
    let (port, pem) = tls_server(digest("mirror"));
    let (_, strange) = tls_server(digest("strange"));
    let address = format!("https://localhost:{port}");
    let node = Configured::new();
    let ca = node.write("shared", "ca.pem", &pem);
    let other = node.write("shared", "other.pem", &strange);
    let both = format!("ca = ['{}', '{}']", other.display(), ca.display());
    for (keys, reached) in [
        (String::new(), false),
        ("skip_verify = true".to_owned(), true),
        ("skip_verify = false".to_owned(), false),
        ("dial_timeout = '5s'".to_owned(), false),
        (format!("ca = '{}'", ca.display()), true),
        (format!("ca = '{}'", other.display()), false),
        (both, true),
    ] {
        let expected = digest(if reached { "mirror" } else { "registry" });
        assert_eq!(by_mirror(&node, &address, &keys).await, expected, "{keys}");
    }
}

#[tokio::test]
async fn certificates_that_are_replaced_count_at_once() {
    let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
    let answer = format!("200 OK\r\ndocker-content-digest: {}", digest("mirror"));
    let (port, good_ca) = serve(answer, Some(made.cert.der().clone()));
    let (_, bad_ca) = tls_server(digest("strange"));
    let other = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
    let pair = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem())
    };
    let (good_pair, bad_pair) = (pair(&made), pair(&other));
    let (registry, node) = (claims("registry").await, Configured::new());
    let name = registry.address.to_string();
    let ca = node.write(&name, "ca.pem", &bad_ca);
    let client = node.write(&name, "client.pem", &bad_pair);
    let keys = format!("[host.'https://localhost:{port}']\nca = 'ca.pem'\nclient = 'client.pem'\n");
    node.write(&name, "hosts.toml", keys);
    let replaced = |path: &Path, pem: &str| {
        std::fs::write(path.with_extension("new"), pem).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    let in_place = |path: &Path, pem: &str| std::fs::write(path, pem).unwrap();
    type Write<'a> = &'a dyn Fn(&Path, &str);
    let steps: [(Write<'_>, &Path, &str, &str); 6] = [
        (&in_place, &ca, &good_ca, "registry"),
        (&in_place, &client, &good_pair, "mirror"),
        (&replaced, &client, &bad_pair, "registry"),
        (&replaced, &client, &good_pair, "mirror"),
        (&replaced, &ca, &bad_ca, "registry"),
        (&in_place, &ca, &good_ca, "mirror"),
    ];
    for (n, (write, path, pem, expected)) in steps.into_iter().enumerate() {
        write(path, pem);
        assert_eq!(node.resolve(&registry).await, Ok(digest(expected)), "step {n}");
    }
}

#[tokio::test]
async fn dockers_files_are_for_the_registry_itself() {
    let (port, pem) = tls_server(digest("registry"));
    let reference = Reference::parse(&format!("localhost:{port}/app:v1")).unwrap();
    let node = Configured::new();
    let resolve = || async { node.client.resolve(&reference, &Credentials::Anonymous).await };
    let name = format!("localhost:{port}");
    node.write(&name, "ca.pem", &pem);
    assert_eq!(resolve().await.unwrap_err().reason, FaultReason::RegistryUnreachable);
    node.write(&name, "ca.crt", &pem);
    assert_eq!(resolve().await.unwrap().digest, digest("registry"));
}

#[tokio::test]
async fn a_client_certificate_is_shown_in_every_form_it_is_written_in() {
    let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
    let answer = format!("200 OK\r\ndocker-content-digest: {}", digest("mirror"));
    let (port, _) = serve(answer, Some(made.cert.der().clone()));
    let node = Configured::new();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let [cert, key, both] = [
        ("c.cert", certificate.clone()),
        ("c.key", key.clone()),
        ("both.pem", format!("{key}{certificate}")),
    ]
    .map(|(name, pem)| node.write("shared", name, pem));
    let address = format!("https://localhost:{port}");
    for (client, reached) in [
        (String::new(), false),
        (format!("client = '{}'", both.display()), true),
        (format!("client = ['{}']", both.display()), true),
        (format!("client = [['{}', '']]", both.display()), true),
        (format!("client = [['{}', '{}']]", cert.display(), key.display()), true),
    ] {
        let expected = digest(if reached { "mirror" } else { "registry" });
        let keys = format!("skip_verify = true\n{client}");
        assert_eq!(by_mirror(&node, &address, &keys).await, expected, "{client}");
    }
    // A certificate without its key is an error.
    let registry = claims("registry").await;
    let text = format!("[host.'{address}']\nclient = '{}'\n", cert.display());
    node.write(&registry.address.to_string(), "hosts.toml", text);
    let fault = node.resolve(&registry).await.unwrap_err();
    assert!(fault.message.ends_with("c.cert: not a PEM certificate with its private key"), "{fault}");
}

#[tokio::test]
async fn skip_verify_does_not_go_with_a_redirect_and_authorities_do() {
    let (port, pem) = tls_server(digest("elsewhere"));
    let (from, own) = serve(format!("307 Temporary Redirect\r\nlocation: https://localhost:{port}/x"), None);
    let node = Configured::new();
    let [own, theirs] =
        [("own.pem", own), ("theirs.pem", pem)].map(|(name, pem)| node.write("shared", name, pem));
    let address = format!("https://localhost:{from}");
    let keys = |paths: &[&PathBuf]| format!("skip_verify = true\nca = {paths:?}");
    assert_eq!(by_mirror(&node, &address, &keys(&[&own])).await, digest("registry"));
    assert_eq!(by_mirror(&node, &address, &keys(&[&own, &theirs])).await, digest("elsewhere"));
}

/// Who can break a connection must not choose how secrets travel.
#[tokio::test]
async fn an_http_address_with_keys_of_tls_is_not_asked_in_the_clear_after_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let clear = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&clear);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut first = [0_u8];
            let read = stream.unwrap().read(&mut first).unwrap_or(0);
            // A TLS record begins with 22.
            seen.fetch_add(usize::from(read == 1 && first != [22]), Ordering::SeqCst);
        }
    });
    let (_, pem) = tls_server(digest("mirror"));
    let node = Configured::new();
    let keys = format!("ca = '{}'", node.write("shared", "ca.pem", &pem).display());
    assert_eq!(by_mirror(&node, &format!("http://localhost:{port}"), &keys).await, digest("registry"));
    assert_eq!(clear.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_plain_peer_is_asked_in_the_clear_after_somebody_spoke_tls_in_its_place_for_once() {
    let (port, behind) = front();
    let (tls, _) = tls_server(digest("strange"));
    let (plain, node) = (claims("plain").await, Configured::new());
    let reference = Reference::parse(&format!("localhost:{port}/app:v1")).unwrap();
    let by_name = || async { node.client.resolve(&reference, &Credentials::Anonymous).await };
    behind.store(tls, Ordering::SeqCst);
    let fault = by_name().await.unwrap_err();
    assert!(fault.message.ends_with("registry's certificate is not trusted"), "{fault}");
    let address = format!("http://localhost:{port}");
    assert_eq!(by_mirror(&node, &address, "skip_verify = true").await, digest("strange"));
    behind.store(plain.address.port(), Ordering::SeqCst);
    assert_eq!(by_name().await.map(|resolved| resolved.digest), Ok(digest("plain")));
    assert_eq!(by_mirror(&node, &address, "skip_verify = true").await, digest("plain"));
}

#[tokio::test]
async fn a_plain_peer_with_keys_of_tls_is_asked_several_times_for_one_thing() {
    let mirror = Content::default().api(QUERY, &[], true).api("", &[], false).serve().await;
    let registry = Content::default().serve().await;
    let node = Configured::new();
    node.mirror(&registry, &mirror.address.to_string(), "skip_verify = true");
    for _ in 0..2 {
        assert_eq!(referrers(&node, &registry).await, Lookup::Absent);
    }
    // The filtered list, and the whole one.
    assert_eq!(mirror.lines().len(), 4, "{:?}", mirror.lines());
}

#[tokio::test]
async fn the_next_page_of_a_plain_peer_with_keys_of_tls_is_asked_in_the_clear() {
    for absolute in [false, true] {
        let address: Arc<OnceLock<String>> = Arc::default();
        let own = Arc::clone(&address);
        let mirror = Server::start(move |seen| {
            let page = Reply::manifest(media_type::OCI_INDEX, index(&[]));
            let start = if absolute { own.get().unwrap().as_str() } else { "" };
            let link = format!("<{start}/v2/app/referrers/page2?n=1>; rel=\"next\"");
            if seen.line.contains("page2") { page } else { page.header("link", link) }
        })
        .await;
        address.set(format!("http://{}", mirror.address)).unwrap();
        let registry = Content::default().serve().await;
        let node = Configured::new();
        node.mirror(&registry, &mirror.address.to_string(), "skip_verify = true");
        assert_eq!(referrers(&node, &registry).await, Lookup::Absent);
        let pages = mirror.lines().iter().filter(|line| line.contains("page2")).count();
        assert_eq!(pages, 2, "of the filtered list and of the whole one: {:?}", mirror.lines());
    }
}

async fn referrers(node: &Configured, registry: &Server) -> Lookup<Vec<SignatureEvidence>> {
    let (repository, budget) = (registry.repository("app"), Budget::verdict());
    let request = EvidenceRequest {
        repository: &repository,
        digest: &subject(),
        credentials: &Credentials::Anonymous,
        manifest: ManifestAccess::Unknown,
        budget: &budget,
    };
    pieces(node.client.referrers(request, &wanted(ReferrerForms::Bundles, &[])).await)
}

#[tokio::test]
async fn secrets_of_this_machine_go_in_the_clear_only_where_the_node_says_so() {
    let node = Configured::with(RegistryOptions { plain_http: vec!["named.test".to_owned()], ..options() });
    let hosts = "[host.'http://plain.test']\n[host.'http://tls.test']\nca = []\nskip_verify = false\n[host.'http://named.test']\n[host.'https://safe.test']\n[host.'http://127.0.0.1:5000']\n";
    node.write("registry.test", "hosts.toml", hosts);
    let client = &node.client;
    let repository = Repository::parse("registry.test/app").unwrap();
    let route = client.route(&Step::new("a test"), &repository).await.unwrap();
    let told: Vec<_> = route.pulling().map(|endpoint| endpoint.may_see_secrets(&client.transport)).collect();
    // The last is the registry itself.
    assert_eq!(told, [false, false, true, true, true, true]);
}

#[tokio::test]
async fn an_http_address_with_keys_of_tls_is_asked_by_tls_first() {
    let (port, pem) = tls_server(digest("mirror"));
    let node = Configured::new();
    let ca = node.write("shared", "ca.pem", &pem);
    let keys = format!("ca = '{}'", ca.display());
    assert_eq!(by_mirror(&node, &format!("http://localhost:{port}"), &keys).await, digest("mirror"));
    let plain = claims("mirror").await;
    for _ in 0..2 {
        let address = format!("http://{}", plain.address);
        assert_eq!(by_mirror(&node, &address, &keys).await, digest("mirror"));
    }
    // And an https address by nothing else.
    let address = format!("https://{}", plain.address);
    assert_eq!(by_mirror(&node, &address, &keys).await, digest("registry"));
}
