//! How often a registry is asked again, and after which pause.

use std::time::Instant;

use super::*;

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
