//! The client against a registry over real sockets.

mod artifacts;
mod attestations;
mod authorization;
mod challenges;
mod evidence;
mod folders;
mod hosts;
mod mirror_secrets;
mod mirrors;
mod patience;
pub(crate) mod rekor;
pub(crate) mod server;
mod tls;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::oci::media_type;
use crate::outcome::Contact;
use server::{Body, Reply, Server};

fn client() -> Client {
    Client::new(&options()).unwrap()
}

/// Waits longer than a busy machine makes any test wait.
fn options() -> RegistryOptions {
    let long = Duration::from_secs(60);
    let timeouts = Timeouts { connect: long, idle: long, request: long, look_up: long };
    RegistryOptions { timeouts, ..RegistryOptions::default() }
}

/// For what is tested by ending: a peer that falls silent.
fn impatient() -> Client {
    let timeouts = Timeouts { idle: Duration::from_secs(1), ..options().timeouts };
    Client::new(&RegistryOptions { timeouts, ..options() }).unwrap()
}

/// Writes a program, by a child: a file that this process wrote cannot be run ("text file busy") while a child
/// of another test still has it open, between its fork and its exec.
pub(super) fn write_program(file: &Path, text: &str) {
    use std::io::Write as _;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", r#"cat > "$0" && chmod 755 "$0""#]).arg(file).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn image_manifest() -> Vec<u8> {
    let config = serde_json::json!({"mediaType": "c", "digest": Digest::of(b"{}"), "size": 2});
    serde_json::json!({"schemaVersion": 2, "config": config, "layers": []}).to_string().into_bytes()
}

fn gone() -> Reply {
    Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
}

async fn resolve(server: &Server, client: &Client) -> Result<Digest, Fault> {
    client.resolve(&server.reference("app:v1"), &Credentials::Anonymous).await.map(|resolved| resolved.digest)
}

#[tokio::test]
async fn resolves_a_tag_with_one_head_and_a_digest_with_nothing() {
    let digest = Digest::of(b"x");
    let server =
        Server::start(move |_| Reply::new(200, "").header("docker-content-digest", digest.to_string())).await;
    let client = client();
    assert_eq!(resolve(&server, &client).await, Ok(digest));
    assert_eq!(server.lines(), ["HEAD /v2/app/manifests/v1"]);
    let pinned = server.reference(&format!("app:v1@{digest}"));
    assert_eq!(client.resolve(&pinned, &Credentials::Anonymous).await.unwrap().digest, digest);
    assert_eq!(client.requests(), RequestCounts { resolve: 1, ..RequestCounts::default() });
}

#[tokio::test]
async fn hashes_the_manifest_where_head_gives_no_digest() {
    for head in [200, 405] {
        let server = Server::start(move |seen| {
            let status = if seen.line.starts_with("HEAD") { head } else { 200 };
            Reply::manifest(media_type::OCI_MANIFEST, image_manifest()).status(status)
        })
        .await;
        assert_eq!(resolve(&server, &client()).await, Ok(Digest::of(&image_manifest())));
        assert_eq!(server.lines(), ["HEAD /v2/app/manifests/v1", "GET /v2/app/manifests/v1"]);
    }
}

#[tokio::test]
async fn statuses_are_faults_by_kind() {
    let table = [
        (401, FaultReason::RegistryDenied, 1),
        (403, FaultReason::RegistryDenied, 1),
        (404, FaultReason::ImageNotFound, 1),
        (418, FaultReason::RegistryError, 1),
        (429, FaultReason::RegistryError, 3),
        (500, FaultReason::RegistryError, 3),
        (503, FaultReason::RegistryError, 3),
    ];
    for (status, reason, requests) in table {
        let server = Server::start(move |_| Reply::new(status, "").header("retry-after", "0")).await;
        let fault = resolve(&server, &client()).await.unwrap_err();
        let message = format!("{}/app:v1: registry answered {status}", server.address);
        assert_eq!(fault, Fault::new(reason, message));
        assert_eq!(server.seen().len(), requests, "{status}");
    }
}

