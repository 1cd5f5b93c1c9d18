//! Credentials for a registry, as the kubelet or a docker config file gives them.
//!
//! A secret is in here and in one `Authorization` header, nowhere else: `Debug` is redacted, there
//! is no `Display`, errors name the field and never its content (serde's own texts quote values, so
//! they are not passed on), and caches use [`Credentials::keyed_hash`].
//!
//! Credentials belong to the host that they name: an entry with a server address for another host
//! is not used, and one with a server address for this host goes to it alone. Those of a pull that name
//! nobody also go to the mirrors that `hosts.toml` gives, since containerd sends them there, and to nobody
//! else (CVE-2020-15157 and its like: secrets sent to whoever asks). Where a request has none, the docker
//! config files of this machine may have some for the very host that is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use serde::Deserialize;

use super::RegistryError;
use super::helper::HelperName;
use crate::oci::Digest;

/// What proves to a registry who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// User and password, for Basic or for a token request.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
        /// Who may see it.
        audience: Audience,
    },
    /// An OAuth2 refresh token, exchanged for an access token.
    IdentityToken {
        /// The token.
        token: String,
        /// Who may see it.
        audience: Audience,
    },
    /// A bearer token, sent to the registry itself as it is.
    RegistryToken(String),
}

/// Who may see the credentials of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The registry that the image's name carries: they name it.
    Registry,
    /// Its mirrors too: they name nobody.
    Mirrors,
}

/// The fields of a CRI `AuthConfig`; empty means not given.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// `user:password` in base64.
    pub auth: String,
    /// The registry for which this is meant.
    pub server_address: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token.
    pub registry_token: String,
}

/// What a docker `config.json` says of credentials: `auths`, `credHelpers` and `credsStore`.
#[derive(Clone, Default)]
pub struct DockerConfig {
    entries: BTreeMap<String, Credentials>,
    /// By host.
    helpers: BTreeMap<String, HelperName>,
    store: Option<HelperName>,
}

/// Where this machine's credentials for a host are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    /// In the file.
    Here(&'a Credentials),
    /// A helper for this very host has them.
    Helper(&'a HelperName),
    /// The helper for all hosts may have some.
    Store(&'a HelperName),
}

/// Why a docker config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: std::io::Error,
    },
    /// It is not one.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: RegistryError,
    },
}

impl Credentials {
    /// Reads what the kubelet sent for an image at `host` (the host of its [`Repository`](crate::oci::Repository)). Takes
    /// user and password, else the identity token, else `auth`, in containerd's order, else the
    /// registry token. A server address that names another host gives [`Credentials::Anonymous`].
    ///
    /// # Errors
    /// [`RegistryError::Auth`] if `auth` is not base64 of `user:password`.
    pub fn from_auth_config(config: &AuthConfig, host: &str) -> Result<Self, RegistryError> {
        if !config.server_address.is_empty() && server_host(&config.server_address) != canonical_host(host) {
            return Ok(Self::Anonymous);
        }
        let audience = if config.server_address.is_empty() { Audience::Mirrors } else { Audience::Registry };
        if !config.username.is_empty() {
            let (user, password) = (config.username.clone(), config.password.clone());
            return Ok(Self::Basic { user, password, audience });
        }
        if !config.identity_token.is_empty() {
            return Ok(Self::IdentityToken { token: config.identity_token.clone(), audience });
        }
        if !config.auth.is_empty() {
            let (user, password) = basic_from_base64(&config.auth)?;
            return Ok(Self::Basic { user, password, audience });
        }
        if !config.registry_token.is_empty() {
            return Ok(Self::RegistryToken(config.registry_token.clone()));
        }
        Ok(Self::Anonymous)
    }

    /// What of these a mirror gets to see, by containerd's rule: all that names nobody. A registry token is
    /// nothing to containerd, so that no mirror expects one.
    #[must_use]
    pub const fn for_mirror(&self) -> &Self {
        match self {
            Self::Basic { audience: Audience::Mirrors, .. }
            | Self::IdentityToken { audience: Audience::Mirrors, .. } => self,
            Self::Anonymous
            | Self::Basic { audience: Audience::Registry, .. }
            | Self::IdentityToken { audience: Audience::Registry, .. }
            | Self::RegistryToken(_) => &Self::Anonymous,
        }
    }

    /// HMAC-SHA-256 of `host` and everything in here under `key`, the installation's own: equal for
    /// equal credentials, useless without the key.
    #[must_use]
    pub fn keyed_hash(&self, key: &[u8], host: &str) -> Digest {
        let (kind, first, second) = match self {
            Self::Anonymous => ("anonymous", "", ""),
            Self::Basic { user, password, .. } => ("basic", user.as_str(), password.as_str()),
            Self::IdentityToken { token, .. } => ("identity", token.as_str(), ""),
            Self::RegistryToken(token) => ("registry", token.as_str(), ""),
        };
        keyed_hash(key, [kind, canonical_host(host), first, second])
    }

