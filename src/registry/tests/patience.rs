//! How long a registry is waited for, how often it is asked again, and who counts as away after that.

use std::time::Instant;

use super::mirrors::{Configured, claims};
use super::*;
use crate::registry::http::LARGE_BODIES_KIB;

fn looking_for(look_up: Duration) -> Client {
    let timeouts = Timeouts { look_up, ..options().timeouts };
    Client::new(&RegistryOptions { timeouts, concurrency_per_host: NonZeroUsize::MIN, ..options() }).unwrap()
}

/// Answers 503 so many times, with these headers, then the digest.
async fn busy(times: usize, headers: &'static [(&'static str, &'static str)], digest: Digest) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) < times {
            headers.iter().fold(Reply::new(503, ""), |reply, (name, value)| reply.header(name, *value))
        } else {
            Reply::new(200, "").header("docker-content-digest", digest.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn a_busy_registry_is_asked_twice_more() {
    let digest = Digest::of(b"x");
    for headers in [&[] as &[_], &[("retry-after", "0")], &[("retry-after", "1")]] {
        let began = Instant::now();
        let server = busy(2, headers, digest).await;
        assert_eq!(resolve(&server, &client()).await, Ok(digest), "{headers:?}");
        let least = if headers == [("retry-after", "1")] { Duration::from_secs(2) } else { Duration::ZERO };
        assert!(began.elapsed() >= least, "{headers:?}: {:?}", began.elapsed());

        let server = busy(3, headers, digest).await;
        let fault = resolve(&server, &client()).await.unwrap_err();
        assert_eq!((fault.reason, fault.contact), (FaultReason::RegistryError, Contact::Answered));
        assert_eq!(server.seen().len(), 3, "{headers:?}");
    }
}

#[tokio::test]
async fn a_registry_that_wants_a_long_pause_is_not_asked_again() {
    // Seconds, nonsense, and a date: the kubelet's own back-off is longer than any that is near.
    for wanted in ["3", "60", "18446744073709551616", "soon", "-1", "Wed, 21 Oct 2065 07:28:00 GMT"] {
        let server = Server::start(move |_| Reply::new(429, "").header("retry-after", wanted)).await;
        assert_eq!(resolve(&server, &client()).await.unwrap_err().reason, FaultReason::RegistryError);
        assert_eq!(server.seen().len(), 1, "{wanted}");
    }
}

#[tokio::test]
async fn d4_a_look_up_that_runs_out_of_time_knows_whether_anyone_answered() {
    let client = looking_for(Duration::from_millis(500));
    for (body, contact) in [(Body::Silence, Contact::None), (Body::Stalls(b"{".to_vec()), Contact::Answered)]
    {
        let body = Mutex::new(Some(body));
        let server = Server::start(move |_| {
            Reply::new(200, "").body(body.lock().unwrap().take().unwrap_or(Body::Silence))
        })
        .await;
        let digest = Digest::of(b"x");
        let fault = client.manifest(&server.repository("app"), &digest, &Credentials::Anonymous).await;
        let message = format!("{}/app@{digest}: registry took too long", server.address);
        assert_eq!(fault.unwrap_err(), Fault { reason: FaultReason::Timeout, contact, message });
    }
    let server = Server::start(|_| Reply::new(200, "").body(Body::Silence)).await;
    let fault = resolve(&server, &client).await.unwrap_err();
    assert_eq!((fault.reason, fault.contact), (FaultReason::Timeout, Contact::None));
}

#[tokio::test]
async fn d4_nobody_is_away_who_was_not_asked() {
    // The host's only slot is taken by another look-up, in which the registry answers all the while.
    let server = Server::start(|_| Reply::new(200, "").body(Body::Stalls(b"{".to_vec()))).await;
    let client = looking_for(Duration::from_millis(500));
    let (repository, digest, budget) = (server.repository("app"), Digest::of(b"x"), Budget::verdict());
    let taken = client.signatures(EvidenceRequest {
        repository: &repository,
        digest: &digest,
        credentials: &Credentials::Anonymous,
        manifest: ManifestAccess::Unknown,
        budget: &budget,
    });
    let waiting = async {
        while server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        resolve(&server, &client).await.unwrap_err()
    };
    let fault = tokio::select! {
        fault = waiting => fault,
        found = taken => unreachable!("{found:?}"),
    };
    assert_eq!((fault.reason, fault.contact), (FaultReason::Timeout, Contact::Answered));
}

/// Until something announced holds memory for large bodies.
async fn something_is_held(client: &Client) {
    while client.transport.large_bodies_left() == LARGE_BODIES_KIB {
        tokio::task::yield_now().await;
    }
}

/// A registry with one manifest of 3 MiB, as it is read.
async fn large_manifest(client: &Client) -> Result<Manifest, Fault> {
    let config = serde_json::json!({"mediaType": "c", "digest": Digest::of(b"{}"), "size": 2});
    let filler = "x".repeat(3 * MANIFEST_LIMIT / 4);
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "x": filler});
    let large = manifest.to_string().into_bytes();
    let digest = Digest::of(&large);
    let server = Server::start(move |_| Reply::manifest(media_type::OCI_MANIFEST, large.clone())).await;
    client.manifest(&server.repository("app"), &digest, &Credentials::Anonymous).await
}

