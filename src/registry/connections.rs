//! Which HTTP client a request goes out with: its proxy, its certificate authorities, and who we say we are.
//!
//! Most hosts share one client. A host of which `hosts.toml` names certificates, `skip_verify` or
//! `dial_timeout` has its own, and what is said of it is for it alone: neither `skip_verify`, nor the
//! client's certificate, nor the headers go with a redirect or a token request to another origin (scheme,
//! host and port). Its certificate authorities do: what it sends us to is often of the same house.
//!
//! Loopback hosts are never reached through a proxy, which could not reach them for us. Nor is a host with
//! `skip_verify` or a certificate of ours through a proxy that is itself spoken to by TLS: the library would hold
//! both for the proxy as well.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use reqwest::{Certificate, Identity, Url};

use super::address::{authority, is_loopback};
use super::names::Names;
use super::{RegistryError, RegistryOptions};

/// The clients.
pub(super) struct Connections {
    /// Goes through the environment's proxy, if there is one. Made at first use: reading the system's
    /// certificate authorities takes most of the time of one `verify`.
    client: OnceLock<reqwest::Client>,
    /// The same for loopback hosts.
    direct: OnceLock<reqwest::Client>,
    /// Plain HTTP without a proxy; it knows the configured authorities only, so that a bad one is found at start.
    plain: reqwest::Client,
    proxied: bool,
    /// A proxy's own address is https.
    proxied_by_tls: bool,
    options: RegistryOptions,
    names: Names,
    certificates: Vec<Certificate>,
}

/// How one host is spoken to, by `hosts.toml`.
pub(super) struct HostAccess {
    /// Of this reading of the file.
    id: u64,
    headers: HeaderMap,
    certificates: Vec<Certificate>,
    identity: Option<Identity>,
    verification: Verification,
    dial_timeout: Option<Duration>,
    clients: Mutex<HashMap<(Whose, Proxies), reqwest::Client>>,
}

/// Whether the certificate of a host must be one of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    Required,
    /// `skip_verify`.
    Skipped,
}

/// The host that a call is about, with what `hosts.toml` says of it.
#[derive(Clone)]
pub(super) struct Via {
    access: Arc<HostAccess>,
    /// Scheme, host and port.
    origin: String,
}

impl Connections {
    pub(super) fn new(options: &RegistryOptions) -> Result<Self, RegistryError> {
        let mut certificates = Vec::new();
        for authority in &options.certificate_authorities {
            let found = certificates_in(&authority.pem);
            certificates
                .extend(found.ok_or_else(|| RegistryError::CertificateAuthority(authority.name.clone()))?);
        }
        let names = Names::of_system();
        let plain = builder(options, &names, Proxies::Never)
            .tls_certs_only(certificates.clone())
            .build()
            .map_err(RegistryError::Client)?;
        Ok(Self {
            client: OnceLock::new(),
            direct: OnceLock::new(),
            plain,
            proxied_by_tls: PROXY_VARIABLES.iter().filter_map(std::env::var_os).any(|value| {
                value.to_str().is_some_and(|value| value.trim().to_ascii_lowercase().starts_with("https:"))
            }),
            proxied: PROXY_VARIABLES.iter().any(|name| std::env::var_os(name).is_some()),
            options: options.clone(),
            names,
            certificates,
        })
    }

    /// The client for `url`, in a call about the host of `via`.
    pub(super) fn client(&self, via: Option<&Via>, url: &Url) -> Result<reqwest::Client, RegistryError> {
        let loopback = is_loopback(&authority(url));
        let proxies = if loopback { Proxies::Never } else { Proxies::Environment };
        if let Some(via) = via
            && let Some(whose) = via.access.own_client(via.is_for(url))
        {
            let alone = self.proxied_by_tls && whose == Whose::Own && via.access.is_own_alone();
            return self.of_host(&via.access, whose, if alone { Proxies::Never } else { proxies });
        }
        if url.scheme() == "http" && (loopback || !self.proxied) {
            return Ok(self.plain.clone());
        }
        let slot = match proxies {
            Proxies::Never => &self.direct,
            Proxies::Environment => &self.client,
        };
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let client = build(&self.certificates, || builder(&self.options, &self.names, proxies))?;
        Ok(slot.get_or_init(|| client).clone())
    }

    fn of_host(
        &self,
        access: &HostAccess,
        whose: Whose,
        proxies: Proxies,
    ) -> Result<reqwest::Client, RegistryError> {
        let mut clients = access.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&(whose, proxies)) {
            return Ok(client.clone());
        }
        let certificates = [self.certificates.as_slice(), &access.certificates].concat();
        let client =
            build(&certificates, || access.apply(builder(&self.options, &self.names, proxies), whose))?;
        clients.insert((whose, proxies), client.clone());
        Ok(client)
    }
}