    /// The same of the user alone, in a namespace: equal whatever the password is. None without a user.
    #[must_use]
    pub fn keyed_hash_of_user(&self, key: &[u8], host: &str, namespace: &str) -> Option<Digest> {
        let user = self.user().filter(|user| !user.is_empty())?;
        Some(keyed_hash(key, ["user", canonical_host(host), user, namespace]))
    }

    /// Whether `text` gives them away, as they are or as they are sent.
    pub(super) fn occur_in(&self, text: &str) -> bool {
        let has = |secret: &str| !secret.is_empty() && text.contains(secret);
        match self {
            Self::Anonymous => false,
            Self::Basic { user, password, audience: _ } => has(password) || has(&basic_value(user, password)),
            Self::IdentityToken { token, audience: _ } | Self::RegistryToken(token) => has(token),
        }
    }

    /// The user, where there is one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Basic { user, .. } => Some(user),
            Self::Anonymous | Self::IdentityToken { .. } | Self::RegistryToken(_) => None,
        }
    }
}

fn keyed_hash(key: &[u8], parts: [&str; 4]) -> Digest {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        // With its length before it, no two lists of parts are the same bytes.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut hash = [0_u8; 32];
    hash.copy_from_slice(context.sign().as_ref());
    Digest::from_bytes(hash)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(redacted)",
            Self::IdentityToken { .. } => "IdentityToken(redacted)",
            Self::RegistryToken(_) => "RegistryToken(redacted)",
        })
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl DockerConfig {
    /// Reads a file, which must be there.
    ///
    /// # Errors
    /// [`DockerConfigError`].
    pub fn read(path: &Path) -> Result<Self, DockerConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| DockerConfigError::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| DockerConfigError::Content { path: path.to_owned(), source })
    }

    /// Reads a `config.json`; what is not about credentials is left aside.
    ///
    /// # Errors
    /// [`RegistryError::DockerConfig`] with the place, [`RegistryError::Auth`] for a bad `auth`,
    /// [`RegistryError::HelperName`].
    pub fn parse(json: &str) -> Result<Self, RegistryError> {
        let file: DockerFile = serde_json::from_str(json)
            .map_err(|error| RegistryError::DockerConfig { line: error.line(), column: error.column() })?;
        let mut entries = BTreeMap::new();
        for (server, entry) in file.auths {
            let credentials = entry.credentials()?;
            if credentials != Credentials::Anonymous {
                entries.insert(server_key(&server), credentials);
            }
        }
        let name = |text: &str| {
            let shown = || text.chars().take(60).filter(|letter| !letter.is_control()).collect();
            HelperName::parse(text).ok_or_else(|| RegistryError::HelperName(shown()))
        };
        let mut helpers = BTreeMap::new();
        for (server, helper) in file.helpers {
            helpers.insert(server_key(&server), name(&helper)?);
        }
        let store = if file.store.is_empty() { None } else { Some(name(&file.store)?) };
        Ok(Self { entries, helpers, store })
    }

    /// Adds the logins of another file, where there are none of the same name yet. Its helpers are left out:
    /// what a file that policies name says runs nothing.
    pub fn add_logins(&mut self, other: Self) {
        for (name, login) in other.entries {
            self.entries.entry(name).or_insert(login);
        }
    }

    /// What there is for a repository's path at a host, which may be a mirror: docker's order, except that
    /// credentials in the file go before the helper for all hosts.
    pub(super) fn stored(&self, host: &str, path: &str) -> Option<Stored<'_>> {
        let helper = self.helpers.get(canonical_host(host)).map(Stored::Helper);
        helper
            .or_else(|| self.entry(host, path).map(Stored::Here))
            .or_else(|| self.store.as_ref().map(Stored::Store))
    }

    /// The longest of `host`, `host/path`… that the repository lies in.
    fn entry(&self, host: &str, path: &str) -> Option<&Credentials> {
        let mut key = format!("{}/{path}", canonical_host(host));
        loop {
            if let Some(credentials) = self.entries.get(&key) {
                return Some(credentials);
            }
            key.truncate(key.rfind('/')?);
        }
    }
}

#[derive(Deserialize)]
struct DockerFile {
    #[serde(default)]
    auths: BTreeMap<String, DockerEntry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Deserialize)]
struct DockerEntry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