/// One that announces as much as is read, and sends little of it.
#[tokio::test]
async fn one_host_leaves_room_for_the_large_answers_of_others() {
    let announced = (MANIFEST_LIMIT, "content-length");
    let greedy = Server::start(move |_| {
        Reply::manifest(media_type::OCI_MANIFEST, "")
            .header(announced.1, announced.0.to_string())
            .body(Body::Stalls(b"{".to_vec()))
    })
    .await;
    let (client, repository) = (client(), greedy.repository("app"));
    let digests: Vec<Digest> = (0..4_u8).map(|n| Digest::of(&[n])).collect();
    let others = digests.iter().map(|digest| client.manifest(&repository, digest, &Credentials::Anonymous));
    let others = futures_util::future::select_all(others.map(Box::pin));
    let own = async {
        while greedy.seen().len() < 4 {
            tokio::task::yield_now().await;
        }
        something_is_held(&client).await;
        large_manifest(&client).await
    };
    tokio::select! {
        found = own => assert!(found.is_ok(), "{found:?}"),
        (ended, ..) = others => unreachable!("{ended:?}"),
    }
}

/// The same with one of the largest pieces, alone as large as all of the room.
#[tokio::test]
async fn one_of_the_largest_answers_leaves_room_for_others() {
    let digest = Digest::of(b"never sent");
    let layer = serde_json::json!({
        "mediaType": media_type::DSSE, "digest": digest, "size": ATTESTATION_LIMIT,
        "annotations": {"dev.cosignproject.cosign/signature": ""},
    });
    let greedy = evidence::Content::default()
        .att(&[layer])
        .with(format!("blobs/{digest}"), || {
            let announced = ATTESTATION_LIMIT.to_string();
            Reply::new(200, "").header("content-length", announced).body(Body::Stalls(b"{".to_vec()))
        })
        .serve()
        .await;
    let (client, budget, repository) = (client(), Budget::verdict(), greedy.repository("app"));
    let (subject, types) = (evidence::subject(), [evidence::SBOM.to_owned()].into());
    let request = EvidenceRequest {
        repository: &repository,
        digest: &subject,
        credentials: &Credentials::Anonymous,
        manifest: ManifestAccess::Unknown,
        budget: &budget,
    };
    let own = async {
        something_is_held(&client).await;
        large_manifest(&client).await
    };
    tokio::select! {
        found = own => assert!(found.is_ok(), "{found:?}"),
        found = client.attestations(request, &types) => unreachable!("{found:?}"),
    }
}

async fn silent() -> Server {
    Server::start(|_| Reply::new(200, "").body(Body::Silence)).await
}

fn mirrored(timeouts: Timeouts, registry: &Server, mirror: &Server) -> Configured {
    let node = Configured::with(RegistryOptions { timeouts, ..options() });
    node.mirror(registry, &mirror.address.to_string(), "");
    node
}

#[tokio::test]
async fn a_silent_mirror_leaves_half_of_the_time_to_the_registry() {
    let (mirror, registry) = (silent().await, evidence::Content::default());
    let layers = [evidence::signature_layer(b"p", 1)];
    let registry = registry.by_digest(image_manifest()).sig(&layers).blob(*b"p").serve().await;
    let timeouts = Timeouts { look_up: Duration::from_secs(4), ..options().timeouts };
    let node = mirrored(timeouts, &registry, &mirror);
    let (repository, digest, budget) = (registry.repository("app"), evidence::subject(), Budget::verdict());
    let of_image = Digest::of(&image_manifest());
    assert!(node.client.manifest(&repository, &of_image, &Credentials::Anonymous).await.is_ok());
    let request = EvidenceRequest {
        repository: &repository,
        digest: &digest,
        credentials: &Credentials::Anonymous,
        manifest: ManifestAccess::Unknown,
        budget: &budget,
    };
    for _ in 0..2 {
        let found = evidence::pieces(node.client.signatures(request).await);
        assert_eq!(found, Lookup::Found(vec![evidence::cosign(b"p", 1)]));
    }
    assert_eq!(mirror.seen().len(), 2, "once for the manifest, and once in the verdict");
    // A tag's digest.
    let registry = claims("registry").await;
    let node = mirrored(timeouts, &registry, &mirror);
    assert_eq!(node.resolve(&registry).await, Ok(mirrors::digest("registry")));
}

#[tokio::test]
async fn d4_nobody_is_away_before_all_hosts_were_asked() {
    let (mirror, registry) = (silent().await, silent().await);
    let timeouts = Timeouts { idle: Duration::from_millis(500), ..options().timeouts };
    let node = mirrored(timeouts, &registry, &mirror);
    let message = format!("{0}/app:v1 at {0}: registry does not answer in time", registry.address);
    assert_eq!(node.resolve(&registry).await, Err(Fault::unanswered(FaultReason::Timeout, message)));
}

/// A listener whose backlog is full: who connects gets no answer at all.
fn black_hole() -> (tokio::net::TcpListener, Vec<std::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500));
    let waiting = std::iter::from_fn(|| connect().ok()).collect();
    (listener, waiting)
}

#[tokio::test]
async fn dial_timeout_is_how_long_a_host_is_waited_for_that_cannot_be_reached() {
    let (listener, _waiting) = black_hole();
    let (registry, node) = (claims("registry").await, Configured::new());
    node.mirror(&registry, &listener.local_addr().unwrap().to_string(), "dial_timeout = '500ms'");
    let began = Instant::now();
    assert_eq!(node.resolve(&registry).await, Ok(mirrors::digest("registry")));
    // Without it, as long as these tests wait: a minute, or half of it.
    let took = began.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn o4_the_probe_before_a_present_image_is_served_asks_every_host_that_may_be_pulled_from() {
    let registry = Server::start(|_| Reply::new(401, "")).await;
    let node = Configured::mirrored(&registry, "127.0.0.1:1");
    let (repository, digest) = (registry.repository("app"), Digest::of(b"x"));
    let fault = node.client.manifest(&repository, &digest, &Credentials::Anonymous).await.unwrap_err();
    assert_eq!((fault.reason, fault.contact), (FaultReason::RegistryDenied, Contact::Answered));
}
