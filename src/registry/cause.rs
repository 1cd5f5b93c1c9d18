//! What went wrong below HTTP, read off the types of a library's error: its text carries URLs, ports and
//! addresses. What is not known is a failed connection.

use std::error::Error as _;
use std::sync::Arc;

use nix::errno::Errno;

use super::names::Busy;
use crate::outcome::FaultReason;

/// What went wrong below HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Timeout,
    Refused,
    Name,
    Tls,
    /// What answers a handshake speaks no TLS.
    NotTls,
    /// TLS is spoken, and the certificate is not one that we take.
    Certificate,
    NotHttp,
    /// This machine has no thread, descriptor, memory or port for it.
    Lack,
    Connection,
}

impl Cause {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        if is_lack(error) {
            return Self::Lack;
        }
        if error.is_dns() {
            return Self::Name;
        }
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(error) = inner.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error);
            }
            if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Self::NotHttp;
            }
            if let Some(io) = inner.downcast_ref::<std::io::Error>() {
                if io.kind() == std::io::ErrorKind::ConnectionRefused {
                    return Self::Refused;
                }
                if let Some(error) = wrapped_tls(io) {
                    return Self::of_tls(error);
                }
            }
            source = inner.source();
        }
        Self::Connection
    }

    /// What a fault says of it.
    pub(super) const fn told(self) -> (FaultReason, &'static str) {
        match self {
            Self::Timeout => (FaultReason::Timeout, "registry does not answer in time"),
            Self::Refused => (FaultReason::RegistryUnreachable, "connection refused"),
            Self::Name => (FaultReason::RegistryUnreachable, "registry's name does not resolve"),
            Self::Tls | Self::NotTls => (FaultReason::RegistryUnreachable, "TLS handshake failed"),
            Self::Certificate => (FaultReason::RegistryUnreachable, "registry's certificate is not trusted"),
            Self::NotHttp => (FaultReason::RegistryError, "registry does not speak HTTP"),
            Self::Lack => (FaultReason::RegistryUnreachable, "this machine lacks what a connection takes"),
            Self::Connection => (FaultReason::RegistryUnreachable, "connection failed"),
        }
    }

    const fn of_tls(error: &rustls::Error) -> Self {
        if matches!(error, rustls::Error::InvalidCertificate(_)) {
            Self::Certificate
        } else if matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) {
            Self::NotTls
        } else {
            Self::Tls
        }
    }
}

fn is_lack(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(inner) = source {
        let io = inner.downcast_ref::<std::io::Error>();
        let io = io.or_else(|| inner.downcast_ref::<Arc<std::io::Error>>().map(AsRef::as_ref));
        let code = io.and_then(std::io::Error::raw_os_error).map(Errno::from_raw);
        let lacking = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL];
        if inner.is::<Busy>() || code.is_some_and(|code| lacking.contains(&code)) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// An `io::Error` hides what it wraps from `source`, and the TLS connector wraps twice.
fn wrapped_tls(error: &std::io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| wrapped_tls(inner.downcast_ref()?))
}