impl HostAccess {
    /// None if a certificate cannot be used.
    pub(super) fn new(
        headers: HeaderMap,
        certificates: Vec<Certificate>,
        identity: Option<Identity>,
        verification: Verification,
        dial_timeout: Option<Duration>,
    ) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (id, clients) = (NEXT.fetch_add(1, Ordering::Relaxed), Mutex::default());
        let access = Self { id, headers, certificates, identity, verification, dial_timeout, clients };
        // What cannot be used is found here, and not at the first pull; no system authority is read for it.
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only(access.certificates.clone());
        access.apply(builder, Whose::Own).build().ok().map(|_| access)
    }

    /// Another one each time that the file is read.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Whether the host's certificate must be one of an authority.
    pub(super) fn is_verified(&self) -> bool {
        self.verification == Verification::Required
    }

    /// Whether anything is said that must hold for nobody else.
    fn is_own_alone(&self) -> bool {
        self.identity.is_some() || !self.is_verified()
    }

    /// Whether the host has a client of its own for itself or for others, and which.
    fn own_client(&self, whose: Whose) -> Option<Whose> {
        let own = self.is_own_alone() || self.dial_timeout.is_some();
        (!self.certificates.is_empty() || (own && whose == Whose::Own)).then_some(whose)
    }

    fn apply(&self, builder: reqwest::ClientBuilder, whose: Whose) -> reqwest::ClientBuilder {
        if whose == Whose::Others {
            return builder;
        }
        let builder = match self.verification {
            Verification::Required => builder,
            Verification::Skipped => builder.tls_danger_accept_invalid_certs(true),
        };
        // Zero is Go's word for no limit, and ours for the usual one.
        let builder = match self.dial_timeout.filter(|timeout| !timeout.is_zero()) {
            Some(timeout) => builder.connect_timeout(timeout),
            None => builder,
        };
        match &self.identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        }
    }
}

impl Via {
    /// A call to `url` at the host itself.
    pub(super) fn new(access: Arc<HostAccess>, url: &Url) -> Self {
        Self { access, origin: url.origin().ascii_serialization() }
    }

    /// The host's headers, where `url` is its own.
    pub(super) fn headers(&self, url: &Url) -> HeaderMap {
        match self.is_for(url) {
            Whose::Own => self.access.headers.clone(),
            Whose::Others => HeaderMap::new(),
        }
    }

    fn is_for(&self, url: &Url) -> Whose {
        if url.origin().ascii_serialization() == self.origin { Whose::Own } else { Whose::Others }
    }
}

/// Whose URL is asked in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Own,
    Others,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Proxies {
    Environment,
    Never,
}

/// The certificates of a PEM file; none if it has none, or a broken one.
pub(super) fn certificates_in(pem: &[u8]) -> Option<Vec<Certificate>> {
    Certificate::from_pem_bundle(pem).ok().filter(|found| !found.is_empty())
}

fn build(
    certificates: &[Certificate],
    builder: impl Fn() -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, RegistryError> {
    // A machine without system authorities is left with the configured ones: fewer, never more.
    builder()
        .tls_certs_merge(certificates.to_vec())
        .build()
        .or_else(|_| builder().tls_certs_only(certificates.to_vec()).build())
        .map_err(RegistryError::Client)
}

fn builder(options: &RegistryOptions, names: &Names, proxies: Proxies) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("pullgate/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .dns_resolver(names.clone())
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .retry(reqwest::retry::never())
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .connect_timeout(options.timeouts.connect)
        .read_timeout(options.timeouts.idle)
        .pool_max_idle_per_host(options.concurrency_per_host.get())
        .pool_idle_timeout(POOL_IDLE);
    match proxies {
        Proxies::Environment => builder,
        Proxies::Never => builder.no_proxy(),
    }
}

/// As long as Go's clients keep idle connections.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// What a peer may send that nobody has read yet; hyper's own default is 2 MiB a stream and 5 MiB a connection,
/// of each of many hosts. A MiB in four round trips is enough for evidence.
const STREAM_WINDOW: u32 = 256 * 1024;
/// For all requests to one host at once.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The variables that reqwest reads.
const PROXY_VARIABLES: &[&str] =
    &["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_host_is_not_for_a_proxy_that_is_spoken_to_by_tls() {
        let url = Url::parse("https://a.test/v2/").unwrap();
        let access = |verification, dial_timeout| {
            let access = HostAccess::new(HeaderMap::new(), Vec::new(), None, verification, dial_timeout);
            Arc::new(access.unwrap())
        };
        let second = Some(Duration::from_secs(1));
        for (proxied_by_tls, access, expected) in [
            (true, access(Verification::Skipped, None), Proxies::Never),
            (true, access(Verification::Required, second), Proxies::Environment),
            (false, access(Verification::Skipped, None), Proxies::Environment),
        ] {
            let mut connections = Connections::new(&RegistryOptions::default()).unwrap();
            connections.proxied_by_tls = proxied_by_tls;
            connections.client(Some(&Via::new(Arc::clone(&access), &url)), &url).unwrap();
            let made: Vec<_> = access.clients.lock().unwrap().keys().copied().collect();
            assert_eq!(made, [(Whose::Own, expected)]);
        }
    }
}