#[tokio::test]
async fn pitfall_17_a_digest_header_that_is_not_one_is_an_error() {
    for odd in ["sha512:00", "sha256:00", "../../x", ""] {
        let server = Server::start(move |_| Reply::new(200, "").header("docker-content-digest", odd)).await;
        let fault = resolve(&server, &client()).await.unwrap_err();
        assert_eq!(fault.reason, FaultReason::RegistryError, "{odd}");
        assert!(fault.message.ends_with("registry's digest header is not a sha256 digest"), "{fault}");
    }
}

#[tokio::test]
async fn registry_words_are_quoted_cut_and_stripped() {
    let server = Server::start(|_| {
        Reply::error(403, "DENIED", &format!("no\n\u{1b}[31m \"way\" \u{202e}{}", "x".repeat(5000)))
    })
    .await;
    let digest = Digest::of(b"x");
    let fault =
        client().manifest(&server.repository("app"), &digest, &Credentials::Anonymous).await.unwrap_err();
    let start = format!("{}/app@{digest}: registry answered 403 \"DENIED: no[31m way xxx", server.address);
    assert!(fault.message.starts_with(&start), "{fault}");
    assert!(fault.message.ends_with("xxx\"") && fault.message.len() < 300, "{fault}");
}

#[tokio::test]
async fn nobody_there_is_no_contact() {
    let server = Server::start(|_| gone()).await;
    let reference = server.reference("app:v1");
    let port = server.address;
    drop(server);
    // The aborted task lets go of the port as soon as it is next run.
    while tokio::net::TcpListener::bind(port).await.is_err() {
        tokio::task::yield_now().await;
    }
    let fault = client().resolve(&reference, &Credentials::Anonymous).await.unwrap_err();
    let message = format!("{port}/app:v1: connection refused");
    assert_eq!(fault, Fault::unanswered(FaultReason::RegistryUnreachable, message));

    // Longer than a label may be: the resolver says no without asking anyone.
    let nowhere = Reference::parse(&format!("{}.invalid/app:v1", "x".repeat(64))).unwrap();
    let fault = client().resolve(&nowhere, &Credentials::Anonymous).await.unwrap_err();
    assert_eq!((fault.reason, fault.contact), (FaultReason::RegistryUnreachable, Contact::None));

    let silent = Server::start(|_| Reply::new(200, "").body(Body::Silence)).await;
    let fault = resolve(&silent, &impatient()).await.unwrap_err();
    assert_eq!((fault.reason, fault.contact), (FaultReason::Timeout, Contact::None));
}

#[tokio::test]
async fn broken_manifests_are_errors_of_a_registry_that_answered() {
    type Make = fn() -> Reply;
    let broken: [(Make, FaultReason, &str); 8] = [
        (
            || Reply::manifest(media_type::OCI_MANIFEST, b"{}".to_vec()),
            FaultReason::RegistryError,
            "registry sent other bytes than the digest names",
        ),
        (
            || Reply::manifest(media_type::OCI_INDEX, image_manifest()),
            FaultReason::RegistryError,
            "manifest has media type `application/vnd.oci.image.index.v1+json`, but is an image manifest",
        ),
        (
            || Reply::new(200, "").body(Body::Cut(image_manifest())),
            FaultReason::RegistryError,
            "registry's answer broke off",
        ),
        (
            || Reply::new(200, "").body(Body::Stalls(b"{".to_vec())),
            FaultReason::Timeout,
            "registry stopped in the middle of its answer",
        ),
        (
            || Reply::new(200, "").body(Body::Endless),
            FaultReason::RegistryError,
            "registry sent more than 4194304 bytes",
        ),
        (
            || Reply::new(200, vec![b' '; MANIFEST_LIMIT + 1]),
            FaultReason::RegistryError,
            "registry sent more than 4194304 bytes",
        ),
        (
            || {
                Reply::manifest(media_type::OCI_MANIFEST, image_manifest())
                    .header("content-encoding", "gzip")
                    .cut(3)
            },
            FaultReason::RegistryError,
            "registry sent other bytes than the digest names",
        ),
        (
            || {
                Reply::manifest(media_type::OCI_MANIFEST, image_manifest())
                    .header("docker-content-digest", Digest::of(b"x").to_string())
            },
            FaultReason::RegistryError,
            "registry's manifest has another digest than it says",
        ),
    ];
    let digest = Digest::of(&image_manifest());
    for (make, reason, words) in broken {
        let server = Server::start(move |_| make()).await;
        let client = impatient();
        let fault =
            client.manifest(&server.repository("app"), &digest, &Credentials::Anonymous).await.unwrap_err();
        let message = format!("{}/app@{digest}: {words}", server.address);
        assert_eq!(fault, Fault::new(reason, message));
    }
}

