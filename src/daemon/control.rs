//! The control socket: how `pullgate status`, `reload` and `cache` talk to the running daemon.
//!
//! One connection carries one request: a JSON object on one line (at most [`REQUEST_LIMIT`] bytes),
//! answered by one JSON object. The socket lies in a directory of mode 0750, has mode 0600 from the
//! moment its name exists (it is bound under another name and renamed) and serves peers with uid 0
//! or the daemon's own. A connection that does not speak within [`PATIENCE`] is dropped, and at most
//! [`CONNECTIONS`] are open at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::cache::ImageName;
use crate::cache::archive::{ImageEvidence, LINE_LIMIT};

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What the daemon does; with `would_deny` each present image that policy refuses.
    Status {
        /// List the images.
        would_deny: bool,
    },
    /// Read config and policies again.
    Reload {},
    /// A page of the images kept.
    CacheList {
        /// The last of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<ImageName>,
    },
    /// What is kept of one image.
    CacheShow {
        /// `repository@sha256:…`
        image: String,
    },
    /// Forget all, or one repository or image.
    CachePurge {
        /// `repository` or `repository@sha256:…`; everything where absent.
        image: Option<String>,
    },
    /// A page of the images with evidence.
    CacheExportable {
        /// `repository` or `repository@sha256:…` each; all where empty.
        images: Vec<String>,
        /// The last of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<ImageName>,
    },
    /// The evidence of one image.
    CacheExport {
        /// The image.
        image: ImageName,
    },
    /// Verify the evidence of one image, and keep it.
    CacheImport {
        /// The evidence.
        evidence: ImageEvidence,
    },
    /// Verify one image ahead of its pull.
    CachePrewarm {
        /// Its reference.
        image: String,
    },
}

/// What the daemon answers. `schema_version` changes when `body` does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Version of the answer's form.
    pub schema_version: u32,
    /// One line, if the request could not be done.
    pub error: Option<String>,
    /// The answer proper.
    pub body: serde_json::Value,
}

/// Why a client got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens there.
    #[error("no daemon answers on {path} ({source}); is pullgate.service running?")]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What connecting said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the daemon on {path} did not answer: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What reading or writing said.
        #[source]
        source: std::io::Error,
    },
    /// Not an answer in our form.
    #[error("the daemon on {path} answered in a form that this version does not read: {source}")]
    Form {
        /// The socket.
        path: PathBuf,
        /// What reading JSON said.
        #[source]
        source: serde_json::Error,
    },
}

/// What the daemon does with a request.
pub trait Answer: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send;
}

impl Response {
    /// A good answer.
    #[must_use]
    pub const fn good(body: serde_json::Value) -> Self {
        Self { schema_version: SCHEMA_VERSION, error: None, body }
    }

    /// A refusal, in one line.
    #[must_use]
    pub fn bad(error: impl std::fmt::Display) -> Self {
        Self { schema_version: SCHEMA_VERSION, error: Some(error.to_string()), body: serde_json::Value::Null }
    }
}

/// Binds the control socket, replacing what an earlier run left, but not one that is answered: a second
/// daemon must not cut the first off from its commands.
///
/// # Errors
/// Whatever making the directory, binding or renaming says; `AddrInUse` where a daemon listens.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if StdUnixStream::connect(path).is_ok() {
        return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another pullgate listens there"));
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    if !directory.exists() {
        std::fs::create_dir_all(directory)?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o750))?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, path)?;
    Ok(listener)
}

/// Serves requests until the future is dropped. Accept errors never end it.
pub async fn serve<A: Answer>(listener: UnixListener, answer: Arc<A>) {
    let own = nix::unistd::geteuid().as_raw();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if !peer.is_ok_and(|uid| uid == 0 || uid == own) {
            tracing::warn!("control socket: a peer that is not root was refused");
            continue;
        }
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = converse(stream, &*answer).await {
                tracing::debug!(%error, "control socket: connection ended");
            }
        });
    }
}

