//! containerd's `hosts.toml`: which hosts are asked for a registry's images, in what order and how.
//!
//! Reads text and opens no file. What containerd reads from the same text is read here, since the
//! pull that follows goes where this file says:
//!
//! * hosts in the order of their `[host."URL"]` tables, the `server` last; without one, the registry
//!   itself, with the other keys of the top level
//! * keys in any case, as containerd's library takes them
//! * `/v2` is added to the path of an address, unless it ends in it or `override_path` is set
//!
//! Where it differs: a file that containerd does not understand makes it log an error and go to the
//! registry itself. Here it is an error, and so is every value of another kind: what was meant by it
//! is not known. What has no effect is named in a [`Remark`]: unknown keys, a user in an address,
//! headers that are ours to set.
//!
//! The file is root's and so trusted, but secrets may be in it (headers): no value gets into a message.
//!
//! Source: containerd `docs/hosts.md` and `core/remotes/docker/config/hosts.go`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::http::Scheme;

/// A `hosts.toml`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostsFile {
    /// In the order in which they are asked; never empty.
    pub(super) hosts: Vec<HostEntry>,
    /// What has no effect.
    pub(super) remarks: Vec<Remark>,
}

/// One host and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostEntry {
    /// None: the registry that the image's name carries.
    pub(super) address: Option<Address>,
    pub(super) capabilities: Capabilities,
    pub(super) access: Access,
}

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    /// `host` or `host:port`; without the scheme's own port.
    pub(super) authority: String,
    /// What stands before the repository: empty, or with a slash at its start and none at its end.
    pub(super) base: String,
    /// The port 80 is written out.
    pub(super) names_port_80: bool,
}

/// What a host may be asked for. Pushing is nothing to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Content by digest, and evidence.
    pub(super) pull: bool,
    /// The digest of a tag.
    pub(super) resolve: bool,
}

/// How a host is spoken to, where that is not as for any host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// Files of certificate authorities, besides the system's.
    pub(super) ca: Vec<PathBuf>,
    /// What proves who we are.
    pub(super) client: Vec<ClientPair>,
    /// Whether any certificate of the host will do; none: not said.
    pub(super) skip_verify: Option<bool>,
    /// For the host itself, and nobody that it redirects to.
    pub(super) headers: HeaderMap,
    /// Until a connection is up.
    pub(super) dial_timeout: Option<Duration>,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientPair {
    pub(super) certificate: PathBuf,
    /// None: in the same file.
    pub(super) key: Option<PathBuf>,
}

/// Something in the file that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    /// From 1.
    pub(super) line: usize,
    pub(super) message: String,
}

/// Why a text is no `hosts.toml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(super) struct SyntaxError {
    /// From 1.
    pub(super) line: usize,
    pub(super) problem: Problem,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// In the words of the TOML parser, which are fixed.
    #[error("not TOML: {0}")]
    Toml(String),
    #[error("not UTF-8 text")]
    NotText,
    #[error("`{key}` must be {expected}")]
    Kind { key: &'static str, expected: &'static str },
    #[error("no capability of a host: use pull, resolve, push and referrers")]
    Capability,
    #[error("no address of a host: write it as https://host:port/path")]
    Address,
    #[error("no name or value of an HTTP header")]
    Header,
    #[error(
        "a host that containerd 1.7 asks and containerd 2 passes over: write it as a table `[host.\"…\"]` of its own"
    )]
    InlineHost,
    #[error("no duration: write it as 5s, 500ms or 1m30s")]
    Duration,
    #[error("more than {HOSTS_LIMIT} hosts")]
    TooManyHosts,
}

impl HostsFile {
    /// Reads the text of a file in `folder`, to which its paths are relative.
    ///
    /// # Errors
    /// [`SyntaxError`] at the first thing that cannot be understood.
    pub(super) fn parse(bytes: &[u8], folder: &Path) -> Result<Self, SyntaxError> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let read = bytes.get(..error.valid_up_to()).unwrap_or_default();
            SyntaxError { line: line_after(read), problem: Problem::NotText }
        })?;
        let mut reader = Reader { text, folder, remarks: Vec::new() };
        let document = DeTable::parse(text).map_err(|error| {
            let message = error.message().replace(char::is_control, " ");
            reader.error(error.span().unwrap_or_default(), Problem::Toml(message))
        })?;
        let hosts = reader.document(document.get_ref())?;
        Ok(Self { hosts, remarks: reader.remarks })
    }
}

