//! A registry that means harm: what it answers has no end, or comes in drops. Each has a port, and so for the
//! gate a host, of its own; it is spoken to in plain HTTP and answers byte by byte, as no library would.

use std::{
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pullgate::oci::Digest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{block_on, runtime};

/// What its harmful answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// A chunked body without an end.
    Endless,
    /// A body that is said to have a TiB, and has.
    Huge,
    /// Headers without an end.
    Headers,
    /// A small body that is large once it is decompressed, said to be so encoded.
    Compressed,
    /// A body as large as is read of a manifest, and of nothing that could be one.
    Full,
    /// The same without its last byte, which never comes.
    Stall,
    /// A byte now and then, without an end.
    Drip,
}

/// What it harms by; to everything before that it gives an ordinary answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The manifest of the image: a HEAD does not say the digest.
    Image,
    /// The manifest of the signatures.
    Signatures,
    /// What that manifest lists.
    Blobs,
    /// The list of referrers; there is no tag.
    Referrers,
}

/// A running hostile registry; it and all its connections end when it is dropped.
pub(crate) struct Hostile {
    host: String,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    harmed: AtomicUsize,
    asked_for_compression: AtomicBool,
}

impl Hostile {
    pub(crate) fn start(harm: Harm, at: At) -> Self {
        if harm == Harm::Compressed {
            // It takes a while, which the runtime must not wait for.
            bomb();
        }
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let seen = Arc::<Seen>::default();
        let counted = Arc::clone(&seen);
        let accepting = runtime().spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                open.spawn(converse(stream, harm, at, Arc::clone(&counted)));
            }
        });
        Self { host, seen, accepting }
    }

    /// One of the images that are said to be here.
    pub(crate) fn image(&self, number: usize) -> String {
        format!("{}/harm/app-{number}:1", self.host)
    }

    /// How many harmful answers it began.
    pub(crate) fn harmed(&self) -> usize {
        self.seen.harmed.load(Ordering::SeqCst)
    }

    /// Whether it was told that compressed answers are understood.
    pub(crate) fn was_asked_for_compression(&self) -> bool {
        self.seen.asked_for_compression.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Answers until the other side has enough.
async fn converse(mut stream: TcpStream, harm: Harm, at: At, seen: Arc<Seen>) -> Option<()> {
    loop {
        let request = head(&mut stream).await?;
        let lower = request.to_ascii_lowercase();
        if lower.contains("\r\naccept-encoding:") {
            seen.asked_for_compression.store(true, Ordering::SeqCst);
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        if harms(method, path, at) {
            seen.harmed.fetch_add(1, Ordering::SeqCst);
            return harm.answer(&mut stream, at).await;
        }
        stream.write_all(&ordinary(method, path, at)).await.ok()?;
    }
}

fn harms(method: &str, path: &str, at: At) -> bool {
    method == "GET"
        && match at {
            At::Image => true,
            At::Signatures => path.ends_with(".sig"),
            At::Blobs => path.contains("/blobs/"),
            At::Referrers => path.contains("/referrers/"),
        }
}

fn ordinary(method: &str, path: &str, at: At) -> Vec<u8> {
    if method == "HEAD" && at == At::Image {
        return b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n".to_vec();
    }
    if method == "HEAD" {
        let digest = Digest::of(b"harm");
        return format!("HTTP/1.1 200 OK\r\nContent-Length: 500\r\nDocker-Content-Digest: {digest}\r\n\r\n")
            .into_bytes();
    }
    if path.ends_with(".sig") && at == At::Blobs {
        let body = signatures().to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\nContent-Length: {}\r\n\r\n", body.len());
        return (head + &body).into_bytes();
    }
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()
}

/// As many signatures as are read, each as large as is read.
fn signatures() -> serde_json::Value {
    let layers = (0..100).map(|number: u32| {
        json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": Digest::of(&number.to_le_bytes()), "size": 1024 * 1024,
            "annotations": {"dev.cosignproject.cosign/signature": "MEUC"},
        })
    });
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers.collect::<Vec<_>>(),
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"{}"), "size": 2},
    })
}

impl Harm {
    /// Ends when the other side closes the connection, or with what there is to send.
    async fn answer(self, stream: &mut TcpStream, at: At) -> Option<()> {
        let kind = if at == At::Referrers { INDEX } else { MANIFEST };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        match self {
            Self::Endless => {
                stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n").await.ok()?;
                let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
                forever(stream, &chunk, Duration::ZERO).await
            }
            Self::Huge => {
                stream.write_all(b"Content-Length: 1099511627776\r\n\r\n").await.ok()?;
                forever(stream, &[b' '; 0x10000], Duration::ZERO).await
            }
            Self::Headers => {
                let lines = "x-more: and more\r\n".repeat(1000);
                forever(stream, lines.as_bytes(), Duration::ZERO).await
            }
            Self::Compressed => {
                let body = bomb();
                let head = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await.ok()?;
                stream.write_all(body).await.ok()
            }
            Self::Full => {
                stream.write_all(b"Content-Length: 4194304\r\n\r\n").await.ok()?;
                stream.write_all(&vec![b' '; 4 << 20]).await.ok()
            }
            Self::Stall => {
                stream.write_all(b"Content-Length: 4194304\r\n\r\n").await.ok()?;
                stream.write_all(&vec![b' '; (4 << 20) - 1]).await.ok()?;
                std::future::pending().await
            }
            Self::Drip => {
                stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n").await.ok()?;
                forever(stream, b"1\r\n \r\n", Duration::from_millis(100)).await
            }
        }
    }
}

async fn forever(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> Option<()> {
    loop {
        stream.write_all(bytes).await.ok()?;
        tokio::time::sleep(pause).await;
    }
}

/// The head of a request; they have no bodies.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// 64 MiB in 64 KiB.
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let made = Command::new("sh").args(["-c", "head -c 67108864 /dev/zero | gzip -9"]).output();
        made.expect("gzip").stdout
    })
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