async fn converse<A: Answer>(stream: UnixStream, answer: &A) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_LIMIT));
    match tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await {
        Ok(read) => read?,
        Err(_) => return Ok(()),
    };
    let response = match serde_json::from_str(&line) {
        Ok(request) => answer.answer(request).await,
        Err(error) => Response::bad(format_args!("not a request: {error}")),
    };
    let mut bytes = serde_json::to_vec(&response).map_err(std::io::Error::other)?;
    bytes.push(b'\n');
    match tokio::time::timeout(PATIENCE, writer.write_all(&bytes)).await {
        Ok(written) => written,
        Err(_) => Ok(()),
    }
}

/// Whether somebody listens on `path`.
#[must_use]
pub fn listens(path: &Path) -> bool {
    StdUnixStream::connect(path).is_ok()
}

/// Asks the daemon that listens on `path`.
///
/// # Errors
/// [`ControlError::NoDaemon`] where nobody listens; the others where the answer did not come whole.
pub fn ask(path: &Path, request: &Request) -> Result<Response, ControlError> {
    // A reload reads policies and asks nobody else; a minute is far more than it takes.
    ask_within(path, request, Duration::from_secs(60))
}

/// The same for what may take as long as `patience`.
///
/// # Errors
/// As [`ask`].
pub fn ask_within(path: &Path, request: &Request, patience: Duration) -> Result<Response, ControlError> {
    let broken = |source| ControlError::Broken { path: path.to_owned(), source };
    let form = |source| ControlError::Form { path: path.to_owned(), source };
    let mut stream = StdUnixStream::connect(path)
        .map_err(|source| ControlError::NoDaemon { path: path.to_owned(), source })?;
    stream.set_read_timeout(Some(patience)).map_err(broken)?;
    let mut line = serde_json::to_vec(request).map_err(form)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_LIMIT)).read_line(&mut answer).map_err(broken)?;
    serde_json::from_str(&answer).map_err(form)
}

const SCHEMA_VERSION: u32 = 1;
/// The longest request is the evidence of one image, and some words about it.
const REQUEST_LIMIT: u64 = LINE_LIMIT + 64 * 1024;
/// The evidence of one image; or what `status` says of each image and container of a node. Lists of the cache
/// come in pages.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Answer for Echo {
        async fn answer(&self, request: Request) -> Response {
            Response::good(serde_json::json!({ "asked": format!("{request:?}") }))
        }
    }

    async fn daemon() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control.sock");
        let listener = bind(&path).unwrap();
        tokio::spawn(serve(listener, Arc::new(Echo)));
        (folder, path)
    }

    async fn ask_line(path: &Path, line: &'static [u8]) -> String {
        let path = path.to_owned();
        let talk = move || {
            let mut stream = StdUnixStream::connect(path).unwrap();
            stream.write_all(line).unwrap();
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        };
        tokio::task::spawn_blocking(talk).await.unwrap()
    }

    #[tokio::test]
    async fn answers_a_request_on_a_private_socket() {
        let (_folder, path) = daemon().await;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let asked = path.clone();
        let answer =
            tokio::task::spawn_blocking(move || ask(&asked, &Request::Reload {})).await.unwrap().unwrap();
        assert_eq!(answer, Response::good(serde_json::json!({ "asked": "Reload" })));
    }

    #[tokio::test]
    async fn a_second_daemon_does_not_take_the_socket_of_the_first() {
        let (_folder, path) = daemon().await;
        let error = bind(&path).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        let asked = path.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&asked, &Request::Reload {})).await.unwrap();
        assert!(answer.is_ok(), "the first answers on");
        // What an earlier run left is no daemon.
        let left = path.with_file_name("left.sock");
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        assert!(bind(&left).is_ok());
    }

    #[tokio::test]
    async fn refuses_what_is_not_a_request() {
        let (_folder, path) = daemon().await;
        for line in [&b"nonsense\n"[..], b"{\"command\":\"stop\"}\n", b"{\"command\":\"reload\",\"x\":1}\n"] {
            let answer: Response = serde_json::from_str(&ask_line(&path, line).await).unwrap();
            assert!(answer.error.is_some_and(|error| error.starts_with("not a request")), "{line:?}");
        }
    }

    #[test]
    fn says_that_no_daemon_listens() {
        let error = ask(Path::new("/nonexistent/control.sock"), &Request::Reload {}).unwrap_err();
        assert!(error.to_string().contains("no daemon answers on /nonexistent/control.sock"), "{error}");
    }
}