impl HostEntry {
    /// The registry itself, as if nothing was said of it but this.
    pub(super) const fn registry(access: Access) -> Self {
        Self { address: None, capabilities: Capabilities::ALL, access }
    }
}

impl Capabilities {
    pub(super) const ALL: Self = Self { pull: true, resolve: true };
    const NONE: Self = Self { pull: false, resolve: false };
}

struct Reader<'a> {
    text: &'a str,
    folder: &'a Path,
    remarks: Vec<Remark>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) -> Result<Vec<HostEntry>, SyntaxError> {
        let mut hosts = Vec::new();
        let mut server = None;
        let mut keys = Keys::default();
        for (key, value) in document {
            let name = key.get_ref().as_ref();
            // Only in this spelling: containerd looks for the tables by themselves.
            if name == "host" {
                let tables = self.table("host", value)?;
                for (key, value) in tables {
                    hosts.push(self.host(key, value)?);
                }
            } else if name.eq_ignore_ascii_case("server") {
                server = Some((self.string("server", value)?, value.span()));
            } else if !self.key(&mut keys, name, value)? {
                self.remark(key.span(), format!("unknown key `{}`", printable(name)));
            }
        }
        if hosts.len() > HOSTS_LIMIT {
            return Err(SyntaxError { line: 1, problem: Problem::TooManyHosts });
        }
        let server = server.filter(|(server, _)| !server.is_empty());
        hosts.push(match server {
            Some((server, span)) => self.entry(&server, span, keys)?,
            // containerd gives the registry itself every capability, whatever the top level says.
            None => HostEntry::registry(keys.access),
        });
        Ok(hosts)
    }

    fn host(
        &mut self,
        key: &Spanned<toml::de::DeString<'_>>,
        value: &Value<'_>,
    ) -> Result<HostEntry, SyntaxError> {
        let mut keys = Keys::default();
        let table = self.table("host", value)?;
        // Whether it is asked, and sees credentials, must not depend on who reads the file.
        if !self.has_header(value) {
            return Err(self.error(key.span(), Problem::InlineHost));
        }
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if !self.key(&mut keys, name, value)? {
                self.remark(key.span(), format!("unknown key `{}` of a host", printable(name)));
            }
        }
        self.entry(key.get_ref(), key.span(), keys)
    }

    /// Whether a table, or one in it, is written under a header `[…]`: containerd 2 finds hosts by these.
    fn has_header(&self, value: &Value<'_>) -> bool {
        let own = || self.text.get(value.span()).is_some_and(|text| text.starts_with('['));
        let parts = |table: &DeTable<'_>| table.iter().any(|(_, part)| self.has_header(part));
        value.get_ref().as_table().is_some_and(|table| own() || parts(table))
    }

    fn entry(&mut self, address: &str, at: Range<usize>, keys: Keys) -> Result<HostEntry, SyntaxError> {
        let Some((address, rest)) = Address::parse(address, keys.path) else {
            return Err(self.error(at, Problem::Address));
        };
        if rest == Beside::Something {
            self.remark(at, "user, query and fragment of an address are not used".to_owned());
        }
        Ok(HostEntry { address: Some(address), capabilities: keys.capabilities, access: keys.access })
    }

    /// Reads a key that a host and the top level have in common; false if it is none of those.
    fn key(&mut self, keys: &mut Keys, name: &str, value: &Value<'_>) -> Result<bool, SyntaxError> {
        match name.to_ascii_lowercase().as_str() {
            "capabilities" => keys.capabilities = self.capabilities(value)?,
            "ca" => keys.access.ca = self.paths(value)?,
            "client" => keys.access.client = self.client(value)?,
            "skip_verify" => keys.access.skip_verify = Some(self.boolean("skip_verify", value)?),
            "header" => keys.access.headers = self.headers(value)?,
            "override_path" => {
                let whole = self.boolean("override_path", value)?;
                keys.path = if whole { PathUse::Whole } else { PathUse::Versioned };
            }
            "dial_timeout" => {
                let text = self.string("dial_timeout", value)?;
                let duration = if text.is_empty() { Some(None) } else { go_duration(&text).map(Some) };
                keys.access.dial_timeout =
                    duration.ok_or_else(|| self.error(value.span(), Problem::Duration))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn capabilities(&self, value: &Value<'_>) -> Result<Capabilities, SyntaxError> {
        let expected = "a list of strings";
        let list = self.list(value).ok_or_else(|| self.kind("capabilities", expected, value))?;
        if list.is_empty() {
            return Ok(Capabilities::ALL);
        }
        let mut capabilities = Capabilities::NONE;
        for value in list {
            let name = value.get_ref().as_str().ok_or_else(|| self.kind("capabilities", expected, value))?;
            match name.to_ascii_lowercase().as_str() {
                "pull" => capabilities.pull = true,
                "resolve" => capabilities.resolve = true,
                "push" | "referrers" => {}
                _ => return Err(self.error(value.span(), Problem::Capability)),
            }
        }
        Ok(capabilities)
    }

    fn paths(&self, value: &Value<'_>) -> Result<Vec<PathBuf>, SyntaxError> {
        let wrong = |value: &Value<'_>| self.kind("ca", "a path or a list of paths", value);
        let path = |value: &Value<'_>| {
            value.get_ref().as_str().map(|path| self.folder.join(path)).ok_or_else(|| wrong(value))
        };
        match self.list(value) {
            Some(list) => list.iter().map(path).collect(),
            None => Ok(vec![path(value)?]),
        }
    }

    fn client(&self, value: &Value<'_>) -> Result<Vec<ClientPair>, SyntaxError> {
        let expected = "a path, a list of paths, or a list of pairs of paths";
        let wrong = |value: &Value<'_>| self.kind("client", expected, value);
        let single = |path: &str| ClientPair { certificate: self.folder.join(path), key: None };
        let pair = |value: &Value<'_>| {
            if let Some(path) = value.get_ref().as_str() {
                return Ok(single(path));
            }
            let list = self.list(value).ok_or_else(|| wrong(value))?;
            let paths: Vec<&str> = list.iter().filter_map(|path| path.get_ref().as_str()).collect();
            match (paths.as_slice(), list.len()) {
                ([certificate, ""], 2) => Ok(single(certificate)),
                ([certificate, key], 2) => Ok(ClientPair {
                    certificate: self.folder.join(certificate),
                    key: Some(self.folder.join(key)),
                }),
                _ => Err(wrong(value)),
            }
        };
        match self.list(value) {
            Some(list) => list.iter().map(pair).collect(),
            None => Ok(vec![single(value.get_ref().as_str().ok_or_else(|| wrong(value))?)]),
        }
    }

    fn headers(&mut self, value: &Value<'_>) -> Result<HeaderMap, SyntaxError> {
        let mut headers = HeaderMap::new();
        for (key, value) in self.table("header", value)? {
            let wrong = |at| self.error(at, Problem::Header);
            let name = HeaderName::from_bytes(key.get_ref().as_bytes()).map_err(|_| wrong(key.span()))?;
            let single = std::slice::from_ref(value);
            for value in self.list(value).map_or(single, |list| list) {
                let expected = "a table of strings and lists of strings";
                let text = value.get_ref().as_str().ok_or_else(|| self.kind("header", expected, value))?;
                let mut text = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| wrong(value.span()))?;
                // Whether it is a secret, nobody says.
                text.set_sensitive(true);
                headers.append(name.clone(), text);
            }
            if OURS.contains(&name.as_str()) {
                headers.remove(&name);
                self.remark(key.span(), format!("header `{name}` is not for this file to set"));
            }
        }
        Ok(headers)
    }

    fn table<'a, 't>(&self, key: &'static str, value: &'a Value<'t>) -> Result<&'a DeTable<'t>, SyntaxError> {
        value.get_ref().as_table().ok_or_else(|| self.kind(key, "a table", value))
    }

    fn list<'a, 't>(&self, value: &'a Value<'t>) -> Option<&'a DeArray<'t>> {
        value.get_ref().as_array()
    }

    fn string(&self, key: &'static str, value: &Value<'_>) -> Result<String, SyntaxError> {
        value.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.kind(key, "a string", value))
    }

    fn boolean(&self, key: &'static str, value: &Value<'_>) -> Result<bool, SyntaxError> {
        value.get_ref().as_bool().ok_or_else(|| self.kind(key, "true or false", value))
    }

    fn kind(&self, key: &'static str, expected: &'static str, value: &Value<'_>) -> SyntaxError {
        self.error(value.span(), Problem::Kind { key, expected })
    }

    fn error(&self, at: Range<usize>, problem: Problem) -> SyntaxError {
        SyntaxError { line: self.line(at), problem }
    }

    fn remark(&mut self, at: Range<usize>, message: String) {
        let line = self.line(at);
        self.remarks.push(Remark { line, message });
    }

    fn line(&self, at: Range<usize>) -> usize {
        line_after(self.text.as_bytes().get(..at.start).unwrap_or_default())
    }
}