#[tokio::test]
async fn a_drip_ends_at_the_requests_deadline() {
    let timeouts = Timeouts { request: Duration::from_secs(1), ..options().timeouts };
    let client = Client::new(&RegistryOptions { timeouts, ..options() }).unwrap();
    let server = Server::start(|_| Reply::new(200, "").body(Body::Stalls(b"{".to_vec()))).await;
    let fault = client
        .manifest(&server.repository("app"), &Digest::of(b"x"), &Credentials::Anonymous)
        .await
        .unwrap_err();
    assert_eq!((fault.reason, fault.contact), (FaultReason::Timeout, Contact::Answered));
}

#[tokio::test]
async fn reads_a_manifest_and_an_index_by_digest() {
    let index = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
    for (kind, body) in [(media_type::OCI_MANIFEST, image_manifest()), (media_type::OCI_INDEX, index)] {
        let digest = Digest::of(&body);
        let expected = Manifest::parse(Some(kind), &body).unwrap();
        let server = Server::start(move |_| Reply::manifest(kind, body.clone())).await;
        let manifest = client().manifest(&server.repository("app"), &digest, &Credentials::Anonymous).await;
        assert_eq!(manifest, Ok(expected));
    }
}

#[tokio::test]
async fn follows_three_redirects_and_no_more() {
    let body = image_manifest();
    let digest = Digest::of(&body);
    for (length, followed) in [(3, true), (4, false)] {
        let body = body.clone();
        let count = AtomicUsize::new(0);
        let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            n if n < length => Reply::new(307, "").header("location", format!("/elsewhere/{n}")),
            _ => Reply::manifest(media_type::OCI_MANIFEST, body.clone()),
        })
        .await;
        let result = client().manifest(&server.repository("app"), &digest, &Credentials::Anonymous).await;
        assert_eq!(result.is_ok(), followed);
        assert_eq!(server.seen().len(), 4);
    }
}

#[tokio::test]
async fn a_redirect_without_a_usable_target_is_an_error() {
    for target in ["file:///etc/passwd", "http://", "ftp://a.io/x"] {
        let server = Server::start(move |_| Reply::new(302, "").header("location", target)).await;
        let fault = resolve(&server, &client()).await.unwrap_err();
        let message = format!("{}/app:v1: registry redirects to where nobody should follow", server.address);
        assert_eq!(fault, Fault::new(FaultReason::RegistryError, message));
    }
}

#[tokio::test]
async fn at_most_four_requests_to_a_host_at_once() {
    let digest = Digest::of(b"x");
    let server = Server::start(|_| Reply::new(200, "").body(Body::Silence)).await;
    let client = impatient();
    let repository = server.repository("app");
    let one = || client.manifest(&repository, &digest, &Credentials::Anonymous);
    let all = futures_util::future::join_all((0..6).map(|_| one()));
    let watch = async {
        while server.seen().len() < 4 {
            tokio::task::yield_now().await;
        }
        // Room for a fifth to come, if it could.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        server.seen().len()
    };
    let (faults, most) = tokio::join!(all, watch);
    assert!(faults.iter().all(|fault| fault.as_ref().unwrap_err().reason == FaultReason::Timeout));
    assert_eq!(most, 4);
}

#[test]
fn futures_can_be_sent_between_threads() {
    fn send<T: Send>(_: T) {}
    let (client, budget) = (client(), Budget::verdict());
    let reference = Reference::parse("a.io/b").unwrap();
    let request = EvidenceRequest {
        repository: reference.repository(),
        digest: &Digest::of(b""),
        credentials: &Credentials::Anonymous,
        manifest: ManifestAccess::Unknown,
        budget: &budget,
    };
    send(client.resolve(&reference, &Credentials::Anonymous));
    send(client.signatures(request));
    send(client.attestations(request, &std::collections::BTreeSet::new()));
    send(client.referrers(request, &evidence::wanted(ReferrerForms::All, &[])));
    send(client.rest(request, Rest::of(None)));
}