impl DockerEntry {
    fn credentials(self) -> Result<Credentials, RegistryError> {
        // docker puts a placeholder user beside an identity token, so the token goes first.
        if !self.identity_token.is_empty() {
            let audience = Audience::Registry;
            return Ok(Credentials::IdentityToken { token: self.identity_token, audience });
        }
        if !self.registry_token.is_empty() {
            return Ok(Credentials::RegistryToken(self.registry_token));
        }
        let (user, password) = match (self.username.is_empty(), self.auth.is_empty()) {
            (false, _) => (self.username, self.password),
            (true, false) => basic_from_base64(&self.auth)?,
            (true, true) => return Ok(Credentials::Anonymous),
        };
        Ok(Credentials::Basic { user, password, audience: Audience::Registry })
    }
}

fn basic_from_base64(auth: &str) -> Result<(String, String), RegistryError> {
    let bytes = LENIENT.decode(auth.trim()).map_err(|_| RegistryError::Auth)?;
    let text = String::from_utf8(bytes).map_err(|_| RegistryError::Auth)?;
    let (user, password) = text.split_once(':').ok_or(RegistryError::Auth)?;
    // docker once padded passwords with zero bytes; containerd strips them too.
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

/// `user:password` in base64, as in a Basic header.
pub(super) fn basic_value(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// The host in a server address such as `ghcr.io`, `https://ghcr.io/v2/` or `index.docker.io/v1/`.
fn server_host(address: &str) -> String {
    let key = server_key(address);
    key.split('/').next().unwrap_or_default().to_owned()
}

/// Host and path of a server address; docker's `/v1/` and `/v2/` are not paths of repositories.
fn server_key(address: &str) -> String {
    let bare = address.trim();
    let bare = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://")).unwrap_or(bare);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = host.to_ascii_lowercase();
    let host = canonical_host(&host);
    match path.trim_matches('/') {
        "" | "v1" | "v2" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

/// How helpers know a host: docker's own name for Docker Hub.
pub(super) fn helper_server(host: &str) -> &str {
    match canonical_host(host) {
        "docker.io" => "https://index.docker.io/v1/",
        host => host,
    }
}

/// One name for Docker Hub, and no default port.
fn canonical_host(host: &str) -> &str {
    match host.strip_suffix(":443").unwrap_or(host) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Credential tools write base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Repository;

    fn basic(user: &str, password: &str, audience: Audience) -> Credentials {
        Credentials::Basic { user: user.into(), password: password.into(), audience }
    }

    fn identity(token: &str, audience: Audience) -> Credentials {
        Credentials::IdentityToken { token: token.into(), audience }
    }

    #[test]
    fn reads_the_kubelets_fields_in_containerds_order() {
        let auth = AuthConfig { auth: "dXNlcjpwYTpzcw".into(), ..AuthConfig::default() };
        assert_eq!(
            Credentials::from_auth_config(&auth, "ghcr.io").unwrap(),
            basic("user", "pa:ss", Audience::Mirrors)
        );
        let both =
            AuthConfig { username: "u".into(), password: "p".into(), identity_token: "t".into(), ..auth };
        assert_eq!(
            Credentials::from_auth_config(&both, "ghcr.io").unwrap(),
            basic("u", "p", Audience::Mirrors)
        );
        let token = AuthConfig { username: String::new(), ..both };
        assert_eq!(
            Credentials::from_auth_config(&token, "ghcr.io").unwrap(),
            identity("t", Audience::Mirrors)
        );
        let registry = AuthConfig { registry_token: "r".into(), ..AuthConfig::default() };
        assert_eq!(
            Credentials::from_auth_config(&registry, "ghcr.io").unwrap(),
            Credentials::RegistryToken("r".into())
        );
        assert_eq!(
            Credentials::from_auth_config(&AuthConfig::default(), "ghcr.io").unwrap(),
            Credentials::Anonymous
        );
    }

    #[test]
    fn a_server_address_for_another_host_is_not_used() {
        let table = [
            ("ghcr.io", "ghcr.io", true),
            ("https://GHCR.io/v2/", "ghcr.io", true),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("https://ghcr.io:443", "ghcr.io", true),
            ("https://ghcr.io", "ghcr.io.evil.example", false),
            ("https://evil.example/ghcr.io", "ghcr.io", false),
            ("localhost:5000", "localhost:5001", false),
        ];
        for (server, host, used) in table {
            let config = AuthConfig {
                username: "u".into(),
                password: "p".into(),
                server_address: server.into(),
                ..AuthConfig::default()
            };
            let expected = if used { basic("u", "p", Audience::Registry) } else { Credentials::Anonymous };
            assert_eq!(Credentials::from_auth_config(&config, host).unwrap(), expected, "{server} {host}");
        }
    }

    #[test]
    fn finds_the_closest_docker_config_entry() {
        let config = DockerConfig::parse(
            r#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
                "ghcr.io":{"username":"host","password":"p"},
                "ghcr.io/org":{"username":"org","password":"p"},
                "a.io":{"auth":"PHRva2VuPjo=","identitytoken":"refresh"},
                "helper.io":{}}}"#,
        )
        .unwrap();
        let of = |text| {
            let repository = Repository::parse(text).unwrap();
            config.entry(repository.host(), repository.path()).cloned()
        };
        assert_eq!(of("busybox"), Some(basic("hub", "pw", Audience::Registry)));
        assert_eq!(of("ghcr.io/org/app"), Some(basic("org", "p", Audience::Registry)));
        assert_eq!(of("ghcr.io/organisation/app"), Some(basic("host", "p", Audience::Registry)));
        assert_eq!(of("a.io/app"), Some(identity("refresh", Audience::Registry)));
        assert_eq!(of("helper.io/app"), None);
        assert_eq!(of("b.io/app"), None);
    }

    #[test]
    fn a_helper_for_a_host_goes_before_the_file_and_the_one_for_all_hosts_after_it() {
        let config = DockerConfig::parse(
            r#"{"credsStore":"all","credHelpers":{"https://index.docker.io/v1/":"hub","ghcr.io":"gh"},"auths":{
                "ghcr.io":{"username":"u","password":"p"},"a.io":{"username":"u","password":"p"},"b.io":{}}}"#,
        )
        .unwrap();
        let [hub, gh, all] = ["hub", "gh", "all"].map(|name| HelperName::parse(name).unwrap());
        let here = basic("u", "p", Audience::Registry);
        for (host, wanted) in [
            ("docker.io", Stored::Helper(&hub)),
            ("ghcr.io", Stored::Helper(&gh)),
            ("ghcr.io:443", Stored::Helper(&gh)),
            ("a.io", Stored::Here(&here)),
            ("b.io", Stored::Store(&all)),
            ("ghcr.io:5000", Stored::Store(&all)),
        ] {
            assert_eq!(config.stored(host, "org/app"), Some(wanted), "{host}");
        }
        assert_eq!(DockerConfig::parse("{}").unwrap().stored("a.io", "app"), None);
        for json in [r#"{"credsStore":"../sh"}"#, r#"{"credHelpers":{"a.io":"../sh"}}"#] {
            let error = DockerConfig::parse(json).unwrap_err().to_string();
            assert!(error.starts_with("`../sh` is not the name of a credential helper"), "{error}");
        }
        assert_eq!(helper_server("docker.io"), "https://index.docker.io/v1/");
        assert_eq!(helper_server("ghcr.io"), "ghcr.io");
    }

    #[test]
    fn neither_debug_nor_errors_carry_secrets() {
        let config = AuthConfig {
            username: "user".into(),
            password: "hunter2".into(),
            auth: "hunter2".into(),
            identity_token: "hunter2".into(),
            ..AuthConfig::default()
        };
        let docker =
            DockerConfig::parse(r#"{"auths":{"a.io":{"username":"u","password":"hunter2"}}}"#).unwrap();
        let shown = format!(
            "{config:?} {:?} {:?} {docker:?} {} {}",
            basic("user", "hunter2", Audience::Mirrors),
            Credentials::RegistryToken("hunter2".into()),
            DockerConfig::parse(r#"{"auths":{"a.io":"hunter2"}}"#).unwrap_err(),
            DockerConfig::parse(r#"{"auths":{"a.io":{"auth":"hunter2"}}}"#).unwrap_err(),
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn keyed_hashes_differ_by_key_host_and_every_field() {
        let all = [
            Credentials::Anonymous.keyed_hash(b"k", "a.io"),
            basic("u", "p", Audience::Mirrors).keyed_hash(b"k", "a.io"),
            basic("u", "p", Audience::Mirrors).keyed_hash(b"l", "a.io"),
            basic("u", "p", Audience::Mirrors).keyed_hash(b"k", "b.io"),
            basic("up", "", Audience::Mirrors).keyed_hash(b"k", "a.io"),
            identity("u", Audience::Mirrors).keyed_hash(b"k", "a.io"),
            Credentials::RegistryToken("u".into()).keyed_hash(b"k", "a.io"),
            basic("u", "p", Audience::Mirrors).keyed_hash_of_user(b"k", "a.io", "p").unwrap(),
            basic("u", "p", Audience::Mirrors).keyed_hash_of_user(b"k", "a.io", "q").unwrap(),
            basic("v", "p", Audience::Mirrors).keyed_hash_of_user(b"k", "a.io", "p").unwrap(),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(basic("u", "p", Audience::Mirrors).keyed_hash(b"k", "a.io"), all[1]);
        assert_eq!(
            basic("u", "other", Audience::Mirrors).keyed_hash_of_user(b"k", "a.io", "p").as_ref(),
            Some(&all[7])
        );
        for nobody in
            [Credentials::Anonymous, identity("u", Audience::Mirrors), basic("", "p", Audience::Mirrors)]
        {
            assert_eq!(nobody.keyed_hash_of_user(b"k", "a.io", "p"), None);
        }
    }
}
