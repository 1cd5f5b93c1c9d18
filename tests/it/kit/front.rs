//! The address that a registry is known by, whatever is behind it now: the registry, a proxy, nobody, or
//! somebody who says nothing. Bytes are handed on as they are, at once or a round trip later.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{block_on, runtime};

/// What is behind the address.
#[derive(Clone, Debug)]
pub(crate) enum Behind {
    /// This `host:port`.
    Host(String),
    /// The same, this long a round trip away: half of it for the bytes of each direction. Connections are
    /// set up at once, and no byte waits for another.
    Distant(String, Duration),
    /// Connections are refused.
    Nobody,
    /// Connections are accepted, and that is all.
    Silence,
}

/// A loopback port of its own, for as long as this lives.
pub(crate) struct Front {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the port while nobody listens.
    _holder: TcpSocket,
}

impl Front {
    pub(crate) fn before(behind: Behind) -> Self {
        let _in_runtime = runtime().enter();
        let holder = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let front = Self {
            address: holder.local_addr().expect("an address"),
            connections: Arc::default(),
            accepting: Mutex::new(None),
            _holder: holder,
        };
        front.put(behind);
        front
    }

    /// Puts something else behind the address; connections to what was there end.
    pub(crate) fn put(&self, behind: Behind) {
        let mut accepting = self.accepting.lock().expect("no panic while held");
        if let Some(task) = accepting.take() {
            task.abort();
            // Over when its sockets are closed.
            let _ = block_on(task);
        }
        if matches!(behind, Behind::Nobody) {
            return;
        }
        let _in_runtime = runtime().enter();
        let listener = socket(self.address).listen(1024).expect("our own port");
        *accepting = Some(runtime().spawn(accept(listener, behind, Arc::clone(&self.connections))));
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// `localhost:port`, for those who are to look the name up.
    pub(crate) fn named_host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Connections that were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.get_mut().expect("no panic while held").take() {
            task.abort();
        }
    }
}

/// Several sockets of ours may have the port; one listens at most.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("Linux");
    socket.bind(address).expect("a port");
    socket
}

async fn accept(listener: TcpListener, behind: Behind, connections: Arc<AtomicUsize>) {
    let mut open = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        while open.try_join_next().is_some() {}
        match &behind {
            Behind::Host(host) => drop(open.spawn(relay(client, host.clone(), Duration::ZERO))),
            Behind::Distant(host, trip) => drop(open.spawn(relay(client, host.clone(), *trip / 2))),
            Behind::Nobody | Behind::Silence => drop(open.spawn(async move {
                std::future::pending::<()>().await;
                drop(client);
            })),
        }
    }
}

async fn relay(client: TcpStream, host: String, delay: Duration) {
    let Ok(server) = TcpStream::connect(host).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a TCP socket");
    }
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    tokio::join!(one_way(client_reads, server_writes, delay), one_way(server_reads, client_writes, delay));
}

/// Hands bytes on, each piece that long after it came; the end too.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sender, mut underway) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let piece = (Instant::now() + delay, buffer[..read].to_vec());
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        // Nothing more, said as late as everything else.
        let _ = sender.send((Instant::now() + delay, Vec::new())).await;
    };
    let writing = async move {
        while let Some((due, piece)) = underway.recv().await {
            sleep_until(due).await;
            if piece.is_empty() || to.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