/// What a host and the top level have in common.
struct Keys {
    capabilities: Capabilities,
    access: Access,
    path: PathUse,
}

impl Default for Keys {
    fn default() -> Self {
        Self { capabilities: Capabilities::ALL, access: Access::default(), path: PathUse::Versioned }
    }
}

/// `override_path`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathUse {
    /// `/v2` is part of it, or added.
    Versioned,
    /// It is all of it.
    Whole,
}

/// What an address has that is not used.
#[derive(PartialEq, Eq)]
enum Beside {
    Nothing,
    Something,
}

impl Address {
    /// A name alone is one that speaks TLS.
    fn parse(text: &str, path: PathUse) -> Option<(Self, Beside)> {
        // The URL parser would leave them out.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return None;
        }
        let url = match text.starts_with("http") {
            true => Url::parse(text),
            false if text.contains("://") => return None,
            false => Url::parse(&format!("https://{text}")),
        };
        let url = url.ok()?;
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return None,
        };
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut base: String =
            url.path().split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect();
        if path == PathUse::Versioned && !base.ends_with("/v2") {
            base.push_str("/v2");
        }
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let named = text.split_once("://").map_or(text, |(_, rest)| rest);
        let names_port_80 = named.split(['/', '?', '#']).next().is_some_and(|host| host.ends_with(":80"));
        Some((
            Self { scheme, authority, base, names_port_80 },
            if bare { Beside::Nothing } else { Beside::Something },
        ))
    }
}

/// Go's `time.ParseDuration`, of what is not negative.
fn go_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = Some(text).filter(|text| !text.is_empty())?;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut nanos = whole.checked_mul(unit)?;
        let mut part = unit;
        for digit in fraction.chars() {
            part /= 10;
            nanos = nanos.checked_add(part.checked_mul(u64::from(digit.to_digit(10)?))?)?;
        }
        total = total.checked_add(Duration::from_nanos(nanos))?;
        rest = after;
    }
    Some(total)
}

/// The line that what follows these bytes begins in.
fn line_after(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// A key of the file in a message.
fn printable(name: &str) -> String {
    name.replace(char::is_control, " ").chars().take(NAME_LIMIT).collect()
}

/// More than any node has mirrors of one registry.
const HOSTS_LIMIT: usize = 64;
/// Of a key in a message.
const NAME_LIMIT: usize = 64;
/// What the connection and the question decide, in lower case. Go's client leaves the first out as well.
const OURS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "trailer",
    "connection",
    "keep-alive",
    "te",
    "upgrade",
    "proxy-authorization",
    "proxy-connection",
    "expect",
    "accept",
    "accept-encoding",
    "range",
];
