//! A TUF mirror: its address, and reading from it within bounds.
//!
//! The mirror is not trusted: what it says is verified by signature afterwards. Here it can only
//! cost time and memory, and both are bounded: each file by the limit of its role, one refresh by
//! [`TRANSFER_LIMIT`] bytes, silence by a timeout; the whole refresh has a deadline of its own.
//! Names that come out of metadata never leave the mirror's folder: anything but one plain segment
//! is refused before a request or a path is made of it.
//!
//! `https://` and `file://` everywhere, `http://` on loopback only. 404 and 403 are "not there"
//! (object stores say 403 for what is absent); redirects end after three and never lead to plain HTTP.

use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{StatusCode, Url};
use sigstore_tuf::transport::FetchFuture;
use sigstore_tuf::{Error, Repository};

/// Where TUF metadata and targets are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(Url);

/// Why something is no address of a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Not a URL that can be read from.
    #[error("is not the address of a mirror: write it as https://host/path, or file:///folder")]
    Address,
    /// Plain HTTP to another machine.
    #[error("is plain HTTP to another machine: use https://")]
    PlainHttp,
    /// A user, a password, a query or a fragment.
    #[error("carries more than a host and a path: leave out user, query and fragment")]
    Extras,
}

impl Mirror {
    /// Parses an address.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub fn parse(text: &str) -> Result<Self, MirrorError> {
        let mut url = Url::parse(text).map_err(|_| MirrorError::Address)?;
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(MirrorError::Extras);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(MirrorError::PlainHttp),
            "file" if url.to_file_path().is_ok() => {}
            _ => return Err(MirrorError::Address),
        }
        // A base without it would lose its last segment.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().trim_end_matches('/').fmt(f)
    }
}

/// One refresh's view of a mirror.
pub(super) struct Reader {
    from: From,
    /// Bytes that this refresh may still read.
    left: AtomicU64,
}

enum From {
    Web { base: Url, client: reqwest::Client },
    Folder(PathBuf),
}

impl Reader {
    /// Opens a mirror; `authorities` are PEM certificates in addition to the system's.
    pub(super) fn open(mirror: &Mirror, authorities: &[Vec<u8>]) -> Result<Self, Error> {
        let from = match mirror.0.to_file_path() {
            Ok(folder) if mirror.0.scheme() == "file" => From::Folder(folder),
            Ok(_) | Err(()) => From::Web { base: mirror.0.clone(), client: client(&mirror.0, authorities)? },
        };
        Ok(Self { from, left: AtomicU64::new(TRANSFER_LIMIT) })
    }

    async fn read(&self, folder: Option<&str>, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        if !is_plain(name) {
            return Err(Error::Malformed(format!("metadata name a file {name:?}, which is not read")));
        }
        let limit = limit.min(self.left.load(Ordering::Relaxed));
        let found = match &self.from {
            From::Web { base, client } => {
                let mut url = base.clone();
                let closed = |()| Error::transport("the mirror's address has no path");
                url.path_segments_mut().map_err(closed)?.pop_if_empty().extend(folder).push(name);
                get(client, url, limit).await?
            }
            From::Folder(path) => {
                let path = folder.map_or_else(|| path.clone(), |folder| path.join(folder)).join(name);
                let reading = tokio::task::spawn_blocking(move || read_file(&path, limit));
                reading.await.map_err(|error| Error::transport_with_source("reading the mirror", error))??
            }
        };
        let size = found.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.left.fetch_sub(size.min(limit), Ordering::Relaxed);
        Ok(found)
    }
}

impl Repository for Reader {
    fn fetch_metadata<'a>(&'a self, name: &'a str, limit: u64) -> FetchFuture<'a> {
        Box::pin(self.read(None, name, limit))
    }

    fn fetch_target<'a>(&'a self, path: &'a str, limit: u64) -> FetchFuture<'a> {
        Box::pin(self.read(Some("targets"), path, limit))
    }
}

fn client(base: &Url, authorities: &[Vec<u8>]) -> Result<reqwest::Client, Error> {
    let failed = |error| Error::transport_with_source("the HTTP client cannot be made", error);
    let mut certificates = Vec::new();
    for pem in authorities {
        certificates.extend(reqwest::Certificate::from_pem_bundle(pem).map_err(failed)?);
    }
    let builder = || {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("pullgate/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            .redirect(reqwest::redirect::Policy::custom(|attempt| {
                if attempt.previous().len() > REDIRECT_LIMIT {
                    attempt.error("too many redirects")
                } else if attempt.url().scheme() != "https" && !is_loopback(attempt.url()) {
                    attempt.error("redirected to plain HTTP")
                } else {
                    attempt.follow()
                }
            }))
            .retry(reqwest::retry::never())
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(IDLE_LIMIT)
            .read_timeout(IDLE_LIMIT);
        if is_loopback(base) { builder.no_proxy() } else { builder }
    };
    // A machine without system authorities is left with the configured ones: fewer, never more.
    builder()
        .tls_certs_merge(certificates.clone())
        .build()
        .or_else(|_| builder().tls_certs_only(certificates).build())
        .map_err(failed)
}

async fn get(client: &reqwest::Client, url: Url, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let name = url.to_string();
    let failed = |error: reqwest::Error| Error::transport_with_source(name.clone(), error.without_url());
    let mut response = client.get(url).send().await.map_err(failed)?;
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Ok(None),
        status if status.is_success() => {}
        status => return Err(Error::transport(format!("{name} answered {status}"))),
    }
    let too_large = || Error::transport(format!("{name} is larger than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        let size = bytes.len().saturating_add(chunk.len());
        if u64::try_from(size).unwrap_or(u64::MAX) > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

fn read_file(path: &std::path::Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::io(format!("{} cannot be read", path.display()), source);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Error::transport(format!("{} is larger than {limit} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// Whether a name is one segment that cannot leave its folder. Delegated roles come percent-encoded.
fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    !name.is_empty() && name.len() <= NAME_LIMIT && !name.starts_with('.') && name.bytes().all(allowed)
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Far more than Sigstore's whole repository, which has less than 1 MiB.
const TRANSFER_LIMIT: u64 = 16 << 20;
/// Without a byte for so long the mirror is given up.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
const REDIRECT_LIMIT: usize = 3;
/// The longest name of a file on Linux.
const NAME_LIMIT: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_this_machine() {
        for (text, shown) in [
            ("https://tuf.example", "https://tuf.example"),
            ("https://tuf.example/a/b/", "https://tuf.example/a/b"),
            ("http://127.0.0.1:8080/r", "http://127.0.0.1:8080/r"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost/r", "http://localhost/r"),
            ("file:///srv/tuf", "file:///srv/tuf"),
        ] {
            assert_eq!(Mirror::parse(text).unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("http://tuf.example/", MirrorError::PlainHttp),
            ("http://127.0.0.1.tuf.example/", MirrorError::PlainHttp),
            ("ftp://tuf.example/", MirrorError::Address),
            ("/srv/tuf", MirrorError::Address),
            ("file://host/srv", MirrorError::Address),
            ("https://user@tuf.example/", MirrorError::Extras),
            ("https://tuf.example/?a=b", MirrorError::Extras),
        ] {
            assert_eq!(Mirror::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn names_stay_in_their_folder() {
        for name in ["1.root.json", "timestamp.json", "ab12.trusted_root.json", "2.a%2Fb.json"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", "..", ".hidden", "../x", "a/b", "a\\b", "a?b", "a#b", "a\0", "a b", &"a".repeat(256)]
        {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
